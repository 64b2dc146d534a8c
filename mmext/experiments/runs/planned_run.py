# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A run of a plan, as its folder shows it to the queue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from mmext.experiments.plan import Job, Plan
from mmext.experiments.runs.job import is_finished, job_name, own_state
from mmext.experiments.runs.status import Row
from mmext.experiments.state import RECORD
from mmext.utils.files import Stamp, stamp
from mmext.utils.locks import LockWatch


class Attempt(ABC):
    """A run that was started and may not have ended."""

    #: Status of the run until its process writes one.
    waits = 'starting'

    @abstractmethod
    def outcome(self) -> str | None:
        """Returns why it failed, '' if it did not, None while it works."""

    def interrupt(self) -> None:  # noqa: B027
        """Asks a run on this machine to save and stop; others go on."""


class Run:
    """A run of a plan, as its folder shows it."""

    def __init__(self, plan: Plan, job: Job, work_dir: str | Path) -> None:
        self.plan, self.job = plan, job
        self.folder = plan.folder_of(job, work_dir)
        self.name = job_name(job)
        self.attempt: Attempt | None = None  # that this process started
        self._lock = LockWatch(self.folder)
        self._stamp: Stamp = None
        self.refresh()

    def refresh(self) -> None:
        """Reads what has changed in the folder."""
        self.state = own_state(self.plan, self.folder)
        self.owner = self._lock.owner()
        now = stamp(self.folder / RECORD)
        if now != self._stamp:
            is_finished(self.plan, self.job, self.folder)
            self._stamp = now

    @property
    def done(self) -> bool:
        return self._stamp is not None

    @property
    def given_up(self) -> bool:
        """Whether it has failed for good."""
        return not self.done and self.state.given_up(self.plan.retries)

    @property
    def working(self) -> bool:
        """Whether a process works on it, or it is in a cluster's queue."""
        return bool(self.owner or self.attempt)

    def row(self) -> Row:
        """Returns what the table shows."""
        status = self.state.status
        if self.done:
            status = 'done'
        elif status == 'waiting' and self.attempt:
            status = self.attempt.waits
        elif self.state.active and not self.working:
            status = 'cut off'
        elif status == 'done':  # its record was removed
            status = 'waiting'
        return Row(self.job, self.folder, status, self.state)
