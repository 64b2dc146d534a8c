# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stiffness: its definitions, and hooks on every kind of residual stage."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmext.analysis.attention_ticket import (
    RankedBlock,
    propose,
    rank_blocks,
    ticket_config,
)
from mmext.analysis.residual import residual_stages
from mmext.analysis.stiffness import (
    measure,
    neural_stiffness_index,
    stiffness_surface,
    total_stiffness,
)
from mmext.analysis.stiffness_report import correlate
from mmext.errors import UserError


def test_golden_total_stiffness(golden):
    entry = golden['tns_DERIVED']
    nsi = np.array([entry['nsi']])
    tns = total_stiffness(nsi)
    assert tns[0] == pytest.approx(entry['closed_form_zmax*(zmax/mu-1)'])
    assert nsi.max() == entry['M2_length']
    side = nsi.max() / nsi.mean() - 1
    assert side == pytest.approx(entry['M1_length_numeric'], abs=1e-3)


def test_closed_form_is_the_integral_of_the_surface():
    """Equation 5, integrated numerically over the thresholds."""
    nsi = np.random.default_rng(0).gamma(1.5, 0.3, (40, 7))
    cell = 0.01
    centres = (np.arange(900) + 0.5) * cell
    delta, _ = stiffness_surface(nsi, centres, centres[:400])
    integral = delta.sum() * cell**2
    assert total_stiffness(nsi).mean() == pytest.approx(integral, rel=5e-3)


def test_surface_against_the_definition_block_by_block():
    nsi = np.random.default_rng(1).gamma(1.5, 0.3, (6, 5))
    m1, m2 = np.array([0.0, 0.4, 1.0]), np.array([0.0, 0.3])
    delta, ratio = stiffness_surface(nsi, m1, m2)
    for i, a in enumerate(m1):
        for j, b in enumerate(m2):
            stiff = [
                [z >= max(np.mean(r) * (1 + a), b) for z in r] for r in nsi
            ]
            assert delta[i, j] == np.mean([any(s) for s in stiff])
            assert ratio[i, j] == pytest.approx(np.mean(stiff))


def test_nsi_of_zero_and_overflowing_states():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    y = torch.tensor([[0.0, 0.0], [3.0, 5.0], [1.0, 0.0]])
    assert neural_stiffness_index(x, y)[:2].tolist() == [0.0, 0.2]
    assert torch.isinf(neural_stiffness_index(x, y)[2])
    half = torch.full((1, 4000), 300.0, dtype=torch.float16)
    assert half.square().sum().isinf()  # what float16 sums would have given
    assert neural_stiffness_index(half, 2 * half).item() == 1.0
    step = torch.tensor([[0.5, 0.0]])
    assert neural_stiffness_index(x[1:2], y[1:2], step) == 0  # 0 / 0
    assert total_stiffness(np.zeros((2, 3))).tolist() == [0, 0]


def build(**cfg) -> nn.Module:
    torch.manual_seed(0)
    init_default_scope('mmdet')
    if cfg.get('depth') == 50:
        cfg.update(base_channels=16)  # enough for every law, and quick
    model = MODELS.build(cfg)
    for name, p in model.named_parameters():  # no branch is zero
        nn.init.normal_(p, 1 if p.dim() == 1 and 'weight' in name else 0, 0.1)
    model.eval()
    return model


def images(n=2, height=64, width=96):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 3, height + 32 * i, width, generator=generator)
        for i in range(n)
    ]


def attention(kind, **options):
    return [{'cfg': {'type': kind, **options}, 'position': 'after_conv3'}]


RESNETS = {
    'plain': {'type': 'ResNet'},
    'grouped': {'type': 'ResNeXt', 'groups': 8, 'base_width': 4},
    'se': {'type': 'ResNet', 'plugins': attention('SEAttention')},
    'eca': {'type': 'ResNet', 'plugins': attention('ECAAttention')},
    'fca': {
        'type': 'ResNet',
        'plugins': attention('FCAAttention', dct_size=7),
    },
    'srm': {'type': 'ResNet', 'plugins': attention('SRMAttention')},
    # Adds to the branch, so it is part of f and no step.
    'context': {
        'type': 'ResNet',
        'plugins': attention('ContextBlock', ratio=1 / 16),
    },
    'stepnet': {'type': 'StepNetResNet', 'norm_eval': False},
}


@pytest.mark.parametrize('kind', RESNETS)
def test_resnets_stages_and_gates(kind):
    model = build(depth=50, **RESNETS[kind])
    found = measure(model, images(1))
    assert [s.name for s in found.stages] == [
        'layer1',
        'layer2',
        'layer3',
        'layer4',
    ]
    assert [len(s.blocks) for s in found.stages] == [3, 4, 6, 3]
    gated = 0 if kind in ('plain', 'grouped', 'context') else 16
    assert len(found.steps) == gated
    assert len(found.blocks) == 12
    assert np.isfinite(found.nsi).all()
    assert found.tns > 0


@pytest.mark.parametrize('kind', ['plain', 'se', 'stepnet'])
def test_nsi_and_steps_against_a_computation_by_hand(kind):
    model = build(depth=50, **RESNETS[kind])
    image = images(1)[0]
    if kind == 'stepnet':
        for layer in model.res_layers:
            for block in getattr(model, layer):
                block.step.register_forward_hook(
                    lambda m, args, out, b=block: setattr(b, 'seen', out)
                )
    found = measure(model, [image])
    x = model.maxpool(model.relu(model.norm1(model.conv1(image))))
    with torch.no_grad():
        for stage, layer in zip(found.stages, model.res_layers, strict=True):
            for i, block in enumerate(getattr(model, layer)):
                shortcut = block.downsample(x) if block.downsample else x
                f = block.relu(block.norm1(block.conv1(x)))
                f = block.relu(block.norm2(block.conv2(f)))
                f = block.norm3(block.conv3(f))
                step = torch.ones(1)
                if kind == 'se':
                    (plugin,) = block.after_conv3_plugin_names
                    step = getattr(block, plugin).gate(f)[..., None, None]
                elif kind == 'stepnet':
                    step = block.seen[..., None, None]
                y = torch.relu(shortcut + f * step)
                name = stage.blocks[i]
                if kind != 'plain':
                    np.testing.assert_allclose(
                        found.steps[name], step.flatten(1), rtol=1e-3
                    )
                if i:
                    moved = ((y - x).double() / step).nan_to_num(0)
                    nsi = moved.norm() / x.double().norm()
                    column = found.blocks.index(name)
                    assert found.nsi[0, column] == pytest.approx(
                        float(nsi), rel=1e-3
                    )
                x = y


OTHERS = {
    'starnet': ({'type': 'StarNet', 'arch': 's050'}, [1, 1, 3, 1]),
    'dwnet': ({'type': 'DWNet', 'arch': 'tiny'}, [2, 2, 6, 2]),
    'demonet': ({'type': 'DemoNet', 'depth': 3, 'embed_dims': 16}, [3]),
    'swin': (
        {
            'type': 'SwinTransformer',
            'embed_dims': 24,
            'depths': (2, 2, 2, 2),
            'num_heads': (1, 2, 4, 8),
        },
        [2, 2, 2, 2],
    ),
    'pvt': (
        {
            'type': 'PyramidVisionTransformerV2',
            'embed_dims': 16,
            'num_layers': [2, 2, 2, 2],
            'num_heads': [1, 2, 4, 8],
        },
        [2, 2, 2, 2],
    ),
    'resnet18': ({'type': 'ResNet', 'depth': 18}, [2, 2, 2, 2]),
}


@pytest.mark.parametrize('kind', OTHERS)
def test_other_backbones_have_their_stages(kind):
    cfg, depths = OTHERS[kind]
    found = measure(build(**cfg), images())
    assert [len(s.blocks) for s in found.stages] == depths
    assert found.nsi.shape == (2, sum(depths) - len(depths))
    assert found.tns > 0
    assert found.steps == {}


@pytest.mark.parametrize(
    ('name', 'depths'),
    [('convnext_atto', [2, 2, 6, 2]), ('legacy_seresnet18', [2, 2, 2, 2])],
)
def test_models_of_another_library(name, depths):
    import timm

    torch.manual_seed(0)
    found = measure(timm.create_model(name), images(1))
    assert [len(s.blocks) for s in found.stages] == depths
    assert len(found.steps) == (8 if 'se' in name else 0)


def test_models_of_mmpretrain():
    pytest.importorskip('mmpretrain.models')
    model = build(type='mmpretrain.ConvNeXt', arch='atto')
    found = measure(model, images(1))
    assert [len(s.blocks) for s in found.stages] == [2, 2, 6, 2]
    model = build(type='mmpretrain.SEResNet', depth=50)
    found = measure(model, images(1))
    assert len(found.steps) == 16


def test_the_model_is_left_as_it_was():
    model = build(depth=18, type='ResNet')
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure(model, images())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    )


def test_no_residual_block():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            conv = [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
            self.layers = nn.Sequential(
                *[nn.Sequential(*conv) for _ in range(3)]
            )

        def forward(self, x):
            return self.layers(x)

    with pytest.raises(UserError, match='No residual block in Plain'):
        measure(Plain(), images())


def test_one_block_a_stage():
    model = build(
        type='ResNet',
        depth=18,
        num_stages=1,
        strides=(1,),
        dilations=(1,),
        out_indices=(0,),
    )
    model.layer1 = nn.Sequential(model.layer1[0])
    with pytest.raises(UserError, match=r'has one block \(layer1.0\)'):
        measure(model, images())


def test_an_image_without_finite_numbers_is_left_out():
    model = build(depth=18, type='ResNet')
    good, bad = images(1)[0], torch.full((1, 3, 64, 64), float('nan'))
    for order, left_out in [([good, bad], [1]), ([bad, good], [0])]:
        found = measure(model, order)
        assert found.left_out == left_out
        assert found.nsi.shape == (1, 4)
        assert np.isfinite(found.nsi).all()
    with pytest.raises(UserError, match='ResNet: the state in .* is infinite'):
        measure(model, [bad])
    with pytest.raises(UserError, match='no images'):
        measure(model, [])


class Block(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=bias)

    def forward(self, x):
        return x + self.conv(x)


def test_a_zero_state_that_moves_has_no_index():
    model = nn.Sequential(Block(False), Block(True), Block(True))
    black = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UserError, match='moves from a state of zero'):
        measure(model, [black])
    assert measure(model, [black, black + 1]).left_out == [0]
    still = nn.Sequential(Block(False), Block(False))
    assert measure(still, [black]).nsi.tolist() == [[0.0]]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = nn.Sequential(*[Block(True) for _ in range(3)])
    image = 200 * torch.rand(1, 3, 64, 64) + 100
    full = measure(model, [image])
    half = measure(model.to(dtype), [image.to(dtype)])
    np.testing.assert_allclose(half.nsi, full.nsi, rtol=0.05)
    with pytest.raises(UserError, match='measure in float32'):
        measure(model.half(), [(image * 1e3).half()])


def test_rank_correlations():
    tau, rho = correlate([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], resamples=200)
    assert tau.value == pytest.approx(0.6)  # 8 pairs of 10 agree, 2 do not
    assert rho.value == pytest.approx(0.8)  # 1 - 6 * 4 / (5 * 24)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 9), rng.normal(size=9)
    tau, rho = correlate(np.arange(8), np.arange(8) ** 2, resamples=200)
    assert (tau.value, rho.value) == pytest.approx((1, 1))
    assert tau.interval == pytest.approx((1, 1))
    tau, rho = correlate(x, y, resamples=200)
    low, high = tau.interval
    assert -1 <= low <= tau.value <= high <= 1
    few, _ = correlate([1, 2, 3], [1, 3, 2])
    assert few.interval is None
    assert 'no interval' in str(few)
    with pytest.raises(UserError, match='different scores'):
        correlate([1, 1], [1, 2])
    with pytest.raises(UserError, match='different scores'):
        correlate([1, 2, 3, 4], [1, 2, np.nan, 3])


@pytest.mark.parametrize('kind', ['se', 'stepnet'])
def test_the_block_whose_step_varies_ranks_first(kind):
    model = build(depth=50, **RESNETS[kind])
    stages = residual_stages(model, images(1)[0])
    gates = {b: g for s in stages for b, g in s.gates.items()}
    for block, gate in gates.items():
        scale = 5.0 if block == 'layer3.2' else 0.0
        for p in model.get_submodule(gate).parameters():
            p.data *= scale
    ranked = rank_blocks(model, images(3))
    assert len(ranked) == 16
    assert ranked[0].name == 'layer3.2'
    assert ranked[0].effect > 0
    assert all(b.effect < 1e-5 for b in ranked[1:])
    assert propose(ranked) == 1


def test_proposal_covers_the_share():
    ranked = [RankedBlock(str(i), 1, e) for i, e in enumerate([6, 3, 1, 0])]
    assert propose(ranked) == 2
    assert propose(ranked, 0.91) == 3
    with pytest.raises(UserError, match='changes nothing'):
        propose([RankedBlock('a', 1, 0.0)])
    with pytest.raises(UserError, match='too few'):
        rank_blocks(build(depth=18, type='ResNet'), images(1))
    with pytest.raises(UserError, match='No block of ResNet has a step'):
        rank_blocks(build(depth=18, type='ResNet'), images(2))


CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[120.0] * 3, std=[58.0] * 3,
        pad_size_divisor=32),
    backbone=dict({backbone}),
    neck=dict(type='FPN', in_channels={channels}, out_channels=16, num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16,
        stacked_convs=1))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 48), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape',
         'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(type='CocoDataset',
                                    pipeline=test_pipeline))
"""
STEPNET = "type='StepNetResNet', depth=18, norm_eval=False"
BASIC = [64, 128, 256, 512]


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capsys):
    """Runs an analysis tool in this process: what it printed."""

    def run(name, *args):
        path = (
            Path(__file__).parents[2]
            / 'tools'
            / 'analysis_tools'
            / f'{name}.py'
        )
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.fixture
def setting(tmp_path):
    """Two configs, checkpoints and a folder of images of two sizes."""
    import cv2

    made = []
    for name, backbone in [
        ('plain', "type='ResNet', depth=18, norm_eval=False"),
        ('stepnet', STEPNET),
    ]:
        path = tmp_path / f'{name}.py'
        path.write_text(CONFIG.format(backbone=backbone, channels=BASIC))
        made.append(path)
    (tmp_path / 'images').mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate([(48, 64), (64, 40), (30, 50)]):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), pixels)
    return (*made, tmp_path / 'images')


def random_checkpoint(config, path):
    from mmext.analysis.loading import load_model

    _, model = load_model(config, 'none')
    torch.manual_seed(1)
    for name, p in model.backbone.named_parameters():
        if p.dim() == 1 and name.endswith('weight'):
            nn.init.uniform_(p, 0.5, 1.5)  # zero_init_residual would hide f
        elif 'step' in name:
            nn.init.normal_(p, 0, 0.2)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return path


def test_stiffness_tool(tmp_path, run_tool, setting):
    plain, stepnet, folder = setting
    weights = random_checkpoint(stepnet, tmp_path / 'stepnet.pth')
    out = tmp_path / 'out'
    text = run_tool(
        'stiffness', plain, 'none', stepnet, weights, '--images', folder,
        '--out-dir', out, '--correlate', '--ap', 0.3, 0.4,
    )  # fmt: skip
    assert "Kendall's tau" in text
    assert {p.name for p in out.iterdir()} == {
        'stiffness_blocks.csv',
        'stiffness_models.csv',
        'trajectories.png',
        'surfaces.png',
        'steps.png',
        'correlation.png',
    }
    with (out / 'stiffness_blocks.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    content = (out / 'stiffness_blocks.csv').read_text()
    assert 'nan' not in content.lower()
    first = [r for r in rows if r['block'] == 'layer1.0']
    assert [r['nsi_mean'] for r in first] == ['', '']
    assert first[0]['step_mean'] == ''
    assert float(first[1]['step_mean']) > 0


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ('{plain} none --images no', 'image no does not exist'),
        ('{plain} --images {folder}', '1 configs and 0 checkpoints'),
        ('{plain} none --images {folder} --names a b', '1 configs and 2 --n'),
        (
            '{plain} none --images {folder} --device cuda:99',
            "device 'cuda:99' is not available",
        ),
        ('{plain} a.pth --images {folder}', 'checkpoint a.pth does not exist'),
    ],
)
def test_stiffness_tool_reports_mistakes(
    tmp_path, run_tool, setting, capsys, args, message
):
    plain, _, folder = setting
    args = args.format(plain=plain, folder=folder).split()
    with pytest.raises(SystemExit) as end:
        run_tool('stiffness', *args, '--out-dir', tmp_path / 'out')
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_ticket_tool_writes_a_config_that_builds(tmp_path, run_tool, setting):
    from mmext.utils.config import load_config

    _, stepnet, folder = setting
    weights = random_checkpoint(stepnet, tmp_path / 'stepnet.pth')
    out = tmp_path / 'tickets' / 'ticket.py'
    text = run_tool(
        'attention_ticket', stepnet, weights, '--images', folder,
        '--out', out, '--keep', 2,
    )  # fmt: skip
    assert 'attention in 2 of 8 blocks' in text
    kept = [line.split()[0] for line in text.splitlines() if 'keep' in line]
    backbone = MODELS.build(load_config(out).model.backbone)
    active = [
        f'{layer}.{i}'
        for layer in backbone.res_layers
        for i, block in enumerate(getattr(backbone, layer))
        if block.step is not None
    ]
    assert sorted(kept) == active


def test_ticket_of_plugins_keeps_whole_stages(tmp_path):
    from mmengine.config import Config

    cfg = Config(
        {
            'model': {
                'backbone': {
                    'type': 'ResNet',
                    'depth': 50,
                    'plugins': attention('SEAttention'),
                }
            }
        }
    )
    text = ticket_config('a.py', cfg, ['layer2.1', 'layer4.0'], 'b.py')
    scope: dict = {}
    exec(text, scope)
    (plugin,) = scope['model']['backbone']['plugins']
    assert plugin['stages'] == [False, True, False, True]
    assert plugin['cfg'] == {'type': 'SEAttention'}
    cfg.model.backbone = {'type': 'SwinTransformer'}
    with pytest.raises(UserError, match='SwinTransformer has no setting'):
        ticket_config('a.py', cfg, ['layer2.1'], 'b.py')
