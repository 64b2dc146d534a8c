# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Complete checkpoint files: writes them and finds the newest one."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mmext.checkpoints.read import UntrustedCheckpointError, load
from mmext.errors import UserError
from mmext.utils.files import replacing

STEP = re.compile(r'(epoch|iter)_(\d+)\.pth$')


def defect(path: str | Path) -> str | None:
    """Returns what is wrong with a checkpoint file, or None.

    Reads the file to its end and compares the checksums that ``torch.save``
    stores with every tensor, so that it finds truncated files and flipped
    bits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(n.endswith('data.pkl') for n in archive.namelist()):
                return 'no data.pkl in it'
            bad = archive.testzip()
            return f'checksum of {bad} is wrong' if bad else None
    except Exception as error:  # zipfile raises many kinds on damaged files
        return str(error) or type(error).__name__


def newest_complete(
    work_dir: str | Path, log: Callable[[str], object] = print
) -> tuple[Path, dict] | None:
    """Finds and reads the newest complete checkpoint of a run.

    If ``last_checkpoint`` points to another folder, the checkpoints there
    count too. A checkpoint that is older than the one that
    ``last_checkpoint`` names, but from a later step, belongs to an earlier
    run in the same folder and does not count.

    ``log`` gets one line for every checkpoint that is skipped. Returns the
    file and its content; None if there is no complete checkpoint. Raises
    `UntrustedCheckpointError` if it needs more than plain data.
    """
    for path in reversed(_by_age(Path(work_dir).resolve())):
        why = defect(path)
        if why is None:
            try:
                return path, load(path)
            except UntrustedCheckpointError:
                raise
            except UserError as error:  # damage that no checksum covers
                why = error.problem
        log(f'checkpoint {path.name} is skipped: {why}')
    return None


def _by_age(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, the newest last."""
    folders, last = {folder}, None
    pointer = folder / 'last_checkpoint'
    if pointer.is_file() and (text := pointer.read_text().strip()):
        last = folder / Path(text).name  # the folder may be a copy
        if not last.is_file():
            last = Path(text)
            folders.add(last.parent.resolve())
    found = [p for f in folders for p in f.glob('*.pth') if p.is_file()]
    steps = {p: int(m[2]) for p in found if (m := STEP.match(p.name))}
    times = {p: p.stat().st_mtime_ns for p in steps}
    if len({p.name.split('_')[0] for p in steps}) != 1:
        return sorted(steps, key=times.get)  # epochs and iterations, or none
    if last in steps:
        now, then = steps[last], times[last]
        steps = {p: n for p, n in steps.items() if n <= now or times[p] > then}
    return sorted(steps, key=steps.get)


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
