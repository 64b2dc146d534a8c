# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests intervals, seeds and corrections against scipy and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mmext.evaluation.coco.matching import Matches
from mmext.evaluation.statistics.comparison import (
    ClassEstimate,
    Comparison,
    ImageBootstrap,
    Resampled,
    compare_resampled,
)
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    jackknife_se,
)
from mmext.evaluation.statistics.seeds import seed_test, two_level
from mmext.evaluation.statistics.verdict import size_needed, verdict
from mmext.utils.text import points


def left_one_out(x: np.ndarray) -> np.ndarray:
    """The mean without each of the values."""
    return (x.sum() - x) / (len(x) - 1)


def mean_estimate(x: np.ndarray, count: int = 4000) -> Estimate:
    """An estimate of a mean, whose bootstrap is known in closed form."""
    drawn = np.random.default_rng(0).choice(x, (count, len(x))).mean(1)
    return estimate(float(x.mean()), drawn, left_one_out(x))


def test_estimate_of_a_mean() -> None:
    x = np.random.default_rng(1).normal(0.5, 1, 400)
    found = mean_estimate(x)
    se = x.std(ddof=1) / 20
    assert found.se == pytest.approx(se, rel=0.05)
    assert jackknife_se(left_one_out(x)) == pytest.approx(se, rel=1e-9)
    for low, high in found.intervals.values():
        assert low == pytest.approx(x.mean() - 1.96 * se, abs=0.3 * se)
        assert high == pytest.approx(x.mean() + 1.96 * se, abs=0.3 * se)


def test_bca_equals_scipy() -> None:
    x = np.random.default_rng(2).exponential(1, 60)
    found = mean_estimate(x, count=20_000)
    expected = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method='BCa', rng=3
    ).confidence_interval
    assert found.intervals['bca'] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize('ties', [False, True])
def test_p_value_agrees_with_the_interval(ties: bool) -> None:
    """With p near the level too, and with many ties."""
    rng = np.random.default_rng(3)
    outside = 0
    for _ in range(300):
        x = rng.normal(rng.normal(0, 3), 1, 199)
        if ties:
            x = np.where(rng.random(199) < 0.1 * rng.random(), 0, abs(x))
        jack = x.mean() + rng.normal(0, 0.2 * rng.random(), 50)
        for level in (0.9, 0.95):
            found = estimate(float(x.mean()), x, jack, level)
            low, high = found.interval
            assert (found.p < 1 - level) == (low > 0 or high < 0)
            outside += low > 0 or high < 0
    assert 100 < outside < 500


def test_p_values_finer_than_the_resamples() -> None:
    """With 80 classes and 1,000 resamples, 80 * 2 / 1001 is above 0.05."""
    x = np.random.default_rng(4).normal(1, 1, 40)
    drawn = np.random.default_rng(5).choice(x, (1000, 40)).mean(1)
    values = (float(x.mean()), drawn, left_one_out(x))
    plain = estimate(*values)
    assert plain.p == pytest.approx(2 / 1001)
    found = estimate(*values, images=40)
    expected = stats.ttest_1samp(x, 0).pvalue
    assert found.p == pytest.approx(expected, rel=0.7)
    assert holm(np.array([found.p] + [0.5] * 79))[0] < 0.05
    few = estimate(*values, images=2)
    assert few.p == plain.p  # not larger than that of the resamples


def test_no_interval_without_values() -> None:
    nan = np.full(100, np.nan)
    found = estimate(math.nan, nan, nan)
    assert math.isnan(found.p) and math.isnan(found.interval[0])


def test_holm_by_hand() -> None:
    p = np.array([0.01, 0.04, math.nan, 0.03, 0.005])
    expected = [0.03, 0.06, math.nan, 0.06, 0.02]
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)
    assert holm(np.array([])).shape == (0,)


def test_seed_test_is_welch() -> None:
    a, b = np.array([0.370, 0.374, 0.371]), np.array([0.380, 0.383, 0.390])
    found = seed_test(a, b)
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    ends = tuple(expected.confidence_interval())
    assert found.interval == pytest.approx(ends, rel=1e-6)


def test_two_level_holds_both_variances() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.02, 3000)  # the same for all seeds: paired images
    sides = []
    for centre, spread in ((0.3, 0.01), (0.35, 0.02)):
        seeds = centre + spread * np.array([-1.0, 0.0, 1.0])
        noise = image if centre > 0.3 else np.zeros(3000)
        resamples = np.concatenate([[0.0], noise])
        sides.append(seeds[:, None] + resamples)
    over_images = Estimate(0.05, 0.02, {'stretched': (0.01, 0.09)}, 0.01)
    found = two_level(over_images, *sides, rng)
    variance = 0.02**2 + (0.01**2 + 0.02**2) / 3
    assert found.value == pytest.approx(0.05)
    assert found.se == pytest.approx(math.sqrt(variance), rel=0.05)
    assert found.interval[0] < 0.01 and found.interval[1] > 0.09
    assert found.p > 0.03


def comparison(value: float, se: float, seeds: int = 1) -> Comparison:
    ends = (value - 1.96 * se, value + 1.96 * se)
    p = 2 * float(stats.norm.sf(abs(value) / se))
    found = Estimate(value, se, {'stretched': ends}, p)
    nothing = Estimate(0.1, math.nan, {'stretched': (math.nan,) * 2}, math.nan)
    return Comparison(
        images=500,
        resamples=1000,
        baseline={'AP': np.full(seeds, 0.37)},
        candidate={'AP': np.full(seeds, 0.37 + value)},
        differences={'AP': found},
        classes=(
            ClassEstimate('cat', 100, 0.3, 0.4, found, p),
            ClassEstimate('dog', 3, 0.3, 0.4, nothing, math.nan),
        ),
        seeds={},
        both={},
    )


def test_verdict_of_a_clear_gain() -> None:
    lines = verdict(comparison(0.02, 0.004))
    assert lines[0].startswith('AP +2.0 [+1.2, +2.8] (95 % over 500 images)')
    assert lines[0].endswith('the candidate is better.')
    assert any('1 improved (cat)' in x for x in lines)
    assert any('1 class is on fewer than 10 images' in x for x in lines)
    assert any('One seed a side' in x for x in lines)


def test_verdict_of_a_small_gain() -> None:
    found = comparison(0.002, 0.004)
    lines = verdict(found)
    assert 'no difference was shown' in lines[0]
    # (1.96 + 0.8416)^2 * (0.004 / 0.002)^2 * 500
    needed = size_needed(found.differences['AP'], 500)
    assert needed == pytest.approx(7.849 * 4 * 500, rel=1e-3)
    assert 'about 16,000 images' in lines[0]
    assert any('difference under 0.3 AP' in x for x in lines)


def test_seeds_that_do_not_differ_have_no_p_value() -> None:
    """A regression: the text was 'p = < 0.001'."""
    found = comparison(0.02, 0.004, seeds=2)
    test = seed_test(found.baseline['AP'], found.candidate['AP'])
    found = replace(found, seeds={'AP': test})
    assert test.se == 0
    assert 'between seeds +2.0 [n/a], p = n/a' in verdict(found)[1]
    assert 'p < 0.001: the candidate is better' in verdict(found)[0]


def test_one_seed_on_one_side() -> None:
    found = comparison(0.02, 0.004)
    found = replace(found, baseline={'AP': np.array([0.36, 0.38])})
    assert any('One seed on one side' in x for x in verdict(found))


def test_no_difference_but_rounding() -> None:
    found = comparison(1e-17, 0.004, seeds=2)
    test = seed_test(np.array([0.3, 0.4]), np.array([0.4, 0.3]))
    lines = verdict(replace(found, seeds={'AP': test}))
    assert lines[0].endswith('The two values are equal.')


def test_the_same_runs_in_another_order_do_not_differ() -> None:
    rng = np.random.default_rng(6)
    matches = Matches(('a',), ('all',), np.ones((20, 1, 1), np.int32), ())
    runs = [
        Resampled({'AP': v}, v[:, None], 100)
        for v in rng.random((5, 121)).astype(np.float32).astype(float)
    ]
    found = compare_resampled(
        matches, runs, [runs[i] for i in (3, 1, 4, 0, 2)]
    )
    for estimated in (found.differences['AP'], found.classes[0].difference):
        assert estimated.interval == (0, 0) and estimated.p == 1


def test_points() -> None:
    values = (0.012, -0.0301, 0.0, -0.0001, math.nan)
    expected = ['+1.2', '-3.0', '0.0', '0.0', 'n/a']
    assert [points(v) for v in values] == expected


def test_resamples_are_the_same_for_every_run() -> None:
    a, b = ImageBootstrap(50, 20, seed=3), ImageBootstrap(50, 20, seed=3)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert (a.weights[0] == 1).all()
    assert (a.weights[1:21].sum(1) == 50).all()
    assert a.weights.shape == (1 + 20 + 50, 50)
    assert (a.weights[21:].sum(0) == 49).all()  # each is left out once
