# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Complete checkpoint files: writes them and finds the newest one."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_resumable
from mmext.checkpoints.read import UntrustedCheckpointError, defect, peek
from mmext.errors import UserError
from mmext.utils.files import replacing

STEP = re.compile(r'(epoch|iter)_(\d+)\.pth$')


@dataclass(frozen=True, order=True)
class _Found:
    """A checkpoint of a work dir, ordered by how far its training was."""

    epoch: int
    iter: int
    time: str
    path: Path


def newest_complete(
    work_dir: str | Path,
    log: Callable[[str], object] = print,
    out_dir: str | Path | None = None,
) -> tuple[Path, dict] | None:
    """Finds and reads the newest checkpoint that a training can continue from.

    The order is that of the epochs and iterations that the checkpoints
    contain, as a copy of the folder has other times. A checkpoint from a later
    step than the one that ``last_checkpoint`` names, but saved before it,
    belongs to an earlier run in the same folder and does not count.

    Args:
        work_dir: The work dir of the run.
        log: Gets one line for every checkpoint that is skipped.
        out_dir: ``CheckpointHook.out_dir`` of the config. Default: the
            checkpoints are in the work dir.

    Returns:
        The file and its content; None if there is no complete checkpoint.

    Raises:
        UserError: A checkpoint needs more than plain data, or the only
            complete ones cannot be resumed.
    """
    work_dir = Path(work_dir).absolute()
    folders = [work_dir]
    if out_dir is not None and Path(out_dir).absolute() != work_dir:
        folders.append(Path(out_dir, work_dir.name))
    useless: UserError | None = None
    for found in reversed(_in_order(folders, log)):
        try:
            content = load(found.path)
        except UserError as error:
            log(f'checkpoint {found.path.name} is skipped: {error.problem}')
            continue
        try:
            require_resumable(content, str(found.path))
        except UserError as error:
            log(f'checkpoint {found.path.name} is skipped: {error.problem}')
            useless = useless or error
            continue
        return found.path, content
    if useless is not None:
        raise useless
    return None


def _in_order(
    folders: Sequence[Path], log: Callable[[str], object]
) -> list[_Found]:
    """Returns the checkpoints of a run, the newest last."""
    every = []
    for path in sorted(p for f in folders for p in f.glob('*.pth')):
        if not STEP.match(path.name) or not path.is_file():
            continue
        try:
            meta = peek(path).get('meta') or {}
            steps = int(meta.get('epoch', 0)), int(meta.get('iter', 0))
        except UntrustedCheckpointError:
            raise
        except (UserError, TypeError, ValueError) as error:
            why = getattr(error, 'problem', error)
            log(f'checkpoint {path.name} is skipped: {why}')
            continue
        every.append(_Found(*steps, str(meta.get('time', '')), path))
    every.sort()
    last = _last(folders, log)
    earlier = [x for x in every if last and _is_of_earlier_run(x, last, every)]
    for found in earlier:
        log(
            f'checkpoint {found.path.name} is skipped: it was saved before '
            f'{last.name}, by an earlier run'
        )
    return [x for x in every if x not in earlier]


def _is_of_earlier_run(
    found: _Found, last: Path, every: Sequence[_Found]
) -> bool:
    """Whether a checkpoint is of a later step than ``last``, but older."""
    for one in every:
        if one.path == last:
            return found > one and found.time < one.time
    # It is damaged: its name and the time of the file are all there is.
    unit, number = STEP.match(last.name).groups()
    saved = time.localtime(last.stat().st_mtime)
    is_later = getattr(found, unit) > int(number)
    return is_later and found.time < time.strftime('%Y%m%d_%H%M%S', saved)


def _last(
    folders: Sequence[Path], log: Callable[[str], object]
) -> Path | None:
    """Returns the checkpoint that ``last_checkpoint`` names.

    Only its name counts: the folder may be a copy, whose file still names the
    original.
    """
    pointer = folders[0] / 'last_checkpoint'
    if not pointer.is_file():
        return None
    with pointer.open(encoding='utf-8', errors='replace') as file:
        text = file.read(10_000).strip()
    name = Path(text).name
    for folder in folders:
        if STEP.match(name) and name in {p.name for p in folder.glob('*.pth')}:
            return folder / name
    if text:
        log(
            f'{pointer} names {text[:200]!r}, which is not in this folder. It '
            'is not followed'
        )
    return None


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path, ``<path>.tmp``, for the checkpoint ``path``.

    When the block ends, the temporary file is flushed to the disk, read back
    and renamed. Until then an older file at ``path`` stays as it is, even if
    the process is killed. Raises `OSError` if the file cannot be written, or
    what is read back is not what was written.
    """
    path = Path(path)
    with replacing(path, path.with_name(f'{path.name}.tmp')) as part:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        if why := defect(part):
            raise OSError(f'{part} was not written completely: {why}')
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Some network file systems refuse to flush a folder (EINVAL).
        with contextlib.suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)
