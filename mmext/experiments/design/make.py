# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext plan`: checks two or more configs, and chooses the seeds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.groups import named_images, read_groups
from mmext.evaluation.runs import describe_model
from mmext.evaluation.statistics.power import Noise, fewest_images
from mmext.experiments.configs import config_sha256, planned_config
from mmext.experiments.design.pilot import pilot_noise
from mmext.experiments.design.power_table import (
    Design,
    Simulation,
    in_metric,
    in_percent,
    in_points,
)
from mmext.experiments.design.same_data import (
    about,
    check_config,
    check_data,
    common_data,
    differences,
)
from mmext.experiments.design.timing import busy_warnings, time_training
from mmext.experiments.plan import Plan, PlannedSide, check_plan
from mmext.experiments.test_data import TestData
from mmext.utils.config import parse_options
from mmext.utils.text import count, some

#: Standard deviation between trainings of one config, if it is not known.
SEED_SD = 0.002
#: Standard error over images of the difference between two methods on one
#: image, if it is not known. It falls with the root of their number. 0.14 AP
#: on 5,000 images; top-1 if one of the methods is right on 9 % of the images.
IMAGE_SE = {'bbox': 0.1, 'segm': 0.1, 'mIoU': 0.1, 'top1': 0.3}
_ASSUMED_SD = 'assumed: anecdotes for COCO, a pilot replaces it'
_ASSUMED_SE = 'assumed: {:g} / sqrt({}s), a pilot replaces it'
#: Test images below which SEED_SD is likely to be too small.
_LIKE_COCO = 2000


def make_plan(
    baseline: str | Path,
    candidates: Sequence[str | Path],
    gain: float,
    *,
    task: str | None = None,
    scope: str = 'images',
    seeds: int | None = None,
    looks: Sequence[int] | None = None,
    most: int = 8,
    power: float = 0.8,
    alpha: float = 0.05,
    margin: float | None = None,
    seed_sd: float | None = None,
    image_se: float | None = None,
    pilot: Sequence[str | Path] = (),
    ann: str | Path | None = None,
    folder: str | Path | None = None,
    groups: str | None = None,
    names: Sequence[str] | None = None,
    claim: str | None = None,
    options: Mapping[str, Any] | Sequence[str] = (),
    allow_differences: bool = False,
    timing: bool = True,
    first_seed: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Design:
    """Plans a comparison: checks the configs, and chooses the seeds.

    Gains, losses and errors are shares from 0 to 1.

    Args:
        baseline: Config of the baseline.
        candidates: Configs of the candidates.
        gain: The smallest gain that matters.
        task: ``'bbox'``, ``'segm'``, ``'mIoU'`` or ``'top1'``. Default: what
            the configs evaluate first.
        scope: Whether the claim is about images like the test images,
            ``'images'``, or about these, ``'data set'``. Default: 'images'.
        seeds: Trainings of each side. Default: the fewest that show the gain.
        looks: Numbers of seeds at which the report may decide. Default: only
            at the end.
        most: Most seeds to choose. Default: 8.
        power: Share of plans that show the gain. Default: 0.8.
        alpha: Share of plans that call equal methods different. Default:
            0.05.
        margin: A loss that would not matter. Default: None.
        seed_sd: Standard deviation between trainings of a config. Default:
            that of the pilot, or 0.002.
        image_se: Standard error over images of the difference between the
            methods. Default: that of the pilot, or 0.1 / sqrt(images) (0.3
            for top-1).
        pilot: Work folders or records of runs that exist.
        ann: The annotation file that the configs must test on. Default: not
            checked.
        folder: Data instead of the configs', as in ``mmext train --data``.
        groups: Which test images belong together; see
            :func:`~mmext.evaluation.groups.read_groups`. Default: none.
        names: Names of the sides. Default: those of the backbones.
        claim: A sentence. Default: that the candidates are better.
        options: Changes of all configs, as for ``mmext train``.
        allow_differences: Whether the configs may differ in more than the
            model. The plan names the differences. Default: False.
        timing: Whether to measure training steps. Default: True.
        first_seed: The seeds are the numbers from this one. Default: 1.
        progress: Called with what is being done and the share that is done.

    Returns:
        The plan with its power; nothing is written.

    Raises:
        UserError: A config or a number cannot be used, the configs differ in
            more than the model, or no number of seeds shows the gain.
    """
    if seeds is not None:
        looks = [seeds]
    _require_numbers(looks, most, first_seed, seed_sd)
    if not isinstance(options, Mapping):
        options = parse_options(options)
    configs = {}
    for path in dict.fromkeys(map(str, [baseline, *candidates])):
        with about(path):
            configs[path] = planned_config(path, options, folder)
    names = [*names] if names else _names(configs)
    hashes = {path: config_sha256(path) for path in configs}
    _require_several(hashes, names, 1 + len(candidates))
    data = common_data(configs, task)
    truth = data.annotations and read_ground_truth(data.annotations)
    warnings = [*check_data(data, truth, ann)]
    group = None
    if groups:
        named = truth or named_images(data.names, 'the test data')
        group = read_groups(groups, named)
    plan = Plan(
        claim='',
        task=data.task,
        gain=_points(gain),
        margin=None if margin is None else _points(margin),
        alpha=alpha,
        power=power,
        scope=scope,
        seed_sd={'value': _points(seed_sd or 0.0), 'source': 'given'},
        image_se={'value': _points(image_se or 0.0), 'source': 'given'},
        looks=(),
        data={
            'sha256': data.sha256,
            'images': data.images,
            'annotations': data.file_name,
            'groups': groups,
        },
        sides=tuple(
            PlannedSide(name, path, hashes[path], ())
            for name, path in zip(names, configs, strict=True)
        ),
        options={key: _yaml(value) for key, value in options.items()},
        differences=tuple(differences(configs, allow_differences)),
        folder=None if folder is None else str(folder),
    )
    # Every number and name is checked before the slow part.
    check_plan('the plan', _with_looks(plan, looks or [2], first_seed))
    for path, cfg in configs.items():
        with about(path):
            check_config(cfg)
    noise, sources = _noise(data, group, seed_sd, image_se, pilot)
    plan = replace(
        plan,
        claim=claim or _claim(plan),
        seed_sd={'value': _points(noise.seed_sd), 'source': sources[0]},
        image_se={
            'value': _points(noise.image_se),
            'images': data.images,
            'source': sources[1],
        },
    )
    if sources[0] == _ASSUMED_SD and data.images < _LIKE_COCO:
        warnings.append(
            f'A standard deviation of {100 * SEED_SD:g} between seeds is '
            'that of COCO, with 5,000 test images. Trainings usually differ '
            f'more on {count(data.images, "image")}: train the baseline with '
            'three seeds, and name them with --pilot.'
        )
    simulation = Simulation(plan, noise)
    if looks:
        warnings += _check_power(simulation, tuple(looks))
    else:
        looks = _choose(simulation, most)
    times = {}
    if timing:
        warnings += busy_warnings()
        for name, (path, cfg) in zip(names, configs.items(), strict=True):
            what = f'{name}: training steps'
            report = progress and functools.partial(progress, what)
            with about(path):
                times[name] = time_training(cfg, report)
    reached = math.floor(100 * simulation.power(tuple(looks))) / 100
    plan = _with_looks(plan, looks, first_seed)
    plan = replace(plan, power=min(power, reached) or None)
    return Design(plan, simulation, max(most, looks[-1]), times, warnings)


def _require_numbers(
    looks: Sequence[int] | None,
    most: int,
    first_seed: int,
    seed_sd: float | None,
) -> None:
    for key, number, low, high in (
        ('max-seeds', most, 2, 50),
        ('the number of seeds', looks[-1] if looks else most, 1, 50),
        ('first-seed', first_seed, 0, 10**9),
    ):
        if not low <= number <= high:
            raise UserError(f'{key} is {number}', f'Give {low} to {high}.')
    if seed_sd is not None and not 0 < seed_sd < 1:
        raise UserError(
            f'seed-sd is {100 * seed_sd:g}',
            'Give by how many points trainings of one config differ, as a '
            'standard deviation. Without it, it is 0.2.',
        )


def _require_several(
    hashes: Mapping[str, str], names: Sequence[str], number: int
) -> None:
    if len({*hashes.values()}) != number:
        raise UserError(
            f'two of the configs say the same: {some(hashes)}',
            'A candidate differs from the baseline and from the others.',
        )
    if len(names) != number:
        raise UserError(
            f'{count(len(names), "name")} for {number} configs',
            'Name the baseline, then each candidate.',
        )


def _names(configs: Mapping[str, Config]) -> list[str]:
    """Backbones, detectors or files: the first that differ."""
    stems = [Path(path).stem for path in configs]
    for key in ('backbone', 'detector'):
        try:
            names = [describe_model(c.model)[key] for c in configs.values()]
        except (AttributeError, KeyError, TypeError):  # of another kind
            continue
        if len({*names}) == len(names):
            return names
    return stems


def _with_looks(plan: Plan, looks: Sequence[int], first: int) -> Plan:
    """The plan with seeds for these looks."""
    most = looks[-1]
    sides = [
        replace(
            side, seeds=tuple(range(first + n * most, first + n * most + most))
        )
        for n, side in enumerate(plan.sides)
    ]
    return replace(plan, looks=tuple(looks), sides=tuple(sides))


def _noise(
    data: TestData,
    group: np.ndarray | None,
    seed_sd: float | None,
    image_se: float | None,
    pilot: Sequence[str | Path],
) -> tuple[Noise, list[str]]:
    """The noise on the images or their groups, and where it is from."""
    units = data.images if group is None else len(np.unique(group))
    sources, shared = ['given', 'given'], 0.0
    if pilot:
        found = pilot_noise(pilot, data, group, seeds=seed_sd is None)
        if seed_sd is None:
            seed_sd, sources[0] = found.noise.seed_sd, found.seeds
            shared = found.noise.seed_image_sd
        if image_se is None and math.isfinite(found.noise.image_se):
            image_se, sources[1] = found.noise.image_se, found.images
    if seed_sd is None:
        seed_sd, sources[0] = SEED_SD, _ASSUMED_SD
    if image_se is None:
        alone = IMAGE_SE[data.task]
        image_se = alone / math.sqrt(units)
        sources[1] = _ASSUMED_SE.format(
            100 * alone, 'image' if group is None else 'group'
        )
    return Noise(seed_sd, image_se, units, shared), sources


def _claim(plan: Plan) -> str:
    base, *others = (side.name for side in plan.sides)
    have = 'has' if len(others) == 1 else 'have'
    where = 'on these test images'
    if plan.scope == 'images':
        where = 'on images like the test images'
    return f'{some(others)} {have} a higher {plan.metric} than {base} {where}'


def _choose(simulation: Simulation, most: int) -> tuple[int]:
    """The fewest seeds that show the gain."""
    plan, noise = simulation.plan, simulation.noise
    for seeds in range(2, most + 1):
        if simulation.power((seeds,)) >= plan.power:
            return (seeds,)
    smallest = in_points(simulation.smallest_gain((most,)))
    ways = f'A larger --gain ({smallest} with {most} seeds).'
    if smallest == '-':  # more than there can be
        ways = 'A larger --gain.'
    if plan.scope == 'images':
        unit = 'group' if plan.data['groups'] else 'image'
        ways = (
            f'More test {unit}s. {ways} Or a claim about these test images '
            'alone: --scope data-set.'
        )
        fewest = fewest_images(
            plan.gain / 100,
            noise,
            power=plan.power,
            alpha=plan.alpha / (len(plan.sides) - 1),
        )
        if fewest > noise.images:
            raise UserError(
                f'no number of seeds shows a gain of {in_metric(plan)} on '
                f'{count(noise.images, unit)}: that takes at least '
                f'{count(fewest, unit)}',
                ways,
            )
    raise UserError(
        f'no number of seeds up to {most} shows a gain of {in_metric(plan)} '
        f'with power {in_percent(plan.power)}: it is '
        f'{in_percent(simulation.power((most,)))} at {most}',
        f'More seeds: --max-seeds. {ways}',
    )


def _check_power(
    simulation: Simulation, looks: tuple[int, ...]
) -> Iterator[str]:
    """Warns if the seeds that the user gave do not show the gain."""
    plan, found = simulation.plan, simulation.power(looks)
    if looks == (1,):
        yield (
            'One training of each side says nothing about the methods: the '
            'report will compare two checkpoints.'
        )
    elif found < plan.power:
        smallest = in_points(simulation.smallest_gain(looks))
        yield (
            f'A gain of {in_metric(plan)} is shown with power '
            f'{in_percent(found)}. With {in_percent(plan.power)}, this plan '
            f'shows {smallest} {plan.metric} or more.'
        )


def _yaml(value: Any) -> Any:
    """A value that YAML has; a tuple becomes text, see `planned_config`."""
    if isinstance(value, list):
        parts = [_yaml(part) for part in value]
        return parts if parts == value else str(value)
    return str(value) if isinstance(value, tuple) else value


def _points(share: float) -> float:
    return round(100 * share, 6)
