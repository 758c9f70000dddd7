"""Fixtures for all tests."""

import os
from pathlib import Path

import hypothesis
import pytest

SHARED = Path(__file__).resolve().parents[1] / "../shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data (traces, profiles) beside the repository; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with reference data is not beside the repository")
    return SHARED.resolve()


# A kernel compiles in the first example that calls it.
# Where CI is set, examples are the same at every run, so that a change is judged and not the draw.
hypothesis.settings.register_profile("compiled", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("compiled")
