# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes docs/evidence.md from the plans, claims and records in evidence/.

The claims that are settled get into README.md too.

    python benchmarks/evidence.py

evidence/README.md explains the files. A claim is about a contrast, a sum of
sides with factors: ``{star: 1, sum: -1}`` is the gain of star over sum. It
holds if the contrast is shown to be above 0, or with a margin above
``-margin``; it is contradicted if the plan's gain is excluded, or with a
margin if the contrast is shown to be below ``-margin``. Contrasts are tested
between seeds by Welch's test, at the level of the plan's last complete look,
with Holm's correction for the claims of a plan.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmext.errors import UserError, command, did_you_mean
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    student,
)
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.power import Noise, fewest_seeds, inflated_sd
from mmext.evaluation.statistics.resampling import Resampled
from mmext.evaluation.statistics.seeds import (
    satterthwaite,
    seed_and_image_parts,
    seed_image_variance,
)
from mmext.experiments.plan import Job, Plan, read_plan
from mmext.experiments.records.record import Record
from mmext.experiments.reports.decision import Decision, evaluate_records
from mmext.experiments.reports.deviations import deviations, read_runs
from mmext.utils.documents import parse_json, parse_yaml, read_bytes
from mmext.utils.figures import color, new_figure, save, tidy
from mmext.utils.files import replacing
from mmext.utils.git import git
from mmext.utils.text import count, duration, p_value

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = 'page.md'
SCOPES = ('data set', 'images')
HEADER = ['claim', 'paper', 'here', 'effect', 'images like these', 'verdict']
HOLDS, CONTRADICTED, OPEN = 'holds', 'contradicted', 'not settled'
MISSING = 'not run yet'
BEGIN, END = '<!-- Written by make evidence. -->', '<!-- End. -->'


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Args:
        claim: A sentence.
        paper: What the paper measured.
        contrast: Side -> factor.
        margin: A loss that counts as none, in points or in the measure's
            unit. Default: the claim is a gain.
        measure: What is compared: a value of ``measures.json``. Default: the
            metric of the plan.
    """

    claim: str
    paper: str
    contrast: Mapping[str, float]
    margin: float | None = None
    measure: str | None = None

    @property
    def unit(self) -> int:
        """Shares are shown in points, measures as they are."""
        return 1 if self.measure else 100

    def bounds(self, gain: float) -> tuple[float, float]:
        """Above the first it holds; below the second it is contradicted.

        ``gain`` is that of the plan, in points.
        """
        if self.margin is not None:
            return -self.margin / self.unit, -self.margin / self.unit
        return 0.0, 0.0 if self.measure else gain / self.unit


@dataclass(frozen=True)
class Contrast:
    """The estimate of a contrast, from 0 to 1.

    Args:
        value: On all images.
        between: (P,) variances between the seeds of the P sides.
        alone: Variance over images that is not in ``between``.
        sizes: Number of seeds of each side.
        images: Number of images.
    """

    value: float
    between: np.ndarray
    alone: float
    sizes: tuple[int, ...]
    images: int

    def estimate(
        self, scope: str, level: float, bound: float = 0.0
    ) -> Estimate:
        """The contrast less ``bound``, for the scope of a plan."""
        parts, sizes = self.between, [*self.sizes]
        if scope == 'images':
            parts, sizes = np.append(parts, self.alone), [*sizes, self.images]
        variance, df = satterthwaite(parts, sizes)
        return student(self.value - bound, float(variance), float(df), level)

    def seeds_for(self, distance: float, alpha: float, tests: int) -> int:
        """Trainings a side that show a distance in 4 of 5 plans, at most 50.

        As for two sides whose difference has the variance of the contrast.
        """
        each = float(np.dot(self.between, self.sizes)) / 2
        df = sum(self.sizes) - len(self.sizes)
        found = fewest_seeds(
            distance,
            Noise(inflated_sd(each**0.5, df), image_se=0.0, images=1),
            scope='data set',
            levels=(alpha,),
            candidates=tests,
        )
        return found or 50


def contrast_of(
    sides: Sequence[tuple[float, np.ndarray]], resamples: int, images: int
) -> Contrast:
    """Returns the contrast of sides, each a factor and the values of its runs.

    Args:
        sides: (S, 1 + B + J) values a side, as of `Resampled`; (S, 1) of
            measures, which are not resampled.
        resamples: B.
        images: Number of images.
    """
    end = resamples + 1
    total = sum(f * v.mean(0) for f, v in sides)
    between = np.array(
        [f**2 * np.var(v[:, 0], ddof=1) / len(v) for f, v in sides]
    )
    alone = math.nan
    if resamples:
        both = estimate(total[0], total[1:end], total[end:], images=images)
        shared = sum(
            f**2 * seed_image_variance(v[:, :end]) / len(v) for f, v in sides
        )
        parts = seed_and_image_parts(between, both.se**2, shared)
        alone = float(parts[-1])
    sizes = tuple(len(v) for _, v in sides)
    return Contrast(float(total[0]), between, alone, sizes, images)


@dataclass(frozen=True)
class Experiment:
    """A folder of evidence/."""

    folder: Path
    plan: Plan
    claims: Sequence[Claim]
    records: Mapping[Job, Record]
    failed: Mapping[Job, str]

    @classmethod
    def read(cls, folder: Path) -> Experiment:
        """Reads the plan, the claims and the records."""
        plan = read_plan(folder / 'plan.yaml')
        claims = read_claims(folder)
        names = [side.name for side in plan.sides]
        for name in (name for claim in claims for name in claim.contrast):
            if name not in names:
                raise UserError(
                    f'{folder}/claims.yaml: {name} is no side of the plan',
                    did_you_mean(name, names),
                )
        return cls(folder, plan, claims, *read_runs(plan, folder / 'records'))

    def complete(self, claim: Claim) -> tuple[int, float] | None:
        """Returns the last look with all runs of a claim, and its level."""
        plan, found = self.plan, None
        levels = nominal_levels(plan.looks, plan.alpha)
        for look, level in zip(plan.looks, levels, strict=True):
            jobs = [j for j in plan.jobs(look) if j.side in claim.contrast]
            if all(j in self.records or j in self.failed for j in jobs):
                found = look, level
        return found

    @functools.cached_property
    def evaluated(self) -> dict[Job, Resampled]:
        """The runs on equal resamples of the images."""
        found = evaluate_records([*self.records.values()])
        return dict(zip(self.records, found, strict=True))

    def contrast(self, claim: Claim, seeds: int) -> Contrast | None:
        """Returns the contrast of a claim, None with fewer than two seeds."""
        jobs = [j for j in self.plan.jobs(seeds) if j in self.records]
        sides: dict[str, list[np.ndarray]] = {}
        for job in jobs:
            if claim.measure is None:
                value = self.evaluated[job].metrics[self.plan.metric]
            elif job in self.measures:
                value = np.array([self.measures[job][claim.measure]])
            else:
                continue
            sides.setdefault(job.side, []).append(value)
        if any(len(sides.get(name, ())) < 2 for name in claim.contrast):
            return None
        run = None if claim.measure else self.evaluated[jobs[0]]
        return contrast_of(
            [(f, np.stack(sides[n])) for n, f in claim.contrast.items()],
            run.resamples if run else 0,
            len(run.present) if run else 0,
        )

    @functools.cached_property
    def measures(self) -> dict[Job, dict[str, float]]:
        """What benchmarks/evidence_measures.py has measured of each run."""
        path = self.folder / 'measures.json'
        if not path.is_file():
            return {}
        runs = parse_json(read_bytes(path), path)['runs']
        return {Job(run['side'], run['seed']): run for run in runs}

    def rows(self) -> list[list[str]]:
        """Returns a row for each claim."""
        looks = [self.complete(claim) or (0, 0.0) for claim in self.claims]
        return claim_rows(
            self.folder.name,
            self.claims,
            [
                self.contrast(claim, look) if look else None
                for claim, (look, _) in zip(self.claims, looks, strict=True)
            ],
            [alpha for _, alpha in looks],
            self.plan.scope,
            self.plan.gain,
        )

    def values(self, name: str) -> list[float]:
        """Returns the results of a side in points, once all have ended."""
        jobs = [job for job in self.plan.jobs() if job.side == name]
        if any(j not in self.records and j not in self.failed for j in jobs):
            return []
        runs = [self.evaluated[job] for job in jobs if job in self.records]
        return [100 * float(r.metrics[self.plan.metric][0]) for r in runs]

    def trainings(self) -> Table:
        """Returns a row for each side."""
        rows = []
        for side in self.plan.sides:
            runs = [r for j, r in self.records.items() if j.side == side.name]
            values = self.values(side.name)
            spread = f'{np.mean(values):.2f}' if values else '-'
            if len(values) > 1:
                spread += f' ± {np.std(values, ddof=1):.2f}'
            params = runs[0].params if runs else None
            row = [side.name, Path(side.config).stem]
            row += ['-' if params is None else f'{params:,}']
            row += [f'{len(runs)} of {len(side.seeds)}']
            row += [', '.join(f'{value:.2f}' for value in values) or '-']
            rows.append([*row, spread])
        header = ['side', 'config', 'parameters', 'seeds', self.plan.metric]
        return Table([*header, 'mean ± SD'], rows)

    def section(self, images: Path) -> str:
        """Returns what was run, and each of its runs."""
        plan, path = self.plan, f'evidence/{self.folder.name}'
        runs = [*self.records.values()]
        lines = [f'## {self.folder.name}', '']
        lines += [
            f'{plan.claim}. [Plan](../{path}/plan.yaml), '
            f'[claims](../{path}/claims.yaml).',
            '',
        ]
        lines += [f'`mmext report {path}/plan.yaml --work-dir {path}/records`']
        if runs:
            cost = sum(run.train_seconds or 0 for run in runs)
            cores = sorted({str(r.hardware.get('cores')) for r in runs})
            commits = sorted({str(r.commit)[:12] for r in runs})
            lines[-1] += (
                f': {count(len(runs), "run")} of {len([*plan.jobs()])}, '
                f'{duration(cost)} of training on {" or ".join(cores)} '
                f'cores, at commit {", ".join(commits)}.'
            )
        found = [
            *deviations(
                self.folder / 'plan.yaml',
                plan,
                Decision(None),
                self.records,
                self.failed,
            )
        ]
        begun = min((r.started for r in runs), default=None)
        found += changed_claims(self.folder, begun)
        lines += ['', *(f'- {line}' for line in found), '']
        lines.append(self.trainings().markdown())
        if runs:
            name = f'evidence_{self.folder.name}.png'
            self.draw(images / name)
            lines.append(f'![{plan.claim}](images/{name})')
        return '\n'.join(lines)

    def draw(self, path: Path) -> None:
        """Draws the top-1 of each run, a row a side."""
        names = [side.name for side in self.plan.sides]
        figure = new_figure(6.4, 0.8 + 0.3 * len(names))
        ax = figure.subplots()
        tidy(ax)
        for row, name in enumerate(names):
            values = self.values(name)
            ax.plot(values, [row] * len(values), 'o', color=color(row))
            if values:
                ax.plot(np.mean(values), row, '|', color='black', ms=14)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel=f'{self.plan.metric} of each training; the line: mean')
        ax.invert_yaxis()
        save(figure, path)


@dataclass(frozen=True)
class Measured:
    """A folder of evidence/ without a plan: claims about measures alone."""

    folder: Path
    claims: Sequence[Claim]
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Measured:
        """Reads the claims and the measures."""
        path = folder / 'measures.json'
        content = parse_json(read_bytes(path), path)
        return cls(folder, read_claims(folder), content)

    def of_side(self, name: str) -> list[dict[str, float]]:
        """Returns the runs of a side."""
        return [run for run in self.content['runs'] if run['side'] == name]

    def rows(self) -> list[list[str]]:
        """Returns a row for each claim."""
        contrasts = []
        for claim in self.claims:
            sides = [
                (f, np.array([[r[claim.measure]] for r in self.of_side(name)]))
                for name, f in claim.contrast.items()
            ]
            contrasts.append(contrast_of(sides, 0, 0))
        alphas = [0.05] * len(contrasts)
        name = self.folder.name
        return claim_rows(name, self.claims, contrasts, alphas, 'data set', 0)

    def section(self, images: Path) -> str:
        """Returns what was measured, a row a side."""
        path = f'evidence/{self.folder.name}'
        rows = []
        for name in dict.fromkeys(run['side'] for run in self.content['runs']):
            runs = self.of_side(name)
            row = [name, str(len(runs))]
            for key in [k for k in runs[0] if k not in ('side', 'seed')]:
                values = [run[key] for run in runs]
                spread = np.std(values, ddof=1)
                row.append(f'{key} {np.mean(values):.4g} ± {spread:.2g}')
            rows.append(row)
        header = ['side', 'runs', *['mean ± SD'] * (len(rows[0]) - 2)]
        lines = [
            f'## {self.folder.name}',
            '',
            f'[Claims](../{path}/claims.yaml). '
            f'`{self.content["command"]}` at commit '
            f'{self.content["commit"][:12]}.',
            *changed_claims(self.folder, self.content['begun']),
            '',
            Table(header, rows).markdown(),
        ]
        return '\n'.join(lines)


def changed_claims(folder: Path, begun: str | None) -> list[str]:
    """Returns a sentence if the claims are newer than what they are about.

    ``begun`` is when the first run began, None if none has.
    """
    log = git(folder, 'log', '-1', '--format=%cI', '--', 'claims.yaml')
    if begun is None or not log:
        return []
    when, first = map(datetime.fromisoformat, (log.strip(), begun))
    if when <= first:
        return []
    return [f'The claims were changed at {when}, after the first run began.']


def read_claims(folder: Path) -> list[Claim]:
    """Reads ``claims.yaml``."""
    path = folder / 'claims.yaml'
    try:
        return [Claim(**x) for x in parse_yaml(read_bytes(path), path)]
    except TypeError as error:
        raise UserError(
            f'{path}: {error}',
            'Give a list of claims with claim, paper, contrast and perhaps '
            'margin and measure.',
        ) from error


def claim_rows(
    name: str,
    claims: Sequence[Claim],
    contrasts: Sequence[Contrast | None],
    alphas: Sequence[float],
    scope: str,
    gain: float,
) -> list[list[str]]:
    """Returns a row for each claim; None stands for missing runs."""
    bounds = [claim.bounds(gain) for claim in claims]
    above, below = (
        holm(
            np.array(
                [
                    # What is missing counts as a test that shows nothing.
                    c.estimate(scope, 0.95, b[end]).p if c else 1.0
                    for c, b in zip(contrasts, bounds, strict=True)
                ]
            )
        ).tolist()
        for end in (0, 1)
    )
    rows = []
    for n, (claim, c, (low, high)) in enumerate(
        zip(claims, contrasts, bounds, strict=True)
    ):
        words = ['-', '-']
        if c is not None:
            found = [c.estimate(x, 0.95) for x in SCOPES]
            words = [in_words(x, claim.unit) for x in found]
        if c is None:
            verdict = f'{OPEN}: runs are missing'
        elif above[n] < alphas[n] and c.value > low:
            verdict = f'**{HOLDS}**, p {p_value(above[n])}'
        elif below[n] < alphas[n] and c.value < high:
            verdict = f'**{CONTRADICTED}**, p {p_value(below[n])}'
        else:
            distance = (high - low) or -low or abs(c.value)
            needed = c.seeds_for(distance, alphas[n], len(claims))
            more = count(max(1, needed - min(c.sizes)), 'more seed')
            verdict = f'{OPEN}: needs {more}'
        rows.append([claim.claim, claim.paper, name, *words, verdict])
    return rows


def in_words(found: Estimate, unit: int) -> str:
    """Returns ``+1.23 [+0.45, +2.01]``."""
    if math.isnan(found.se):
        return '-'
    value, low, high = (unit * x for x in (found.value, *found.interval))
    return f'{value:+.2f} [{low:+.2f}, {high:+.2f}]'


def write_page(folder: Path, path: Path) -> list[list[str]]:
    """Writes the page of a folder of experiments, with its pictures.

    Returns the rows of its claims.
    """
    found, rows = [], []
    for study in sorted(p.parent for p in folder.glob('*/claims.yaml')):
        if (study / 'plan.yaml').is_file():
            found.append(Experiment.read(study))
        elif (study / 'measures.json').is_file():
            found.append(Measured.read(study))
        else:
            rows += [
                [claim.claim, claim.paper, study.name, '-', '-', MISSING]
                for claim in read_claims(study)
            ]
    rows = [row for experiment in found for row in experiment.rows()] + rows
    images = path.parent / 'images'
    sections = [experiment.section(images) for experiment in found]
    text = (folder / TEMPLATE).read_text(encoding='utf-8')
    with replacing(path) as part:
        part.write_text(
            text.format(
                claims=Table(HEADER, rows).markdown(),
                experiments='\n\n'.join(sections),
            ),
            encoding='utf-8',
        )
    return rows


def write_settled(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Writes the settled claims between two marks of a page."""
    before, rest = path.read_text(encoding='utf-8').split(BEGIN)
    _, after = rest.split(END)
    settled = [
        [claim, effect, verdict]
        for claim, _, _, effect, _, verdict in rows
        if not verdict.startswith((OPEN, MISSING))
    ]
    table = Table(['claim', 'effect', 'verdict'], settled).markdown()
    with replacing(path) as part:
        part.write_text(
            f'{before}{BEGIN}\n{table}\n{END}{after}', encoding='utf-8'
        )


@command
def main() -> None:
    rows = write_page(ROOT / 'evidence', ROOT / 'docs' / 'evidence.md')
    write_settled(rows, ROOT / 'README.md')


if __name__ == '__main__':
    main()
