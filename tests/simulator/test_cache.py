"""The cache of machine code never runs code that is no longer there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCHEDULER = """
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import tokens_left


@compiled
def compose(view):
    return 1.0 * tokens_left(view)
"""

CALL_IT = """
from baselines.probe import compose
from llmsched_env.code_cache import cache_folder
from llmsched_env.simulator.world import VIEW_TYPE, new_world, view_of

world = new_world(1, 1)
world.batch_counts.token_limit[0] = 40
compose.compile((VIEW_TYPE,))
print(compose(view_of.py_func(world, 0)), len(compose.stats.cache_hits), cache_folder())
"""


def test_an_edited_primitive_is_run_by_the_next_process(tmp_path):
    """numba looks at the file of the caller only, and at its time; the primitive stands in another file."""
    for package in ("llmsched_env", "baselines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "baselines/probe.py").write_text(SCHEDULER)
    # Python's own cache of byte code goes by time and size alone.
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)

    def run() -> tuple[float, bool, Path]:
        call = subprocess.run(
            [sys.executable, "-c", CALL_IT], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
        assert call.returncode == 0, call.stderr
        value, hits, folder = call.stdout.split()
        return float(value), int(hits) > 0, Path(folder)

    value, from_cache, folder = run()
    assert (value, from_cache, folder.parent) == (40.0, False, tmp_path / "cache/llmsched_env")
    assert run() == (40.0, True, folder)  # unchanged sources: nothing is compiled again

    primitives = tmp_path / "llmsched_env/simulator/primitives.py"
    before, source = primitives.stat(), primitives.read_text()
    line = "return view.batch.counts.token_limit - view.batch.counts.tokens"
    assert line in source
    primitives.write_text(source.replace(line, line.replace(" - ", " + 2 - ")))
    os.utime(primitives, ns=(before.st_atime_ns, before.st_mtime_ns))
    value, from_cache, edited = run()
    assert (value, from_cache) == (42.0, False)
    assert edited != folder and edited.parent == folder.parent

    primitives.write_text(source)
    assert run() == (40.0, True, folder)  # and back: the old machine code is still there
