# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Python, processors, memory, disk: what the standard library can see."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .findings import NOTE, OK, PROBLEM, Finding

PART = 'Machine'
GIB = 2**30
LEAST_PYTHON = (3, 10)
LEAST_SHM = 1 * GIB  # Docker's default is 64 MiB
LEAST_DISK, SMALL_DISK = 1 * GIB, 10 * GIB
LEAST_MEMORY = 2 * GIB


def examine_machine() -> Iterator[Finding]:
    """What does not depend on any package."""
    version = platform.python_version()
    fits = sys.version_info >= LEAST_PYTHON
    yield Finding(
        PART,
        'Python',
        OK if fits else PROBLEM,
        f'{version}, {sys.executable}',
        ''
        if fits
        else 'Make an environment with Python 3.10 or newer: '
        'python3.11 -m venv .venv',
    )
    yield Finding(PART, 'system', OK, platform.platform())
    yield Finding(PART, 'processors', OK, f'{_cores()} to use')
    yield from _memory(Path('/proc/meminfo'))
    yield _shared_memory(Path('/dev/shm'))
    places = {
        'disk, work': os.getcwd,
        'disk, cache': _cache,
        'disk, temporary': tempfile.gettempdir,
    }
    for name, find in places.items():
        try:
            yield _disk(name, Path(find()))
        except OSError as error:  # a folder that was removed, no temporary one
            fix = 'cd to a folder that is there, or export TMPDIR=DIR'
            yield Finding(PART, name, PROBLEM, str(error), fix)


def _cache() -> str:
    cache = os.environ.get('MMEXT_CACHE') or '~/.cache/mmext'
    return os.path.expanduser(cache)  # as it is, where nobody has a home


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory(file: Path) -> Iterator[Finding]:
    if not file.exists():  # not Linux
        return
    rows = (line.split() for line in file.read_text().splitlines())
    kib = {row[0].rstrip(':'): int(row[1]) for row in rows}
    free = kib.get('MemAvailable', kib['MemFree']) * 1024
    enough = free >= LEAST_MEMORY
    yield Finding(
        PART,
        'memory',
        OK if enough else PROBLEM,
        f'{_size(free)} free of {_size(kib["MemTotal"] * 1024)}',
        ''
        if enough
        else 'End what else runs here, or train with '
        '--cfg-options train_dataloader.num_workers=0 '
        'train_dataloader.batch_size=1',
    )


def _shared_memory(place: Path) -> Finding:
    name = f'shared memory, {place}'
    if not place.is_dir():
        return Finding(PART, name, NOTE, 'not there')
    size = shutil.disk_usage(place).total
    enough = size >= LEAST_SHM
    return Finding(
        PART,
        name,
        OK if enough else PROBLEM,
        _size(size)
        + ('' if enough else ': loader workers will die of "Bus error"'),
        ''
        if enough
        else 'docker run --shm-size=8g ..., or --cfg-options '
        'train_dataloader.num_workers=0 val_dataloader.num_workers=0',
    )


def _disk(name: str, place: Path) -> Finding:
    there = place
    while not os.path.exists(there):  # False, too, where one may not look
        there = there.parent
    if not os.access(there, os.W_OK):
        fix = (
            'Name a writable folder: export MMEXT_CACHE=DIR'
            if 'cache' in name
            else 'Work in a folder that you can write to, or give --work-dir'
        )
        return Finding(PART, name, PROBLEM, f'{place} is not writable', fix)
    free = shutil.disk_usage(there).free
    state = PROBLEM if free < LEAST_DISK else OK
    if LEAST_DISK <= free < SMALL_DISK:
        state = NOTE
    return Finding(
        PART,
        name,
        state,
        f'{_size(free)} free in {place}',
        ''
        if state == OK
        else 'Free some: a checkpoint of Faster R-CNN R50 '
        'takes 0.3 GiB; --cfg-options '
        'default_hooks.checkpoint.max_keep_ckpts=2',
    )


def _size(count: int) -> str:
    return f'{count / GIB:.1f} GiB'
