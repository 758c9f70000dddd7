"""What the wheel is built from."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", ["llmsched_env", "baselines"])
def test_every_folder_with_modules_is_a_package(package):
    # setuptools leaves folders without __init__.py out of the wheel, silently.
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert folders and not missing
