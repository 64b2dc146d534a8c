# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Where runs work on this machine: GPUs, or shares of the CPU.

A slot is a locked file in the temporary folder, so that several plans of a
user share the machine. The run inherits the lock: it holds the slot even if
the process that started it has died.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from mmext.errors import UserError
from mmext.utils.machine import cores

_CORES = 4  # of a run on the CPU, by default


@dataclass(frozen=True)
class Slots:
    """The slots of this machine that a plan may use.

    Args:
        names: One a slot, the same for all plans of the user.
        each: How many a run takes.
        gpus: Whether they are GPUs.
    """

    names: tuple[str, ...]
    each: int = 1
    gpus: bool = False

    @property
    def most(self) -> int:
        """How many runs work at once."""
        return len(self.names) // self.each

    def take(self) -> Slot | None:
        """Locks as many slots as a run needs, None if fewer are free."""
        taken = Slot([], [])
        for name in self.names:
            file = _lock(name)
            if file is not None:
                taken.names.append(name)
                taken.files.append(file)
            if len(taken.names) == self.each:
                return taken
        taken.release()
        return None

    def environment(self, slot: Slot) -> dict[str, str]:
        """Returns the variables of a run in a slot."""
        threads = str(max(1, cores() // max(1, self.most)))
        found = {'OMP_NUM_THREADS': threads, **os.environ}
        if self.gpus:
            devices = [name.removeprefix('gpu-') for name in slot.names]
            found['CUDA_VISIBLE_DEVICES'] = ','.join(devices)
        return found


@dataclass
class Slot:
    """Locked slots of a run; ``files`` are their open files."""

    names: list[str]
    files: list[int]

    def release(self) -> None:
        """Lets others lock them, once the run has ended as well."""
        for file in self.files:
            os.close(file)
        self.files = []


def find_slots(jobs: int | None, gpus_per_run: int | None) -> Slots:
    """Returns a slot for each GPU, or ``jobs`` shares of the CPU.

    Raises:
        UserError: There are fewer GPUs than a run needs.
    """
    count = torch.cuda.device_count()
    if gpus_per_run and gpus_per_run > count:
        raise UserError(
            f'--gpus-per-run {gpus_per_run}: this machine has {count} GPUs '
            '(CUDA_VISIBLE_DEVICES='
            f'{os.environ.get("CUDA_VISIBLE_DEVICES", "not set")})',
            f'Give at most {count}.' if count else 'Omit it to use the CPU.',
        )
    if count:
        if jobs is not None:
            raise UserError(
                f'--jobs {jobs} is for the CPU, and this machine has {count} '
                'GPUs: one run a GPU',
                'Omit it. CUDA_VISIBLE_DEVICES chooses GPUs, and -1 the CPU.',
            )
        given = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = given.split(',') if given else map(str, range(count))
        slots = tuple(f'gpu-{name.strip()}' for name in names)[:count]
        return Slots(slots, gpus_per_run or 1, True)
    jobs = jobs or max(1, cores() // _CORES)
    return Slots(tuple(f'cpu-{n}' for n in range(jobs)))


def _lock(name: str) -> int | None:
    """Returns the open file of a slot, None if another run has locked it."""
    folder = Path(tempfile.gettempdir(), f'mmext-{os.getuid()}')
    folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    file = os.open(folder / f'{name}.lock', flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
