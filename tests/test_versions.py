"""The package with its core dependencies alone gives the same rows on the oldest and the newest versions of them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installed import FreshEnvironment, build_wheel

SCRIPT = Path(__file__).with_name("version_run.py")
MATRIX = {
    "3.11": ("numba==0.64.0", "numpy==2.0.0", "gymnasium==1.1.0", "scipy==1.15.0", "tqdm==4.66.0"),
    "3.12": ("numba==0.66.0", "numpy==2.2.6"),
    "3.13": (),  # the newest of everything
}


def interpreter(release: str) -> str:
    """Python of this release, on the path or from pyenv; the test is skipped without it."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in (shutil.which(f"python{release}"), *sorted(pyenv.glob(f"versions/{release}.*/bin/python"))):
        if python and subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0:
            return str(python)
    pytest.skip(f"Python {release} is not installed")


@pytest.mark.slow
def test_rows_are_equal_on_all_supported_versions(tmp_path):
    pythons = {release: interpreter(release) for release in MATRIX}
    wheel = str(build_wheel(tmp_path))
    runs = {}
    for release, pins in MATRIX.items():
        environment = FreshEnvironment(tmp_path / release, pythons[release], wheel, *pins)
        runs[release] = json.loads(environment.run("python", str(SCRIPT)))
        assert runs[release]["rows"] == runs[release]["interpreted"]
        assert runs[release]["versions"][0].startswith(release)
    assert len({run["rows"] for run in runs.values()}) == 1, runs
    assert all(run["observed"] == runs["3.11"]["observed"] for run in runs.values()), runs
