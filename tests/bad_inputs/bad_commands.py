# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad command lines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from bad_input import World, mistake
from tiny_run import MASK_HEADS, MASK_RCNN, write_config

bad = partial(mistake, 'Command line')
TORCHRUN = {
    'RANK': '2',
    'LOCAL_RANK': '2',
    'WORLD_SIZE': '4',
    'MASTER_ADDR': '127.0.0.1',
    'MASTER_PORT': '29500',
}


def command(title: str, line: str, *quotes: str) -> None:
    """Registers a tool with its arguments, to be run in a good folder."""
    bad(title, *quotes)(lambda world: world.tool(*line.split()))


def train(title: str, options: str, *quotes: str) -> None:
    command(title, f'train tiny.py --work-dir work {options}', *quotes)


@bad('--launcher pytorch without torchrun')
def _(world: World) -> None:
    for name in TORCHRUN:
        world.patch.delenv(name, raising=False)
    world.train('--launcher', 'pytorch')


train('--launcher slurm without srun', '--launcher slurm')
train('--launcher mpi without mpirun', '--launcher mpi')
train('an unknown launcher', '--launcher torchrun', "'torchrun'")


@bad('more processes than GPUs')
def _(world: World) -> None:
    from mmext.engine.distributed import check_launcher

    world.patch.setattr(torch.cuda, 'device_count', lambda: 2)
    world.patch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    check_launcher('pytorch', TORCHRUN)


train('--resume of a missing file', '--resume gone.pth')


@bad('a work dir that is a file')
def _(world: World) -> None:
    Path('taken').touch()
    world.tool('train', 'tiny.py', '--work-dir', 'taken')


@bad('a work dir in which another run trains')
def _(world: World) -> None:
    from mmext.utils.locks import locked

    with ThreadPoolExecutor(1) as another:
        lock = locked('busy')
        another.submit(lock.__enter__).result()
        try:
            world.tool('train', 'tiny.py', '--work-dir', 'busy')
        finally:
            another.submit(lock.__exit__, None, None, None).result()


command(
    'an --out that is not a pickle file',
    'test tiny.py a.pth --work-dir work --out a.json',
)


@bad('--tta of a mask detector')
def _(world: World) -> None:
    kind = {'base': MASK_RCNN, 'more': MASK_HEADS}
    write_config(world.config, world.data, **kind)
    world.test(world.checkpoint(), '--tta')


train('an option without a value', '--cfg-options model.depth')


@bad('an option whose value is a dict')
def _(world: World) -> None:
    world.set("custom_hooks=[dict(type='A', layers='b')]")


command(
    'an image that does not exist',
    'image_demo tiny.py a.pth data/train/11.png',
)


@bad('a folder without images')
def _(world: World) -> None:
    Path('empty').mkdir()
    world.tool('image_demo', 'tiny.py', 'a.pth', 'empty')


command(
    'a score threshold above 1',
    'image_demo tiny.py a.pth data/train --score-thr 30',
)
command(
    'an unknown device',
    'image_demo tiny.py a.pth data/train --device cuda:99',
    "'cuda:99'",
)
command(
    'stiffness on images that do not exist',
    'analysis_tools/stiffness tiny.py none --images nowhere',
)
command(
    'stiffness of a config without a checkpoint',
    'analysis_tools/stiffness tiny.py --images data/train',
)


def stiffness(model: torch.nn.Module, image: torch.Tensor) -> None:
    from mmext.analysis.stiffness import measure

    measure(model, [image])


@bad('stiffness of a model without residual blocks')
def _(world: World) -> None:
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
    stiffness(plain, torch.zeros(1, 3, 8, 8))


@bad('stiffness on an image with NaN')
def _(world: World) -> None:
    from mmdet.models import ResNet

    stiffness(ResNet(18), torch.full((1, 3, 64, 64), float('nan')))


@bad('filter angles of layers that do not exist')
def _(world: World) -> None:
    from mmext.analysis.filter_angles import model_angles

    model_angles(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), 'conv9')


@bad('an image too large to draw among others')
def _(world: World) -> None:
    large = np.zeros((1, 70_000, 3), np.uint8)
    cv2.imwrite('data/train/large.png', large)
    checkpoint = world.checkpoint()
    world.tool('image_demo', world.config, checkpoint, 'data/train')
