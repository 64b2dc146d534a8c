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
from safetensors.torch import save_file

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


content(
    'a checkpoint of one value that is repeated',
    'a.pth',
    partial(torch.save, {'state_dict': {'x': torch.ones(1).expand(10**9)}}),
)
content(
    'a checkpoint whose meta is a list',
    'a.pth',
    partial(torch.save, {'state_dict': {}, 'meta': [1]}),
)
content(
    'a .safetensors file whose metadata are no JSON',
    'a.safetensors',
    partial(save_file, {'x': torch.ones(1)}, metadata={'mmext': '{"a"'}),
)


@bad('a checkpoint with a flipped bit', 'complete', 'checksum')
def _(world: World) -> None:
    path = world.checkpoint()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    world.test(path)


@bad('--trust-checkpoint without a hash')
def _(world: World) -> None:
    world.test(world.checkpoint(), '--trust-checkpoint', 'yes')


@bad('an inferencer with the weights of others and no config')
def _(world: World) -> None:
    from mmdet.apis import DetInferencer

    DetInferencer(weights=str(world.checkpoint()), device='cpu')


def resumable(world: World, **more: object) -> Path:
    """Writes a checkpoint as a run with AdamW does after six iterations."""
    path = world.checkpoint()
    weights = torch.load(path)['state_dict']
    state = {0: {'exp_avg': torch.ones(2)}}
    groups = [{'betas': (0.9, 0.999), 'params': [0]}]
    whole = {
        'state_dict': weights,
        'optimizer': {'state': state, 'param_groups': groups},
        'message_hub': {},
        'meta': {'epoch': 1, 'iter': 6},
    }
    torch.save({**whole, **more}, path)
    return path


@bad('resuming from NaN in the state of the optimizer')
def _(world: World) -> None:
    moments = {'exp_avg': torch.tensor([1, float('nan')])}
    groups = [{'betas': (0.9, 0.999), 'params': [0]}]
    state = {'state': {0: moments}, 'param_groups': groups}
    world.train('--resume', resumable(world, optimizer=state))


@bad('resuming from a first moment of 1e30')
def _(world: World) -> None:
    state = {'state': {0: {'exp_avg': torch.ones(2) * 1e30}}}
    groups = {'param_groups': [{'betas': (0.9, 0.999), 'params': [0]}]}
    world.train('--resume', resumable(world, optimizer={**state, **groups}))


@bad('resuming without the state of the optimizer')
def _(world: World) -> None:
    groups = [{'betas': (0.9, 0.999), 'params': [0]}]
    state = {'state': {}, 'param_groups': groups}
    world.train('--resume', resumable(world, optimizer=state))


@bad('resuming from a number of epochs that is none')
def _(world: World) -> None:
    meta = {'epoch': 'one', 'iter': 6}
    world.train('--resume', resumable(world, meta=meta))


@bad('a checkpoint that was changed after it was saved')
def _(world: World) -> None:
    meta = {'epoch': 1, 'iter': 6, 'checksums': {'optimizer': 1}}
    world.train('--resume', resumable(world, meta=meta))


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


@bad('weights of another model of timm')
def _(world: World) -> None:
    import timm
    from mmengine.registry import MODELS

    state = timm.create_model('test_vit3').state_dict()
    save_file(state, 'test_vit3.safetensors')
    weights = {'type': 'Pretrained', 'checkpoint': 'test_vit3.safetensors'}
    kind = {'type': 'TimmBackbone', 'name': 'test_vit'}
    MODELS.build({**kind, 'init_cfg': weights}).init_weights()


@bad('weights of the hub without a connection', 'model.safetensors')
def _(world: World) -> None:
    import huggingface_hub
    from mmengine.registry import MODELS

    world.patch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    kind = {'type': 'TimmBackbone', 'name': 'test_vit', 'pretrained': True}
    MODELS.build(kind).init_weights()
