# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Plans that cannot be made, and plan files that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from bad_input import World, mistake
from experiments import plan_of
from tiny_run import write_config

from mmext.experiments.plan import read_plan, write_plan

bad = partial(mistake, 'Plans')
DEEPER = "model['backbone']['depth'] = 34"


def plan(world: World, *options: object, more: str = DEEPER) -> None:
    """Runs tools/plan.py on the tiny config and a deeper one."""
    write_config(Path('deeper.py'), world.data, more=more)
    sides = ('--baseline', 'tiny.py', '--candidate', 'deeper.py')
    world.tool('plan', *sides, '--gain', 30, '--no-timing', *options)


def option(title: str, text: str, more: str = DEEPER) -> None:
    """Registers options of tools/plan.py."""
    bad(title)(lambda world: plan(world, *text.split(), more=more))


option('too few images for a gain', '--gain 1')
option('too few seeds for a gain', '--seed-sd 20 --image-se 1')
option('a gain that is no gain', '--gain 0')
option('no deviation between seeds', '--seed-sd 0')
option('looks that decrease', '--looks 8,5,3')
option('a look at one seed', '--looks 1,3')
option('another annotation file than the configs', '--ann data/train.json')
option('masks in a plan of boxes', '--metric segm')
option('mIoU in a plan of a detector', '--metric mIoU')
option('names of some of the sides', '--names A')
option('one name for two sides', '--names A A')
option('a plan that is not a YAML file', '--out plan.json')
option('groups in a field that images do not have', '--groups video_id')
option(
    'configs that differ in more than the model',
    '',
    f"{DEEPER}\ntrain_cfg['max_epochs'] = 8",
)
option('a baseline that is its own candidate', '', '')
option(
    'a candidate that cannot be built',
    '',
    "model['neck']['in_channels'] = [16, 32, 64, 64]",
)


@bad('configs that test on different data')
def _(world: World) -> None:
    content = json.loads((world.data / 'val.json').read_text())
    content['annotations'].pop()
    Path('other.json').write_text(json.dumps(content))
    plan(world, more=f"{DEEPER}\ntest_evaluator['ann_file'] = 'other.json'")


@bad('a plan on data without annotations')
def _(world: World) -> None:
    world.change(lambda content: content['annotations'].clear(), 'val')
    plan(world)


@bad('a plan that exists')
def _(world: World) -> None:
    write_plan('plan.yaml', plan_of())
    plan(world)


@bad('a pilot with one training of each config')
def _(world: World) -> None:
    from records import make_record

    from mmext.experiments.records.record import write_record
    from mmext.utils.files import sha256

    tested = sha256(world.data / 'val.json')
    write_record('a.npz', make_record(data_sha256=tested))
    plan(world, '--pilot', 'a.npz')


@bad('a pilot on other images')
def _(world: World) -> None:
    from records import make_record

    from mmext.experiments.records.record import write_record

    write_record('a.npz', make_record())
    plan(world, '--pilot', 'a.npz', 'a.npz')


def edited(title: str, change: Callable[[dict], object]) -> None:
    """Registers a plan file that was edited by hand."""

    @bad(title)
    def _(world: World) -> None:
        write_plan('plan.yaml', plan_of((3, 5)))
        content = yaml.safe_load(Path('plan.yaml').read_text())
        change(content)
        Path('plan.yaml').write_text(yaml.safe_dump(content))
        read_plan('plan.yaml')


def seeds(*numbers: int) -> Callable[[dict], object]:
    return lambda content: content['sides'][1].update(seeds=[*numbers])


edited('a seed in both lists', seeds(5, 6, 7, 8, 9))
edited('fewer seeds than the last look', seeds(6, 7, 8))
edited('a plan of a later version', lambda x: x.update(version=2))
edited('a misspelt key of a plan', lambda x: x.update(marign=1))
edited('a plan without looks', lambda x: x.pop('looks'))
edited('looks in the wrong order', lambda x: x.update(looks=[5, 3]))
edited('a power in percent', lambda x: x.update(power=80))
edited(
    'a metric that is not that of the task', lambda x: x.update(metric='AP')
)
edited(
    'sides whose names differ in a capital',
    lambda x: x['sides'][1].update(name='Base'),
)


@bad('a plan that is not YAML', 'is not YAML')
def _(world: World) -> None:
    Path('plan.yaml').write_text('sides: [')
    read_plan('plan.yaml')


@bad('a config that was changed after the plan', 'is not the config of the')
def _(world: World) -> None:
    from dataclasses import replace

    from mmext.experiments.configs import side_config

    made = plan_of()
    side = replace(made.baseline, config='tiny.py')
    side_config(made, side)
