# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad checkpoints: damaged, of other models, malicious."""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from pathlib import Path

import torch
from bad_input import World, bad

GROUP = 'Checkpoint'


class Attack:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch touched',)


@bad(GROUP, 'a checkpoint that does not exist', "'epoch_1.pth'?")
def _(world: World) -> None:
    Path('epoch_1.pth').touch()
    world.test('epoch_11.pth')


@bad(GROUP, 'a folder instead of a checkpoint', 'is a folder')
def _(world: World) -> None:
    world.test('data')


@bad(GROUP, 'a misspelt scheme of an address', "'torchvision://'?")
def _(world: World) -> None:
    world.set('load_from=torchvison://resnet50')


@bad(GROUP, 'a truncated checkpoint', 'complete', quotes=True)
def _(world: World) -> None:
    path = world.checkpoint()
    path.write_bytes(path.read_bytes()[:5000])
    world.test(path)


@bad(GROUP, 'an empty checkpoint', 'it is empty')
def _(world: World) -> None:
    Path('a.pth').touch()
    world.test('a.pth')


@bad(GROUP, 'a web page saved as a checkpoint', "begins with '<html>")
def _(world: World) -> None:
    Path('a.pth').write_text('<html>404 not found</html>')
    world.test('a.pth')


@bad(GROUP, 'a text file named .safetensors', 'text file')
def _(world: World) -> None:
    Path('a.safetensors').write_text('<html>404 not found</html>')
    world.test('a.safetensors')


@bad(GROUP, 'a checkpoint that holds a list', 'holds a list')
def _(world: World) -> None:
    torch.save([1, 2], 'a.pth')
    world.test('a.pth')


@bad(GROUP, 'a checkpoint that runs a command', 'system', '--trust-checkpoint')
def _(world: World) -> None:
    torch.save({'state_dict': {}, 'x': Attack()}, 'a.pth')
    try:
        world.test('a.pth')
    finally:
        assert not Path('touched').exists()


@bad(GROUP, 'a plain pickle that runs a command', 'system')
def _(world: World) -> None:
    content = {'state_dict': {}, 'x': Attack()}
    torch.save(content, 'a.pth', _use_new_zipfile_serialization=False)
    try:
        world.test('a.pth')
    finally:
        assert not Path('touched').exists()


@bad(GROUP, 'a zip bomb', 'compressed', 'would unpack to')
def _(world: World) -> None:
    with zipfile.ZipFile('a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', pickle.dumps({}))
        archive.writestr('a/data/0', bytes(10**7))
    world.test('a.pth')


@bad(GROUP, 'a zip bomb without compression', '0 of 101 members', 'unpack')
def _(world: World) -> None:
    with zipfile.ZipFile('a.pth', 'w') as archive:
        archive.writestr('a/data.pkl', pickle.dumps({}))
        archive.writestr('a/data/0', bytes(10**5))
        for i in range(1, 100):
            again = copy.copy(archive.filelist[1])
            again.filename = f'a/data/{i}'
            archive.filelist.append(again)
    world.test('a.pth')


@bad(GROUP, 'a member whose path leaves the archive', 'complete', quotes=True)
def _(world: World) -> None:
    path = world.checkpoint()
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('../../touched', b'')
    world.test(path)


@bad(
    GROUP,
    'weights of a model with other channels',
    'of another architecture',
    'shape',
)
def _(world: World) -> None:
    path = world.checkpoint()
    wide = ('model.neck.out_channels=24', 'model.rpn_head.in_channels=24')
    heads = (
        'model.roi_head.bbox_roi_extractor.out_channels=24',
        'model.roi_head.bbox_head.in_channels=24',
    )
    world.test(path, '--cfg-options', *wide, *heads)


@bad(GROUP, 'weights of another model', '0 of', 'missing')
def _(world: World) -> None:
    torch.save({'state_dict': torch.nn.Linear(2, 2).state_dict()}, 'a.pth')
    world.test('a.pth')


@bad(
    GROUP, 'resuming from a file of weights only', 'no optimizer', 'load_from='
)
def _(world: World) -> None:
    world.train('--resume', world.checkpoint())


@bad(GROUP, 'a file name with the hash of another file', '00c0ffee')
def _(world: World) -> None:
    world.test(world.checkpoint('net-00c0ffee.pth'))


@bad(GROUP, 'a file with another hash than --sha256', 'was expected')
def _(world: World) -> None:
    world.test(world.checkpoint(), '--sha256', '0' * 64)


@bad(GROUP, 'a --sha256 that is too short', '8 to 64')
def _(world: World) -> None:
    world.test(world.checkpoint(), '--sha256', 'abc')


@bad(GROUP, 'publishing weights with NaN', 'not numbers')
def _(world: World) -> None:
    weight = torch.tensor([1.0, float('nan')])
    torch.save({'state_dict': {'fc.weight': weight}}, 'a.pth')
    world.tool('model_converters/publish_model', 'a.pth', 'net')


def released(change) -> None:
    """Loads changed weights of a StarNet as its authors' file."""
    from mmext.checkpoints.released import load_released_weights
    from mmext.models import StarNet

    model = StarNet('s050')
    load_released_weights(model, change(dict(model.state_dict())))


KEY = 'stages.1.1.f1.conv.weight'


@bad(GROUP, 'released weights without one of the tensors', 'missing', KEY)
def _(world: World) -> None:
    released(lambda w: {k: w[k] for k in w if k != KEY})


@bad(GROUP, 'released weights with an additional tensor', 'extra')
def _(world: World) -> None:
    released(lambda w: {**w, 'extra': torch.ones(1)})


@bad(GROUP, 'released weights with a tensor of another shape', KEY)
def _(world: World) -> None:
    released(lambda w: {**w, KEY: w[KEY][:1]})
