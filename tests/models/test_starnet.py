# Licensed under the Apache License, Version 2.0. See LICENSE.
"""StarNet against the official code, timm and its own definition."""

from __future__ import annotations

import backbone_checks as checks
import pytest
import torch
from golden import assert_golden, golden_input

from mmext.checkpoints.released import load_released_weights
from mmext.models import StarNet

# With the 1000-class head of the released networks.
PARAMETERS = {
    's1': 2_869_168,
    's2': 3_682_024,
    's3': 5_750_792,
    's4': 7_482_728,
    's050': 542_728,
    's100': 1_043_280,
    's150': 1_560_616,
}
build = checks.CASES['StarNet'].build


@pytest.mark.parametrize('arch', ['s1', 's050'])
def test_equals_the_reference(arch: str, golden: dict, shared) -> None:
    weights = checks.reference_weights(shared, f'starnet_{arch}')
    reference = golden[f'starnet_{arch}']
    image = golden_input(reference['input'])
    model = StarNet(arch).double().eval()
    load_released_weights(model, weights)
    for out, ref in zip(model(image), reference['stages'], strict=True):
        assert_golden(out, ref)
    # With the final norm, a pool and a linear layer: the classifier.
    model = StarNet(arch, final_norm=True, out_indices=-1).double().eval()
    load_released_weights(model, weights)
    scores = checks.class_scores(model(image)[0], weights)
    assert_golden(scores, reference['logits'])


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameter_counts_equal_the_papers(arch: str) -> None:
    model = StarNet(arch, final_norm=True)
    assert checks.count_with_classifier(model) == PARAMETERS[arch]


@pytest.mark.parametrize('arch', PARAMETERS)
def test_equals_timm(arch: str, x: torch.Tensor) -> None:
    timm = pytest.importorskip('timm')
    theirs = timm.create_model(f'starnet_{arch}').double().eval()
    checks.randomise(theirs)
    ours = StarNet(arch, final_norm=True).double().eval()
    load_released_weights(ours, theirs.state_dict())
    last, levels = theirs.forward_intermediates(x.double(), norm=True)
    for out, ref in zip(ours(x.double()), levels, strict=True):
        torch.testing.assert_close(out, ref)
    torch.testing.assert_close(last, levels[-1])


def test_operation_of_each_stage(x: torch.Tensor) -> None:
    """Star and sum differ from the first stage that has another one on."""
    star = checks.randomise(build()).eval()
    mixed = build(operation=('star', 'sum', 'star', 'star')).eval()
    mixed.load_state_dict(star.state_dict())
    first, second, *_ = (
        torch.equal(a, b) for a, b in zip(star(x), mixed(x), strict=True)
    )
    assert first and not second


@pytest.mark.parametrize('operation', ['star', 'sum'])
@pytest.mark.parametrize('position', ['one', 'both', 'none', 'after'])
def test_block_is_the_formula(operation: str, position: str) -> None:
    model = checks.randomise(
        build(operation=operation, act_position=position)
    ).eval()
    block = model.stages[1][1]
    y = torch.randn(2, 8, 6, 5) * 3
    a, b = block.f1(y), block.f2(y)
    act_a, act_b = a.clamp(0, 6), b.clamp(0, 6)

    def join(u, v):
        return u * v if operation == 'star' else u + v

    expected = {
        'one': join(act_a, b),
        'both': join(act_a, act_b),
        'none': join(a, b),
        'after': join(a, b).clamp(0, 6),
    }[position]
    torch.testing.assert_close(block.star(a.clone(), b.clone()), expected)


@pytest.mark.parametrize(
    'layers',
    [
        {'act_cfg': {'type': 'ReLU'}},
        {'act_cfg': {'type': 'GELU'}},
        {'act_cfg': {'type': 'LeakyReLU'}},
        {'act_cfg': {'type': 'HSwish'}},
        {'act_cfg': None},
        {'norm_cfg': {'type': 'GN', 'num_groups': 2}},
    ],
    ids=str,
)
def test_other_activations_and_norms(layers: dict, x: torch.Tensor) -> None:
    model = build(**layers)
    checks.check_gradients(model, x)
    if layers == {'act_cfg': None}:
        kinds = {type(m).__name__ for m in model.modules()}
        assert not kinds & {'ReLU6', 'GELU', 'ReLU'}


def test_truncated_normal_start() -> None:
    default = StarNet('s1')
    truncated = StarNet('s1', weight_init='trunc_normal')
    for model in (default, truncated):
        bias = model.stages[3][1].f1.conv.bias.clone()
        model.init_weights()
        assert torch.equal(model.stages[3][1].f1.conv.bias, bias)
    weight = truncated.stages[3][1].f1.conv.weight
    assert abs(weight.std() - 0.02) < 1e-3
    # PyTorch's own: uniform with bound 1 / sqrt(fan in).
    weight = default.stages[3][1].f1.conv.weight
    bound = weight[0].numel() ** -0.5
    assert weight.abs().max() <= bound < weight.abs().max() * 1.01


def test_drop_path_rises_to_the_rate_asked_for() -> None:
    model = build(drop_path_rate=0.4, out_indices=(0, 1))
    rates = [
        b.drop_path.drop_prob for stage in model.stages for b in stage[1:]
    ]
    assert rates == pytest.approx([0, 0.1, 0.2])  # of 5, two are not built


def test_classifies_under_mmpretrain(golden: dict, shared) -> None:
    """Released weights give the released class scores, head included."""
    registry = pytest.importorskip('mmpretrain.registry')
    pytest.importorskip('mmpretrain.models')
    backbone = {
        'type': 'StarNet',
        'arch': 's050',
        'final_norm': True,
        'out_indices': (3,),
    }
    head = {'type': 'LinearClsHead', 'num_classes': 1000, 'in_channels': 128}
    classifier = registry.MODELS.build(
        {
            'type': 'ImageClassifier',
            'backbone': backbone,
            'neck': {'type': 'GlobalAveragePooling'},
            'head': head,
        }
    )
    weights = checks.reference_weights(shared, 'starnet_s050')
    model = classifier.double().eval()
    assert not load_released_weights(model, weights).unused
    reference = golden['starnet_s050']
    scores = model(golden_input(reference['input']), mode='tensor')
    assert_golden(scores, reference['logits'])
