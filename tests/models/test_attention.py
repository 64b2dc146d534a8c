# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Channel attention against the official modules, and inside ResNets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden import assert_golden, golden_fill, golden_input
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn
from torch.export import Dim

from mmext.errors import UserError
from mmext.models import (
    ECAAttention,
    FCAAttention,
    PluginResNet,
    SEAttention,
    SRMAttention,
)
from mmext.models.layers.channel_attention import (
    adaptive_kernel_size,
    averages,
    cosine_bases,
)

ROOT = Path(__file__).resolve().parents[2]
KINDS = ('SEAttention', 'ECAAttention', 'FCAAttention', 'SRMAttention')
TINY = {'depth': 50, 'base_channels': 16, 'stem_channels': 8}


def plugins(kind: str) -> list[dict]:
    cfg = {'type': kind}
    if kind == 'FCAAttention':
        cfg['dct_size'] = 7
    return [{'cfg': cfg, 'position': 'after_conv3'}]


def resnet(kind: str, host: str = 'mmdet.ResNet', **more: Any) -> nn.Module:
    """Returns a small ResNet in training mode."""
    model = MODELS.build(
        {'type': host, **TINY, 'plugins': plugins(kind), **more}
    )
    model.train()  # returns None
    return model


@pytest.mark.parametrize(
    ('entry', 'build'),
    [
        ('module_se_256_r16_bias', SEAttention),
        ('module_eca_256_k5', ECAAttention),
        ('module_fca_256_56_top16', FCAAttention),
        ('module_srm_256', SRMAttention),
    ],
)
def test_equals_the_official_module(entry, build, golden) -> None:
    module = build(256).double().eval()
    named = set(golden[entry]['keys']) - {'dct_layer.weight'}
    assert set(module.state_dict()) == named
    if build is FCAAttention:  # the official buffer was rounded to float32
        assert module.bases.dtype == torch.float64
    module.load_state_dict(golden_fill(module.state_dict()))
    out = module(golden_input(golden[entry]['input']))
    assert_golden(out.detach(), golden[entry]['out'])


def test_eca_kernels_of_both_rules() -> None:
    sizes = [adaptive_kernel_size(2**i) for i in range(6, 12)]
    assert sizes == [3, 5, 5, 5, 5, 7]
    assert ECAAttention(2048).conv.kernel_size == (7,)
    assert ECAAttention(2048, kernel_size=3).conv.kernel_size == (3,)


def test_eca_fixed_kernels_by_stage_in_the_stock_resnet() -> None:
    """ECA-Net50's released 3557, in mmdet's own terms."""
    by_stage = []
    for stage, size in enumerate((3, 5, 5, 7)):
        (plugin,) = plugins('ECAAttention')
        plugin['cfg']['kernel_size'] = size
        plugin['stages'] = tuple(i == stage for i in range(4))
        by_stage.append(plugin)
    model = resnet('ECAAttention', plugins=by_stage)
    found = [getattr(model, f'layer{i}')[0].eca.conv for i in (1, 2, 3, 4)]
    assert [c.kernel_size for c in found] == [(3,), (5,), (5,), (7,)]


def test_fca_bases_are_orthonormal_and_start_at_the_average() -> None:
    bases = cosine_bases(tuple(range(7)), 14)
    torch.testing.assert_close(bases @ bases.T, torch.eye(7).double())
    torch.testing.assert_close(bases[0], torch.full((14,), 14**-0.5).double())


def test_fca_pools_other_sizes() -> None:
    module = FCAAttention(32, dct_size=7)
    x = torch.rand(2, 32, 14, 21)
    pooled = nn.functional.adaptive_avg_pool2d(x, 7)
    torch.testing.assert_close(module.gate(x), module.gate(pooled))


@pytest.mark.parametrize('kind', [FCAAttention, SRMAttention])
def test_channels_last(kind: type) -> None:
    """This format has an implementation of its own on a CPU."""
    module = kind(32, **({'dct_size': 7} if kind is FCAAttention else {}))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    contiguous = torch.randn(4, 32, 7, 7, requires_grad=True)
    last = contiguous.detach().to(memory_format=torch.channels_last)
    last.requires_grad_()
    for x in (contiguous, last):
        module(x).pow(2).sum().backward()
    torch.testing.assert_close(module(last), module(contiguous))
    torch.testing.assert_close(
        last.grad, contiguous.grad, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    'kind', [SEAttention, ECAAttention, FCAAttention, SRMAttention]
)
def test_no_images(kind: type) -> None:
    x = torch.rand(0, 256, 7, 5)
    assert kind(256).eval()(x).shape == x.shape


def test_srm_on_one_pixel_or_one_image() -> None:
    module = SRMAttention(8).eval()
    assert module(torch.rand(2, 8, 1, 1)).isfinite().all()
    module.train()
    with pytest.raises(UserError, match='one image in a training batch'):
        module(torch.rand(1, 8, 4, 4))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(KINDS), st.integers(0, 2**16))
def test_gates_lie_between_0_and_1(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    cfg = plugins(kind)[0]['cfg']
    module = MODELS.build({**cfg, 'in_channels': 32})
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 32, 5, 9)
    gate = module.gate(x)
    assert gate.shape == (2, 32)
    assert ((gate >= 0) & (gate <= 1)).all()
    torch.testing.assert_close(
        module.eval()(x), x * module.gate(x)[..., None, None]
    )


@pytest.mark.parametrize('host', ['mmdet.ResNet', 'PluginResNet'])
@pytest.mark.parametrize('kind', KINDS)
def test_trains_in_resnets(host: str, kind: str) -> None:
    model = resnet(kind, host)
    outs = model(torch.rand(2, 3, 64, 96))
    assert [o.shape[1] for o in outs] == [64, 128, 256, 512]
    sum(o.square().mean() for o in outs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_plugin_resnet_freezes_the_resnet_alone() -> None:
    model = resnet('SRMAttention', 'PluginResNet', frozen_stages=1)
    trainable = {
        n for n, p in model.layer1.named_parameters() if p.requires_grad
    }
    assert trainable == {
        f'{i}.srm.{name}'
        for i in range(3)
        for name in ('cfc', 'bn.weight', 'bn.bias')
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == ('.srm.' in name), name
    before = model.layer1[0].srm.bn.running_var.clone()
    nn.init.normal_(model.layer1[0].srm.cfc)
    model(torch.rand(2, 3, 64, 64))
    assert not torch.equal(model.layer1[0].srm.bn.running_var, before)
    model.eval()
    assert not any(m.training for m in model.modules())


def test_layers_that_the_user_froze_stay_frozen() -> None:
    model = resnet('SEAttention', 'PluginResNet', frozen_stages=1)
    model.requires_grad_(False)
    model.train()
    assert not any(p.requires_grad for p in model.parameters())


def test_srm_keeps_its_statistics_in_the_stock_resnet() -> None:
    """norm_eval does not keep it at its initial statistics."""
    model = resnet('SRMAttention', norm_eval=True)
    nn.init.normal_(model.layer2[0].srm.cfc)
    model(torch.rand(2, 3, 64, 64))
    assert model.layer2[0].srm.bn.running_var.ne(1).any()
    assert model.layer2[0].bn3.running_var.eq(1).all()


def test_the_stock_resnet_warns_of_attention_frozen_at_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged = []
    monkeypatch.setattr(
        'mmext.models.layers.channel_attention.print_log',
        lambda line, **kwargs: logged.append(line),
    )
    x = torch.rand(1, 3, 32, 32)
    model = resnet('SEAttention', frozen_stages=1)
    model(x)
    model(x)
    assert len(logged) == 3  # each block of layer1, once
    assert 'SEAttention is frozen' in logged[0]
    assert 'PluginResNet' in logged[0]
    loaded = resnet('SEAttention', frozen_stages=1)
    loaded.load_state_dict(model.state_dict())
    loaded(x)
    assert len(logged) == 3


@pytest.mark.parametrize(
    ('kind', 'depth', 'millions'),
    [
        ('SEAttention', 50, 44.02),
        ('ECAAttention', 50, 41.53),
        ('FCAAttention', 50, 44.02),
        ('SEAttention', 101, 65.24),
        ('ECAAttention', 101, 60.52),
    ],
)
def test_trainable_parameters_are_the_papers(
    kind: str, depth: int, millions: float
) -> None:
    """Of Faster R-CNN with FPN, as ECA-Net's Table 5 counts them.

    The papers' layer1 is frozen with its attention, which is what the stock
    ResNet does.
    """
    name = kind[: kind.index('Att')].lower()
    cfg = Config.fromfile(
        ROOT / f'configs/attention/faster-rcnn_{name}-r{depth}_fpn_1x_coco.py'
    )
    cfg.model.backbone.type = 'ResNet'
    with torch.device('meta'):
        model = DETECTORS.build(cfg.model)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert round(count / 1e6, 2) == millions


def test_srm_takes_no_weight_decay() -> None:
    cfg = Config.fromfile(
        ROOT / 'configs/attention/faster-rcnn_srm-r50_fpn_1x_coco.py'
    )
    model = nn.Module()
    model.backbone = PluginResNet(**TINY, plugins=plugins('SRMAttention'))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(group['params'][0]): group['weight_decay']
        for group in wrapper.optimizer.param_groups
    }
    for name, parameter in model.named_parameters():
        expected = 0 if '.srm.' in name else 1e-4
        assert decay[id(parameter)] == expected, name


@pytest.mark.parametrize(('size', 'cells'), [(60, 7), (7, 7), (5, 7), (13, 4)])
def test_averages_are_adaptive_pooling(size: int, cells: int) -> None:
    x = torch.rand(3, 2, size, dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool1d(x, cells)
    pooled = x @ averages(size, cells, x).T
    torch.testing.assert_close(pooled, expected)


def test_an_exported_fca_takes_maps_of_any_size() -> None:
    layer = FCAAttention(32, dct_size=7).eval()
    dims = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    example = torch.rand(2, 32, 9, 11)
    program = torch.export.export(layer, (example,), dynamic_shapes=dims)
    for shape in ((1, 32, 20, 13), (3, 32, 7, 7)):
        x = torch.rand(shape)
        torch.testing.assert_close(program.module()(x), layer(x))
