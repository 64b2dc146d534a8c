# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks Python, processors, memory and disks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmext.doctor.result import NOTE, OK, PROBLEM, Result
from mmext.utils.machine import cores

PART = 'Machine'
GIB = 2**30
LEAST_PYTHON = (3, 10)
LEAST_SHM = 1 * GIB  # Docker's default is 64 MiB
LEAST_DISK, SMALL_DISK = 1 * GIB, 10 * GIB
LEAST_MEMORY = 2 * GIB


def check_machine() -> Iterator[Result]:
    """Checks what does not depend on a package."""
    version = platform.python_version()
    python, fix = f'{version}, {sys.executable}', ''
    if sys.version_info < LEAST_PYTHON:
        fix = (
            'Create an environment with Python 3.10 or newer: '
            'python3.11 -m venv .venv'
        )
    yield Result(PART, 'Python', PROBLEM if fix else OK, python, fix)
    yield Result(PART, 'system', OK, platform.platform())
    yield Result(PART, 'processors', OK, f'{cores()} usable')
    yield from _memory(Path('/proc/meminfo'))
    yield _shared_memory(Path('/dev/shm'))
    folders = {
        'disk, work': os.getcwd,
        'disk, cache': _cache,
        'disk, temporary': tempfile.gettempdir,
    }
    for name, find in folders.items():
        try:
            yield _disk(name, Path(find()))
        except OSError as error:  # a removed folder, no temporary folder
            fix = 'cd to a folder that exists, or export TMPDIR=DIR'
            yield Result(PART, name, PROBLEM, str(error), fix)


def _cache() -> str:
    cache = os.environ.get('MMEXT_CACHE') or '~/.cache/mmext'
    # Unlike Path.expanduser, this does not fail without a home.
    return os.path.expanduser(cache)


def _memory(file: Path) -> Iterator[Result]:
    if not file.exists():  # not Linux
        return
    rows = (line.split() for line in file.read_text().splitlines())
    kib = {row[0].rstrip(':'): int(row[1]) for row in rows}
    free = kib.get('MemAvailable', kib['MemFree']) * 1024
    value = f'{_size(free)} free of {_size(kib["MemTotal"] * 1024)}'
    fix = ''
    if free < LEAST_MEMORY:
        fix = (
            'End other programs, or train with --cfg-options '
            'train_dataloader.num_workers=0 train_dataloader.batch_size=1'
        )
    yield Result(PART, 'memory', PROBLEM if fix else OK, value, fix)


def _shared_memory(folder: Path) -> Result:
    name = f'shared memory, {folder}'
    if not folder.is_dir():
        return Result(PART, name, NOTE, 'does not exist')
    size = shutil.disk_usage(folder).total
    if size >= LEAST_SHM:
        return Result(PART, name, OK, _size(size))
    value = f'{_size(size)}: loader workers will fail with "Bus error"'
    fix = (
        'docker run --shm-size=8g ..., or --cfg-options '
        'train_dataloader.num_workers=0 val_dataloader.num_workers=0'
    )
    return Result(PART, name, PROBLEM, value, fix)


def _disk(name: str, folder: Path) -> Result:
    parent = folder
    # Also false without permission to look.
    while not os.path.exists(parent):
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        fix = 'Work in a folder that you can write to, or give --work-dir'
        if 'cache' in name:
            fix = 'Name a writable folder: export MMEXT_CACHE=DIR'
        return Result(PART, name, PROBLEM, f'{folder} is not writable', fix)
    free = shutil.disk_usage(parent).free
    value = f'{_size(free)} free in {folder}'
    if free >= SMALL_DISK:
        return Result(PART, name, OK, value)
    fix = (
        'Free some space: a checkpoint of Faster R-CNN R50 takes 0.3 GiB; '
        '--cfg-options default_hooks.checkpoint.max_keep_ckpts=2'
    )
    state = PROBLEM if free < LEAST_DISK else NOTE
    return Result(PART, name, state, value, fix)


def _size(count: int) -> str:
    return f'{count / GIB:.1f} GiB'
