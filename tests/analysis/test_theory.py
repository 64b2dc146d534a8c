# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Filter angles, stars, decision boundaries and token mixers."""

from __future__ import annotations

import contextlib
import sys
from statistics import stdev

import mmext  # noqa: F401  isort: skip  (before mmdet)
import numpy as np
import pytest
import torch
from leaves import LEAVES
from tiny_run import write_config
from torch import nn

from mmext.analysis import (
    classification,
    decision_boundary,
    filter_angles,
    orthogonality_effect,
    stars,
    token_mixers,
)
from mmext.errors import UserError
from mmext.utils.config import load_config


def test_angles_of_known_filters():
    layer = nn.Linear(2, 4, bias=False)
    layer.weight.data = torch.tensor(
        [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]]
    )
    angles = filter_angles.layer_angles(layer)
    np.testing.assert_allclose(sorted(angles.degrees), [90, 90, 180])
    assert angles.dead == 1
    assert not angles.limit  # four filters in a plane
    assert angles.mean == pytest.approx(120)
    assert angles.coherence == pytest.approx(1)
    nn.init.zeros_(layer.weight)
    nothing = filter_angles.layer_angles(layer)
    assert (nothing.mean, nothing.spread, nothing.coherence) == (90, 0, 0)


def test_angles_stay_within_groups():
    layer = nn.Conv2d(4, 6, 3, groups=2)
    angles = filter_angles.layer_angles(layer)
    assert len(angles.degrees) == 2 * 3
    w = layer.weight.detach().double().flatten(1)
    cosine = nn.functional.cosine_similarity(w[3], w[5], dim=0)
    expected = np.degrees(np.arccos(float(cosine)))
    assert np.abs(angles.degrees - expected).min() < 1e-6


@pytest.mark.parametrize('layers', ['.*', 'nothing'])
def test_measuring_angles_leaves_the_model_frozen(layers):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    model[0].requires_grad_(False)
    with contextlib.suppress(UserError):
        assert len(filter_angles.model_angles(model, layers)) == 2
    asked = [p.requires_grad for p in model.parameters()]
    assert asked == [False, False, True, True]


def test_angle_table_and_figure(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(2, 4))
    found = {'a': filter_angles.model_angles(model, '.*')}
    nn.init.orthogonal_(model[0].weight)
    found['b'] = filter_angles.model_angles(model, '0')
    table = filter_angles.angle_table(found)
    rows = {row[0]: row for row in table.rows}
    assert rows['0'][-3:] == ['90.00', '0.00', '0.000']
    assert '2 *' in rows  # more filters than weights
    assert 'nan' not in table.markdown()
    assert filter_angles.draw_angles(found, tmp_path / 'a.png').exists()
    with pytest.raises(UserError, match='matches none'):
        filter_angles.model_angles(model, 'layer3')


@pytest.mark.parametrize(
    ('inputs', 'layers'), [(2, 1), (9, 1), (2, 2), (3, 2)]
)
def test_the_star_spans_all_monomials_and_the_sum_none(inputs, layers):
    expected = stars.implicit_dimensions(inputs, layers)
    if layers == 1:
        assert expected == (inputs + 2) * (inputs + 1) // 2
    assert stars.measured_dimensions(inputs, layers) == expected
    assert stars.measured_dimensions(inputs, layers, 'sum') == inputs + 1


def test_star_boundary_is_the_polynomial_one():
    run = decision_boundary.experiment(seed=0)
    assert run.accuracy['star'] > run.accuracy['sum']
    poly, rbf = (
        run.agreement('star', kernel) for kernel in decision_boundary.KERNELS
    )
    assert poly > rbf + 0.01
    assert poly > run.agreement('sum', 'polynomial SVM')
    assert run.agreement('star', 'star') == 1
    table = decision_boundary.agreement_table([run]).markdown()
    assert f' {poly:.3f} |' in table  # one seed has no spread
    assert '1 of 1 seeds' in table


def test_spreads_are_those_of_a_sample():
    values = [71.0, 72.0, 74.5]
    found = classification.mean_and_spread(values, sign='+')
    assert found == f'+72.50 ± {stdev(values):.2f}' == '+72.50 ± 1.80'
    assert classification.mean_and_spread([71.0], digits=1) == '71.0'


def test_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    message = r'needs scikit-learn(.|\n)*pip install'
    with pytest.raises(UserError, match=message):
        decision_boundary.experiment()


def tiny(name, **changes):
    cfg = load_config(LEAVES[name])
    cfg.merge_from_dict({'epochs': 1, 'seeds': [0], **changes})
    return cfg


def test_star_against_sum_runs_from_its_config():
    cfg = tiny('demonet_star-vs-sum_digits', **{'backbone.depth': 1})
    results = stars.run_experiment(cfg)
    assert set(results) == set(stars.PUBLISHED)
    assert all(0 < v[0] < 100 for v in results.values())
    table = stars.result_table(results).markdown()
    assert ' 71.7 |' in table
    difference = results['star', True][0] - results['sum', True][0]
    assert f'{difference:+.2f}' in table
    cfg.pop('backbone')
    with pytest.raises(UserError, match='has no backbone'):
        stars.run_experiment(cfg)


def test_soft_orthogonality_narrows_the_angles_in_one_epoch():
    cfg = tiny(
        'orthogonality_resnet_digits',
        **{'backbone.base_channels': 16, 'channels': 32, 'epochs': 2},
    )
    results = orthogonality_effect.run_experiment(cfg)
    spread = {k: v[0].pooled.std() for k, v in results.items()}
    assert spread['soft orthogonality'] < 0.5 * spread['none']
    assert spread['self-orthogonality'] < spread['none']
    table = orthogonality_effect.outcome_table(results)
    assert [row[0] for row in table.rows] == list(results)
    assert table.rows[0][0] == 'initial' and table.rows[0][-1] == ''


def test_digits_split_is_disjoint_and_repeatable():
    train, test = classification.Digits.split(1000, seed=3, scale=2)
    assert train.x.shape == (1000, 1, 16, 16)
    assert len(train.y) + len(test.y) == 1797
    again, _ = classification.Digits.split(1000, seed=3, scale=2)
    assert torch.equal(train.x, again.x)
    rows = torch.cat([train.x, test.x]).flatten(1)
    assert len(rows.unique(dim=0)) > 1790


@pytest.mark.parametrize('name', token_mixers.MIXERS)
def test_mixers_are_dynamic_as_the_table_says(name):
    """A mixer whose weights do not depend on the input is an affine map."""
    torch.manual_seed(0)
    mixer = token_mixers.MIXERS[name]
    block = mixer.build(32)
    mix = block if name.startswith('local attention') else block.conv
    mix = mix.double().eval()
    a, b = torch.randn(2, 1, 32, 14, 14, dtype=torch.float64)
    with torch.no_grad():
        curved = mix(a + b) - mix(a) - mix(b) + mix(torch.zeros_like(a))
        bent = curved.norm() > 1e-6 * mix(a).norm()
    assert bool(bent) == bool(mixer.dynamic)


@pytest.mark.parametrize('name', token_mixers.MIXERS)
def test_costs_against_counting_by_hand(name):
    side, c = 14, 32
    n = side**2
    mixer = token_mixers.MIXERS[name]
    (cost,) = token_mixers.measure(c, [side], rounds=1)[name]
    pointwise, taps = c * c * n, 49 * c * n
    depthwise = 2 * pointwise + taps
    squeeze = c * (c // 4)
    expected = {
        'local attention (Swin)': 4 * pointwise + 2 * taps,
        'local MLP': depthwise,
        'depth-wise': depthwise,
        'dynamic depth-wise': depthwise + squeeze + 49 * c * (c // 4),
        # One group of 32 channels; the bias is one more channel.
        'inhomogeneous dynamic': (
            depthwise + squeeze * n + 49 * (c // 4 + 1) * n
        ),
    }[name]
    assert cost.flops == pytest.approx(expected, rel=0.01)
    assert cost.params == sum(p.numel() for p in mixer.build(c).parameters())
    # At least the block's input and what each 1x1 layer reads.
    assert cost.saved >= 2 * 4 * c * n


def test_saved_bytes_counts_each_tensor_once():
    x = torch.randn(1, 3, 8, 8)
    assert token_mixers.saved_bytes(nn.Tanh(), x) == 4 * x.numel()
    chain = nn.Sequential(nn.Tanh(), nn.Tanh())
    assert token_mixers.saved_bytes(chain, x) == 2 * 4 * x.numel()
    conv = nn.Conv2d(3, 3, 1)
    assert token_mixers.saved_bytes(conv, x) == 4 * x.numel()


def test_the_initial_weights_are_those_of_the_seed(tmp_path):
    config = write_config(tmp_path / 'tiny.py', tmp_path)
    layer = 'backbone.layer4.0.conv2'
    state = torch.get_rng_state()
    same = filter_angles.compare_angles(config, 'init', layer, 'init')
    assert list(same) == ['before', 'after']
    before, after = (found[layer].degrees for found in same.values())
    np.testing.assert_array_equal(before, after)
    other = filter_angles.compare_angles(config, 'none', layer, seed=1)
    assert list(other) == ['none']
    assert (other['none'][layer].degrees != before).any()
    assert torch.equal(torch.get_rng_state(), state)
