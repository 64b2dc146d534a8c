# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Progress and time left of several runs, on a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from mmext.utils.text import duration

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


@dataclass
class _Clock:
    """Estimates what is left from the speed so far."""

    total: float
    begun: float | None = None
    before: float = 0.0
    done: float = 0.0

    def start(self, now: float, done: float = 0.0) -> None:
        if self.begun is None:
            self.begun, self.before, self.done = now, done, done

    def left(self, now: float) -> float | None:
        """Seconds; None where nothing was done yet."""
        worked = self.done - self.before
        if self.begun is None or worked <= 0:
            return None
        return (self.total - self.done) * (now - self.begun) / worked


class DemoProgress:
    """One bar for everything and one for each run.

    Without a terminal it prints a line every 15 seconds.

    Args:
        names: Of the runs.
        totals: Work of each run, in any unit common to all.
        console: Where to show it.
        now: Clock in seconds. Default: ``time.monotonic``.
    """

    def __init__(
        self,
        names: Sequence[str],
        totals: Sequence[float],
        console: Console,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names, self.console, self.now = names, console, now
        self.runs = [_Clock(total) for total in totals]
        self.overall = _Clock(sum(totals))
        self._printed = float('-inf')
        self._bars = Progress(
            TextColumn(
                '{task.description}', table_column=Column(no_wrap=True)
            ),
            BarColumn(bar_width=28),
            TextColumn('{task.percentage:>3.0f}%'),
            TextColumn(
                '{task.fields[left]}', table_column=Column(min_width=16)
            ),
            TextColumn('{task.fields[status]}', style='dim'),
            console=console,
            auto_refresh=False,
        )
        self._tasks = [
            self._bars.add_task(name, total=clock.total, left='', status='')
            for name, clock in zip(
                [*names, '[bold]both'], [*self.runs, self.overall], strict=True
            )
        ]

    def __enter__(self) -> DemoProgress:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()

    def start(self, run: int, done: float = 0.0) -> None:
        """Begins a run of which ``done`` was finished before."""
        now = self.now()
        self.runs[run].start(now, done)
        self.overall.start(now)
        self.overall.before += done
        self.update(run, done, 'starting')

    def update(self, run: int, done: float, status: str) -> None:
        """Says how much of a run is done, and what it is doing."""
        now, clock = self.now(), self.runs[run]
        clock.done = min(done, clock.total)
        self.overall.done = sum(c.done for c in self.runs)
        if not self.console.is_terminal:
            self._line(run, now, status)
            return
        for task, c, text in (
            (self._tasks[run], clock, status),
            (self._tasks[-1], self.overall, ''),
        ):
            self._bars.update(
                task, completed=c.done, left=_left(c, now), status=text
            )
        self._bars.refresh()

    def _line(self, run: int, now: float, status: str) -> None:
        ended = self.runs[run].done >= self.runs[run].total
        if now - self._printed < LINE_EVERY and not ended:
            return
        self._printed = now
        part = self.overall.done / self.overall.total
        self.console.print(
            f'{part:4.0%}  {self.names[run]}: {status}  '
            f'({_left(self.overall, now) or "time left: unknown yet"})',
            highlight=False,
            soft_wrap=True,
        )


def _left(clock: _Clock, now: float) -> str:
    if clock.done >= clock.total and clock.begun is not None:
        return f'took {duration(now - clock.begun)}'
    left = clock.left(now)
    return '' if left is None else f'{duration(left)} left'


class ProgressHook(Hook):
    """Tells a :class:`DemoProgress` where a runner is.

    Args:
        progress: What to tell.
        run: The runner's number in it.
        iteration: Work of one training iteration, all images of it.
        validation: Work of one validation, in images.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        progress: DemoProgress,
        run: int,
        iteration: int,
        validation: int,
    ) -> None:
        self.progress, self.run = progress, run
        self.iteration, self.validation = iteration, validation
        self._loss: float | None = None

    def before_train(self, runner) -> None:
        """Counts what a resumed run has behind it as done."""
        self.progress.start(self.run, runner.iter * self.iteration)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Advances by one iteration; shows the mean of recent losses."""
        loss = float(outputs['loss'])
        old = loss if self._loss is None else self._loss
        self._loss = 0.95 * old + 0.05 * loss
        self.progress.update(
            self.run,
            (runner.iter + 1) * self.iteration,
            f'epoch {runner.epoch + 1}/{runner.max_epochs}  '
            f'loss {self._loss:.2f}',
        )

    def after_val_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Advances by one image."""
        self.progress.update(
            self.run,
            runner.iter * self.iteration + batch_idx,
            f'validating {batch_idx + 1}/{self.validation}',
        )

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Shows the AP at the end."""
        if runner.epoch >= runner.max_epochs:
            ap = next(v for k, v in metrics.items() if k.endswith('_mAP'))
            self.progress.update(self.run, float('inf'), f'AP {100 * ap:.1f}')
