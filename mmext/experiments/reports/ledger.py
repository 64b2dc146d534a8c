# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext report RECORDS...`: records as a ledger, without a plan.

Records of several data sets, detectors or papers are compared study by study,
a study being the runs on one data set by one plan. Differences of a candidate
over several studies are pooled by a random-effects model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.report import tables
from mmext.evaluation.report.charts import forest
from mmext.evaluation.report.document import Document
from mmext.evaluation.report.render import render
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.comparison import (
    Comparison,
    compare_resampled,
    correct,
)
from mmext.evaluation.statistics.intervals import Estimate
from mmext.evaluation.statistics.pooling import Pooled, pool
from mmext.evaluation.statistics.verdict import interval, p_text, verdict
from mmext.experiments.plan import PRIMARY
from mmext.experiments.records.record import Record, read_record
from mmext.experiments.reports.decision import (
    evaluate_records,
    require_equal_images,
)
from mmext.experiments.reports.deviations import same_results
from mmext.experiments.reports.report import PAGE, claim_rows, training_charts
from mmext.utils.text import count, points, points_range, some


@dataclass(frozen=True)
class Study:
    """The runs on one data set by one plan.

    Args:
        name: Of the test data and the detector.
        sides: Name -> records, the baseline first.
        comparisons: One a candidate.
    """

    name: str
    sides: dict[str, tuple[Record, ...]]
    comparisons: tuple[Comparison, ...]

    @property
    def first_record(self) -> Record:
        return next(iter(self.sides.values()))[0]

    def candidates(self) -> Iterator[tuple[str, Comparison]]:
        """Yields the name of each candidate with its comparison."""
        yield from zip([*self.sides][1:], self.comparisons, strict=True)


def report_records(
    paths: Sequence[str | Path],
    baseline: str | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    progress: Callable[[str, float], None] | None = None,
) -> Ledger:
    """Compares the runs of records.

    Args:
        paths: Records, or folders that have some.
        baseline: Name of the baseline. Default: what the records say.
        resamples: Number of bootstrap resamples. Default: 1000.
        level: Coverage of the intervals. Default: 0.95.
        progress: Called with what is being done and the share that is done.
            Default: None.

    Raises:
        UserError: A record cannot be used, or the records do not belong
            together.
    """
    studies = []
    groups = _studies(paths)
    _require_one_task(groups)
    for n, records in enumerate(groups):

        def report(what: str, share: float, n: int = n) -> None:
            if progress:
                progress(what, (n + share) / len(groups))

        sides = _sides(records, baseline)
        require_equal_images(records)
        flat = [r for runs in sides.values() for r in runs]
        found = evaluate_records(flat, resamples, report)
        resampled = iter(found)
        each = [[next(resampled) for _ in runs] for runs in sides.values()]
        comparisons = correct(
            [
                compare_resampled(
                    each[0], runs, level, groups=records[0].groups
                )
                for runs in each[1:]
            ]
        )
        studies.append(Study(_name(records[0]), sides, tuple(comparisons)))
    return Ledger(tuple(_name_apart(studies)), level)


def _require_one_task(studies: Sequence[Sequence[Record]]) -> None:
    """Raises `UserError` for several, such as boxes and masks."""
    tasks = {records[0].task: _name(records[0]) for records in studies}
    if len(tasks) > 1:
        each = [
            f'{PRIMARY[task]} of {task} ({name})'
            for task, name in tasks.items()
        ]
        raise UserError(
            f'the records have different metrics: {some(each)}',
            'Report them one by one.',
        )


def _studies(paths: Sequence[str | Path]) -> list[list[Record]]:
    """The records, those of a study in a list of their own."""
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        found = sorted(path.rglob('*.npz')) if path.is_dir() else [path]
        if path.is_dir():
            found = [f for f in found if f.parent.name != 'predictions']
        if not found:
            raise UserError(
                f'{path} has no record',
                'A record is written by mmext run: SIDE/seed_N/record.npz.',
            )
        files |= dict.fromkeys(file.resolve() for file in found)
    studies: dict[tuple, dict[tuple, tuple[Path, Record]]] = {}
    for file in files:
        record = read_record(file)
        study = studies.setdefault(
            (record.plan_sha256, record.data_sha256, record.task), {}
        )
        key = (record.side, record.seed)
        if key in study:
            raise UserError(
                f'{file} and {study[key][0]} are both of {record.side}, seed '
                f'{record.seed}',
                'Give each run once: its noise would count as less.',
            )
        study[key] = (file, record)
    return [[r for _, r in study.values()] for study in studies.values()]


def _sides(
    records: Sequence[Record], baseline: str | None
) -> dict[str, tuple[Record, ...]]:
    """Name -> records, the baseline first."""
    sides: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        sides.setdefault(record.side, []).append(record)
    first = baseline or next((r.side for r in records if r.baseline), None)
    if first not in sides or len(sides) < 2:
        fix = 'Name it with --baseline, and give records of another side.'
        if baseline and baseline not in sides:
            fix = did_you_mean(baseline, sides) or fix
        raise UserError(
            f'the records of {_name(records[0])} have the sides '
            f'{some(sides)}; a comparison needs a baseline '
            f'{"(" + baseline + ") " if baseline else ""}and a candidate',
            fix,
        )
    order = [first, *(name for name in sides if name != first)]
    return {name: tuple(sides[name]) for name in order}


def _name(record: Record) -> str:
    words = [record.detector, record.data_name]
    return ', '.join(word for word in words if word) or 'records'


def _name_apart(studies: Sequence[Study]) -> Iterator[Study]:
    names = [study.name for study in studies]
    for number, study in enumerate(studies, 1):
        name = study.name
        if names.count(name) > 1:
            name = f'{name} ({number})'
        yield Study(name, study.sides, study.comparisons)


@dataclass(frozen=True)
class Ledger(Document):
    """The report of records; exploratory, as no plan is held against it."""

    studies: tuple[Study, ...]
    level: float = 0.95

    @property
    def title(self) -> str:
        """The number of studies."""
        number = count(len(self.studies), 'study', 'studies')
        return f'Exploratory report of {number}'

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.studies[0].comparisons[0].primary

    @property
    def warnings(self) -> list[str]:
        """That there is no plan, and what is not independent."""
        found = [
            'Exploratory: what is compared, and when, could be chosen after '
            'the results. mmext report PLAN decides by a plan.'
        ]
        data = Counter(s.first_record.data_sha256 for s in self.studies)
        if max(data.values()) > 1:
            found.append(
                'Studies on the same test data are not independent: the '
                'interval of their mean is too narrow for images like these.'
            )
        for study in self.studies:
            records = chain.from_iterable(study.sides.values())
            found += [f'{study.name}: {x}' for x in same_results(records)]
        return found

    def rows(self) -> dict[str, list[tuple[str, Comparison]]]:
        """Candidate -> its studies, by name.

        If every study has one candidate, they are the same one, whatever its
        names.
        """
        single = all(len(s.comparisons) == 1 for s in self.studies)
        found: dict[str, list[tuple[str, Comparison]]] = {}
        names = dict.fromkeys(n for s in self.studies for n in [*s.sides][1:])
        for study in self.studies:
            for name, comparison in study.candidates():
                key = ' / '.join(names) if single else name
                found.setdefault(key, []).append((study.name, comparison))
        return found

    def pooled(self, name: str) -> Pooled | None:
        """Returns the mean over the studies that test the methods."""
        tested = self._tested(name)
        if len(tested) < 2:
            return None
        return pool(
            [e.value for e in tested], [e.se for e in tested], self.level
        )

    def _tested(self, name: str) -> list[Estimate]:
        """Of the methods, in the studies of a candidate that test them."""
        found = [c.both[self.metric] for _, c in self.rows()[name] if c.both]
        return [e for e in found if math.isfinite(e.p)]

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Returns the mean of each candidate, then study by study."""
        found = []
        for name, studies in self.rows().items():
            if len(studies) > 1:
                found.append((f'{name}: all studies', self._mean(name)))
        for study in self.studies:
            base = next(iter(study.sides))
            for name, comparison in study.candidates():
                heading = f'{study.name}: {name} against {base}'
                found.append((heading, verdict(comparison)))
        return found

    def _mean(self, name: str) -> list[str]:
        found = self.pooled(name)
        if found is None:
            return ['No mean: fewer than two studies test the methods.']
        mean = found.mean
        used = len(self._tested(name))
        lines = [
            f'{self.metric} {interval(mean.value, mean.interval)} '
            f'({100 * self.level:g} % over {used} studies, random '
            f'effects), {p_text(mean.p)}.',
            'Estimated standard deviation of the true differences of the '
            f'studies: {points(found.tau, sign=False)}.',
        ]
        if math.isfinite(found.prediction[0]):
            lines.append(
                'The true difference of another study is expected in '
                f'{points_range(found.prediction)}.'
            )
        left = len(self.rows()[name]) - used
        if left:
            lines.append(
                f'{count(left, "study is", "studies are")} not in the mean: '
                'the methods are not tested there.'
            )
        return lines

    def tables(self) -> list[Table]:
        """Returns a row for each study and mean, then the metrics."""
        rows = []
        for study in self.studies:
            first = next(iter(study.sides.values()))
            for name, c in study.candidates():
                found = c.best_estimate(self.metric)
                rows.append(
                    [
                        study.name,
                        name,
                        f'{len(first)} + {len(study.sides[name])}',
                        str(c.images),
                        points(found.value),
                        points_range(found.interval),
                        'methods' if c.both else 'checkpoints',
                    ]
                )
        for name in self.rows():
            pooled = self.pooled(name)
            if pooled:
                mean = pooled.mean
                number = count(len(self._tested(name)), 'study', 'studies')
                values = points(mean.value), points_range(mean.interval)
                rows.append(['mean', name, '-', '-', *values, number])
        header = ['study', 'candidate', 'seeds', 'images']
        header += [f'delta {self.metric}', f'{100 * self.level:g} %', 'of']
        found = [Table(header, rows, 'Studies')]
        for study in self.studies:
            base = next(iter(study.sides))
            for name, comparison in study.candidates():
                for table in (tables.metric_table, tables.class_table):
                    written = table(base, name, comparison)
                    if len(self.studies) > 1:
                        title = f'{study.name}: {written.title}'
                        written = Table(
                            written.header, written.rows, title, written.notes
                        )
                    found.append(written)
        return found

    def write(self, folder: str | Path) -> list[Path]:
        """Writes the page, Markdown, and tables as CSV and LaTeX."""
        return self.write_files(folder, self.html())

    def html(self) -> str:
        """Returns the report as one page."""
        return render(
            PAGE,
            title=self.title,
            verdicts=self.verdicts(),
            warnings=[f'Warning: {w}' for w in self.warnings],
            chart_sections=[*self._charts()],
            tables=self.tables(),
        )

    def _charts(self) -> Iterator[tuple]:
        for n, (name, studies) in enumerate(self.rows().items(), 1):
            rows = [(s, c.best_estimate(self.metric)) for s, c in studies]
            found = self.pooled(name)
            if found:
                rows.append(('mean', found.mean))
            chart = forest(claim_rows(rows), f'{self.metric} points', n)
            caption = 'Difference to the baseline. Grey: contains zero.'
            yield name, [('forest', chart, caption, [])]
        if len(self.studies) == 1:
            (study,) = self.studies
            records = [r for runs in study.sides.values() for r in runs]
            yield from training_charts(records)
