# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones of mmext in timm's registry."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from backbone_checks import randomise
from timm.data import resolve_model_data_config
from timm.optim import param_groups_layer_decay

from mmext.errors import UserError
from mmext.models import GMLP, DWNet, StarNet, StepNetResNet
from mmext.timm_models import BACKBONES

SMALL = {
    'mmext_starnet_s050': (StarNet('s050'), (16, 32, 64, 128)),
    'mmext_dwnet_tiny': (DWNet('tiny'), (96, 192, 384, 768)),
    'mmext_gmlp_tiny': (GMLP('tiny'), (128,)),
    'mmext_stepnet18': (StepNetResNet(18), (64, 128, 256, 512)),
}


def test_names() -> None:
    assert set(timm.list_models('mmext_*')) == set(BACKBONES)
    assert len(BACKBONES) == 7 + 3 + 6 + 5
    # timm's own ones are untouched.
    for name in ('starnet_s1', 'gmlp_s16_224'):
        assert type(timm.create_model(name)).__module__.startswith('timm.')


@pytest.mark.parametrize(
    'name, parameters',
    [  # the published numbers, as in docs/
        ('mmext_starnet_s1', 2_869_168),
        ('mmext_gmlp_small', 19_422_656),
        ('mmext_starnet_s050', 542_728),
    ],
)
def test_parameters(name: str, parameters: int) -> None:
    model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_same_as_starnet_of_timm() -> None:
    ours = randomise(timm.create_model('mmext_starnet_s050'))
    theirs = timm.create_model('starnet_s050').eval()
    state = {
        key.removeprefix('backbone.').replace('head.fc.', 'head.'): value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    x = torch.rand(2, 3, 96, 64)
    torch.testing.assert_close(ours.eval()(x), theirs(x))


@pytest.mark.parametrize('name', SMALL)
def test_classifier(name: str) -> None:
    model = timm.create_model(name, num_classes=7, in_chans=4).eval()
    x = torch.rand(2, 4, 64, 96)
    scores = model(x)
    assert scores.shape == (2, 7)
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    assert torch.equal(model.get_classifier()(pooled), scores)
    sum(model.train()(x)).sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    model.set_grad_checkpointing()
    assert any(getattr(m, 'with_cp', 0) for m in model.backbone.modules())
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)


@pytest.mark.parametrize('name', SMALL)
def test_features_only(name: str) -> None:
    backbone, widths = SMALL[name]
    model = timm.create_model(name, features_only=True).eval()
    info = model.feature_info
    assert tuple(info.channels()) == widths
    x = torch.rand(1, 3, 64, 96)
    maps = model(x)
    sizes = [tuple(m.shape[1:]) for m in maps]
    assert sizes == [
        (width, 64 // stride, 96 // stride)
        for width, stride in zip(
            info.channels(), info.reduction(), strict=True
        )
    ]
    backbone.load_state_dict(model.state_dict())
    for ours, theirs in zip(backbone.eval()(x), maps, strict=True):
        assert torch.equal(ours, theirs)
    two = timm.create_model(name, features_only=True, out_indices=(1, 2))
    assert len(two(x)) == len(two.feature_info.channels()) == 2


def test_layer_decay_of_timm() -> None:
    model = timm.create_model('mmext_gmlp_tiny')
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(p): g['lr_scale'] for g in groups for p in g['params']}
    assert scale[id(model.get_classifier().weight)] == 1
    assert scale[id(model.backbone.blocks[29].norm.weight)] == 0.5
    assert scale[id(model.backbone.stem.proj.weight)] == 0.5**31


def test_checkpoint_for_a_detector(tmp_path: Path) -> None:
    """What timm's train script saves loads in our backbone, strictly."""
    model = randomise(timm.create_model('mmext_starnet_s050', num_classes=5))
    file = tmp_path / 'model_best.pth.tar'
    torch.save({'state_dict': model.state_dict(), 'epoch': 3}, file)
    cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    backbone = StarNet('s050', init_cfg=cfg)
    backbone.init_weights()
    expected = model.backbone.state_dict()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, expected[key])
    with pytest.raises(UserError, match='does not fit'):
        StarNet('s100', init_cfg=cfg).init_weights()


def test_pixels() -> None:
    for name, mean in (('gmlp_tiny', 0.5), ('starnet_s1', 0.485)):
        model = timm.create_model(f'mmext_{name}')
        assert resolve_model_data_config(model)['mean'][0] == mean
