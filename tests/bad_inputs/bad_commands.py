# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad command lines."""

from __future__ import annotations

from pathlib import Path

import torch
from bad_input import World, bad
from tiny_run import MASK_HEADS, write_config

GROUP = 'Command line'
TORCHRUN = {
    'RANK': '2',
    'LOCAL_RANK': '2',
    'WORLD_SIZE': '4',
    'MASTER_ADDR': '127.0.0.1',
    'MASTER_PORT': '29500',
}


@bad(GROUP, '--launcher pytorch without torchrun', 'RANK', 'torchrun')
def _(world: World) -> None:
    for name in TORCHRUN:
        world.patch.delenv(name, raising=False)
    world.train('--launcher', 'pytorch')


@bad(GROUP, '--launcher slurm without srun', 'SLURM_PROCID')
def _(world: World) -> None:
    world.train('--launcher', 'slurm')


@bad(GROUP, '--launcher mpi without mpirun', 'OMPI_COMM_WORLD_RANK')
def _(world: World) -> None:
    world.train('--launcher', 'mpi')


@bad(GROUP, 'an unknown launcher', "'torchrun'", quotes=True)
def _(world: World) -> None:
    world.train('--launcher', 'torchrun')


@bad(GROUP, 'more processes than GPUs', 'process 2', '2 visible')
def _(world: World) -> None:
    from mmext.engine.distributed import check_launcher

    world.patch.setattr(torch.cuda, 'device_count', lambda: 2)
    world.patch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    check_launcher('pytorch', TORCHRUN)


@bad(GROUP, '--resume of a missing file', 'gone.pth')
def _(world: World) -> None:
    world.train('--resume', 'gone.pth')


@bad(GROUP, 'a work dir that is a file', 'is a file')
def _(world: World) -> None:
    Path('taken').touch()
    world.tool('train', 'tiny.py', '--work-dir', 'taken')


@bad(GROUP, 'an --out that is not a pickle file', '--out a.pkl')
def _(world: World) -> None:
    world.test('a.pth', '--out', 'a.json')


@bad(GROUP, '--tta of a mask detector', 'test_evaluator.metric=bbox')
def _(world: World) -> None:
    base = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    write_config(world.config, world.data, base=base, more=MASK_HEADS)
    world.test(world.checkpoint(), '--tta')


@bad(GROUP, 'an option without a value', 'model.depth', 'KEY=VALUE')
def _(world: World) -> None:
    world.train('--cfg-options', 'model.depth')


@bad(GROUP, 'an option whose value is a dict', 'config file')
def _(world: World) -> None:
    world.train('--cfg-options', "custom_hooks=[dict(type='A', layers='b')]")


@bad(GROUP, 'an image that does not exist', "Did you mean '1.png'?")
def _(world: World) -> None:
    world.tool('image_demo', 'tiny.py', 'a.pth', 'data/train/11.png')


@bad(GROUP, 'a folder without images', 'holds no image')
def _(world: World) -> None:
    Path('empty').mkdir()
    world.tool('image_demo', 'tiny.py', 'a.pth', 'empty')


@bad(GROUP, 'a score threshold above 1', '30', 'between 0 and 1')
def _(world: World) -> None:
    options = ('--score-thr', '30')
    world.tool('image_demo', 'tiny.py', 'a.pth', 'data/train', *options)


@bad(GROUP, 'an unknown device', "'cuda:99'", quotes=True)
def _(world: World) -> None:
    options = ('--device', 'cuda:99')
    world.tool('image_demo', 'tiny.py', 'a.pth', 'data/train', *options)


@bad(GROUP, 'stiffness on images that do not exist', 'nowhere')
def _(world: World) -> None:
    images = ('--images', 'nowhere')
    world.tool('analysis_tools/stiffness', 'tiny.py', 'none', *images)


@bad(GROUP, 'stiffness of a config without a checkpoint', '1 configs')
def _(world: World) -> None:
    images = ('--images', 'data/train')
    world.tool('analysis_tools/stiffness', 'tiny.py', *images)


def stiffness(model: torch.nn.Module, image: torch.Tensor) -> None:
    from mmext.analysis.stiffness import measure

    measure(model, [image])


@bad(GROUP, 'stiffness of a model without residual blocks', 'No residual')
def _(world: World) -> None:
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
    stiffness(plain, torch.zeros(1, 3, 8, 8))


@bad(GROUP, 'stiffness on an image with NaN', 'infinite')
def _(world: World) -> None:
    from mmdet.models import ResNet

    stiffness(ResNet(18), torch.full((1, 3, 64, 64), float('nan')))


@bad(GROUP, 'filter angles of layers that do not exist', 'matches none')
def _(world: World) -> None:
    from mmext.analysis.filter_angles import model_angles

    model_angles(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), 'conv9')
