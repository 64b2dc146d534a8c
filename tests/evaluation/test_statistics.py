# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests intervals, seeds and corrections against scipy and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mmext.evaluation.statistics.comparison import (
    ClassEstimate,
    Comparison,
    compare_resampled,
    correct,
)
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    jackknife_se,
    student,
)
from mmext.evaluation.statistics.resampling import ImageBootstrap, Resampled
from mmext.evaluation.statistics.seeds import (
    largest_seed_sd,
    seed_test,
    two_level,
)
from mmext.evaluation.statistics.verdict import verdict
from mmext.utils.text import fold, points, some


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
    assert found.least == pytest.approx(x.mean() - 1.645 * se, abs=0.2 * se)


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


def test_student_is_scipy() -> None:
    found = student(0.02, 1e-4, 5.5, 0.9)
    reference = stats.t(5.5, 0.02, 0.01)
    assert found.interval == pytest.approx(reference.interval(0.9))
    assert found.least == pytest.approx(reference.ppf(0.1))
    assert found.p == pytest.approx(2 * stats.t.sf(2, 5.5))


#: (I, 1 + B) shares of images: all, then resamples.
WEIGHTS = ImageBootstrap(300, 200).weights[:201].T / 300


def draw(
    rng: np.random.Generator,
    seeds: tuple[int, int],
    *,
    seed_sd: float,
    noise_sd: float = 0.0,
    method_sd: float = 0.0,
    gain: float = 0.0,
    images: int = 300,
) -> tuple[Estimate, np.ndarray, np.ndarray]:
    """The estimate over images, and (S, 1 + B) values of two sides.

    The metric is a mean over images. Its value on an image is the method's
    (``method_sd``), plus the seed's (``seed_sd``), plus noise of seed and
    image (``noise_sd``).
    """
    sides = []
    for k, count in enumerate(seeds):
        values = rng.normal(0, method_sd, images)
        values = values + rng.normal(k * gain, seed_sd, (count, 1))
        values = values + rng.normal(0, noise_sd, (count, images))
        sides.append(values @ WEIGHTS)
    delta = sides[1].mean(0) - sides[0].mean(0)
    variance = float(np.var(delta[1:], ddof=1))
    return student(float(delta[0]), variance, images - 1), *sides


def rates(trials: int, seeds: tuple[int, int], **options: float) -> np.ndarray:
    """How often a difference is shown: over images, and over both."""
    rng = np.random.default_rng(7)
    shown = []
    for _ in range(trials):
        image, *sides = draw(rng, seeds, **options)
        shown.append((image.p < 0.05, two_level(image, *sides).p < 0.05))
    return np.mean(shown, axis=0)


def test_two_level_in_closed_form() -> None:
    """Noise of seed and image is in both variances, and counted once."""
    rng = np.random.default_rng(0)
    image, *sides = draw(rng, (3, 4), seed_sd=0.1, noise_sd=1, method_sd=1)
    between = [np.var(x[:, 0], ddof=1) / len(x) for x in sides]
    noise = [
        np.var(x[:, 1:] - x[:, :1], 0, ddof=1).mean() / len(x) for x in sides
    ]
    variance = sum(between) + max(0, image.se**2 - sum(noise))
    assert variance > image.se**2
    df = variance**2 / sum(
        x**2 / (len(side) - 1) for x, side in zip(between, sides, strict=True)
    )
    found = two_level(image, *sides)
    assert found.value == pytest.approx(image.value)
    assert found.se == pytest.approx(math.sqrt(variance))
    reach = stats.t.ppf(0.975, df) * found.se
    low, high = found.interval
    assert (low + reach, high - reach) == pytest.approx((found.value,) * 2)
    # Few images have fewer degrees of freedom.
    assert two_level(image, *sides, images=10).p > found.p


def test_two_level_is_as_wide_as_images_alone() -> None:
    """Seeds that happen to agree do not narrow the interval."""
    rng = np.random.default_rng(0)
    image, *sides = draw(rng, (3, 3), seed_sd=0, noise_sd=1)
    sides = [x - x[:, :1] + x[:, :1].mean() for x in sides]
    found = two_level(image, *sides)
    assert found.se == pytest.approx(image.se)


@pytest.mark.parametrize(
    'seeds, options, low, high',
    [
        ((3, 3), {'seed_sd': 0, 'noise_sd': 1}, 0.005, 0.05),
        ((3, 3), {'seed_sd': 0.06, 'noise_sd': 1, 'method_sd': 1}, 0.02, 0.07),
        ((3, 3), {'seed_sd': 0.2, 'noise_sd': 1, 'method_sd': 1}, 0.03, 0.08),
        ((2, 2), {'seed_sd': 0.3, 'method_sd': 1}, 0.02, 0.09),
        ((5, 5), {'seed_sd': 0.2, 'noise_sd': 1}, 0.02, 0.07),
        ((3, 1), {'seed_sd': 0.1, 'method_sd': 1}, 0.02, 0.09),
        ((1, 5), {'seed_sd': 0.1, 'method_sd': 1}, 0.02, 0.08),
    ],
)
def test_equal_methods_rarely_differ(
    seeds: tuple[int, int], options: dict, low: float, high: float
) -> None:
    over_images, both = rates(600, seeds, **options)
    assert low < both < high
    if options['seed_sd'] >= 0.1:
        assert over_images > 0.15


def test_a_gain_is_found_as_often_as_it_can_be() -> None:
    """A formula that counts noise of seed and image twice finds less."""
    rng = np.random.default_rng(7)
    once, twice = [], []
    for _ in range(400):
        image, *sides = draw(rng, (5, 5), seed_sd=0, noise_sd=1, gain=0.09)
        once.append(two_level(image, *sides).p < 0.05)
        parts = [float(np.var(x[:, 0], ddof=1)) / 5 for x in sides]
        variance = sum(parts) + image.se**2
        df = variance**2 / sum(x**2 / 4 for x in parts)
        twice.append(student(image.value, variance, df).p < 0.05)
    assert np.mean(once) > 1.3 * np.mean(twice) > 0.1


def test_two_seeds_do_not_speak_for_one() -> None:
    image, *sides = draw(np.random.default_rng(0), (2, 1), seed_sd=0.01)
    assert math.isnan(two_level(image, *sides).p)


def test_the_largest_seed_sd_leaves_the_interval_at_zero() -> None:
    image = Estimate(-0.026, 0.0085, {'stretched': (-0.043, -0.009)}, 0.002)
    largest = largest_seed_sd(image)
    assert 1.959964 * math.sqrt(image.se**2 + 2 * largest**2) == (
        pytest.approx(0.026)
    )
    assert largest == pytest.approx(0.0072, abs=1e-4)
    assert largest_seed_sd(replace(image, value=0.01)) == 0
    # The level of the smallest of five p-values is 0.01.
    largest = largest_seed_sd(image, candidates=5)
    assert 2.575829 * math.sqrt(image.se**2 + 2 * largest**2) == (
        pytest.approx(0.026)
    )


def resampled(
    metric: np.ndarray, classes: np.ndarray, images: int
) -> Resampled:
    """100 resamples of a run; every image has every class."""
    count = classes.shape[1]
    names = tuple(map(str, range(count)))
    present = np.ones((images, count), bool)
    return Resampled({'AP': metric}, classes, 100, names, present)


def test_classes_of_equal_methods_are_not_named() -> None:
    """Over images alone, a class is named in most comparisons."""
    rng = np.random.default_rng(8)
    bootstrap = ImageBootstrap(100, 100).weights / 100
    named, over_images = [], []
    for _ in range(80):
        sides = []
        for _ in range(2):
            runs = []
            for _ in range(3):
                values = rng.normal(0, 0.2, (100, 12))
                values += rng.normal(0, 0.03, 12)
                found = bootstrap @ values
                runs.append(resampled(found.mean(1), found, 100))
            sides.append(runs)
        found = compare_resampled(*sides)
        named.append(min(c.holm for c in found.classes) < 0.05)
        over_images.append(
            min(c.difference.holm for c in found.classes) < 0.05
        )
        assert all(c.both is c.best_estimate for c in found.classes)
    assert np.mean(named) <= 0.09
    assert np.mean(over_images) > 0.3


@pytest.mark.parametrize('candidates', [2, 3, 10])
def test_several_equal_candidates_rarely_differ(candidates: int) -> None:
    """All are compared with the same baseline."""
    rng = np.random.default_rng(9)
    alone, together = [], []
    for _ in range(400):
        base, *values = rng.normal(0, 1, candidates + 1)
        compared = correct(
            [
                replace(
                    comparison(0.0, 1.0),
                    differences={'AP': student(x - base, 2.0, 1e6)},
                )
                for x in values
            ]
        )
        found = [c.differences['AP'] for c in compared]
        alone.append(min(x.p for x in found) < 0.05)
        together.append(min(x.holm for x in found) < 0.05)
    assert np.mean(together) < 0.07 < np.mean(alone)


def test_ap_decides_and_other_metrics_are_corrected() -> None:
    p = {'AP': 0.04, 'AP50': 0.02, 'AR1': 0.03, 'AP@0.60': 0.001}
    one = comparison(0.01, 0.004)
    found = replace(
        one,
        differences={
            m: Estimate(0.01, 0.004, {'stretched': (0, 1)}, x)
            for m, x in p.items()
        },
    )
    (found,) = correct([found])
    holm = {m: x.holm for m, x in found.differences.items()}
    assert (holm['AP'], holm['AP50'], holm['AR1']) == (0.04, 0.04, 0.04)
    assert math.isnan(holm['AP@0.60'])  # part of AP, and not tested


def test_frames_of_a_scene_are_drawn_together() -> None:
    rng = np.random.default_rng(10)
    scene = np.repeat(np.arange(60), 5)[
        np.random.default_rng(1).permutation(300)
    ]
    shown = []
    for groups in (None, scene):
        weights = ImageBootstrap(300, 100, groups=groups).weights
        assert (weights[0] == 1).all()
        if groups is not None:
            for i in range(5):
                same = weights[:, scene == i]
                assert (same == same[:, :1]).all()
        found = []
        for _ in range(300):
            x = rng.normal(0, 1, 60)[scene] + rng.normal(0, 1, 300)
            means = weights @ x / weights.sum(1)
            found.append(estimate(means[0], means[1:101], means[101:]).p)
        shown.append(np.mean(np.array(found) < 0.05))
    assert shown[0] > 0.15 and shown[1] < 0.09


def comparison(
    value: float, se: float, seeds: tuple[int, int] = (1, 1)
) -> Comparison:
    found = student(value, se**2, 1e6)
    found = replace(found, holm=found.p)
    nothing = Estimate(0.1, math.nan, {'stretched': (math.nan,) * 2}, math.nan)
    base, cand = (
        {'AP': np.full(seeds[k], 0.37 + k * value)} for k in range(2)
    )
    return Comparison(
        images=500,
        resamples=1000,
        baseline=base,
        candidate=cand,
        differences={'AP': found},
        classes=(
            ClassEstimate('cat', 100, 0.3, 0.4, found),
            ClassEstimate('dog', 3, 0.3, 0.4, nothing),
        ),
        seeds={},
        both={},
        untested='' if max(seeds) > 1 else 'one training each',
    )


def test_one_seed_a_side_says_nothing_about_the_methods() -> None:
    lines = verdict(comparison(-0.026, 0.0085))
    assert lines[0] == (
        'These two checkpoints, on images like these: AP -2.6 [-4.3, -0.9] '
        "(95 % over 500 images), p = 0.002: the candidate's checkpoint is "
        'worse.'
    )
    assert lines[1] == (
        'The methods: not tested (one training each). This difference would '
        'survive a standard deviation between seeds of at most 0.7 AP.'
    )
    assert lines[2].startswith('These checkpoints: of 1 class tested, 1 wor')
    assert not any('the candidate is' in x for x in lines)
    assert any('1 class is on fewer than 10 images' in x for x in lines)


def test_a_difference_that_was_not_shown() -> None:
    lines = verdict(comparison(0.002, 0.004))
    assert lines[0].endswith(
        'p = 0.617: no difference was shown. A loss is at most 0.5 AP '
        '(one-sided 95 %).'
    )
    assert lines[1] == 'The methods: not tested (one training each).'


@pytest.mark.parametrize(
    'value, margin, says',
    [
        (0.002, 0.01, 'at most 0.5 AP (one-sided 95 %), within the margin of'),
        (0.002, 0.004, 'at most 0.5 AP (one-sided 95 %), beyond the margin'),
        (-0.01, 0.02, 'worse. A loss is at most 1.7 AP (one-sided 95 %), wi'),
        (0.05, 0.01, 'better. A loss is at most 0.0 AP (one-sided 95 %), wi'),
    ],
)
def test_not_worse_by_more_than_a_margin(
    value: float, margin: float, says: str
) -> None:
    assert says in verdict(comparison(value, 0.004), margin)[0]


def test_p_that_is_the_level() -> None:
    """A regression: 1 - 0.95 is above 0.05 in floating point."""
    found = comparison(0.02, 0.01)
    at = replace(found.differences['AP'], p=0.05, holm=0.05)
    found = replace(found, differences={'AP': at})
    assert 'no difference was shown' in verdict(found)[0]


def test_the_bound_of_one_of_several_candidates() -> None:
    found = replace(comparison(0.002, 0.004), candidates=2)
    assert '(one-sided 95 %, of this candidate alone)' in verdict(found)[0]


def test_several_seeds_a_side_have_two_claims() -> None:
    found = comparison(0.02, 0.004, (3, 3))
    both = replace(found.differences['AP'], p=0.03, holm=0.06)
    test = seed_test(np.array([0.3, 0.4]), np.array([0.41, 0.3]))
    found = replace(found, both={'AP': both}, seeds={'AP': test}, candidates=2)
    lines = verdict(found)
    assert lines[0] == (
        'The methods, on images like these: AP +2.0 [+1.2, +2.8] (95 % over '
        'seeds and images), '
        "p = 0.030 (p = 0.060 after Holm's correction for 2 candidates): no "
        'difference was shown.'
    )
    assert lines[2].startswith('These 3 and 3 checkpoints, on images like th')
    assert lines[2].endswith("the candidate's checkpoints are better.")
    assert lines[1].startswith('The methods, on these images: AP +0.5 [')
    assert any('3 seeds give a rough estimate' in x for x in lines)


def test_seeds_that_do_not_differ_have_no_p_value() -> None:
    """A regression: the text was 'p = < 0.001'."""
    found = comparison(0.02, 0.004, (2, 2))
    test = seed_test(found.baseline['AP'], found.candidate['AP'])
    found = replace(found, seeds={'AP': test}, both=found.differences)
    assert test.se == 0
    assert verdict(found)[1] == (
        'The methods, on these images: AP +2.0, no interval can be given '
        'over seeds.'
    )
    assert 'p < 0.001: the candidate is better' in verdict(found)[0]


def test_one_seed_on_one_side() -> None:
    found = comparison(0.02, 0.004, (3, 1))
    found = replace(found, both=found.differences)
    lines = verdict(found)
    assert lines[0].startswith('The methods, on images like these: AP +2.0')
    assert any('One side has one training' in x for x in lines)


def test_no_difference_but_rounding() -> None:
    lines = verdict(comparison(1e-17, 0.004))
    assert 'the two values are equal.' in lines[0]


def test_the_same_runs_in_another_order_do_not_differ() -> None:
    rng = np.random.default_rng(6)
    runs = [
        resampled(v, v[:, None], 20)
        for v in rng.random((5, 121)).astype(np.float32).astype(float)
    ]
    found = compare_resampled(runs, [runs[i] for i in (3, 1, 4, 0, 2)])
    for estimated in (found.differences['AP'], found.classes[0].difference):
        assert estimated.interval == (0, 0) and estimated.p == 1


def test_points() -> None:
    values = (0.012, -0.0301, 0.0, -0.0001, math.nan)
    expected = ['+1.2', '-3.0', '0.0', '0.0', 'n/a']
    assert [points(v) for v in values] == expected


def test_lists_of_names_end_a_sentence() -> None:
    """A regression: four dots, those of the list and of the sentence."""
    assert some('abc', 3) == 'a, b, c'
    assert f'{some("abcde", 3)}.' == 'a, b, c and 2 more.'
    assert some('abc', 1) == 'a and 2 more'
    assert some(()) == ''


def test_names_break_between_words() -> None:
    name = 'faster-rcnn_r50 95 %'
    assert fold(name, 20) == name
    assert fold(name, 11).split('\n') == ['faster-', 'rcnn_r50', '95 %']
    assert fold('letters', 3) == 'letters'


def test_resamples_are_the_same_for_every_run() -> None:
    a, b = ImageBootstrap(50, 20, seed=3), ImageBootstrap(50, 20, seed=3)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert (a.weights[0] == 1).all()
    assert (a.weights[1:21].sum(1) == 50).all()
    assert a.weights.shape == (1 + 20 + 50, 50)
    assert (a.weights[21:].sum(0) == 49).all()  # each is left out once
