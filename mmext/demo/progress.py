# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shows progress and time left of several runs, in a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.table import Column

from mmext.utils.text import duration

LINE_EVERY = 15.0  # seconds between lines without a terminal


def seconds_left(task: Task) -> float | None:
    """Estimates the time left; None if nothing has been done.

    rich's estimate would count what an earlier session did as speed.
    """
    worked = task.completed - task.fields['before']
    if not task.elapsed or worked <= 0:
        return None
    return task.remaining * task.elapsed / worked


def _time(task: Task) -> str:
    if task.finished:
        return f'took {duration(task.finished_time)}'
    left = seconds_left(task)
    return '' if left is None else f'{duration(left)} left'


class DemoProgress:
    """Shows one bar for each run and one for all runs.

    ``totals`` are the amounts of work of the runs, in any unit. Without a
    terminal it prints a line every 15 seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        totals: Sequence[float],
        console: Console,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.now = console, now
        self._printed = float('-inf')
        self._bars = Progress(
            TextColumn(
                '{task.description}', table_column=Column(no_wrap=True)
            ),
            BarColumn(bar_width=28),
            TextColumn('{task.percentage:>3.0f}%'),
            TextColumn(
                '{task.fields[time]}', table_column=Column(min_width=16)
            ),
            TextColumn('{task.fields[status]}', style='dim'),
            console=console,
            auto_refresh=False,
            get_time=now,
        )
        for name, total in zip(
            [*names, '[bold]both'], [*totals, sum(totals)], strict=True
        ):
            self._bars.add_task(
                name, start=False, total=total, before=0.0, status='', time=''
            )
        *self.runs, self.overall = self._bars.tasks

    def __enter__(self) -> DemoProgress:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, run: int, done: float = 0.0) -> None:
        """Starts a run, of which an earlier session did the work ``done``."""
        for task in (self.runs[run], self.overall):
            self._bars.start_task(task.id)
            task.fields['before'] += done
        self.update(run, done, 'starting')

    def update(self, run: int, done: float, status: str) -> None:
        """Shows how much of a run is done and what it is doing."""
        task = self.runs[run]
        done = min(done, task.total)
        self._bars.update(task.id, completed=done, status=status)
        everything = sum(t.completed for t in self.runs)
        self._bars.update(self.overall.id, completed=everything)
        for bar in (task, self.overall):
            bar.fields['time'] = _time(bar)
        if self.console.is_terminal:
            self._bars.refresh()
        elif task.finished or self.now() - self._printed >= LINE_EVERY:
            self._printed = self.now()
            self.console.print(
                f'{self.overall.percentage:3.0f}%  {task.description}: '
                f'{status}  '
                f'({self.overall.fields["time"] or "time left: unknown yet"})',
                highlight=False,
                soft_wrap=True,
            )


class ProgressHook(Hook):
    """Reports the progress of a runner; see `mmext.demo.plan.work_units`."""

    priority = 'VERY_LOW'

    def __init__(
        self, progress: DemoProgress, run: int, iteration: int, validation: int
    ) -> None:
        self.progress, self.run = progress, run
        self.iteration, self.validation = iteration, validation
        self._loss: float | None = None

    def before_train(self, runner: Runner) -> None:
        self.progress.start(self.run, runner.iter * self.iteration)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict
    ) -> None:
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
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        self.progress.update(
            self.run,
            runner.iter * self.iteration + batch_idx,
            f'validating {batch_idx + 1}/{self.validation}',
        )

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        if runner.epoch >= runner.max_epochs:
            ap = next(v for k, v in metrics.items() if k.endswith('_mAP'))
            self.progress.update(self.run, float('inf'), f'AP {100 * ap:.1f}')
