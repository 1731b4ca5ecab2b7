"""Where things live on this machine: platform conventions, each overridable by one environment variable."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def store_path() -> Path:
    """The user's file of tuned configurations (SONEW_STORE overrides)."""
    override = os.environ.get("SONEW_STORE")
    return Path(override) if override else Path(platformdirs.user_data_dir("sonew")) / "tuned.json"


def state_dir() -> Path:
    """Folder of tuning studies that can be resumed (SONEW_STATE_DIR overrides)."""
    override = os.environ.get("SONEW_STATE_DIR")
    return Path(override) if override else Path(platformdirs.user_state_dir("sonew"))


def cache_dir() -> Path:
    """Folder of compiled libraries, safe to delete (SONEW_CACHE_DIR overrides)."""
    override = os.environ.get("SONEW_CACHE_DIR")
    return Path(override) if override else Path(platformdirs.user_cache_dir("sonew"))
