# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stiffness: its definitions, and hooks on every kind of residual stage."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from commands import run_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny_run import write_config
from torch import nn

from mmext.analysis.attention_ticket import (
    RankedBlock,
    propose,
    rank_blocks,
    ticket_config,
)
from mmext.analysis.loading import load_model
from mmext.analysis.residual import residual_stages
from mmext.analysis.stiffness import (
    measure,
    neural_stiffness_index,
    stiffness_surface,
    total_stiffness,
)
from mmext.analysis.stiffness_report import correlate, recorded_scores
from mmext.errors import UserError
from mmext.utils.config import load_config


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


def images(n=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 3, 64 + 32 * i, 96, generator=generator)
        for i in range(n)
    ]


def attention(kind, **options):
    plugin = {'cfg': {'type': kind, **options}, 'position': 'after_conv3'}
    return {'type': 'ResNet', 'plugins': [plugin]}


RESNETS = {
    'plain': {'type': 'ResNet'},
    'grouped': {'type': 'ResNeXt', 'groups': 8, 'base_width': 4},
    'se': attention('SEAttention'),
    'eca': attention('ECAAttention'),
    'fca': attention('FCAAttention', dct_size=7),
    'srm': attention('SRMAttention'),
    # Adds to the branch, so it is part of f and no step.
    'context': attention('ContextBlock', ratio=1 / 16),
    'stepnet': {'type': 'StepNetResNet', 'norm_eval': False},
}


@pytest.mark.parametrize('kind', RESNETS)
def test_resnets_stages_and_gates(kind):
    model = build(depth=50, **RESNETS[kind])
    found = measure(model, images(1))
    assert [s.name for s in found.stages] == model.res_layers
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


SWIN = {'embed_dims': 24, 'depths': (2, 2, 2, 2), 'num_heads': (1, 2, 4, 8)}
PVT = {'embed_dims': 16, 'num_layers': [2] * 4, 'num_heads': [1, 2, 4, 8]}


@pytest.mark.parametrize(
    ('kind', 'cfg', 'depths'),
    [
        ('StarNet', {'arch': 's050'}, [1, 1, 3, 1]),
        ('DWNet', {'arch': 'tiny'}, [2, 2, 6, 2]),
        ('DemoNet', {'depth': 3, 'embed_dims': 16}, [3]),
        ('SwinTransformer', SWIN, [2, 2, 2, 2]),
        ('PyramidVisionTransformerV2', PVT, [2, 2, 2, 2]),
        ('ResNet', {'depth': 18}, [2, 2, 2, 2]),
    ],
)
def test_other_backbones_have_their_stages(kind, cfg, depths):
    found = measure(build(type=kind, **cfg), images())
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
    conv = [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
    plain = nn.Sequential(*[nn.Sequential(*conv) for _ in range(3)])
    with pytest.raises(UserError, match='No residual block in Sequential'):
        measure(plain, images())


def test_one_block_a_stage():
    one = {'num_stages': 1, 'strides': (1,), 'dilations': (1,)}
    model = build(type='ResNet', depth=18, out_indices=(0,), **one)
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


STIFFNESS = 'analysis_tools/stiffness.py'
TICKET = 'analysis_tools/attention_ticket.py'


@pytest.fixture
def plain(tmp_path):
    return write_config(tmp_path / 'plain.py', tmp_path)


@pytest.fixture
def stepnet(tmp_path):
    """A config and a checkpoint of random weights."""
    more = "model['backbone'].update(type='StepNetResNet')"
    config = write_config(tmp_path / 'stepnet.py', tmp_path, more=more)
    _, model = load_model(config, 'none')
    torch.manual_seed(1)
    for name, p in model.backbone.named_parameters():
        if p.dim() == 1 and name.endswith('weight'):
            nn.init.uniform_(p, 0.5, 1.5)  # zero_init_residual would hide f
        elif 'step' in name:
            nn.init.normal_(p, 0, 0.2)
    weights = tmp_path / 'stepnet.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights)
    return config, weights


@pytest.fixture
def folder(tmp_path):
    """Images of different sizes."""
    path = tmp_path / 'images'
    path.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate([(48, 64), (64, 40), (30, 50)]):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(path / f'{i}.png'), pixels)
    return path


def test_stiffness_tool(tmp_path, plain, stepnet, folder, capsys):
    out = tmp_path / 'out'
    models = (plain, 'none', *stepnet)
    options = ('--images', folder, '--out-dir', out, '--ap')
    assert run_tool(STIFFNESS, *models, *options, 0.3, 0.4) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {
        'stiffness_blocks.csv',
        'stiffness_models.csv',
        'trajectories.png',
        'surfaces.png',
        'steps.png',
        'correlation.png',
    }
    content = (out / 'stiffness_blocks.csv').read_text()
    assert 'nan' not in content.lower()
    rows = list(csv.DictReader(content.splitlines()))
    assert len(rows) == 16
    first = [r for r in rows if r['block'] == 'layer1.0']
    assert [r['nsi_mean'] for r in first] == ['', '']
    assert first[0]['step_mean'] == ''
    assert float(first[1]['step_mean']) > 0


def test_scores_are_those_of_the_last_validation(tmp_path):
    def run(name: str, *validations: dict) -> str:
        folder = tmp_path / name / '1' / 'vis_data'
        folder.mkdir(parents=True)
        lines = [
            {**metrics, 'step': i} for i, metrics in enumerate(validations, 1)
        ]
        (folder / 'scalars.json').write_text(
            ''.join(f'{json.dumps(line)}\n' for line in lines)
        )
        return str(tmp_path / name / 'epoch_2.pth')

    one = run('one', {'accuracy/top1': 50.0}, {'accuracy/top1': 90.5})
    two = run('two', {'accuracy/top1': 91.0, 'accuracy/top5': 99.0})
    assert recorded_scores([one, two]) == ('top-1', [90.5, 91.0])
    boxes = run('boxes', {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5})
    assert recorded_scores([boxes]) == ('AP', [25.0])
    road = run('road', {'mIoU': 61.5, 'aAcc': 80.0})
    assert recorded_scores([road]) == ('mIoU', [61.5])
    with pytest.raises(UserError, match=r'one.*: top-1; .*road.*: mIoU\)'):
        recorded_scores([one, road])


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ('none --names a b', '1 configs and 2 --names'),
        ('none --device cuda:99', "device 'cuda:99' is not available"),
        ('a.pth', 'checkpoint a.pth does not exist'),
    ],
)
def test_stiffness_tool_reports_mistakes(
    tmp_path, plain, folder, capsys, args, message
):
    out = tmp_path / 'out'
    options = ('--images', folder, '--out-dir', out)
    assert run_tool(STIFFNESS, plain, *args.split(), *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_config_of_a_ticket_builds(tmp_path, stepnet, folder, capsys):
    out = tmp_path / 'tickets' / 'ticket.py'
    options = ('--images', folder, '--out', out, '--keep', 2)
    assert run_tool(TICKET, *stepnet, *options) == 0
    text = capsys.readouterr().out
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


def ticket_of(keep: list[str], **backbone) -> dict:
    """Returns what the config of a ticket sets in a backbone."""
    cfg = Config({'model': {'backbone': backbone}})
    text = ticket_config('a.py', cfg, build(**backbone), keep, 'b.py')
    scope: dict = {}
    exec(text, scope)
    return scope['model']['backbone']


def test_ticket_of_plugins_keeps_whole_stages():
    found = ticket_of(['layer2.1', 'layer4.0'], depth=50, **RESNETS['se'])
    (plugin,) = found['plugins']
    assert plugin['stages'] == [False, True, False, True]
    assert plugin['cfg'] == {'type': 'SEAttention'}
    with pytest.raises(UserError, match='ResNet has no setting'):
        ticket_of(['layer2.1'], depth=50, type='ResNet')


def test_tickets_of_networks_with_three_stages():
    """They neither have StepNet in their name nor four stages."""
    network = {'type': 'CifarResNet', 'depth': 20}
    steps = {**network, 'stage_with_step': (True, True, True)}
    found = ticket_of(['layer1.2', 'layer3.1'], **steps)
    assert found == {'step_blocks': [[2], [], [1]]}
    assert build(**steps, **found).step_blocks == found['step_blocks']
    plugin = {'cfg': {'type': 'SEAttention'}, 'position': 'after_conv2'}
    found = ticket_of(['layer1.2'], **network, plugins=[plugin])
    assert found['plugins'] == [{**plugin, 'stages': [True, False, False]}]
    build(**network, **found)
