"""Machine code that cannot be kept, or was garbled where it is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USES = """
import helper
from llmsched_env.compiled import compiled

@compiled
def twice(x):
    return 2.0 * helper.scaled(x)
"""
HELPER = """
from llmsched_env.compiled import compiled

FACTOR = 3.0

@compiled
def scaled(x):
    return FACTOR * x
"""
CALL = "import user; print(user.twice(1.0), len(user.twice.stats.cache_hits))"


@pytest.fixture
def place(tmp_path):
    """A folder with a user's two modules."""
    (tmp_path / "user.py").write_text(USES)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def run(place: Path, cache: Path, call: str = CALL) -> tuple[float, int, str]:
    environment = os.environ | {
        "XDG_CACHE_HOME": str(cache), "PYTHONPATH": f"{place}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=place, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits), done.stderr


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc", ".partial")]


def test_without_a_folder_nothing_is_kept_and_that_is_told(place):
    (place / "file").write_text("in the way")
    value, hits, told = run(place, place / "file")
    assert (value, hits) == (6.0, 0)
    assert told.count("machine code cannot be kept") == 1 and "XDG_CACHE_HOME" in told
    assert not kept(place)


def test_a_user_who_edits_a_helper_in_another_file_runs_the_new_code(place):
    cache = place / "cache"
    assert run(place, cache)[:2] == (6.0, 0)
    assert run(place, cache)[:2] == (6.0, 1)
    (place / "helper.py").write_text(HELPER.replace("FACTOR * x", "FACTOR * x + 1.0"))
    assert run(place, cache)[:2] == (8.0, 0)
    (place / "helper.py").write_text(HELPER.replace("3.0", "5.0"))
    assert run(place, cache)[:2] == (10.0, 0)
    (place / "helper.py").write_text(HELPER)
    assert run(place, cache)[:2] == (6.0, 1)


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b[: len(b) // 2], lambda b: b[:40] + bytes(200) + b[240:]],
    ids=["cut", "garbled"],
)
def test_files_that_are_spoiled_are_made_again(place, spoil):
    cache = place / "cache"
    run(place, cache)
    for path in kept(cache):
        path.write_bytes(spoil(path.read_bytes()))
    assert run(place, cache)[:2] == (6.0, 0)
    assert run(place, cache)[:2] == (6.0, 1)


FULL = """
import errno, os
from llmsched_env import code_cache
def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
code_cache.Path.write_bytes = full
"""


def test_a_full_disk_is_told_of_and_does_no_harm(place):
    cache = place / "cache"
    value, _, told = run(place, cache, FULL + CALL)
    assert value == 6.0 and told.count("No space left") == 1
    assert not kept(cache)


BOTH = """
import sys
import user
from numba import types
kind = (types.float64, types.int64)[int(sys.argv[1])]
user.twice.compile((kind,))
print(float(user.twice(kind.cast_python_value(2))))
"""


def test_processes_that_compile_at_the_same_time_keep_each_others_code(place):
    cache = place / "cache"
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": f"{place}:{ROOT}"}
    together = [
        subprocess.Popen([sys.executable, "-c", BOTH, str(k)], cwd=place, env=environment, stdout=subprocess.PIPE)
        for k in range(2)
    ]
    assert [process.communicate()[0].split()[0] for process in together] == [b"12.0", b"12.0"]
    names = sorted(path.name for path in kept(cache) if path.name.startswith("user.twice"))
    assert len(names) == 2
    for kind, value in (("1.0", 6.0), ("1", 6.0)):
        assert run(place, cache, CALL.replace("1.0", kind))[:2] == (value, 1)
