# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a comparison shows and what it does not show, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from mmext.evaluation.statistics.comparison import FEWEST_IMAGES, Comparison
from mmext.evaluation.statistics.intervals import Estimate
from mmext.utils.text import p_value, points, points_range, some

#: Identical trainings differ by as much as this share of AP.
SMALL_GAIN = 0.003
#: Smallest number of images for which the coverage was measured.
MEASURED_IMAGES = 100
#: Probability with which `images_needed` shows a difference.
POWER = 0.8


def verdict(comparison: Comparison, metric: str = 'AP') -> list[str]:
    """Returns the sentences under a table, the conclusion first."""
    image = comparison.differences[metric]
    lines = [_conclusion(comparison, metric)]
    seeds = comparison.seeds.get(metric)
    if seeds and math.isfinite(seeds.se):
        lines.append(
            f'Over images alone {interval(image.value, image.interval)}, '
            f'{_p(image.p)}; between seeds '
            f'{interval(seeds.difference, seeds.interval)}, {_p(seeds.p)} '
            f'(Welch, {len(seeds.baseline)} and {len(seeds.candidate)} seeds).'
        )
    lines += _classes(comparison)
    return [*lines, *warnings(comparison, metric)]


def warnings(comparison: Comparison, metric: str = 'AP') -> list[str]:
    """Returns the reasons to read the conclusion with caution."""
    image = comparison.differences[metric]
    found = []
    fewest, most = sorted(
        (len(comparison.baseline[metric]), len(comparison.candidate[metric]))
    )
    covers = 'the interval covers the choice of test images'
    if fewest == 1 and abs(image.value) < SMALL_GAIN:
        found.append(
            f'Warning: One seed and a difference under {100 * SMALL_GAIN:g} '
            'AP, by which identical trainings differ too. '
            f'{covers.capitalize()}, not the randomness of training. Train '
            'more seeds.'
        )
    elif fewest == 1:
        side = 'a side' if most == 1 else 'on one side'
        found.append(
            f'Warning: One seed {side}: {covers}, not the randomness of '
            'training. Train more seeds.'
        )
    elif fewest < 4:
        found.append(
            f'Warning: {fewest} seeds give a rough estimate of the spread '
            'between trainings.'
        )
    if comparison.images < MEASURED_IMAGES:
        found.append(
            f'Warning: The intervals were checked for {MEASURED_IMAGES} '
            f'images or more (docs/comparing.md). With {comparison.images} '
            'images they are rough.'
        )
    rare = [c.name for c in comparison.classes if 0 < c.images < FEWEST_IMAGES]
    if rare:
        found.append(
            f'{_classes_are(rare)} on fewer than {FEWEST_IMAGES} images, too '
            f'few for an interval: {some(rare, 8)}.'
        )
    absent = [c.name for c in comparison.classes if c.images == 0]
    if absent:
        found.append(
            f'{_classes_are(absent)} without objects and in no mean: '
            f'{some(absent, 8)}.'
        )
    return found


def interval(value: float, ends: tuple[float, float]) -> str:
    """Returns ``+1.2 [+0.4, +2.0]``, in AP points.

    Args:
        value: A share from -1 to 1.
        ends: Of its interval, nan if there is none.
    """
    if not math.isfinite(ends[0]):
        return f'{points(value)} [n/a]'
    return f'{points(value)} {points_range(ends)}'


def images_needed(estimate: Estimate, images: int) -> float:
    """Returns the number of images that would show a difference of this size.

    Args:
        estimate: The difference on ``images`` images.
        images: Number of images.

    Returns:
        The number for which an interval excludes zero with probability
        ``POWER``; infinity if there is no difference or no standard error.
    """
    if not math.isfinite(estimate.se):
        return math.inf
    return images * _times_needed(estimate.value, estimate.se, estimate.level)


def _times_needed(value: float, se: float, level: float) -> float:
    """How many times as large a sample must be to show a difference."""
    if not value:
        return math.inf
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(POWER)
    return (reach * se / value) ** 2


def _conclusion(comparison: Comparison, metric: str) -> str:
    estimate = comparison.best_estimate(metric)
    what = f'{comparison.images} images'
    if metric in comparison.both:
        what = 'seeds and images'
    if not math.isfinite(estimate.p):
        return f'{metric}: no interval can be given on {what}.'
    text = (
        f'{metric} {interval(estimate.value, estimate.interval)} '
        f'({100 * estimate.level:g} % over {what}), {_p(estimate.p)}: '
    )
    low, high = estimate.interval
    if low > 0:
        return text + 'the candidate is better.'
    if high < 0:
        return text + 'the candidate is worse.'
    return text + 'no difference was shown. ' + _needed(comparison, metric)


def _needed(comparison: Comparison, metric: str) -> str:
    image = comparison.differences[metric]
    seeds = comparison.seeds.get(metric)
    if abs(image.value) < 1e-9:
        return 'The two values are equal.'
    parts = []
    images = images_needed(image, comparison.images)
    if images > comparison.images:
        parts.append(f'about {_round_up(images)} images')
    if seeds and seeds.se > 0:
        fewest = min(len(seeds.baseline), len(seeds.candidate))
        times = _times_needed(image.value, seeds.se, image.level)
        if times > 1:
            parts.append(f'about {_round_up(fewest * times)} seeds a side')
    if not parts:
        return 'More seeds a side may show one.'
    return (
        'To show a difference of this size four times in five would take '
        + ' and '.join(parts)
        + '.'
    )


def _classes(comparison: Comparison) -> list[str]:
    alpha = 1 - comparison.differences['AP'].level
    tested = [c for c in comparison.classes if math.isfinite(c.holm)]
    if len(comparison.classes) < 2 or not tested:
        return []
    shown = [c for c in tested if c.holm < alpha]
    better = [c.name for c in shown if c.difference.value > 0]
    worse = [c.name for c in shown if c.difference.value < 0]
    parts = []
    if better:
        parts.append(f'{len(better)} improved ({some(better, 8)})')
    if worse:
        parts.append(f'{len(worse)} worsened ({some(worse, 8)})')
    found = f'{" and ".join(parts)} at {100 * alpha:g} %'
    if not shown:
        found = 'none differs'
    return [
        f"Of {len(tested)} classes tested, {found} after Holm's correction."
    ]


def _classes_are(names: Sequence[str]) -> str:
    return '1 class is' if len(names) == 1 else f'{len(names)} classes are'


def _p(p: float) -> str:
    text = p_value(p)
    return f'p < {text[1:]}' if text.startswith('<') else f'p = {text}'


def _round_up(value: float) -> str:
    """Rounds up to two significant digits."""
    if value > 1e7:
        return 'more than ten million'
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return f'{math.ceil(value / unit) * unit:,}'
