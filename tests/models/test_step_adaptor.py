# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The step adaptor: its formula, its start and its range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmext.models import SEAttention, StepAdaptor

INPUTS = ('both', 'current', 'next', 'difference')
FUSIONS = ('concat', 'sum', 'product', 'separate')


def randomise(adaptor: StepAdaptor, seed: int = 0) -> StepAdaptor:
    generator = torch.Generator().manual_seed(seed)
    for parameter in adaptor.parameters():
        nn.init.normal_(parameter, generator=generator)
    return adaptor


def excite(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (x @ first.T).relu() @ second.T


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('inputs', INPUTS)
def test_equals_its_formula_on_whole_maps(inputs: str, fusion: str) -> None:
    """The next state, computed in full here, is never needed there."""
    adaptor = randomise(StepAdaptor(32, inputs, fusion, start='paper'))
    adaptor.double()
    x, f = torch.randn(2, 3, 32, 5, 7, dtype=torch.float64)
    after = x + f
    seen = {
        'current': x,
        'next': after,
        'difference': after - x,
        'both': {
            'concat': torch.cat([x, after], 1),
            'sum': x + after,
            'product': x.mean((2, 3), True) * after.mean((2, 3), True),
            'separate': x,
        }[fusion],
    }[inputs]
    weights = list(adaptor.parameters())
    z = excite(seen.mean((2, 3)), *weights[:2])
    if inputs == 'both' and fusion == 'separate':
        z += excite(after.mean((2, 3)), *weights[2:])
    else:
        assert len(weights) == 2
    out = adaptor(x.mean((2, 3)), f.mean((2, 3)))
    torch.testing.assert_close(out, z.sigmoid())


def test_of_the_difference_it_is_squeeze_and_excitation() -> None:
    se = SEAttention(64, bias=False)
    adaptor = StepAdaptor(64, inputs='difference', start='paper')
    adaptor.load_state_dict(
        {
            'branches.0.fc1.weight': se.fc[0].weight,
            'branches.0.fc2.weight': se.fc[2].weight,
        }
    )
    x, f = torch.randn(2, 2, 64, 4, 4)
    step = adaptor(x.mean((2, 3)), f.mean((2, 3)))
    torch.testing.assert_close(step[..., None, None] * f, se(f))


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(INPUTS),
    st.sampled_from(FUSIONS),
    st.integers(0, 2**16),
)
def test_starts_at_1_and_stays_in_range(
    inputs: str, fusion: str, seed: int
) -> None:
    torch.manual_seed(seed)
    # Enough rows that none of the two hidden units is 0 for all of them.
    x, f = 3 * torch.randn(2, 64, 32)
    adaptor = StepAdaptor(32, inputs, fusion)
    adaptor.init_weights()
    step = adaptor(x, f)
    assert step.eq(1).all()
    step.square().sum().backward()
    assert adaptor.branches[0].fc2.weight.grad.abs().max() > 0
    step = randomise(adaptor, seed)(x, f)
    assert ((step >= 0) & (step <= 2)).all()
    adaptor.start = 'paper'
    torch.testing.assert_close(adaptor(x, f), step / 2)


def test_norm_and_ratio() -> None:
    adaptor = randomise(StepAdaptor(64, ratio=8, norm_cfg={'type': 'LN'}))
    assert adaptor.branches[0].fc1.weight.shape == (8, 128)
    assert isinstance(adaptor.branches[0].norm, nn.LayerNorm)
    x, f = torch.randn(2, 3, 64)
    hidden = adaptor.branches[0].norm(
        torch.cat([x, x + f], 1) @ adaptor.branches[0].fc1.weight.T
    )
    z = hidden.relu() @ adaptor.branches[0].fc2.weight.T
    torch.testing.assert_close(adaptor(x, f), 2 * z.sigmoid())
