"""Where profiles are kept that this user has made: a file for each, in a folder that outlives the installation."""

from __future__ import annotations

import os
from pathlib import Path


def kept_folder() -> Path:
    """The folder: `llmsched_env/profiles` in $XDG_DATA_HOME, which is `~/.local/share` where it is not set."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data else Path.home() / ".local/share") / "llmsched_env/profiles"


def kept_path(name: str) -> Path:
    """The file of the kept profile of a name, whether it exists or not."""
    return kept_folder() / f"{name}.json"


def kept_profiles() -> list[str]:
    """Return the names of the profiles that `make_profile` has made and kept."""
    return sorted(path.stem for path in kept_folder().glob("*.json"))
