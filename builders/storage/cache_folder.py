"""The folder on this machine for files that can be fetched or computed again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder $FAKEIT_CACHE, or "fakeit" in the user's cache directory."""
    if folder := os.environ.get("FAKEIT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fakeit"
