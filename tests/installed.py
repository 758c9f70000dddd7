"""The wheel in virtual environments of its own, for tests of what users install."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "llmsched_env", "baselines")
_OLDEST_SETUPTOOLS = 77  # as pyproject.toml requires


def build_wheel(folder: Path) -> Path:
    """The wheel, built from a copy of the sources: in the clone, an old `build/` would get into it."""
    for name in _SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    is_recent = int(version("setuptools").split(".")[0]) >= _OLDEST_SETUPTOOLS
    isolation = ["--no-build-isolation"] if is_recent else []  # without, pip downloads setuptools
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


class FreshEnvironment:
    """A virtual environment with these packages, and an empty folder to work in, with caches of its own."""

    def __init__(self, folder: Path, python: str, *packages: str) -> None:
        self.commands, self.folder, self._cache = folder / "venv/bin", folder / "work", folder / "cache"
        self.folder.mkdir(parents=True)
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        self.run("python", *pip, *packages)

    def run(self, command: str, *arguments: str) -> str:
        """What a command of the environment prints.

        Raises:
            AssertionError: if it fails; the message is its standard error.
        """
        environment = {**os.environ, "XDG_CACHE_HOME": str(self._cache), "PIP_CACHE_DIR": _pip_cache()}
        environment.pop("PYTHONPATH", None)
        call = subprocess.run(
            [self.commands / command, *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert call.returncode == 0, call.stderr
        return call.stdout


def _pip_cache() -> str:
    call = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(call, text=True, capture_output=True, check=True).stdout.strip()
