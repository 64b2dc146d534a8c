# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The noise of a plan, estimated from runs that exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.runs import read_run
from mmext.evaluation.side_checks import training_differences
from mmext.evaluation.statistics.power import (
    Noise,
    noise_from_pilot,
    pooled_sd,
)
from mmext.evaluation.statistics.resampling import ImageBootstrap
from mmext.experiments.records.record import Record, read_record
from mmext.experiments.records.recording import record_run
from mmext.experiments.test_data import TestData
from mmext.utils.text import count, some

#: They give a standard error to 4 %.
_RESAMPLES = 300


@dataclass(frozen=True)
class Pilot:
    """The noise of a pilot, from 0 to 1, and where it is from, in words.

    ``noise.image_se`` is nan if all runs have one config.
    """

    noise: Noise
    seeds: str
    images: str


def pilot_noise(
    paths: Sequence[str | Path],
    data: TestData,
    group: np.ndarray | None = None,
    seeds: bool = True,
) -> Pilot:
    """Estimates the noise from work folders and records.

    Runs of one config are seeds of one side.

    Args:
        paths: Work folders with the results of a test, or records.
        data: The test data of the plan.
        group: (I,) integers, equal for images that belong together. Default:
            None.
        seeds: Whether several seeds of a config are needed. Default: True.

    Raises:
        UserError: A run has other test data, is given twice, or no config
            has several seeds.
    """
    runs = [_read(Path(path), data) for path in paths]
    images = runs[0].images
    bootstrap = ImageBootstrap(len(images), _RESAMPLES, groups=group)
    sides: list[list[tuple[Path, Record, np.ndarray]]] = []
    for path, run in zip(map(Path, paths), runs, strict=True):
        if run.images != images:
            raise UserError(
                f'{path} has results of other images than {paths[0]}',
                'Test the runs of the pilot on the same data.',
            )
        found = bootstrap.evaluate(run.results)
        values = found.metrics[found.primary][: _RESAMPLES + 1]
        for side in sides:
            if not training_differences(side[0][1].config, run.config):
                _require_another(path, run, values, side)
                side.append((path, run, values))
                break
        else:
            sides.append([(path, run, values)])
    arrays = [np.stack([x[2] for x in side]) for side in sides]
    sd, df = pooled_sd([side[:, 0] for side in arrays])
    if seeds and not df:
        raise UserError(
            f'the pilot ({some(paths, 3)}) has one training of each config, '
            'which says nothing about the deviation between seeds',
            'Train one config with two other seeds and add these runs, or '
            'give --seed-sd as well.',
        )
    if seeds and not sd:
        raise UserError(
            'trainings of one config have equal results in the pilot '
            f'({some(paths, 3)}), which says nothing about their deviation',
            'Train for longer or test on more images, or give --seed-sd as '
            'well.',
        )
    several = sum(len(side) for side in sides if len(side) > 1)
    units = len(images) if group is None else len(np.unique(group))
    return Pilot(
        noise_from_pilot(arrays, units),
        f'pilot: {count(several, "run")}, inflated from {100 * sd:.2g}',
        f'pilot: {count(len(sides), "config")}, {count(len(runs), "run")}',
    )


def _read(path: Path, data: TestData) -> Record:
    """Reads a record, or makes that of a work folder."""
    if path.is_file():
        record = read_record(path)
        task, tested = record.task, record.data_sha256
    else:
        run = read_run(path)
        file = {**run.predictions, **run.image_results}.get(data.task)
        meta = read_meta(file) if file else {}
        # Without an annotation file, the number of images is compared.
        tested = meta.get('annotation_sha256') or data.sha256
        task, record = data.task, None
    fix = (
        'Test the pilot on the data of the plan, or give its deviation with '
        '--seed-sd.'
    )
    if task != data.task:
        raise UserError(
            f'{path} is a record of {task}, and the plan is about {data.task}',
            fix,
        )
    if tested != data.sha256:
        raise UserError(
            f'{path} was tested on other data (SHA-256 {tested[:12]}) than '
            f'those of the plan ({data.sha256[:12]})',
            fix,
        )
    if record is None:
        record = record_run(
            path,
            task=task,
            data=data,
            side=path.name,
            seed=-1 if run.seed is None else run.seed,
            config_sha256='',
        )
    if {*record.results.names} != {*data.classes}:
        raise UserError(
            f'{path} knows the classes {some(record.results.names)}, and the '
            f'configs of the plan {some(data.classes)}',
            fix,
        )
    return record


def _require_another(
    path: Path,
    run: Record,
    values: np.ndarray,
    side: Sequence[tuple[Path, Record, np.ndarray]],
) -> None:
    """Raises `UserError` for a training that is given twice."""
    for other, known, theirs in side:
        if run.seed == known.seed >= 0:
            what = f'the same config and seed, {run.seed}'
        elif min(run.seed, known.seed) < 0 and np.array_equal(
            values, theirs, equal_nan=True
        ):
            what = 'the same results'
        else:  # weak models may agree on every image
            continue
        raise UserError(
            f'{other} and {path} have {what}',
            'Give each training of the pilot once.',
        )
