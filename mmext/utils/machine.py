# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The machine: its processor, its memory and mmext's folder on it."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Returns the name of the processor, or its architecture."""
    with suppress(OSError):  # Linux only
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
        if found := re.search(r'^model name\s*: (.+)$', text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def cache_dir() -> Path:
    """``$MMEXT_CACHE``, by default ``~/.cache/mmext``."""
    return Path(os.environ.get('MMEXT_CACHE') or '~/.cache/mmext').expanduser()


def free_memory() -> int:
    """Returns the bytes of memory that this process could still get.

    A container may have less than the machine; without either number, it is
    an endless amount.
    """
    found = [sys.maxsize]
    with suppress(OSError):
        lines = Path('/proc/meminfo').read_text().splitlines()
        sizes = dict(line.split(':') for line in lines)
        found.append(1024 * int(sizes['MemAvailable'].split()[0]))
    with suppress(OSError, ValueError):  # 'max'
        group = Path('/sys/fs/cgroup')
        limit = int((group / 'memory.max').read_text())
        found.append(limit - int((group / 'memory.current').read_text()))
    return min(found)
