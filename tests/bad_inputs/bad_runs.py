# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mistakes with ``mmext run``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from bad_input import World, mistake
from experiments import plan_of

from mmext.experiments.plan import Plan, write_plan
from mmext.experiments.state import State

bad = partial(mistake, 'Runs of a plan')


def planned(world: World, name: str = 'plan.yaml') -> Plan:
    """Writes a plan of the tiny config and a copy of it."""
    from mmext.experiments.configs import config_sha256, planned_config
    from mmext.experiments.test_data import test_data

    shutil.copy(world.config, 'other.py')
    plan = plan_of((2,), task='bbox')
    configs = (str(world.config), 'other.py')
    sides = tuple(
        replace(side, config=config, sha256=config_sha256(config))
        for side, config in zip(plan.sides, configs, strict=True)
    )
    data = test_data(planned_config(world.config, {}), 'bbox')
    found = {**plan.data, 'sha256': data.sha256, 'images': data.images}
    plan = replace(plan, sides=sides, data=found)
    write_plan(name, plan)
    return plan


def run(world: World, *options: object) -> None:
    world.tool('run', 'plan.yaml', '--work-dir', 'work', *options)


def option(title: str, *options: object) -> None:
    """Registers options of a good plan."""

    @bad(title)
    def _(world: World) -> None:
        planned(world)
        run(world, *options)


bad('a plan file that does not exist')(run)


@bad('the run of a file that is no plan')
def _(world: World) -> None:
    Path('plan.yaml').write_text('sides: 3')
    run(world)


@bad('the run of a plan whose config was changed', 'is not the config of')
def _(world: World) -> None:
    planned(world)
    with open('other.py', 'a') as file:
        file.write('optim_wrapper = dict(optimizer=dict(lr=0.1))\n')
    run(world)


@bad('the run of a plan whose test data were changed', 'other test data')
def _(world: World) -> None:
    planned(world)
    world.change(lambda content: content['annotations'].pop(), 'val')
    run(world)


@bad('a work dir with runs of another plan', 'is of the plan')
def _(world: World) -> None:
    plan = planned(world)
    job = next(plan.jobs())
    State('f' * 64).write(plan.folder_of(job, 'runs'))
    world.tool('run', 'plan.yaml', '--work-dir', 'runs')


@bad('a work dir with a training that is of no plan', 'is of no plan')
def _(world: World) -> None:
    plan = planned(world)
    folder = plan.folder_of(next(plan.jobs()), 'runs')
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').touch()
    world.tool('run', 'plan.yaml', '--work-dir', 'runs')


@bad('more GPUs for a run than there are')
def _(world: World) -> None:
    planned(world)
    world.patch.setattr(torch.cuda, 'device_count', lambda: 2)
    world.patch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    run(world, '--gpus-per-run', 4)


@bad('--jobs on a machine with GPUs')
def _(world: World) -> None:
    planned(world)
    world.patch.setattr(torch.cuda, 'device_count', lambda: 2)
    run(world, '--jobs', 4)


@bad('--slurm without submitit')
def _(world: World) -> None:
    planned(world)
    world.patch.setitem(sys.modules, 'submitit', None)
    run(world, '--slurm', 'partition=gpu')


option('an option of Slurm without a value', '--slurm', 'partition')
option('a launcher without the command', '--launcher', 'sbatch job.sh')
option('a launcher that does not exist', '--launcher', 'sbach {command}')
option(
    'a launcher with an open quote', '--launcher', 'sbatch --wrap "{command}'
)
option('a run that the plan does not have', '--job', 'cand 1/7')
option('--no-wait on one machine', '--no-wait')
