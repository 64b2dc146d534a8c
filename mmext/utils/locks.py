# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Keeps two runs from working in one folder at the same time."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import LeaseCompromise, OwnerRecord, SoftFileLease, Timeout

from mmext.errors import UserError
from mmext.utils.files import Stamp, stamp

#: The file that names the process. It is removed when the process has ended.
NAME = 'running.lock'
#: Seconds between two signs of life, and without one until a process of
#: another machine counts as dead. All machines must have the same value.
BEAT, LEASE = 5.0, 30.0


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Locks a folder for this process, which may do so repeatedly.

    A folder that does not exist is created, and removed if it is empty when
    the block ends.

    The lock of a dead process is replaced: at once on the same machine,
    after :data:`LEASE` seconds without a sign of life on another one. Clocks
    are not compared. A process that lost its lock in this way, because it was
    suspended, for example, ends as soon as it continues.

    Raises:
        UserError: A process that is alive has locked the folder.
    """
    folder = Path(folder).absolute()
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(
        folder / NAME,
        lease_duration=LEASE,
        heartbeat_interval=BEAT,
        on_compromise=_end_if_replaced,
        is_singleton=True,  # one for all who lock the folder in this process
    )
    try:
        with _acquire(lock, folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            for path in made:
                path.rmdir()


def _acquire(lock: SoftFileLease, folder: Path) -> AbstractContextManager:
    seen: Stamp = None
    while True:
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            owner, now = lock.owner, stamp(folder / NAME)
            if owner is not None:
                if _runs_here(owner) or (seen and now and now != seen):
                    raise _refusal(folder, owner) from None
                if seen is None:
                    print(
                        f'{folder} was locked by {_name(owner)}: waiting '
                        f'{LEASE:.0f} s for a sign of life',
                        file=sys.stderr,
                    )
            seen = now
            time.sleep(1)


def _name(owner: OwnerRecord) -> str:
    return f'process {owner.pid} of {owner.hostname.partition("?")[0]}'


def _refusal(folder: Path, owner: OwnerRecord) -> UserError:
    return UserError(
        f'{folder} is in use by {_name(owner)}',
        'Wait until it has ended, or use another folder (--work-dir).',
    )


def _runs_here(owner: OwnerRecord) -> bool:
    """Whether the process is one of this machine (and container).

    Its lock would have been replaced if it were dead. Only a process that its
    parent has not waited for seems to be alive.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        SoftFileLease(Path(folder, NAME)) as own,
    ):
        # The name that the package gives this machine and container.
        if own.owner.hostname != owner.hostname:
            return False
    with contextlib.suppress(OSError):
        state = Path(f'/proc/{owner.pid}/stat').read_text(errors='replace')
        return state.rpartition(')')[2].split()[0] != 'Z'
    return True


def _end_if_replaced(loss: LeaseCompromise) -> None:
    """Ends this process if another one has taken the lock."""
    if loss.reason == 'owner-changed':
        folder = Path(loss.lock_file).parent
        print(
            f'\nerror: another process works in {folder}, because this one '
            f'gave no sign of life for {LEASE:.0f} s\n  -> This process ends '
            'without writing anything else.',
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


class LockWatch:
    """Tells whether a process that is alive has locked a folder.

    A process of another machine counts as dead after :data:`LEASE` seconds
    of questions without a sign of life.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder).absolute() / NAME
        self._lock = SoftFileLease(
            self._path, lease_duration=LEASE, heartbeat_interval=BEAT
        )

    def owner(self) -> str:
        """Returns ``process <n> of <machine>``, or an empty text."""
        if not self._path.exists():
            return ''
        try:
            with self._lock.acquire(timeout=0):  # its process is dead
                return ''
        except Timeout:
            owner = self._lock.owner
            return 'another process' if owner is None else _name(owner)
