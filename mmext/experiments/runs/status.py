# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shows the runs of a plan: a table in the terminal, and ``status.html``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table as RichTable

from mmext.errors import UserError, printable
from mmext.evaluation.report.charts import Chart, line_chart
from mmext.evaluation.report.render import render
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import logged_curves, read_run
from mmext.experiments.plan import Job, Plan
from mmext.experiments.state import LOG, State, last_lines
from mmext.utils.files import replacing
from mmext.utils.text import duration

PAGE = 'status.html'
#: Seconds between lines without a terminal, and between two pages.
LINE_EVERY, PAGE_EVERY = 15.0, 5.0
_STYLES = {'training': 'cyan', 'testing': 'cyan', 'done': 'green'}
_STYLES |= {'failed': 'red', 'diverged': 'red', 'cut off': 'yellow'}
_POINTS = 300  # of a curve


@dataclass(frozen=True)
class Row:
    """A run as the table shows it; ``status`` is in words."""

    job: Job
    folder: Path
    status: str
    state: State

    @property
    def share(self) -> float:
        return 1.0 if self.status == 'done' else self.state.share

    @property
    def works(self) -> bool:
        return self.status in ('training', 'testing')

    @property
    def ended(self) -> bool:
        return self.status in ('done', 'failed', 'diverged')

    @property
    def error(self) -> str:
        """The first line of the message, without a period."""
        return self.state.error.partition('\n')[0].rstrip('.')

    @property
    def left(self) -> str:
        if self.status == 'done':
            return f'took {duration(self.state.seconds)}'
        return duration(self.state.left) if self.works else '-'

    def cells(self) -> list[str]:
        attempt = str(self.state.failures + (not self.state.error))
        return [
            self.job.side,
            str(self.job.seed),
            self.status,
            f'{self.share:.0%}',
            self.left,
            attempt,
        ]


HEADER = ['side', 'seed', 'status', 'share', 'time left', 'attempt']


def time_left(rows: Sequence[Row], parallel: int) -> float | None:
    """Estimates the seconds until all runs have ended.

    A run that has not begun takes as long as the others of its side, or as
    any other. None if no run has got far enough to tell.
    """
    known: dict[str, list[float]] = {}
    for row in rows:
        if row.status == 'done':
            known.setdefault(row.job.side, []).append(row.state.seconds)
        elif row.works and row.state.left is not None:
            took = row.state.seconds + row.state.left
            known.setdefault(row.job.side, []).append(took)
    every = [seconds for found in known.values() for seconds in found]
    left = []
    for row in rows:
        if row.ended:
            continue
        if row.works and row.state.left is not None:
            left.append(row.state.left)
        elif every:
            whole = statistics.mean(known.get(row.job.side, every))
            left.append(whole * (1 - row.share))
        else:
            return None
    return max(sum(left) / max(1, parallel), *left) if left else 0.0


class Status:
    """Shows the runs while they work.

    Args:
        plan: The plan.
        work_dir: Where ``status.html`` is written.
        console: A table is shown if it is a terminal, otherwise a line every
            15 seconds.
        parallel: How many runs work at once.
        now: The clock.
    """

    def __init__(
        self,
        plan: Plan,
        work_dir: Path,
        console: Console,
        parallel: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.work_dir, self.console = plan, work_dir, console
        self.parallel, self.now = parallel, now
        self._live = Live(console=console, auto_refresh=False)
        self._line = self._page = float('-inf')
        self._rows: Sequence[Row] = ()

    def __enter__(self) -> Status:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._rows:
            self._write_page()

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self.console.print(
            escape(printable(text)), highlight=False, soft_wrap=True
        )

    def report(self, row: Row, retried: bool) -> None:
        """Prints why a run has failed, with the last lines of its log."""
        will = ' It starts again.' if retried else ''
        self.say(
            f'{row.job.side}, seed {row.job.seed}: {row.status}: '
            f'{row.error}.{will} Log: {row.folder / LOG}'
        )
        for line in last_lines(row.folder / LOG):
            self.say(f'    {line}')

    def show(self, rows: Sequence[Row]) -> None:
        """Shows the runs; cheap if nothing is due."""
        ended = sum(r.ended for r in rows) - sum(r.ended for r in self._rows)
        self._rows = rows
        now = self.now()
        if self.console.is_terminal:
            self._live.update(self._table(rows), refresh=True)
        elif ended or now - self._line >= LINE_EVERY:
            self._line = now
            self.say(self.line(rows))
        if ended or now - self._page >= PAGE_EVERY:
            self._page = now
            self._write_page()

    def line(self, rows: Sequence[Row]) -> str:
        """Returns the runs as one line."""
        counts = {}
        for row in rows:
            counts[row.status] = counts.get(row.status, 0) + 1
        what = ', '.join(f'{n} {status}' for status, n in counts.items())
        return f'{self._share(rows):4.0%}: {what} ({self._left(rows)})'

    @staticmethod
    def _share(rows: Sequence[Row]) -> float:
        return statistics.mean(1.0 if r.ended else r.share for r in rows)

    def _left(self, rows: Sequence[Row]) -> str:
        left = time_left(rows, self.parallel)
        if left is None:
            return 'time left: not known yet'
        ended = all(row.ended for row in rows)
        return 'ended' if ended else f'{duration(left)} left'

    def _table(self, rows: Sequence[Row]) -> RichTable:
        table = RichTable(*HEADER, box=None, pad_edge=False, show_footer=True)
        for column in table.columns[3:]:
            column.justify = 'right'
        total = ['all', str(len(rows)), '', f'{self._share(rows):.0%}']
        total += [self._left(rows), '']
        for column, text in zip(table.columns, total, strict=True):
            column.footer = text
        for row in rows:
            cells = [escape(printable(cell)) for cell in row.cells()]
            if style := _STYLES.get(row.status):
                cells[2] = f'[{style}]{cells[2]}[/]'
            table.add_row(*cells)
        return table

    def _write_page(self) -> None:
        """Writes ``status.html``; it shows no result before the report."""
        rows = self._rows
        names = [side.name for side in self.plan.sides]
        values = {
            'title': self.plan.claim or self.work_dir.name,
            'seconds': PAGE_EVERY,
            'ended': all(row.ended for row in rows),
            'line': self.line(rows),
            'time': time.strftime('%Y-%m-%d %H:%M:%S'),
            'header': HEADER,
            'share': HEADER.index('share'),
            'rows': [
                (row, f's{names.index(row.job.side) % 6}', row.cells())
                for row in rows
            ],
            'failures': [
                (row, last_lines(row.folder / LOG))
                for row in rows
                if row.state.error and row.status != 'done'
            ],
            'chart': _losses(rows, names),
            'key': [(f's{i % 6}', name) for i, name in enumerate(names)],
        }
        text = render(Path(__file__).with_name(PAGE), **values)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        # A full disk ends the runs that need it, and not the others.
        with suppress(OSError), replacing(self.work_dir / PAGE) as part:
            part.write_text(text, 'utf-8', errors='backslashreplace')


def _losses(rows: Sequence[Row], sides: Sequence[str]) -> Chart:
    """Returns the training losses, a line a run in the colour of its side."""
    series, styles = [], []
    for row in rows:
        with suppress(UserError):  # it has logged nothing yet
            loss = logged_curves(read_run(row.folder)).get('loss', [])
            step = max(1, len(loss) // _POINTS)
            name = f'{row.job.side}, seed {row.job.seed}'
            series.append((name, loss[::step]))
            styles.append(sides.index(row.job.side))
    return line_chart(series, 'iteration', 'loss', styles=styles)


def missing_table(rows: Sequence[Row]) -> Table:
    """Returns the runs that have no record, with why."""
    return Table(
        ['missing', 'seed', 'status', 'attempts', 'why'],
        [
            [
                row.job.side,
                str(row.job.seed),
                row.status,
                str(row.state.failures),
                row.error or '-',
            ]
            for row in rows
        ],
    )
