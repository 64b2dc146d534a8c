# Licensed under the Apache License, Version 2.0. See LICENSE.
"""gMLP against timm's at 224x224, and its windows at other sizes."""

from __future__ import annotations

import backbone_checks as checks
import pytest
import torch
from golden import assert_golden, golden_input
from torch.utils.flop_counter import FlopCounterMode

from mmext.checkpoints.released import load_released_weights
from mmext.errors import UserError
from mmext.models import GMLP
from mmext.models.layers.spatial_gating_unit import SpatialGatingUnit

# timm's models, with their 1000-class head.
PARAMETERS = {'tiny': 5_867_328, 'small': 19_422_656, 'base': 73_075_392}
TIMM = {'tiny': 'gmlp_ti16_224', 'small': 'gmlp_s16_224'}
build = checks.CASES['GMLP'].build


def test_equals_the_reference(golden: dict, shared) -> None:
    weights = checks.reference_weights(shared, 'timm_gmlp_s16_224')
    reference = golden['timm_gmlp_s16_224']
    model = GMLP('small').double().eval()
    load_released_weights(model, weights)
    with torch.no_grad():
        (out,) = model(golden_input(reference['input']))
    tokens = out.flatten(2).transpose(1, 2)
    assert_golden(tokens, reference['forward_features'])
    assert_golden(checks.class_scores(out, weights), reference['logits'])


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameter_counts_equal_timms(arch: str) -> None:
    with torch.device('meta'):
        model = GMLP(arch)
    assert checks.count_with_classifier(model) == PARAMETERS[arch]


@pytest.mark.parametrize('arch', TIMM)
def test_equals_timm(arch: str) -> None:
    timm = pytest.importorskip('timm')
    theirs = timm.create_model(TIMM[arch]).eval()
    checks.randomise(theirs)
    ours = GMLP(arch).eval()
    load_released_weights(ours, theirs.state_dict())
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        (out,), ref = ours(image), theirs.forward_features(image)
    torch.testing.assert_close(
        out.flatten(2).transpose(1, 2), ref, rtol=1e-4, atol=1e-4
    )


def test_final_norm_belongs_to_the_last_block(x: torch.Tensor) -> None:
    assert build(out_indices=(0, 1)).norm is None
    model = checks.randomise(build()).eval()
    bare = build(final_norm=False).eval()
    load_released_weights(bare, model.state_dict())
    outs, raw = model(x), bare(x)
    torch.testing.assert_close(outs[:2], raw[:2])
    normed = model.norm(raw[2].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(outs[2], normed)


def gate(window: int, shift: bool) -> SpatialGatingUnit:
    unit = SpatialGatingUnit(8, window, shift).double()
    return checks.randomise(unit)


@pytest.mark.parametrize('shift', [False, True])
@pytest.mark.parametrize('size', [(4, 4), (7, 10), (3, 9), (12, 4)])
def test_gate_is_the_formula_in_each_window(
    size: tuple[int, int], shift: bool
) -> None:
    """Token by token, from the definition, with nothing vectorised."""
    height, width = size
    unit = gate(4, shift)
    x = torch.randn(1, height, width, 8, dtype=torch.float64)
    u, v = x[..., :4], unit.norm(x[..., 4:])
    top = 2 if shift and height > 4 else 0
    left = 2 if shift and width > 4 else 0
    expected = torch.zeros_like(u)
    for row in range(height):
        for col in range(width):
            r, c = (row + top) % 4, (col + left) % 4
            total = unit.proj.bias[r * 4 + c].expand(4).clone()
            for dr in range(4):
                for dc in range(4):
                    i, j = row - r + dr, col - c + dc
                    if 0 <= i < height and 0 <= j < width:
                        weight = unit.proj.weight[r * 4 + c, dr * 4 + dc]
                        total += weight * v[0, i, j]
            expected[0, row, col] = u[0, row, col] * total
    torch.testing.assert_close(unit(x), expected)


def test_gate_starts_as_the_identity() -> None:
    unit = SpatialGatingUnit(8, 4)
    x = torch.randn(2, 6, 6, 8)
    torch.testing.assert_close(unit(x), x[..., :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('form', ['multiply', 'add'])
def test_gates_without_split_are_the_papers_formulas(form: str) -> None:
    """s(Z) = Z * f(Z) and Z + f(Z), over all positions of one window."""
    unit = SpatialGatingUnit(8, 4, form=form).double()
    x = torch.randn(2, 4, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(unit(x), x, rtol=1e-4, atol=1e-4)
    checks.randomise(unit)
    f = torch.einsum(
        'ij,bjc->bic', unit.proj.weight, unit.norm(x).flatten(1, 2)
    )
    f = (f + unit.proj.bias[:, None]).view_as(x)
    expected = x * f if form == 'multiply' else x + f
    torch.testing.assert_close(unit(x), expected)


def test_without_split_the_second_layer_sees_all_channels() -> None:
    model = build(gate_form='multiply')
    assert model.blocks[0].mlp_channels.fc2.in_features == 32
    with pytest.raises(UserError, match="gate_form='none' is not known"):
        build(gate_form='none')


def influence(shift: bool) -> torch.Tensor:
    """Where two blocks carry a change of the first token of (1, 9, 9)."""
    torch.manual_seed(0)
    model = checks.randomise(build(shift_windows=shift, out_indices=1)).eval()
    image = torch.rand(1, 3, 144, 144)
    other = image.clone()
    other[..., :16, :16] += 1
    (a,), (b,) = model(image), model(other)
    return (a != b).any(1)[0]


def test_only_shifted_windows_exchange_information() -> None:
    apart, shifted = influence(shift=False), influence(shift=True)
    assert apart[:3, :3].all() and apart.sum() == 9
    # Block 1 begins its windows one token early: rows 0-1, 2-4, ...
    assert shifted[:5, :5].all() and shifted.sum() == 25


def test_cost_is_linear_in_the_area() -> None:
    model = GMLP('tiny', shift_windows=False, out_indices=1).eval()
    flops = []
    for size in ((224, 224), (448, 672)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.rand(1, 3, *size))
        flops.append(counter.get_total_flops())
    assert flops[1] == 6 * flops[0]


def test_survival_rates_are_the_papers() -> None:
    with torch.device('meta'):
        rates = {
            arch: getattr(GMLP(arch).blocks[-1].drop_path, 'drop_prob', 0)
            for arch in PARAMETERS
        }
    assert rates == pytest.approx({'tiny': 0, 'small': 0.05, 'base': 0.2})


def test_initial_weights() -> None:
    model = GMLP('tiny', out_indices=1)
    torch.nn.init.ones_(model.blocks[0].mlp_channels.gate.proj.weight)
    model.init_weights()
    mlp = model.blocks[0].mlp_channels
    assert mlp.gate.proj.weight.abs().max() < 1e-5
    assert (mlp.gate.proj.bias == 1).all()
    bound = (6 / (128 + 768)) ** 0.5  # Xavier
    assert bound * 0.99 < mlp.fc1.weight.abs().max() <= bound
