# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Published weights: the right ones, nothing else, and they load."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from commands import run_tool
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_resumable
from mmext.checkpoints.publish import publish
from mmext.errors import UserError
from mmext.utils.files import sha256


def training(path: Path, **more) -> dict:
    """A checkpoint as a training writes it."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    checkpoint = {
        'meta': {
            'epoch': 3,
            'seed': 7,
            'cfg': "data_root = '/home/a-user/secret'",
            'dataset_meta': {
                'classes': ('cat', 'dog'),
                'palette': [(1, 2, 3), (4, 5, 6)],
                'ann_file': '/home/a-user/secret/train.json',
            },
        },
        'state_dict': OrderedDict(model.state_dict()),
        'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1}]},
        'message_hub': {},
        **more,
    }
    torch.save(checkpoint, path)
    return checkpoint


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_weights_and_names_alone_are_published(tmp_path, kind):
    source, target = tmp_path / 'epoch_3.pth', tmp_path / 'out/net'
    before = training(source)
    done = publish(source, target, file_format=kind)
    assert done.digest == sha256(done.path)
    assert done.path.name == f'net-{done.digest[:8]}.{kind}'
    assert list((tmp_path / 'out').iterdir()) == [done.path]
    (tmp_path / 'any').touch()  # others may read it, as any new file
    assert done.path.stat().st_mode == (tmp_path / 'any').stat().st_mode
    assert done.dropped == ['optimizer', 'message_hub']
    assert not done.averaged
    assert b'a-user' not in done.path.read_bytes()
    got = load(done.path)  # which also checks the hash in the name
    assert got.keys() == {'meta', 'state_dict'}
    assert got['meta']['epoch'] == 3 and got['meta']['seed'] == 7
    assert list(got['meta']['dataset_meta']['classes']) == ['cat', 'dog']
    assert got['meta']['source_sha256'] == sha256(source)
    assert got['state_dict'].keys() == before['state_dict'].keys()
    for key, value in before['state_dict'].items():
        assert torch.equal(got['state_dict'][key], value)
    # The same weights have the same name.
    assert publish(source, target, file_format=kind).path == done.path


def test_the_average_is_published_where_there_is_one(tmp_path):
    """As EMAHook itself arranges it in a checkpoint."""
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    hook, model = EMAHook(), nn.Linear(2, 2)
    hook.ema_model = ExponentialMovingAverage(model)
    raw = model.weight.detach().clone()
    average = raw + 1
    hook.ema_model.module.weight.data.copy_(average)
    checkpoint = {'state_dict': model.state_dict()}
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'a.pth')
    done = publish(tmp_path / 'a.pth', tmp_path / 'net')
    assert done.averaged and done.dropped == ['ema_state_dict']
    assert torch.equal(load(done.path)['state_dict']['weight'], average)


def test_shared_wrapped_and_bare_weights(tmp_path):
    """safetensors refuses tensors that share memory; ours must not."""
    weight = torch.rand(2, 2)
    bare = {'module.a': weight, 'module.b': weight, 'c': weight.t()}
    torch.save(bare, tmp_path / 'a.pth')
    got = load(publish(tmp_path / 'a.pth', tmp_path / 'net').path)
    assert got['state_dict'].keys() == {'a', 'b', 'c'}
    assert torch.equal(got['state_dict']['c'], weight.t())


def test_an_untrusted_checkpoint_needs_an_argument(tmp_path):
    path = tmp_path / 'a.pth'
    training(path, args=Namespace(lr=1))
    digest = sha256(path)
    with pytest.raises(UserError, match='refused.*Namespace'):
        publish(path, tmp_path / 'net')
    with pytest.raises(UserError, match='and 00000000 was expected'):
        publish(
            path, tmp_path / 'net', sha256='0' * 8, trust_checkpoint=digest
        )
    done = publish(path, tmp_path / 'net', trust_checkpoint=digest)
    assert done.dropped == ['optimizer', 'message_hub', 'args']
    with pytest.raises(UserError, match='refused'):  # only for that call
        load(path)


def test_what_cannot_be_published(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    training(path, state_dict={})
    with pytest.raises(UserError, match='holds no weights: its keys are meta'):
        publish(path, tmp_path / 'net')
    training(path)
    with pytest.raises(UserError, match="format 'onnx' is unknown"):
        publish(path, tmp_path / 'net', file_format='onnx')
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='could not be written'):
        publish(path, tmp_path / 'file' / 'net')

    def full(*args) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='No space left on device'):
        publish(path, tmp_path / 'out' / 'net')
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_training_cannot_continue_from_published_weights(tmp_path):
    training(tmp_path / 'a.pth', param_schedulers=[])
    intact = load(tmp_path / 'a.pth')
    intact['meta']['iter'] = 12
    require_resumable(intact, 'a.pth')
    done = publish(tmp_path / 'a.pth', tmp_path / 'net')
    with pytest.raises(UserError, match='has no optimizer, message_hub, meta'):
        require_resumable(load(done.path), 'net')


def test_the_tool_says_what_it_did(tmp_path, capsys):
    source = tmp_path / 'epoch_3.pth'
    training(source)
    tool = ('model_converters/publish_model.py', source, tmp_path / 'net')
    assert run_tool(*tool, '--sha256', sha256(source)) == 0
    path = next(tmp_path.glob('net-*.safetensors'))
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f'{path}: 7 trained tensors',
        'left out: optimizer, message_hub',
        f'SHA-256: {sha256(path)}',
    ]
    with safe_open(path, 'pt') as file:
        assert json.loads(file.metadata()['mmext'])['epoch'] == 3
    assert run_tool(*tool, '--sha256', '0' * 64) == 2
    assert 'and 0000' in capsys.readouterr().err


@pytest.mark.parametrize(
    'more, message',
    [
        ({'state_dict': None}, 'holds no weights'),
        ({'state_dict': [1]}, 'state_dict is a list'),
        ({'meta': [1]}, 'meta is a list'),
        ({'meta': {'dataset_meta': 5}}, 'dataset_meta is a int'),
        ({'meta': {'dataset_meta': {'classes': 5}}}, 'classes is 5'),
        ({'meta': {'dataset_meta': {'CLASSES': [1]}}}, 'not a list of names'),
        ({'meta': {'dataset_meta': {'classes': {'a'}}}}, 'not a list of nam'),
        (
            {'meta': {'dataset_meta': {'palette': torch.ones(1)}}},
            'safetensors cannot hold',
        ),
        ({'state_dict': {'\ud800': torch.ones(1)}}, 'safetensors cannot hold'),
        (
            {'state_dict': {'a': torch.ones(1).expand(10**10)}},
            'would need 40000000000 bytes',
        ),
    ],
)
def test_parts_of_other_types(tmp_path, more, message):
    training(tmp_path / 'a.pth', **more)
    with pytest.raises(UserError, match=message):
        publish(tmp_path / 'a.pth', tmp_path / 'out' / 'net')
    assert not [*tmp_path.glob('out/*')]


def test_keys_that_are_no_text_or_no_names(tmp_path, capsys):
    weights = {5: torch.ones(1), '\x1b[31m': 'text'}
    training(tmp_path / 'a.pth', state_dict=weights)
    done = publish(tmp_path / 'a.pth', tmp_path / 'net')
    assert [*load(done.path)['state_dict']] == ['5']
    tool = 'model_converters/publish_model.py'
    assert run_tool(tool, tmp_path / 'a.pth', tmp_path / 'net') == 0
    assert '\x1b' not in capsys.readouterr().out


@pytest.mark.parametrize(
    'meta', ['[1]', '5', '"x"', '[' * 10_000, '{"dataset_meta": 5}', '\ud800']
)
def test_metadata_of_other_types(tmp_path, meta):
    file = tmp_path / 'a.safetensors'
    text = meta.encode('utf-8', 'replace').decode()
    save_file({'a': torch.ones(1)}, file, {'mmext': text})
    with pytest.raises(UserError, match=r'a\.safetensors'):
        publish(file, tmp_path / 'net')
