# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checkpoint files that are whole: writing them, telling them, the newest."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from mmext.checkpoints.read import UntrustedCheckpointError, load
from mmext.errors import UserError

STEP = re.compile(r'(epoch|iter)_(\d+)\.pth$')


def defect(path: str | Path) -> str | None:
    """What is wrong with a checkpoint file; None where it is whole.

    Reads it all and compares the checksums that ``torch.save`` stores with
    every tensor: a torn file and a flipped bit are both found.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(n.endswith('data.pkl') for n in archive.namelist()):
                return 'no data.pkl in it'
            bad = archive.testzip()
            return f'checksum of {bad} is wrong' if bad else None
    except Exception as error:  # torn bytes end zipfile in any of them
        return str(error) or type(error).__name__


def _unloadable(path: Path) -> str | None:
    """Damage in the few bytes that no checksum covers."""
    try:
        load(path)
    except UntrustedCheckpointError:
        return None  # whole: whoever resumes from it is told what to do
    except UserError as error:
        return error.problem
    return None


def newest_valid(
    work_dir: str | Path, tell: Callable[[str], None] = print
) -> Path | None:
    """The newest whole checkpoint of a run; None where there is none.

    Args:
        work_dir: The run's folder; where ``last_checkpoint`` points elsewhere,
            that folder counts too. What is older than the checkpoint that it
            names, and yet further on, is an earlier run's and does not count.
        tell: Called with a line for every checkpoint passed over.
    """
    folders = {folder := Path(work_dir).resolve()}
    last = None
    pointer = folder / 'last_checkpoint'
    if pointer.is_file() and (text := pointer.read_text().strip()):
        last = folder / Path(text).name  # of a folder that was copied, too
        if not last.is_file():
            last = Path(text)
            folders.add(last.parent.resolve())
    found = [p for f in folders for p in f.glob('*.pth') if p.is_file()]
    steps = [p for p in found if STEP.match(p.name)]
    if len({STEP.match(p.name)[1] for p in steps}) == 1:
        steps.sort(key=_step)
        if last in steps:
            steps = [
                p
                for p in steps
                if _step(p) <= _step(last) or _time(p) > _time(last)
            ]
    else:
        steps.sort(key=_time)
    for path in reversed(steps):
        if (why := defect(path) or _unloadable(path)) is None:
            return path
        tell(f'checkpoint {path.name} is passed over: {why}')
    return None


def _step(path: Path) -> int:
    return int(STEP.match(path.name)[2])


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def replace_durably(temporary: Path, final: Path) -> None:
    """Puts a checkpoint in place once it is whole on the disk.

    Raises:
        OSError: What was read back is not what was written.
    """
    with open(temporary, 'rb+') as file:
        os.fsync(file.fileno())
    if why := defect(temporary):
        raise OSError(f'{temporary} was not written whole: {why}')
    os.replace(temporary, final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        # Some network file systems refuse that of a folder (EINVAL).
        with contextlib.suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)
