# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a run of a plan is doing: the file ``state.json`` in its folder."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mmext.datasets.coco import is_number
from mmext.errors import UserError
from mmext.utils.documents import parse_json, read_bytes
from mmext.utils.files import write_json
from mmext.utils.text import short

STATE, LOG, RECORD = 'state.json', 'job.log', 'record.npz'
_REMOVE = 'Remove the folder; the run begins again.'
_RESULT = re.compile(r'mAP|\(A[PR]\)|mIoU|aAcc|accuracy')


@dataclass
class State:
    """A run; it outlives the processes that work on it.

    Args:
        plan_sha256: Of the plan.
        status: ``waiting``, ``training``, ``testing``, ``done``,
            ``interrupted``, ``failed`` or ``diverged``.
        share: Share of the work that is done, 0 to 1.
        left: Estimated seconds until the end, None if not known.
        seconds: Time worked, over all attempts.
        trained: Whether the training has reached its end.
        failures: How often it has failed.
        host: Machine of the last process.
        pid: Number of the last process.
        slurm: Number of the last job of Slurm.
        error: Why it failed.
    """

    plan_sha256: str
    status: str = 'waiting'
    share: float = 0.0
    left: float | None = None
    seconds: float = 0.0
    trained: bool = False
    failures: int = 0
    host: str = ''
    pid: int = 0
    slurm: str = ''
    error: str = ''

    @property
    def active(self) -> bool:
        """Whether a process has said that it works."""
        return self.status in ('training', 'testing')

    def given_up(self, retries: int) -> bool:
        """Whether it has failed for good."""
        return self.status == 'diverged' or self.failures > retries

    def fail(self, error: str, status: str = 'failed') -> None:
        """Counts a failure."""
        self.status, self.error, self.left = status, error, None
        self.failures += 1

    def write(self, folder: Path) -> None:
        """Writes the file completely or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STATE, asdict(self), indent=1)


def read_state(folder: Path) -> State | None:
    """Reads the state of a run, None if it was never started."""
    path = folder / STATE
    if not path.exists():
        return None
    content = parse_json(read_bytes(path), path)
    known = {f.name: f.type for f in fields(State)}
    if not isinstance(content, dict) or 'plan_sha256' not in content:
        raise UserError(f'{path} is no state of a run', _REMOVE)
    found = {k: v for k, v in content.items() if k in known}
    for key, value in found.items():
        if not _has_type(value, known[key]):
            raise UserError(f'{path}: {key} is {short(value)}', _REMOVE)
    return State(**found)


def _has_type(value: object, name: str) -> bool:
    if name.startswith('float'):
        return is_number(value) or (value is None and name != 'float')
    return type(value).__name__ == name


def last_lines(path: Path, number: int = 5) -> list[str]:
    """Returns the last lines of a log that say something.

    Results are left out: a report shows them when a look is complete.
    """
    if not path.is_file():
        return []
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - 10_000))
        lines = file.read().decode(errors='replace').splitlines()
    said = [x.rstrip() for x in lines if x.strip() and not _RESULT.search(x)]
    return said[-number:]
