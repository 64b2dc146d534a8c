# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad checkpoints: damaged, of other models, malicious."""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from bad_input import World, mistake

bad = partial(mistake, 'Checkpoint')


class Attack:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch touched',)


def content(title: str, name: str, write: Callable[[str], object]) -> None:
    """Registers the content of a checkpoint."""

    @bad(title)
    def _(world: World) -> None:
        write(name)
        try:
            world.test(name)
        finally:
            assert not Path('touched').exists()


@bad('a checkpoint that does not exist')
def _(world: World) -> None:
    Path('epoch_1.pth').touch()
    world.test('epoch_11.pth')


@bad('a folder instead of a checkpoint')
def _(world: World) -> None:
    world.test('data')


@bad('a misspelt scheme of an address')
def _(world: World) -> None:
    world.set('load_from=torchvison://resnet50')


@bad('a truncated checkpoint', 'complete')
def _(world: World) -> None:
    path = world.checkpoint()
    path.write_bytes(path.read_bytes()[:5000])
    world.test(path)


def web_page(name: str) -> None:
    Path(name).write_text('<html>404 not found</html>')


MALICIOUS = {'state_dict': {}, 'x': Attack()}
content('an empty checkpoint', 'a.pth', lambda name: Path(name).touch())
content('a web page saved as a checkpoint', 'a.pth', web_page)
content('a text file named .safetensors', 'a.safetensors', web_page)
content('a checkpoint that holds a list', 'a.pth', partial(torch.save, [1, 2]))
content(
    'a checkpoint that runs a command', 'a.pth', partial(torch.save, MALICIOUS)
)
content(
    'a plain pickle that runs a command',
    'a.pth',
    partial(torch.save, MALICIOUS, _use_new_zipfile_serialization=False),
)


@bad('a zip bomb')
def _(world: World) -> None:
    with zipfile.ZipFile('a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', pickle.dumps({}))
        archive.writestr('a/data/0', bytes(10**7))
    world.test('a.pth')


@bad('a zip bomb without compression')
def _(world: World) -> None:
    with zipfile.ZipFile('a.pth', 'w') as archive:
        archive.writestr('a/data.pkl', pickle.dumps({}))
        archive.writestr('a/data/0', bytes(10**5))
        for i in range(1, 100):
            again = copy.copy(archive.filelist[1])
            again.filename = f'a/data/{i}'
            archive.filelist.append(again)
    world.test('a.pth')


@bad('a member whose path leaves the archive', 'complete')
def _(world: World) -> None:
    path = world.checkpoint()
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('../../touched', b'')
    world.test(path)


@bad('weights of a model with other channels')
def _(world: World) -> None:
    path = world.checkpoint()
    wide = ('model.neck.out_channels=24', 'model.rpn_head.in_channels=24')
    heads = (
        'model.roi_head.bbox_roi_extractor.out_channels=24',
        'model.roi_head.bbox_head.in_channels=24',
    )
    world.test(path, '--cfg-options', *wide, *heads)


@bad('weights of another model')
def _(world: World) -> None:
    torch.save({'state_dict': torch.nn.Linear(2, 2).state_dict()}, 'a.pth')
    world.test('a.pth')


@bad('resuming from a file of weights only')
def _(world: World) -> None:
    world.train('--resume', world.checkpoint())


@bad('a file name with the hash of another file')
def _(world: World) -> None:
    world.test(world.checkpoint('net-00c0ffee.pth'))


@bad('a file with another hash than --sha256')
def _(world: World) -> None:
    world.test(world.checkpoint(), '--sha256', '0' * 64)


@bad('a --sha256 that is too short')
def _(world: World) -> None:
    world.test(world.checkpoint(), '--sha256', 'abc')


@bad('publishing weights with NaN')
def _(world: World) -> None:
    weight = torch.tensor([1.0, float('nan')])
    torch.save({'state_dict': {'fc.weight': weight}}, 'a.pth')
    world.tool('model_converters/publish_model', 'a.pth', 'net')


KEY = 'stages.1.1.f1.conv.weight'


def released(title: str, change: Callable[[dict], dict]) -> None:
    """Registers changed weights of a StarNet, as its authors' file."""

    @bad(title)
    def _(world: World) -> None:
        from mmext.checkpoints.released import load_released_weights
        from mmext.models import StarNet

        model = StarNet('s050')
        load_released_weights(model, change(dict(model.state_dict())))


released(
    'released weights without one of the tensors',
    lambda w: {k: w[k] for k in w if k != KEY},
)
released(
    'released weights with an additional tensor',
    lambda w: {**w, 'extra': torch.ones(1)},
)
released(
    'released weights with a tensor of another shape',
    lambda w: {**w, KEY: w[KEY][:1]},
)
