"""Plans, and records of runs without a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmext.evaluation.top1 import Labels
from mmext.experiments.plan import Job, Plan, PlannedSide
from mmext.experiments.records.record import Record, write_record

SHA = 'a' * 64


def plan_of(
    looks: tuple[int, ...] = (3,),
    candidates: int = 1,
    images: int = 300,
    **changes: object,
) -> Plan:
    """A plan for top-1, with seeds that count from 1."""
    names = ['base', *(f'cand {n}' for n in range(1, candidates + 1))]
    most = looks[-1]
    sides = tuple(
        PlannedSide(
            name,
            f'{name}.py',
            f'{n}' * 64,
            tuple(range(n * most + 1, (n + 1) * most + 1)),
        )
        for n, name in enumerate(names)
    )
    plan = Plan(
        claim='cand 1 has a higher top-1 than base',
        task='top1',
        gain=2.0,
        margin=None,
        alpha=0.05,
        power=0.8,
        scope='images',
        seed_sd={'value': 0.5, 'source': 'given'},
        image_se={'value': 1.0, 'images': images, 'source': 'given'},
        looks=looks,
        data={
            'sha256': SHA,
            'images': images,
            'annotations': None,
            'groups': None,
        },
        sides=sides,
        options={},
    )
    return replace(plan, **changes)


def record_of(
    plan: Plan, job: Job, right: np.ndarray, **changes: object
) -> Record:
    """A record of a run that is right on some of the images."""
    label = np.arange(len(right)) % 3
    predicted = np.where(right, label, (label + 1) % 3)[:, None]
    record = Record(
        task='top1',
        results=Labels(('a', 'b', 'c'), label, predicted),
        images=tuple(f'{n}.png' for n in range(len(right))),
        side=job.side,
        seed=job.seed,
        data_sha256=SHA,
        config_sha256=plan.side(job.side).sha256,
        started='2030-01-01T10:00:00+00:00',
        finished='2030-01-01T11:00:00+00:00',
        baseline=job.side == plan.baseline.name,
        plan_sha256=plan.sha256,
        commit='c' * 40,
        versions={'torch': '2.0'},
        hardware={'device': 'CPU'},
        train_seconds=3600.0,
        curves={'loss': [[1, 2.0], [2, 1.0]], 'validation': [[1, 50.0]]},
        checkpoint='epoch_2.pth',
    )
    return replace(record, **changes)


def records_of(
    plan: Plan,
    accuracy: Mapping[str, float],
    seed_sd: float = 0.003,
    seed: int = 0,
    seeds: int | None = None,
) -> dict[Job, Record]:
    """Records of all runs, by the accuracy of their side.

    An image is hard or easy for all runs.
    """
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 1, plan.data['images'])
    found = {}
    for job in plan.jobs(seeds):
        level = accuracy[job.side] + rng.normal(0, seed_sd)
        noise = rng.uniform(-0.1, 0.1, len(hard))
        found[job] = record_of(plan, job, hard + noise < level)
    return found


def write_runs(
    plan: Plan, records: Mapping[Job, Record], folder: Path
) -> None:
    """Writes records where `mmext report` looks for them."""
    for job, record in records.items():
        path = plan.folder_of(job, folder)
        path.mkdir(parents=True, exist_ok=True)
        write_record(path / 'record.npz', record)
