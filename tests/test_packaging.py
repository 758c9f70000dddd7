"""What the wheel is built from."""

import tomllib
from pathlib import Path

import pytest

import llmsched_env

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", ["llmsched_env", "baselines"])
def test_every_folder_with_modules_is_a_package(package):
    # setuptools leaves folders without __init__.py out of the wheel, silently.
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert folders and not missing


@pytest.mark.parametrize("package", ["llmsched_env", "baselines"])
def test_every_data_file_is_in_the_wheel(package):
    patterns = PROJECT["tool"]["setuptools"]["package-data"][package]
    packed = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    data = {p for p in (ROOT / package).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert {str(path.relative_to(ROOT)) for path in data ^ packed} == set()
    assert data


def test_the_package_knows_its_version():
    assert PROJECT["project"]["version"] == llmsched_env.__version__
