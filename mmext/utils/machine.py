# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The machine: its processor cores and mmext's folder on it."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_dir() -> Path:
    """``$MMEXT_CACHE``, by default ``~/.cache/mmext``."""
    return Path(os.environ.get('MMEXT_CACHE') or '~/.cache/mmext').expanduser()
