# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests levels of looks, power and pilots against scipy and other draws."""

import math

import numpy as np
import pytest
from scipy import stats
from test_statistics import draw

from mmext.errors import UserError
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.power import (
    Noise,
    fewest_images,
    fewest_seeds,
    inflated_sd,
    least_gains,
    noise_from_pilot,
    pooled_sd,
    power,
    smallest_gain,
)
from mmext.evaluation.statistics.seeds import seed_test, two_level

#: Lengths in standard deviations between seeds, of which there are no others.
UNIT = Noise(seed_sd=1, image_se=0, images=5000)
LOOKS = (3, 5, 8)


def test_levels_of_looks() -> None:
    expected = [0.0014, 0.0126, 0.0449]
    assert nominal_levels(LOOKS) == pytest.approx(expected, abs=5e-5)
    assert nominal_levels((4,)) == (0.05,)
    assert nominal_levels((4,), 0.01) == (0.01,)


@pytest.mark.parametrize('alpha', [0.01, 0.05])
@pytest.mark.parametrize('looks', [(3, 5, 8), (2, 4, 6, 8, 10), (1, 2)])
def test_error_over_all_looks(looks: tuple[int, ...], alpha: float) -> None:
    """Against scipy's normal distribution in as many dimensions."""
    shares = np.array(looks) / looks[-1]
    covariance = np.minimum.outer(shares, shares)
    levels = np.array(nominal_levels(looks, alpha))
    ends = stats.norm.isf(levels / 2) * np.sqrt(shares)
    inside = stats.multivariate_normal.cdf(
        ends, cov=covariance, lower_limit=-ends, abseps=1e-6, releps=1e-6
    )
    assert 1 - inside == pytest.approx(alpha, abs=1e-5)
    first = 2 * stats.norm.sf(stats.norm.isf(alpha / 2) / shares[0] ** 0.5)
    assert levels[0] == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize('looks', [(), (0, 3), (5, 3), (3, 3)])
def test_looks_without_an_order(looks: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match='in increasing order'):
        nominal_levels(looks)


@pytest.mark.parametrize(
    'gain, seeds', [(1, 17), (1.5, 9), (2, 6), (2.5, 5), (3, 4), (4, 3)]
)
def test_seeds_for_a_gain_on_one_data_set(gain: float, seeds: int) -> None:
    assert fewest_seeds(gain, UNIT, scope='data set') == seeds
    # The unit does not matter, and there is no error over images.
    noise = Noise(0.002, 0.5, 72)
    assert fewest_seeds(gain * 0.002, noise, scope='data set') == seeds


def test_power_is_that_of_welch() -> None:
    """Not the larger one of a noncentral t-distribution."""
    rng = np.random.default_rng(0)
    a, b = rng.normal([[[0]], [[2.5]]], 1, (2, 20_000, 3))
    found = stats.ttest_ind(b, a, axis=1, equal_var=False)
    expected = np.mean((found.pvalue < 0.05) & (found.statistic > 0))
    assert power(2.5, 3, UNIT, scope='data set') == pytest.approx(
        expected, abs=0.012
    )


def test_looks_cost_little_power() -> None:
    levels = nominal_levels(LOOKS)
    options = {'looks': LOOKS, 'levels': levels, 'scope': 'data set'}
    at_looks = power(2, 8, UNIT, **options)
    once = power(2, 8, UNIT, scope='data set')
    assert once - 0.02 < at_looks < once
    assert at_looks == pytest.approx(0.95, abs=0.01)
    # Both signs, of which one is counted: at most 5 % for equal methods.
    assert 0.035 < 2 * power(0, 8, UNIT, **options) < 0.055


def test_several_candidates() -> None:
    """With the level of Bonferroni."""
    noise = Noise(1, 0.5, 300)
    one = least_gains(4, noise, levels=(0.01,))
    np.testing.assert_array_equal(
        one, least_gains(4, noise, levels=(0.05,), candidates=5)
    )


@pytest.mark.parametrize('scope', ['images', 'data set'])
@pytest.mark.parametrize('target', [0.5, 0.8])
def test_smallest_gain(scope: str, target: float) -> None:
    noise = Noise(0.004, 0.003, 300, 0.002)
    gain = smallest_gain(4, noise, scope=scope, power=target)
    found = power(gain + 1e-9, 4, noise, scope=scope)
    assert found == pytest.approx(target, abs=1e-3)


def test_images_that_a_gain_needs() -> None:
    noise = Noise(0.01, 0.02, 100, 0.005)
    gain = 0.03
    images = fewest_images(gain, noise)
    z = stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    assert z == pytest.approx(2.8, abs=0.01)
    assert images == math.ceil(100 * (z * 0.02 / gain) ** 2) == 349
    assert fewest_seeds(gain, noise) is None
    assert fewest_seeds(gain, noise, images=340) is None
    needed = fewest_seeds(gain, noise, images=500)
    assert needed and power(gain, needed, noise, images=500) >= 0.8
    assert power(gain, 60, noise, images=images) == pytest.approx(
        0.8, abs=0.02
    )
    assert fewest_images(gain, noise, alpha=0.05 / 3) > images


def test_noise_on_other_images() -> None:
    """What depends on images shrinks with their number; seeds remain."""
    found = Noise(0.5, 0.2, 100, 0.3).on(400)
    assert found.image_se == pytest.approx(0.1)
    assert found.seed_image_sd == pytest.approx(0.15)
    assert found.seed_sd == pytest.approx(math.sqrt(0.16 + 0.0225))
    assert found.on(100).seed_sd == pytest.approx(0.5)


def test_one_seed_shows_nothing_about_methods() -> None:
    assert smallest_gain(1, UNIT) == math.inf
    assert power(9, 1, UNIT, scope='data set') == 0


def test_what_cannot_be_simulated() -> None:
    with pytest.raises(ValueError, match='unknown values'):
        power(1, 3, Noise(1, math.nan, 100))
    assert power(9, 3, Noise(1, math.nan, 100), scope='data set') > 0.99
    with pytest.raises(ValueError, match='is not 4'):
        power(1, 4, UNIT, looks=(3, 5), levels=(0.01, 0.04))
    with pytest.raises(ValueError):
        power(1, 5, UNIT, looks=(3, 5))


@pytest.mark.parametrize(
    'seeds, seed_sd, noise_sd, method_sd, gain',
    [
        (3, 0.05, 0, 1, 0.3),
        (3, 0.1, 1, 1, 0.35),
        (5, 0, 1, 0.5, 0.14),
        (5, 0.2, 0.5, 1, 0.4),
        (2, 0.1, 0.5, 1, 0.5),
    ],
)
def test_power_of_the_test_in_the_report(
    seeds: int,
    seed_sd: float,
    noise_sd: float,
    method_sd: float,
    gain: float,
) -> None:
    """The tests on values of 300 images, drawn by other code."""
    rng = np.random.default_rng(5)
    shown = 0
    for _ in range(1200):
        image, *sides = draw(
            rng,
            (seeds, seeds),
            seed_sd=seed_sd,
            noise_sd=noise_sd,
            method_sd=method_sd,
            gain=gain,
        )
        found = two_level(image, *sides, images=300)
        shown += found.p < 0.05 and found.value > 0
    noise_sd /= math.sqrt(300)
    noise = Noise(
        seed_sd=math.hypot(seed_sd, noise_sd),
        image_se=method_sd * math.sqrt(2 / 300),
        images=300,
        seed_image_sd=noise_sd,
    )
    planned = power(gain, seeds, noise)
    assert 0.2 < planned < 0.95
    assert shown / 1200 == pytest.approx(planned, abs=0.04)


def test_power_at_looks_of_the_test_in_the_report() -> None:
    rng = np.random.default_rng(6)
    levels = nominal_levels(LOOKS)
    shown = []
    for _ in range(1200):
        a, b = rng.normal([[0], [1.5]], 1, (2, 8))
        tests = [seed_test(a[:look], b[:look]) for look in LOOKS]
        shown.append(
            [
                found.p < level and found.value > 0
                for found, level in zip(tests, levels, strict=True)
            ]
        )
    planned = power(1.5, 8, UNIT, scope='data set', looks=LOOKS, levels=levels)
    assert np.mean(np.any(shown, 1)) == pytest.approx(planned, abs=0.04)


def test_standard_deviation_of_pilots() -> None:
    a, b, c = np.array([0.1, 0.3]), np.array([0.2, 0.5, 0.8]), np.array([0.4])
    sd, df = pooled_sd([a, b, c])
    assert df == 3 and sd == pytest.approx(math.sqrt((0.02 + 0.18) / 3))
    assert math.isnan(pooled_sd([c])[0]) and pooled_sd([c])[1] == 0
    assert inflated_sd(1, 2) == pytest.approx(2.12, abs=5e-3)
    assert inflated_sd(1, 4) == pytest.approx(1.56, abs=5e-3)
    rng = np.random.default_rng(0)
    inflated = [inflated_sd(x, 2) for x in rng.normal(0, 1, (4000, 3)).std(1)]
    # numpy's standard deviation above is that with S, not S - 1.
    too_small = np.mean(np.array(inflated) * math.sqrt(3 / 2) < 1)
    assert too_small == pytest.approx(0.2, abs=0.02)


def test_noise_of_a_pilot() -> None:
    rng = np.random.default_rng(0)
    noise_sd = 1 / math.sqrt(300)
    found = []
    for _ in range(200):
        _, base, cand = draw(
            rng, (4, 3), seed_sd=0.1, noise_sd=1, method_sd=1.5
        )
        found.append(noise_from_pilot([base, cand], 300))
    factor = inflated_sd(1, 5)
    squares = {
        name: np.mean([getattr(x, name) ** 2 for x in found])
        for name in ('seed_sd', 'image_se', 'seed_image_sd')
    }
    truth = 0.1**2 + noise_sd**2
    assert squares['seed_sd'] == pytest.approx(factor**2 * truth, rel=0.1)
    assert squares['image_se'] == pytest.approx(2 * 1.5**2 / 300, rel=0.05)
    # It is at most the spread between seeds, which cuts some of them.
    assert squares['seed_image_sd'] == pytest.approx(
        (factor * noise_sd) ** 2, rel=0.1
    )
    assert found[0].images == 300


def test_pilots_that_leave_something_unknown() -> None:
    rng = np.random.default_rng(0)
    _, base, cand = draw(rng, (3, 1), seed_sd=0.1, method_sd=1)
    alone = noise_from_pilot([base], 300)
    assert alone.seed_sd > 0 and math.isnan(alone.image_se)
    known = noise_from_pilot([base, cand], 300)
    assert known.seed_sd == alone.seed_sd and known.image_se > 0.05
    single = noise_from_pilot([base[:1], cand], 300)
    assert math.isnan(single.seed_sd) and single.image_se > 0.05
