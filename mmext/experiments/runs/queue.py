# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Works through the runs of a plan, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mmext.errors import UserError
from mmext.experiments.plan import Job, Plan
from mmext.experiments.records.record import read_record
from mmext.experiments.reports.decision import decide, why_undecidable
from mmext.experiments.runs.job import checked_side, job_name
from mmext.experiments.runs.places import Place
from mmext.experiments.runs.planned_run import Run
from mmext.experiments.runs.status import Status, missing_table
from mmext.experiments.state import RECORD
from mmext.utils.text import count, some

_PAUSE = 1.0  # seconds between two looks at the runs
_TELL_AFTER = 5.0  # seconds without a run


class Queue:
    """Starts the runs of a plan in a place, and starts failed ones again."""

    def __init__(
        self, plan: Plan, runs: Sequence[Run], place: Place, status: Status
    ) -> None:
        self.plan, self.runs = plan, runs
        self.place, self.status = place, status
        self._stop = 0

    def work(self, jobs: Sequence[Job], wait: bool = True) -> None:
        """Starts runs and waits until each has a record or is given up.

        Raises:
            UserError: Ctrl-C or SIGTERM stopped it; the runs on this machine
                have saved a checkpoint.
        """
        runs = [run for run in self.runs if run.job in jobs]
        told, since = not self.place.local, time.monotonic()
        with self._listening():
            while True:
                for run in runs:
                    self._follow(run)
                local = self.place.local and any(r.attempt for r in runs)
                left = [r for r in runs if not (r.done or r.given_up)]
                if self._stop and not local:
                    self._interrupted(runs)
                if not self._stop:
                    self.place.start([r for r in left if not r.working])
                    if not left or any(run.working for run in left):
                        since = time.monotonic()
                    elif not told and time.monotonic() - since > _TELL_AFTER:
                        told = True
                        self.status.say(
                            'Waiting: other plans use every slot of this '
                            'machine. A run starts when one of theirs ends.'
                        )
                self.status.parallel = self.place.parallel
                self.status.show([run.row() for run in runs])
                if not (left or local) or not wait:
                    return
                time.sleep(_PAUSE)

    def _follow(self, run: Run) -> None:
        """Reads the state of a run and ends its attempt if it has ended."""
        if run.done and not run.attempt:
            return
        outcome = run.attempt.outcome() if run.attempt else None
        run.refresh()
        if outcome is None:
            return
        run.attempt = None
        if run.done or run.owner:  # another process has it
            return
        state = run.state
        if state.status not in ('failed', 'diverged', 'interrupted'):
            if self._stop:
                return  # Ctrl-C came before it began
            state.fail(outcome or 'it ended without a record')
            state.write(run.folder)
        if state.status != 'interrupted':
            self.status.report(run.row(), retried=not run.given_up)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Passes Ctrl-C and SIGTERM on to the runs, which save."""

        def stop(number: int, frame: object) -> None:
            self._stop += 1
            for run in self.runs:
                if run.attempt:
                    run.attempt.interrupt()

        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupted(self, runs: Sequence[Run]) -> None:
        done = sum(run.done for run in runs)
        raise UserError(
            f'interrupted: {done} of {count(len(runs), "run")} are done',
            self.place.after_interrupt,
        )


def run_plan(
    plan: Plan,
    work_dir: str | Path,
    place: Place,
    *,
    command: str,
    everything: bool = False,
    retry: bool = False,
    wait: bool = True,
    console: Console | None = None,
) -> bool:
    """Trains, tests and records the runs of a plan.

    It goes from look to look, and stops at the first one that settles the
    plan.

    Args:
        plan: The plan.
        work_dir: Folder of all runs.
        place: Where runs work.
        command: What continues this, for messages.
        everything: Whether to run all seeds at once. Default: False.
        retry: Whether failed runs get new attempts. Default: False.
        wait: Whether to wait for a cluster. Default: True.
        console: Default: the standard output.

    Returns:
        Whether no run is missing.

    Raises:
        UserError: A config or the test data are not those of the plan, or
            the folder has runs of another plan; nothing was written. Or
            Ctrl-C stopped it.
    """
    console = console or Console(file=sys.stdout)
    runs = [Run(plan, job, work_dir) for job in plan.jobs()]
    for side in plan.sides:
        checked_side(plan, side)
    for run in runs:
        if retry and run.state.status == 'failed' and not run.working:
            run.state.failures = 0
            run.state.write(run.folder)
    with Status(plan, Path(work_dir), console) as status:
        queue = Queue(plan, runs, place, status)
        looks = plan.looks[-1:] if everything else plan.looks
        for look in looks:
            jobs = [*plan.jobs(look)]
            queue.work(jobs, wait)
            if (
                not wait
                or look == plan.looks[-1]
                or _settled(queue, look, status)
            ):
                break
    if not wait:
        console.print(f'Submitted. This shows the runs: {escape(command)}')
        return True
    missing = [r.row() for r in runs if r.job in jobs and not r.done]
    if missing:
        missing_table(missing).print(console)
        fix = f'{command} --retry gives failed runs new attempts.'
        console.print(escape(fix), highlight=False, soft_wrap=True)
    return not missing


def _settled(queue: Queue, look: int, status: Status) -> bool:
    """Decides at a look; says which seeds are not needed if it settles."""
    plan = queue.plan
    done = [r for r in queue.runs if r.done]
    without = why_undecidable(plan, {r.job.side for r in done})
    if without:
        status.say(f'{without[0].upper()}{without[1:]}: no decision.')
        return True
    records = {r.job: read_record(r.folder / RECORD) for r in done}
    failed = [r.job for r in queue.runs if r.given_up]
    status.say(f'Look at {count(look, "seed")} a side: comparing')
    decision = decide(plan, records, failed)
    if not decision.settled:
        status.say(f'Not settled at {count(look, "seed")} a side')
        return False
    later = [
        job_name(job) for job in plan.jobs() if job not in [*plan.jobs(look)]
    ]
    status.say(
        f'Settled at {count(look, "seed")} a side: '
        f'{some(decision.verdicts)}. Not needed: {some(later, 20)}'
    )
    return True
