# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads the runs of a plan, and finds what was not done as planned."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmext.errors import UserError
from mmext.experiments.plan import PRIMARY, Job, Plan
from mmext.experiments.records.record import Record, arrays_in, read_record
from mmext.experiments.reports.decision import Decision
from mmext.experiments.reports.history import plan_changes
from mmext.experiments.state import RECORD, read_state
from mmext.utils.text import count, some


def read_runs(
    plan: Plan, work_dir: Path
) -> tuple[dict[Job, Record], dict[Job, str]]:
    """Returns the records of a plan's runs, and why others failed for good.

    Raises:
        UserError: A record cannot be used, or is of another data set.
    """
    records, failed = {}, {}
    for job in plan.jobs():
        folder = plan.folder_of(job, work_dir)
        file = folder / RECORD
        if file.is_file():
            record = read_record(file)
            if record.data_sha256 != plan.data['sha256']:
                raise UserError(
                    f'{file} was tested on other data than the plan names: '
                    f'SHA-256 {record.data_sha256[:12]} and '
                    f'{plan.data["sha256"][:12]}',
                    'Give the work dir of this plan (--work-dir).',
                )
            if record.task != plan.task:
                raise UserError(
                    f'{file} has {PRIMARY[record.task]}, and the plan '
                    f'decides by {plan.metric}',
                    'Test the run with the evaluator that the plan names: '
                    'remove the record, and run the plan again.',
                )
            if (record.side, record.seed) != job:
                raise UserError(
                    f'{file} is the record of {record.side}, seed '
                    f'{record.seed}',
                    'Give the work dir of this plan (--work-dir).',
                )
            records[job] = record
            continue
        state = read_state(folder)
        if state and state.given_up(plan.retries):
            failed[job] = state.error or state.status
    return records, failed


def deviations(
    path: str | Path,
    plan: Plan,
    decision: Decision,
    records: Mapping[Job, Record],
    failed: Mapping[Job, str],
) -> Iterator[str]:
    """Yields what was not done as planned, in sentences."""
    used = [
        records[job]
        for job in plan.jobs(decision.look or plan.looks[-1])
        if job in records
    ]
    for job, why in failed.items():
        yield f'{job.side}, seed {job.seed}, has no result: {why}'
    yield from plan_changes(path, plan, records.values())
    yield from same_results(used)
    for what, values in (
        ('commits', [record.commit or 'unknown' for record in used]),
        ('configs', _configs(plan, used)),
        *((f'versions of {name}', v) for name, v in _versions(used)),
        ('devices', [record.hardware.get('device', '?') for record in used]),
    ):
        found = Counter(values)
        if len(found) > 1:
            each = [
                f'{value} ({count(n, "run")})'
                for value, n in found.most_common()
            ]
            yield f'The runs have different {what}: {some(each)}.'
    dirty = [r for r in used if str(r.commit or '').endswith('-dirty')]
    if dirty:
        yield (
            f'{count(len(dirty), "run")} of {len(used)} had changes of the '
            'code that were not committed.'
        )


def _configs(plan: Plan, records: Sequence[Record]) -> list[str]:
    """The configs that are not those of the plan."""
    return [
        'as planned'
        if r.config_sha256 == plan.side(r.side).sha256
        else f'{r.side} {r.config_sha256[:12]}'
        for r in records
    ]


def _versions(records: Sequence[Record]) -> Iterator[tuple[str, list[str]]]:
    for name in dict.fromkeys(n for r in records for n in r.versions):
        yield name, [r.versions.get(name, 'none') for r in records]


def same_results(records: Iterable[Record]) -> Iterator[str]:
    """Yields a sentence on trainings whose results agree on every image.

    These are no independent trainings: they are copies, or the seed did
    nothing.
    """
    found: dict[bytes, list[str]] = {}
    for record in records:
        arrays = arrays_in(record)
        content = b''.join(arrays[key].tobytes() for key in sorted(arrays))
        digest = hashlib.sha256(content).digest()
        found.setdefault(digest, []).append(f'{record.side}/{record.seed}')
    for names in found.values():
        if len(names) > 1:
            yield (
                f'{some(names)} have the same results on every '
                'image: are they copies of one training? Then the intervals '
                'of the methods are too narrow.'
            )
