# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The folder where mmext keeps generated data and results of checks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$MMEXT_CACHE``, by default ``~/.cache/mmext``."""
    return Path(os.environ.get('MMEXT_CACHE') or '~/.cache/mmext').expanduser()
