# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Each term against an independent computation of its definition."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmext.errors import UserError
from mmext.regularizers import (
    OCNN,
    SRIP,
    DoubleSoftOrthogonality,
    MutualCoherence,
    OffDiagonalOrthogonality,
    SelfOrthogonality,
    SoftOrthogonality,
)
from mmext.regularizers.base import filter_matrix
from mmext.regularizers.self_orthogonality import hash_similarity

WEIGHT_TERMS = [
    SoftOrthogonality,
    OffDiagonalOrthogonality,
    DoubleSoftOrthogonality,
    MutualCoherence,
    SRIP,
    OCNN,
]


def double(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layer = layer.double()
    nn.init.normal_(layer.weight, std=0.5)
    return layer


def columns(layer: nn.Module) -> torch.Tensor:
    """W with one filter a column, as in the papers."""
    return layer.weight.detach().reshape(len(layer.weight), -1).T


@pytest.mark.parametrize(
    'layer', [nn.Linear(5, 4), nn.Conv2d(3, 6, 3), nn.Conv1d(2, 3, 2)]
)
def test_weight_terms_follow_their_equations(layer):
    layer = double(layer)
    W = columns(layer)
    excess = W.T @ W - torch.eye(W.shape[1]).double()
    off = excess - torch.diag(excess.diag())
    other = W @ W.T - torch.eye(W.shape[0]).double()
    soft = torch.linalg.matrix_norm(excess) ** 2
    expected = {
        SoftOrthogonality(): soft,
        OffDiagonalOrthogonality(): torch.linalg.matrix_norm(off) ** 2,
        DoubleSoftOrthogonality(): soft + torch.linalg.matrix_norm(other) ** 2,
        MutualCoherence(): excess.abs().max(),
        SRIP(num_iters=2000): torch.linalg.matrix_norm(excess, 2),
    }
    for term, value in expected.items():
        torch.testing.assert_close(
            term(layer).detach(), value, rtol=1e-6, atol=1e-9
        )


def test_srip_never_exceeds_the_spectral_norm_and_varies():
    layer, term = double(nn.Linear(20, 12)), SRIP()
    W = columns(layer)
    exact = torch.linalg.matrix_norm(W.T @ W - torch.eye(12).double(), 2)
    values = [float(term(layer)) for _ in range(5)]
    assert max(values) <= float(exact) * (1 + 1e-9)
    assert len(set(values)) == 5
    assert min(values) > 0.5 * float(exact)


@pytest.mark.parametrize('term', WEIGHT_TERMS)
def test_orthonormal_filters_cost_nothing(term):
    layer = nn.Conv2d(4, 16, 2, bias=False).double()
    nn.init.orthogonal_(layer.weight)  # 16 filters of 16 weights
    if term is OCNN:  # orthonormal filters do not make an orthogonal map
        assert term()(layer) > 0.1
        layer = nn.Conv2d(16, 4, 1, bias=False).double()
        nn.init.orthogonal_(layer.weight)
    value = term()(layer)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize('term', WEIGHT_TERMS)
def test_groups_are_read_one_by_one(term):
    grouped = double(nn.Conv2d(6, 8, 3, groups=2))
    parts = []
    for half in grouped.weight.detach().chunk(2):
        part = nn.Conv2d(3, 4, 3).double()
        part.weight.data = half.clone()
        parts.append(part)
    make = (lambda: term(num_iters=500)) if term is SRIP else term
    expected = sum(make()(part) for part in parts)
    torch.testing.assert_close(make()(grouped), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize('stride', [1, 2, 3])
def test_ocnn_is_the_gram_matrix_of_the_convolution_operator(stride):
    """Rows of the dense matrix of the map, far from the border."""
    layer = double(nn.Conv2d(2, 3, 3, stride=stride, bias=False))
    size = 15
    eye = torch.eye(2 * size * size).double().view(-1, 2, size, size)
    dense = layer(eye).detach()  # (inputs, 3, rows, columns)
    rows = dense.shape[-1]
    products = torch.einsum(
        'iahw,ib->abhw', dense, dense[:, :, rows // 2, rows // 2]
    )
    for a in range(3):
        products[a, a, rows // 2, rows // 2] -= 1
    torch.testing.assert_close(
        OCNN()(layer).detach(), products.square().sum(), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 2), (2, 2), (2, 3)])
def test_ocnn_of_a_dilated_convolution(stride, dilation):
    dilated = double(nn.Conv2d(2, 3, 3, stride=stride, dilation=dilation))
    reach = 2 * dilation + 1
    dense = nn.Conv2d(2, 3, reach, stride=stride).double()
    dense.weight.data.zero_()
    dense.weight.data[..., ::dilation, ::dilation] = dilated.weight.data
    torch.testing.assert_close(OCNN()(dilated), OCNN()(dense))


def test_ocnn_refuses_a_transposed_convolution():
    with pytest.raises(UserError, match='ConvTranspose2d'):
        OCNN()(nn.ConvTranspose2d(2, 2, 3))


def test_filters_of_a_transposed_convolution_are_its_outputs():
    layer = double(nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False))
    filters = filter_matrix(layer)
    assert filters.shape == (2, 3, 2 * 9)
    x = torch.zeros(1, 4, 1, 1).double()
    x[0, 2:] = 1.0  # the inputs of group 1
    summed = filters[1].view(3, 2, 9).sum(1)
    torch.testing.assert_close(
        layer(x)[0, 3:].flatten(1).detach(), summed.detach()
    )


@pytest.mark.parametrize('term', WEIGHT_TERMS)
@pytest.mark.parametrize('groups', [1, 2])
def test_gradients_of_weight_terms(term, groups):
    layer = double(nn.Conv2d(4, 4, (3, 2), stride=(2, 1), groups=groups))

    def value(weight):
        layer._parameters.pop('weight', None)
        layer.weight = weight
        return (SRIP(seed=1) if term is SRIP else term())(layer)

    weight = layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (weight,))


def test_golden_self_orthogonality(golden):
    entry = golden['som_regulariser_DERIVED_FROM_SEED']
    i = torch.arange(2048, dtype=torch.float64)
    Y = (torch.cos(0.05 * i) + 0.3 * torch.sin(0.11 * i)).view(64, 32)
    theta = hash_similarity(Y)
    off = theta - torch.diag(theta.diag())
    assert float(off.sum() / (32 * 31)) == pytest.approx(
        entry['theta_mean_offdiag'], rel=1e-9
    )
    layer = nn.Linear(1, 32)
    raw = SelfOrthogonality(normalize=False)(layer, Y)
    assert float(raw) == pytest.approx(entry['R_100_1'], rel=1e-9)
    pairs = 32 * 31
    normal = SelfOrthogonality()(layer, Y)
    expected = 100 * entry['sum_term'] / pairs**2 + entry['sq_term'] / pairs
    assert float(normal) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('normalize', [True, False])
def test_gradient_of_self_orthogonality(normalize):
    torch.manual_seed(0)
    Y = 0.1 * torch.randn(12, 6, dtype=torch.float64)
    Y.requires_grad_()
    term = SelfOrthogonality(normalize=normalize)
    conv = nn.Conv2d(4, 6, 1, groups=2)
    assert torch.autograd.gradcheck(lambda y: term(conv, y), (Y,))


def test_signs_of_random_inputs_tell_the_angle():
    """The locality-sensitive-hashing identity, by simulation."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 8, generator=generator, dtype=torch.float64)
    w = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    unit = nn.functional.normalize(w, dim=1)
    angle = torch.acos((unit @ unit.T).clamp(-1, 1))
    expected = 1 - 2 * angle / math.pi
    signs = torch.sign(x @ w.T)
    exact = signs.T @ signs / len(x)
    assert (exact - expected).abs().max() < 0.01  # 4 standard errors
    # The smooth estimate is the same thing at a steep slope, and within a
    # few hundredths of it at the paper's.
    steep = hash_similarity(x @ w.T, gamma=1e4)
    assert (steep - expected).abs().max() < 0.01
    assert (hash_similarity(x @ w.T) - expected).abs().max() < 0.06


def test_a_dead_filter_counts_for_nothing():
    torch.manual_seed(0)
    Y = torch.randn(64, 5, dtype=torch.float64)
    Y[:, 2] = 0
    Y.requires_grad_()
    theta = hash_similarity(Y)
    assert (theta[2] == 0).all()
    SelfOrthogonality()(nn.Linear(1, 5), Y).backward()
    assert torch.isfinite(Y.grad).all()
    assert (Y.grad[:, 2] == 0).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_overflowed_half_precision_outputs_stay_finite(dtype):
    Y = torch.tensor([[1e5, 1.0], [1.0, -2.0], [-1e5, 3.0]]).to(dtype)
    Y.requires_grad_()  # 1e5 is infinite in float16
    value = SelfOrthogonality()(nn.Linear(1, 2), Y)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(Y.grad).all()


def test_sampling_keeps_whole_rows_and_visits_all_positions():
    term = SelfOrthogonality(max_samples=20)
    layer = nn.Conv2d(1, 7, 1)
    y = torch.arange(2 * 7 * 5 * 9).view(2, 7, 5, 9)
    everything = {
        tuple(r) for r in y.flatten(2).transpose(1, 2).reshape(-1, 7).tolist()
    }
    seen = set()
    for step in range(30):
        rows = term.sample(layer, y, step)
        assert 10 <= len(rows) <= 20
        seen |= {tuple(r) for r in rows.tolist()}
    assert seen == everything
    linear = torch.arange(2 * 11 * 7).view(2, 11, 7)
    rows = term.sample(nn.Linear(1, 7), linear, 0)
    assert rows.tolist()[0] == linear[0, 0].tolist()
    assert rows.shape == (11, 7)


def test_registered_in_the_root_registry():
    for term in [*WEIGHT_TERMS, SelfOrthogonality]:
        assert isinstance(MODELS.build({'type': term.__name__}), term)
