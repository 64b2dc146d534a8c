# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext report plan.yaml`: the verdict of a plan, with all its trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.report import tables
from mmext.evaluation.report.charts import dots, forest, line_chart
from mmext.evaluation.report.document import Document
from mmext.evaluation.report.render import render
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.intervals import Estimate
from mmext.evaluation.statistics.verdict import verdict
from mmext.experiments.plan import Job, Plan, default_work_dir, read_plan
from mmext.experiments.records.record import Record
from mmext.experiments.reports.decision import (
    BETTER,
    OPEN,
    WITHIN,
    WORSE,
    Decision,
    Verdict,
    decide,
    deciding,
)
from mmext.experiments.reports.deviations import deviations, read_runs
from mmext.utils.text import count, duration, points, some

PAGE = Path(__file__).with_name('report.html')
_SCOPES = {'images': 'images like these', 'data set': 'this data set'}


def report_plan(
    path: str | Path,
    work_dir: str | Path | None = None,
    *,
    resamples: int = 1000,
    progress: Callable[[str, float], None] | None = None,
) -> PlanReport:
    """Reads the records of a plan and decides.

    Args:
        path: The plan.
        work_dir: The folder of its runs. Default: ``work_dirs/<plan>``.
        resamples: Number of bootstrap resamples, or more if a look needs
            them. Default: 1000.
        progress: Called with what is being done and the share that is done.
            Default: None.

    Raises:
        UserError: The plan or a record cannot be used.
    """
    plan = read_plan(path)
    folder = Path(work_dir or default_work_dir(path))
    records, failed = read_runs(plan, folder)
    if work_dir and not (records or failed):
        raise UserError(
            f'--work-dir {folder} has no run of {path} that has ended',
            'Give the folder that mmext run was given.',
        )
    decision = decide(
        plan, records, [*failed], resamples=resamples, progress=progress
    )
    return PlanReport(
        plan=plan,
        decision=decision,
        records=records,
        warnings=tuple(deviations(path, plan, decision, records, failed)),
    )


@dataclass(frozen=True)
class PlanReport(Document):
    """The report of a plan.

    Args:
        plan: The plan.
        decision: What the records decide.
        records: The records, also those of later looks.
        warnings: What was not done as planned.
    """

    plan: Plan
    decision: Decision
    records: Mapping[Job, Record]
    warnings: Sequence[str] = ()

    @property
    def title(self) -> str:
        """The claim."""
        return self.plan.claim

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Returns the verdict on each candidate, with its reasons."""
        decision, plan = self.decision, self.plan
        if decision.look is None:
            left = count(len(decision.remaining), 'run')
            return [
                (
                    'Not decided yet',
                    [
                        f'{left} of {sum(1 for _ in plan.jobs(plan.looks[0]))}'
                        f' to the first look remain: {_runs(decision)}.',
                        f'No {plan.metric} is shown before: a look that the '
                        'plan does not name would raise the error of the '
                        'verdict.',
                    ],
                )
            ]
        found = []
        margin = None if plan.margin is None else plan.margin / 100
        results = {result.name: result for result in decision.candidates}
        for name in (side.name for side in plan.sides[1:]):
            if name not in results:
                heading = f'{name} against {plan.baseline.name}'
                heading += f': no run of {name} has a result'
                found.append((heading, ['The deviations say why.']))
                continue
            lines = verdict(results[name].comparison, margin)
            if not results[name].settled:
                lines[:0] = self._what_remains(results[name])
            found.append((self._heading(results[name]), lines))
        return found

    def _heading(self, result: Verdict) -> str:
        base, plan, name = self.plan.baseline.name, self.plan, result.name
        look = f'after {count(result.look, "seed")} a side'
        done = [*map(len, self._values(result))]
        if min(done) < result.look:
            look = f'after {done[0]} and {done[1]} of {result.look} seeds'
        found = deciding(plan, result.comparison)
        if found is None:
            return f'{name} against {base}, {look}: the methods are not tested'
        text = {
            BETTER: f'{name} is better than {base}',
            WORSE: f'{name} is worse than {base}',
            WITHIN: f'{name} loses at most {plan.margin} {plan.metric} to '
            f'{base}',
            OPEN: f'{name} against {base} is not settled',
        }[result.word]
        p = found.holm if math.isfinite(found.holm) else found.p
        return f'{text}, {look} ({against_level(p, result.alpha)})'

    def _values(self, result: Verdict) -> list[Sequence[float]]:
        """Returns the metric of each run, of the baseline and candidate."""
        found = result.comparison
        return [s[self.plan.metric] for s in (found.baseline, found.candidate)]

    def _what_remains(self, result: Verdict) -> Iterator[str]:
        plan = self.plan
        if left := len(self.decision.remaining):
            yield (
                f'To the next look, {count(left, "run")} remain: '
                f'{_runs(self.decision)}.'
            )
            return
        yield (
            f'The plan ends here. It was made to show a gain of {plan.gain:g} '
            f'{plan.metric}{_with(plan.power)}. More seeds need a new plan.'
        )
        sides = self._values(result)
        if min(map(len, sides)) > 1:
            sd = np.mean([np.var(side, ddof=1) for side in sides]) ** 0.5
            yield (
                f'Trainings of one side differed by {points(sd, sign=False)} '
                f'{plan.metric} (standard deviation); the plan assumed '
                f'{plan.seed_sd["value"]:.2g}. A new plan takes it from these '
                'runs by --pilot.'
            )

    def tables(self) -> list[Table]:
        """Returns the tables of metrics, classes and trainings."""
        base = self.plan.baseline.name
        found = []
        writers = [tables.metric_table]
        if any(len(c.classes) > 1 for c in self.decision.comparisons):
            writers.append(tables.class_table)
        for table in writers:
            for result in self.decision.candidates:
                found.append(table(base, result.name, result.comparison))
        if self.decision.look is not None:
            found.append(self._trainings())
        return found

    def details(self) -> list[Table]:
        """Returns every interval of every metric, and the plan."""
        found = [
            tables.interval_table(result.name, result.comparison)
            for result in self.decision.candidates
        ]
        return [*found, self._plan_table()]

    def _trainings(self) -> Table:
        rows = []
        for job in sorted(self.decision.values, key=self._order):
            record = self.records[job]
            rows.append(
                [
                    job.side,
                    str(job.seed),
                    f'{100 * self.decision.values[job]:.2f}',
                    duration(record.train_seconds),
                    record.checkpoint or '?',
                    (record.commit or '?')[:12],
                    str(record.hardware.get('device', '?')),
                ]
            )
        header = ['model', 'seed', self.plan.metric, 'train time']
        header += ['checkpoint', 'commit', 'device']
        return Table(header, rows, 'All trainings')

    def _order(self, job: Job) -> tuple[int, int]:
        names = [side.name for side in self.plan.sides]
        return names.index(job.side), job.seed

    def _plan_table(self) -> Table:
        plan = self.plan
        level = ', '.join(map(str, plan.looks))
        rows = [
            ['claim', plan.claim],
            ['gain', f'{plan.gain:g} {plan.metric}'],
            ['margin', '-' if plan.margin is None else f'{plan.margin:g}'],
            ['alpha', f'{plan.alpha:g}'],
            ['power', '-' if plan.power is None else f'{plan.power:g}'],
            ['about', f'methods on {_SCOPES[plan.scope]}'],
            ['looks (seeds a side)', level],
            ['test data', f'{plan.data["images"]} images'],
            ['data SHA-256', plan.data['sha256'][:12]],
            ['plan SHA-256', plan.sha256[:12]],
            *(
                [f'differs: {number}', text]
                for number, text in enumerate(plan.differences, 1)
            ),
        ]
        return Table(['plan', 'value'], rows, 'The plan')

    def write(self, folder: str | Path) -> list[Path]:
        """Writes the page, Markdown, and tables as CSV and LaTeX."""
        return self.write_files(folder, self.html())

    def html(self) -> str:
        """Returns the report as one page."""
        deviations = [f'Warning: {w}' for w in self.warnings]
        return render(
            PAGE,
            title=self.title,
            verdicts=self.verdicts(),
            warnings=deviations,
            chart_sections=[*self._charts()],
            tables=[*self.tables(), *self.details()],
        )

    def _charts(self) -> Iterator[tuple]:
        if self.decision.look is None:
            return
        metric = self.plan.metric
        values = self.decision.values
        sides = [
            (
                side.name,
                [100 * v for j, v in values.items() if j.side == side.name],
            )
            for side in self.plan.sides
        ]
        chart = dots(sides, f'{metric} of each training')
        caption = 'A point a seed; the line is the mean.'
        yield 'All trainings', [('dots', chart, caption, [])]
        for result in self.decision.candidates:
            yield self._claims(result)
        yield from training_charts(self.records.values())

    def _claims(self, result: Verdict) -> tuple:
        metric, comparison = self.plan.metric, result.comparison
        name = result.name
        n = [side.name for side in self.plan.sides].index(name)
        rows = [
            ('methods, such images', comparison.both.get(metric)),
            ('methods, this data', comparison.seeds.get(metric)),
            ('these checkpoints', comparison.differences[metric]),
        ]
        marks = [(self.plan.gain, 'gain')]
        if self.plan.margin is not None:
            marks.append((-self.plan.margin, 'margin'))
        chart = forest(claim_rows(rows), f'{metric} points', n, marks)
        caption = (
            f'Difference to {self.plan.baseline.name}, intervals at '
            f'{100 * (1 - result.alpha):.4g} %. Grey: the interval '
            'contains zero.'
        )
        figures = [('forest', chart, caption, [])]
        classes = [(c.name, c.best_estimate) for c in comparison.classes]
        if len(classes) > 1:
            chart = forest(claim_rows(classes), 'points', n)
            caption = 'Each class. Not corrected for many; see the table.'
            figures.append(('forest', chart, caption, []))
        return f'Differences: {name}', [f for f in figures if f[1]]


def claim_rows(
    rows: Sequence[tuple[str, Estimate | None]],
) -> list[tuple[str, float, float, float]]:
    """Returns rows of a forest in points; without those that are None."""
    return [
        (name, 100 * e.value, 100 * e.interval[0], 100 * e.interval[1])
        for name, e in rows
        if e is not None
    ]


def training_charts(records: Sequence[Record]) -> Iterator[tuple]:
    """Yields a section with the curves of all trainings."""
    sides = [*dict.fromkeys(record.side for record in records)]
    styles = [sides.index(record.side) for record in records]
    key = [(f's{n % 6}', name) for n, name in enumerate(sides)]
    figures = []
    for curve, axis, caption in (
        ('loss', 'loss', 'Training loss of every run.'),
        ('validation', 'points', 'Validation of every run.'),
    ):
        series = [
            (f'{r.side}, seed {r.seed}', r.curves.get(curve, ()))
            for r in records
        ]
        chart = line_chart(series, 'step', axis, styles=styles)
        if chart:
            figures.append(('line_chart', chart, caption, key))
    if figures:
        yield 'Training', figures


def against_level(p: float, level: float) -> str:
    """Returns ``p = 0.012 < 0.05``, with digits that show which is smaller."""
    if p < 0.001 < level:
        return f'p < 0.001 < {level:.3g}'
    for digits in (3, 4, 6, 9):
        texts = f'{p:.{digits}g}', f'{level:.{digits}g}'
        if (float(texts[0]) < float(texts[1])) == (p < level):
            break
    return f'p = {texts[0]} {"<" if p < level else ">="} {texts[1]}'


def _with(power: float | None) -> str:
    return '' if power is None else f' with a power of {100 * power:g} %'


def _runs(decision: Decision) -> str:
    return some([f'{j.side}/{j.seed}' for j in decision.remaining], 6)
