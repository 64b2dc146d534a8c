# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes docs/evidence.md from the plans, claims and records in evidence/.

The claims that are settled get into README.md too.

    python benchmarks/evidence.py

evidence/README.md explains the files, evidence_claims.py the verdicts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from evidence_claims import (
    BELOW,
    CONTRADICTED,
    HOLDS,
    OPEN,
    Claim,
    Contrast,
    Correlation,
    claim_rows,
    contrast_of,
    correlation_of,
    read_claims,
)
from evidence_pictures import draw_results, draw_stiffness

from mmext.errors import UserError, command, did_you_mean
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.resampling import Resampled
from mmext.experiments.plan import Job, Plan, read_plan
from mmext.experiments.records.record import Record
from mmext.experiments.reports.decision import Decision, evaluate_records
from mmext.experiments.reports.deviations import deviations, read_runs
from mmext.utils.documents import parse_json, read_bytes
from mmext.utils.files import replacing
from mmext.utils.git import git
from mmext.utils.text import count, duration

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE, PAGE = 'page.md', 'docs/evidence.md'
HEADER = ['claim', 'paper', 'here', 'effect', 'images like these', 'verdict']
BEGIN, END = '<!-- Written by make evidence. -->', '<!-- End. -->'


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
            named = [] if claim.pooled else claim.contrast  # otherwise all
            sides = named or [side.name for side in plan.sides]
            jobs = [j for j in plan.jobs(look) if j.side in sides]
            if all(j in self.records or j in self.failed for j in jobs):
                found = look, level
        return found

    @functools.cached_property
    def evaluated(self) -> dict[Job, Resampled]:
        """The runs on equal resamples of the images."""
        found = evaluate_records([*self.records.values()])
        return dict(zip(self.records, found, strict=True))

    def estimated(
        self, claim: Claim, seeds: int
    ) -> Contrast | Correlation | None:
        """Returns what a claim is about, None with too few runs."""
        jobs = [j for j in self.plan.jobs(seeds) if j in self.records]
        if claim.correlation:
            metric = self.plan.metric
            return correlation_of(
                [
                    (
                        self.measures[job][claim.measure],
                        self.evaluated[job].metrics[metric][0],
                    )
                    for job in jobs
                    if job in self.measures
                ]
            )
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
            [np.stack(v) for v in sides.values() if len(v) > 1]
            if claim.pooled
            else (),
        )

    @functools.cached_property
    def measures(self) -> dict[Job, dict[str, Any]]:
        """What benchmarks/evidence_measures.py has measured of each run.

        Measures of another plan do not count.
        """
        path = self.folder / 'measures.json'
        if not path.is_file():
            return {}
        content = parse_json(read_bytes(path), path)
        if content['plan_sha256'] != self.plan.sha256:
            return {}
        runs = content['runs']
        return {Job(run['side'], run['seed']): run for run in runs}

    def rows(self) -> list[list[str]]:
        """Returns a row for each claim."""
        looks = [self.complete(claim) or (0, 0.0) for claim in self.claims]
        return claim_rows(
            self.folder.name,
            self.claims,
            [
                self.estimated(claim, look) if look else None
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
            budgets = [run.config.get('train_cfg', {}) for run in runs]
            epochs = {str(b.get('max_epochs', '-')) for b in budgets}
            row += [', '.join(sorted(epochs)) or '-']
            row += [f'{len(runs)} of {len(side.seeds)}']
            row += [', '.join(f'{value:.2f}' for value in values) or '-']
            rows.append([*row, spread])
        header = ['side', 'config', 'parameters', 'epochs', 'seeds']
        return Table([*header, self.plan.metric, 'mean ± SD'], rows)

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
        measured = sum(job in self.measures for job in self.records)
        if 0 < measured < len(runs):
            found.append(
                f'{measured} of the {count(len(runs), "run")} were measured: '
                'the checkpoints of the others are gone.'
            )
        lines += ['', *(f'- {line}' for line in found), '']
        lines.append(self.trainings().markdown())
        if runs:
            lines += self.pictures(images)
        return '\n'.join(lines)

    def pictures(self, images: Path) -> list[str]:
        """Draws the results, and the stiffness if it was measured."""
        metric, name = self.plan.metric, f'evidence_{self.folder.name}.png'
        sides = {side.name: self.values(side.name) for side in self.plan.sides}
        if not any(map(len, sides.values())):  # no side is complete
            return []
        draw_results(sides, metric, images / name)
        drawn = [f'![{self.plan.claim}](images/{name})']
        stiff: dict[str, list] = {}
        for job, run in self.measures.items():
            if 'nsi' in run and job in self.evaluated and all(sides.values()):
                result = 100 * float(self.evaluated[job].metrics[metric][0])
                stiff.setdefault(job.side, []).append((run, result))
        if stiff:
            name = f'evidence_{self.folder.name}_stiffness.png'
            draw_stiffness(stiff, metric, images / name)
            words = f'NSI along the blocks; {metric} against TNS'
            drawn += ['', f'![{words}](images/{name})']
        return drawn


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


def write_page(folder: Path, path: Path) -> list[list[str]]:
    """Writes the page of a folder of experiments, with its pictures.

    Returns the rows of the claims that were tested.
    """
    found, waiting = [], []
    for study in sorted(p.parent for p in folder.glob('*/claims.yaml')):
        if (study / 'records').is_dir():
            found.append(Experiment.read(study))
        elif (study / 'measures.json').is_file():
            found.append(Measured.read(study))
        else:
            waiting += [
                [claim.claim, claim.paper, study.name]
                for claim in read_claims(study)
            ]
    rows = [row for experiment in found for row in experiment.rows()]
    images = path.parent / 'images'
    sections = [experiment.section(images) for experiment in found]
    text = (folder / TEMPLATE).read_text(encoding='utf-8')
    with replacing(path) as part:
        part.write_text(
            text.format(
                summary=summary([row[-1] for row in rows], len(waiting)),
                claims=claims_table(HEADER, rows, ''),
                waiting=not_run_section(waiting),
                experiments='\n\n'.join(sections),
            ).rstrip()
            + '\n',
            encoding='utf-8',
        )
    return rows


def not_run_section(waiting: Sequence[Sequence[str]]) -> str:
    """Returns the section of the claims of plans without a record, if any."""
    if not waiting:
        return ''
    return (
        '## Not run yet\n\n'
        'These claims were written before their runs, too.\n\n'
        + Table(HEADER[:3], waiting).markdown()
    )


def claims_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], page: str
) -> str:
    """Returns the table of claims, with links to the sections of a page."""
    here = header.index('here')
    names = dict.fromkeys(row[here] for row in rows)
    cells = [
        [f'[{x}]' if i == here else x for i, x in enumerate(row)]
        for row in rows
    ]
    links = [f'[{name}]: {page}#{name}' for name in names]
    return '\n'.join([Table(header, cells).markdown(), *links])


def summary(verdicts: Sequence[str], waiting: int) -> str:
    """Returns a sentence with the number of claims of each verdict."""
    unclear = sum(OPEN in verdict for verdict in verdicts) + waiting
    return (
        f'Of {len(verdicts) + waiting} claims, {settled_words(verdicts)}, and '
        f'{unclear} are not settled'
        + (f', {waiting} of them not run yet.' if waiting else '.')
    )


def settled_words(verdicts: Sequence[str]) -> str:
    """Returns the numbers of settled claims of each verdict."""
    hold, not_so, less = (
        sum(word in verdict for verdict in verdicts)
        for word in (HOLDS, CONTRADICTED, BELOW)
    )
    return (
        f'{hold} hold here, {not_so} are contradicted, {less} have a gain '
        'below that of their plan'
    )


def write_settled(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Writes the settled claims between two marks of a page, folded."""
    before, rest = path.read_text(encoding='utf-8').split(BEGIN)
    _, after = rest.split(END)
    settled = [
        [claim, name, effect, verdict]
        for claim, _, name, effect, _, verdict in rows
        if not verdict.startswith(OPEN)
    ]
    words = settled_words([verdict for *_, verdict in settled])
    lines = [
        f'<details><summary>Of {len(settled)} settled claims, {words}'
        '</summary>',
        '',
        claims_table(['claim', 'here', 'effect', 'verdict'], settled, PAGE),
        '',
        '</details>',
    ]
    text = '\n'.join([before + BEGIN, *lines, END + after])
    with replacing(path) as part:
        part.write_text(text, encoding='utf-8')


@command
def main() -> None:
    rows = write_page(ROOT / 'evidence', ROOT / PAGE)
    write_settled(rows, ROOT / 'README.md')


if __name__ == '__main__':
    main()
