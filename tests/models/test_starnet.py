# Licensed under the Apache License, Version 2.0. See LICENSE.
"""StarNet against the official code, timm and its own definition."""

from __future__ import annotations

import backbone_checks as checks
import pytest
import torch
from golden import assert_golden, golden_fill, golden_input
from mmengine.registry import MODELS
from torch import nn

from mmext.checkpoints.released import load_released_weights
from mmext.errors import UserError
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
    keys = shared(f'facts/state_dict_keys/starnet_{arch}.json')
    weights = golden_fill(checks.made_up_weights(keys))
    reference = golden[f'starnet_{arch}']
    image = golden_input(reference['input'])
    model = StarNet(arch).double().eval()
    load_released_weights(model, weights)
    for out, ref in zip(model(image), reference['stages'], strict=True):
        assert_golden(out, ref)
    # With the final norm, a pool and a linear layer: the classifier.
    model = StarNet(arch, final_norm=True, out_indices=-1).double().eval()
    load_released_weights(model, weights)
    pooled = model(image)[0].mean((2, 3))
    scores = pooled @ weights['head.weight'].T + weights['head.bias']
    assert_golden(scores, reference['logits'])


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameter_counts_equal_the_papers(arch: str) -> None:
    model = StarNet(arch, final_norm=True)
    head = 1000 * (model.out_channels[-1] + 1)
    count = sum(p.numel() for p in model.parameters())
    assert count + head == PARAMETERS[arch]


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


def test_fused_norms_change_nothing(x: torch.Tensor) -> None:
    from mmcv.cnn import fuse_conv_bn

    model = checks.randomise(build()).double().eval()
    plain = model(x.double())
    fused = fuse_conv_bn(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    torch.testing.assert_close(fused(x.double()), plain)


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


@pytest.mark.parametrize('act', ['ReLU', 'GELU', 'LeakyReLU', 'HSwish'])
def test_activations(act: str, x: torch.Tensor) -> None:
    model = build(act_cfg={'type': act})
    checks.check_gradients(model, x)


def test_without_any_activation(x: torch.Tensor) -> None:
    model = build(act_cfg=None)
    checks.check_gradients(model, x)
    kinds = {type(m).__name__ for m in model.modules()}
    assert not kinds & {'ReLU6', 'GELU', 'ReLU'}


def test_group_norm_takes_the_place_of_batch_norm(x: torch.Tensor) -> None:
    model = build(norm_cfg={'type': 'GN', 'num_groups': 2})
    checks.check_gradients(model, x)


def test_truncated_normal_start() -> None:
    default, truncated = (
        StarNet('s1'),
        StarNet('s1', weight_init='trunc_normal'),
    )
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


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'arch': 'S1'}, "Did you mean 's1'"),
        ({'arch': {'embed_dims': 8, 'depth': 3}}, 'depths'),
        ({'arch': None}, 'arch=None is not known'),
        ({'arch': ['s1']}, "it is one of .*'s1'"),
        ({'out_indices': (0, 4)}, '0 to 3'),
        ({'out_indices': (2, 1)}, r'Write \(1, 2\)'),
        ({'operation': 'sun'}, "Did you mean 'sum'"),
        ({'operation': ('sum', 'star')}, '4 stages'),
        ({'act_position': 'afer'}, "Did you mean 'after'"),
        ({'weight_init': 'truncnormal'}, "Did you mean 'trunc_normal'"),
        ({'frozen_stages': 5}, '4 everything that is built'),
        ({'drop_path_rate': 1}, 'drop_path_rate=1 .* below 1'),
        ({'drop_path_rate': -0.1}, 'drop_path_rate=-0.1'),
    ],
)
def test_wrong_arguments(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StarNet(**wrong)


def test_unknown_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match='dephts'):
        StarNet(dephts=(1, 1, 1, 1))


@pytest.mark.parametrize(
    'host',
    [
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
        'retinanet/retinanet_r50_fpn_1x_coco',
    ],
)
def test_serves_mmdets_detectors(host: str, x: torch.Tensor) -> None:
    import mmdet.models  # noqa: F401
    from mmengine.hub import get_config
    from mmengine.registry import DefaultScope

    cfg = get_config(f'mmdet::{host}.py').model
    cfg.backbone = {'type': 'StarNet', 'arch': checks.STARNET}
    cfg.neck.in_channels = [4, 8, 16, 32]
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg).eval()
    sizes = [tuple(o.shape[2:]) for o in detector.extract_feat(x)]
    expected = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert sizes == (expected[1:] if 'retina' in host else expected[:5])


def test_classifies_under_mmpretrain(golden: dict, shared) -> None:
    """Released weights give the released class scores, head included."""
    registry = pytest.importorskip('mmpretrain.registry')
    pytest.importorskip('mmpretrain.models')
    classifier = registry.MODELS.build(
        {
            'type': 'ImageClassifier',
            'backbone': {
                'type': 'StarNet',
                'arch': 's050',
                'final_norm': True,
                'out_indices': (3,),
            },
            'neck': {'type': 'GlobalAveragePooling'},
            'head': {
                'type': 'LinearClsHead',
                'num_classes': 1000,
                'in_channels': 128,
            },
        }
    )
    keys = shared('facts/state_dict_keys/starnet_s050.json')
    weights = golden_fill(checks.made_up_weights(keys))
    model = classifier.double().eval()
    assert not load_released_weights(model, weights).unused
    reference = golden['starnet_s050']
    scores = model(golden_input(reference['input']), mode='tensor')
    assert_golden(scores, reference['logits'])
