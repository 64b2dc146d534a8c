# Licensed under the Apache License, Version 2.0. See LICENSE.
"""ResNets for 32x32 pixels: their size, and plugins of basic blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmext.errors import UserError
from mmext.models import CifarResNet, SEAttention, StepNetResNet

SE = [{'cfg': {'type': 'SEAttention', 'ratio': 4}, 'position': 'after_conv2'}]
NEW = {
    'none': {},
    'SE': {'plugins': SE},
    'StepNet': {
        'stage_with_step': (True, True, True),
        'step_cfg': {'ratio': 4},
    },
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# He et al. 2016, table 6. Their shortcuts have no weights: those of 1x1
# convolutions, 16 x 32 + 32 x 64, and their norms are 2,752.
@pytest.mark.parametrize(
    ('depth', 'millions'), [(20, 0.27), (32, 0.46), (56, 0.85)]
)
def test_parameters_are_the_published_ones(
    depth: int, millions: float
) -> None:
    with torch.device('meta'):
        model = CifarResNet(depth)
    shortcuts = sum(
        count(block.downsample)
        for stage in model.res_layers
        for block in model.get_submodule(stage)
        if block.downsample is not None
    )
    assert shortcuts == 2752
    head = 64 * 10 + 10
    assert round((count(model) - shortcuts + head) / 1e6, 2) == millions


@pytest.mark.parametrize('depth', [20, 29, 32, 56, 164])
def test_the_name_counts_the_layers_with_weights(depth: int) -> None:
    with torch.device('meta'):
        model = CifarResNet(depth)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    in_blocks = [n for n in layers if 'downsample' not in n]
    assert len(in_blocks) + 1 == depth  # with the classifier


@pytest.mark.parametrize('depth', [20, 29])
@pytest.mark.parametrize('new', NEW)
def test_every_parameter_is_trained(new: str, depth: int) -> None:
    position = 'after_conv2' if depth == 20 else 'after_conv3'
    cfg = dict(NEW[new])
    if 'plugins' in cfg:
        cfg['plugins'] = [{**SE[0], 'position': position}]
    model = CifarResNet(depth, **cfg)
    (out,) = model(torch.rand(2, 3, 32, 32))
    channels = model.out_channels[0]
    assert out.shape == (2, channels, 8, 8)
    assert channels == (64 if depth == 20 else 256)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def plain_block(block: nn.Module, x: Tensor, gate: Tensor | None) -> Tensor:
    """A basic block from its weights, with attention (N, C) on its branch."""

    def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
        x = functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )

    f = conv_norm(x, block.conv1, block.norm1).relu()
    f = conv_norm(f, block.conv2, block.norm2)
    if gate is not None:
        f = f * gate(f)[..., None, None]
    if block.downsample is not None:
        x = conv_norm(x, *block.downsample)
    return (x + f).relu()


def test_attention_of_a_basic_block_is_before_the_addition() -> None:
    model = CifarResNet(20, plugins=SE).double().eval()
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            value.normal_(0, 0.3)

    def excite(se: SEAttention, f: Tensor) -> Tensor:
        first, second = se.fc[0], se.fc[2]
        hidden = (f.mean((2, 3)) @ first.weight.T + first.bias).relu()
        return (hidden @ second.weight.T + second.bias).sigmoid()

    state = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    for block in (model.layer1[0], model.layer2[0]):
        with_se = plain_block(block, state, lambda f, b=block: excite(b.se, f))
        without = plain_block(block, state, None)
        assert not torch.allclose(with_se, without)
        torch.testing.assert_close(block(state), with_se)


def test_attention_and_steps_work_together() -> None:
    model = StepNetResNet(18, base_channels=16, plugins=SE, norm_eval=False)
    assert model.layer1[0].se.fc[0].out_features == 4
    outs = model(torch.rand(2, 3, 32, 32))
    sum(o.mean() for o in outs).backward()
    assert model.layer4[1].step.branches[0].fc2.weight.grad.abs().max() > 0
    found = model.new_layers()
    assert {'layer1.0.se', 'layer1.0.step'} <= set(found)


def test_basic_blocks_have_one_position() -> None:
    with pytest.raises(UserError, match="position='after_conv3'"):
        CifarResNet(20, plugins=[{**SE[0], 'position': 'after_conv3'}])
    with pytest.raises(UserError, match='depth=18 is not known'):
        CifarResNet(18)
