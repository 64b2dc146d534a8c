# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The plan of an experiment: what is claimed, and how it is decided.

A plan is written before the training and committed with the code. Everything
that could be chosen after a look at the results is in it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mmext.datasets.coco import is_number
from mmext.errors import UserError, did_you_mean
from mmext.utils.documents import parse_yaml, read_bytes
from mmext.utils.files import replacing
from mmext.utils.text import short, some

VERSION = 1
#: Task -> its primary metric.
PRIMARY = {'bbox': 'AP', 'segm': 'AP', 'mIoU': 'mIoU', 'top1': 'top-1'}
#: What the claim is about: new trainings and images like these, or new
#: trainings on these images.
SCOPES = ('images', 'data set')
_HEADER = """\
# Commit this file before training. `mmext run` trains what it says, and
# `mmext report` decides by it. A change after the first result is reported.
"""
_WRITE_ONE = (
    'Write one: mmext plan --baseline CONFIG --candidate CONFIG --gain POINTS'
)


class Job(NamedTuple):
    """A training with its test."""

    side: str
    seed: int


@dataclass(frozen=True)
class PlannedSide:
    """A side of the comparison.

    Args:
        name: Unique.
        config: Config file.
        sha256: Of the config; see
            :func:`~mmext.experiments.configs.config_sha256`.
        seeds: One a training, in the order in which they are used.
    """

    name: str
    config: str
    sha256: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A plan; the fields are those of ``plan.yaml`` (docs/experiments.md).

    ``gain``, ``margin``, and the values of ``seed_sd`` and ``image_se`` are
    in points (0 to 100), as they are in the file.
    """

    claim: str
    task: str
    gain: float
    margin: float | None
    alpha: float
    power: float | None
    scope: str
    seed_sd: Mapping[str, Any]
    image_se: Mapping[str, Any]
    looks: tuple[int, ...]
    data: Mapping[str, Any]
    sides: tuple[PlannedSide, ...]
    options: Mapping[str, Any]
    differences: tuple[str, ...] = ()
    folder: str | None = None
    checkpoint: str = 'last'
    retries: int = 1
    version: int = VERSION

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return PRIMARY[self.task]

    @functools.cached_property
    def sha256(self) -> str:
        """Of the content; comments and layout of the file do not matter."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def baseline(self) -> PlannedSide:
        return self.sides[0]

    def side(self, name: str) -> PlannedSide:
        """Returns the side of a name."""
        return next(side for side in self.sides if side.name == name)

    def jobs(self, seeds: int | None = None) -> Iterator[Job]:
        """Yields the first ``seeds`` trainings of each side, interleaved.

        The first seed of every side comes first, so that whatever changes on
        the machine changes for all sides. Default: all seeds.
        """
        for number in range(seeds or self.looks[-1]):
            for side in self.sides:
                yield Job(side.name, side.seeds[number])

    def folder_of(self, job: Job, work_dir: str | Path) -> Path:
        """Returns the work dir of a run."""
        return Path(work_dir, slug(job.side), f'seed_{job.seed}')


def slug(name: str) -> str:
    """Returns a name for a folder."""
    return re.sub(r'[^\w.+-]+', '-', name).strip('-.') or 'side'


def default_work_dir(path: str | Path) -> Path:
    """Returns the folder of a plan's runs, ``work_dirs/<its file name>``."""
    return Path('work_dirs', Path(path).stem)


def write_plan(path: str | Path, plan: Plan) -> None:
    """Writes a plan as YAML that people read."""
    content = asdict(plan)
    order = ('version', 'claim', 'task')
    first = {k: content.pop(k) for k in order}
    content = {**first, 'metric': plan.metric, **content}
    text = yaml.safe_dump(
        json.loads(json.dumps(content)),  # tuples become lists
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=79,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(_HEADER + text, encoding='utf-8')


def read_plan(path: str | Path) -> Plan:
    """Reads a plan.

    Raises:
        UserError: The file is no plan, or is one of another version, or its
            values do not fit each other.
    """
    return parse_plan(read_bytes(path, 'plan', _WRITE_ONE), path)


def parse_plan(data: bytes | str, path: str | Path) -> Plan:
    """Parses the content of the file ``path``; see `read_plan`."""
    fix = _WRITE_ONE
    content = parse_yaml(data, path)
    if not isinstance(content, dict) or 'sides' not in content:
        raise UserError(f'{path} is no plan', fix)
    if content.get('version') != VERSION:
        raise UserError(
            f'{path}: version is {short(content.get("version"))}; this mmext '
            f'reads version {VERSION}',
            'Use the mmext that wrote the plan, or write a new plan.',
        )
    metric = content.pop('metric', None)  # for readers: the task implies it
    known = [f.name for f in fields(Plan)]
    for key in content:
        if key not in known:
            raise UserError(
                f'{path}: a plan has no key {short(key)}',
                did_you_mean(str(key), known) or f'It has: {some(known, 30)}.',
            )
    missing = [
        f.name
        for f in fields(Plan)
        if f.name not in content and f.default is f.default_factory
    ]
    if missing:
        raise UserError(f'{path} has no {some(missing)}', fix)
    sides = [_side(path, n, x) for n, x in _numbered(path, content['sides'])]
    lists = {
        key: tuple(_listed(path, key, content.get(key, ())))
        for key in ('looks', 'differences')
    }
    plan = Plan(**{**content, **lists, 'sides': tuple(sides)})
    check_plan(path, plan)
    if metric not in (None, plan.metric):
        raise UserError(
            f'{path}: metric is {short(metric)}',
            f'That of {plan.task} is {plan.metric}. Other metrics are in the '
            'report, and do not decide.',
        )
    return plan


def _numbered(path: str | Path, value: object) -> Iterator[tuple[int, Any]]:
    yield from enumerate(_listed(path, 'sides', value), 1)


def _listed(path: str | Path, key: str, value: object) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise UserError(f'{path}: {key} is {short(value)}', 'Give a list: [...].')


def _side(path: str | Path, number: int, value: object) -> PlannedSide:
    known = [f.name for f in fields(PlannedSide)]
    if not isinstance(value, dict) or {*value} != {*known}:
        raise UserError(
            f'{path}: side {number} is {short(value)}',
            f'A side has {some(known)}, and nothing else.',
        )
    for key in ('name', 'config', 'sha256'):
        if not isinstance(value[key], str) or not value[key].strip():
            raise UserError(
                f'{path}: {key} of side {number} is {short(value[key])}',
                'Give a text.',
            )
    seeds = _listed(path, f'seeds of {value["name"]}', value['seeds'])
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed < 2**31:
            raise UserError(
                f'{path}: a seed of {value["name"]} is {short(seed)}',
                'Give whole numbers from 0 to 2147483647.',
            )
    return PlannedSide(**{**value, 'seeds': tuple(seeds)})


def check_plan(path: str | Path, plan: Plan) -> None:
    """Raises `UserError` for values that are wrong or do not fit.

    ``path`` is for the message.
    """

    def require(right: bool, problem: str, fix: str) -> None:
        if not right:
            raise UserError(f'{path}: {problem}', fix)

    def number(key: str, low: float, high: float) -> None:
        value = getattr(plan, key)
        require(
            is_number(value) and low < value < high,
            f'{key} is {short(value)}',
            f'Give a number between {low:g} and {high:g}.',
        )

    for key, allowed in (
        ('task', PRIMARY),
        ('scope', SCOPES),
        ('checkpoint', ('last',)),
    ):
        value = getattr(plan, key)
        require(
            value in [*allowed],
            f'{key} is {short(value)}',
            f'Give one of: {some(allowed)}.',
        )
    texts = {'claim': plan.claim, 'folder': plan.folder or ''}
    texts |= {f'differences.{i}': x for i, x in enumerate(plan.differences)}
    for key, value in texts.items():
        require(
            isinstance(value, str),
            f'{key} is {short(value)}',
            'Give a text.',
        )
    number('gain', 0, 100)
    number('alpha', 0, 0.5)
    if plan.power is not None:
        number('power', 0, 1)
    if plan.margin is not None:
        number('margin', 0, 100)
    require(
        type(plan.retries) is int and 0 <= plan.retries <= 10,
        f'retries is {short(plan.retries)}',
        'Give 0 to 10.',
    )
    for key in ('seed_sd', 'image_se', 'data', 'options'):
        value = getattr(plan, key)
        require(
            isinstance(value, dict),
            f'{key} is {short(value)}',
            'Give keys with their values.',
        )
    for key in ('seed_sd', 'image_se'):
        value = getattr(plan, key)
        require(
            is_number(value.get('value'))
            and value['value'] >= 0
            and isinstance(value.get('source'), str),
            f'{key} is {short(value)}',
            'It has value, in points, and source, a text.',
        )
    data = plan.data
    for key, right in (
        ('sha256', isinstance(data.get('sha256'), str)),
        ('images', type(data.get('images')) is int and data['images'] > 0),
        ('annotations', isinstance(data.get('annotations') or '', str)),
        ('groups', isinstance(data.get('groups') or '', str)),
    ):
        require(
            right,
            f'data.{key} is {short(data.get(key))}',
            'It has sha256, images, annotations and groups of the test data.',
        )
    looks = plan.looks
    require(
        bool(looks)
        and all(type(x) is int and x > 0 for x in looks)
        and list(looks) == sorted({*looks}),
        f'looks is {short(looks)}',
        'Give increasing numbers of seeds, such as [3, 5, 8].',
    )
    require(
        looks[0] > 1 or len(looks) == 1,
        f'looks is {short(looks)}, and one seed a side decides nothing',
        'Begin with 2 or more.',
    )
    require(
        len(plan.sides) >= 2,
        f'it has {len(plan.sides)} sides',
        'Give the baseline and at least one candidate.',
    )
    folders = [slug(side.name).lower() for side in plan.sides]
    for side, folder in zip(plan.sides, folders, strict=True):
        require(
            folders.count(folder) == 1,
            f'two sides have the name {side.name}, or nearly',
            'Give each a name of its own.',
        )
        require(
            len(side.seeds) == looks[-1],
            f'{side.name} has {len(side.seeds)} seeds, and the last look is '
            f'at {looks[-1]}',
            'Give each side as many seeds as the last look has.',
        )
    counts = Counter(seed for side in plan.sides for seed in side.seeds)
    twice = [seed for seed, times in counts.items() if times > 1]
    require(
        not twice,
        f'seed {some(twice)} is listed twice',
        'Give each training a seed of its own: trainings of one seed share '
        'their order of images, so they are not independent.',
    )
    try:
        json.dumps(asdict(plan), sort_keys=True)
    except TypeError as error:  # a date, or keys of several types
        raise UserError(
            f'{path}: a value is neither text nor a number ({error})',
            'Write it in quotes.',
        ) from None
