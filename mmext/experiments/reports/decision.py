# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Decides a plan by its records, at the looks that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.statistics.comparison import (
    Comparison,
    compare_resampled,
    correct,
)
from mmext.evaluation.statistics.intervals import Estimate
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.resampling import ImageBootstrap, Resampled
from mmext.experiments.plan import Job, Plan
from mmext.experiments.records.record import Record
from mmext.utils.text import some

BETTER, WORSE = 'better', 'worse'
WITHIN, OPEN = 'loss at most the margin', 'not settled'
UNTESTED = 'methods not tested'
_MOST_RESAMPLES = 5000


@dataclass(frozen=True)
class Verdict:
    """What is decided about a candidate.

    Args:
        name: The candidate.
        word: A constant of this module.
        comparison: At the look, with intervals at ``1 - alpha``.
        look: Number of seeds a side.
        alpha: Nominal p-value below which this look decides.
    """

    name: str
    word: str
    comparison: Comparison
    look: int
    alpha: float

    @property
    def settled(self) -> bool:
        """Whether later looks do not change it."""
        return self.word in (BETTER, WORSE, WITHIN)


@dataclass(frozen=True)
class Decision:
    """What a plan's records decide.

    Args:
        look: The last look that was needed, None if none is complete.
        candidates: One verdict a candidate that has a run; empty if no look
            is complete.
        values: The primary metric of the runs up to the look.
        missing: Runs up to the look that failed for good.
        remaining: Runs to the next look.
    """

    look: int | None
    candidates: tuple[Verdict, ...] = ()
    values: Mapping[Job, float] = field(default_factory=dict)
    missing: tuple[Job, ...] = ()
    remaining: tuple[Job, ...] = ()

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdict on each candidate in words."""
        return tuple(verdict.word for verdict in self.candidates)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparison of each candidate."""
        return tuple(verdict.comparison for verdict in self.candidates)

    @property
    def settled(self) -> bool:
        """Whether later seeds are not needed."""
        found = self.candidates
        return bool(found) and all(verdict.settled for verdict in found)


def decide(
    plan: Plan,
    records: Mapping[Job, Record],
    failed: Collection[Job] = (),
    *,
    resamples: int = 1000,
    progress: Callable[[str, float], None] | None = None,
) -> Decision:
    """Decides each candidate at the first look that settles it.

    A look is complete if each of its runs has a record or failed for good.
    Better or worse is decided at any look. That a loss is within the margin
    is decided at the last one: earlier, it would end plans that show a gain
    later.

    Args:
        plan: The plan.
        records: The records of its runs.
        failed: Runs that are given up.
        resamples: Number of bootstrap resamples. Default: 1000, or up to 5000
            if a look needs them.
        progress: Called with what is being done and the share that is done.
            Default: None.

    Raises:
        UserError: The records do not belong together.
    """
    require_equal_images(records.values())
    alphas = nominal_levels(plan.looks, plan.alpha)
    # For the interval at the strictest level, unless that is too many.
    needed = math.ceil(4 / max(min(alphas), 4 / _MOST_RESAMPLES))
    resamples = max(resamples, needed)
    evaluated: dict[Job, Resampled] = {}
    found = Decision(None)
    for look, alpha in zip(plan.looks, alphas, strict=True):
        jobs = [*plan.jobs(look)]
        left = [j for j in jobs if j not in records and j not in failed]
        if left:
            return replace(found, remaining=tuple(left))
        new = [j for j in jobs if j in records and j not in evaluated]
        runs = [records[j] for j in new]
        results = evaluate_records(runs, resamples, progress)
        evaluated |= dict(zip(new, results, strict=True))
        now = _at_look(plan, look, alpha, evaluated, records)
        before = {old.name: old for old in found.candidates if old.settled}
        found = Decision(
            look=look,
            candidates=tuple(before.get(new.name, new) for new in now),
            values={
                job: float(run.metrics[plan.metric][0])
                for job, run in evaluated.items()
            },
            missing=tuple(job for job in jobs if job not in evaluated),
        )
        if found.settled:
            break
    return found


def require_equal_images(records: Collection[Record]) -> None:
    """Raises `UserError` for records of other images or classes."""
    first = next(iter(records), None)
    for record in records:
        for what, values in (
            ('metrics', (first.task, record.task)),
            ('images', (first.images, record.images)),
            ('classes', (first.results.names, record.results.names)),
            ('test data', (first.data_sha256, record.data_sha256)),
            ('groups', (first.groups, record.groups)),
        ):
            if not np.array_equal(*values):
                raise UserError(
                    f'the record of {record.side}, seed {record.seed}, has '
                    f'other {what} than that of {first.side}, seed '
                    f'{first.seed}',
                    'Test all runs on the same data: remove that record, '
                    'and run the plan again.',
                )


def evaluate_records(
    records: Sequence[Record],
    resamples: int = 1000,
    progress: Callable[[str, float], None] | None = None,
) -> list[Resampled]:
    """Resamples runs, all on the same draws of the images.

    Args:
        records: Runs on the same images.
        resamples: Number of bootstrap resamples. Default: 1000.
        progress: Called with what is being done and the share that is done.
            Default: None.
    """
    found = []
    for n, record in enumerate(records):

        def report(share: float, n: int = n, record: Record = record) -> None:
            if progress:
                what = f'{record.side}, seed {record.seed}: resampling'
                progress(what, (n + share) / len(records))

        if n == 0:
            bootstrap = ImageBootstrap(
                len(record.images), resamples, groups=record.groups
            )
        found.append(bootstrap.evaluate(record.results, report))
    return found


def _at_look(
    plan: Plan,
    look: int,
    alpha: float,
    evaluated: Mapping[Job, Resampled],
    records: Mapping[Job, Record],
) -> tuple[Verdict, ...]:
    sides: dict[str, list[Resampled]] = {}
    for job in plan.jobs(look):
        if job in evaluated:
            sides.setdefault(job.side, []).append(evaluated[job])
    without = why_undecidable(plan, sides)
    if without:
        raise UserError(without, 'mmext run names why they failed.')
    base = sides.pop(plan.baseline.name)
    names = [side.name for side in plan.sides if side.name in sides]
    groups = next(iter(records.values())).groups
    comparisons = correct(
        [
            compare_resampled(base, sides[name], 1 - alpha, groups=groups)
            for name in names
        ]
    )
    last = look == plan.looks[-1]
    return tuple(
        Verdict(name, _word(plan, c, alpha, last), c, look, alpha)
        for name, c in zip(names, comparisons, strict=True)
    )


def why_undecidable(plan: Plan, sides: Collection[str]) -> str:
    """Returns why nothing can be decided if only these sides have a record.

    The result is empty if the baseline and a candidate have one.
    """
    base, *rest = (side.name for side in plan.sides)
    if base in sides and any(name in sides for name in rest):
        return ''
    missing = rest if base in sides else [base]
    return f'no run of {some(missing)} has a record'


def deciding(plan: Plan, comparison: Comparison) -> Estimate | None:
    """Returns the estimate that decides, None if the methods are not tested.

    It is over seeds and images, or over seeds if the claim is about the
    data set.
    """
    tested = comparison.both if plan.scope == 'images' else comparison.seeds
    found = tested.get(plan.metric)
    return found if found and math.isfinite(found.p) else None


def _word(plan: Plan, comparison: Comparison, alpha: float, last: bool) -> str:
    found = deciding(plan, comparison)
    if found is None:
        return UNTESTED
    p = found.holm if math.isfinite(found.holm) else found.p
    if p < alpha:
        return BETTER if found.value > 0 else WORSE
    if last and plan.margin is not None and -found.least < plan.margin / 100:
        return WITHIN
    return OPEN
