# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a comparison shows and what it does not, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from mmext.evaluation.statistics.comparison import FEWEST_IMAGES, Comparison
from mmext.evaluation.statistics.intervals import Estimate

#: Under this gain, in AP points, one seed a side earns a warning.
SMALL_GAIN = 0.3
#: Fewer images than the coverage table was measured for.
MEASURED_IMAGES = 100
POWER = 0.8


def verdict(comparison: Comparison, metric: str = 'AP') -> list[str]:
    """The sentences under a table, the conclusion first."""
    image = comparison.differences[metric]
    both = comparison.both.get(metric)
    lines = [_conclusion(comparison, metric, both or image)]
    seeds = comparison.seeds.get(metric)
    if seeds and math.isfinite(seeds.se):
        lines.append(
            f'Over images alone {interval(image)}, {_p(image.p)}; '
            f'between seeds {points(seeds.difference)} '
            f'[{points(seeds.interval[0])}, {points(seeds.interval[1])}], '
            f'{_p(seeds.p)} (Welch, {len(seeds.baseline)} and '
            f'{len(seeds.candidate)} seeds).'
        )
    lines += _classes(comparison)
    return [*lines, *warnings(comparison, metric)]


def warnings(comparison: Comparison, metric: str = 'AP') -> list[str]:
    """Why one should think twice."""
    image = comparison.differences[metric]
    found = []
    fewest, most = sorted(
        (len(comparison.baseline[metric]), len(comparison.candidate[metric]))
    )
    if fewest == 1:
        side = 'a side' if most == 1 else 'on one side'
        text = (
            f'One seed {side}: the interval covers the choice of test images'
        )
        if abs(100 * image.value) < SMALL_GAIN:
            text = (
                f'One seed and a difference under {SMALL_GAIN} AP: identical '
                'trainings differ by as much. The interval covers the choice '
                'of test images'
            )
        found.append(f'Warning: {text}, not the luck of training. Train more.')
    elif fewest < 4:
        found.append(
            f'Warning: {fewest} seeds tell little of the spread between '
            'trainings.'
        )
    if comparison.images < MEASURED_IMAGES:
        found.append(
            f'Warning: {comparison.images} images are fewer than any for '
            f'which the intervals were checked ({MEASURED_IMAGES}, see '
            'docs/comparing.md): read them as rough.'
        )
    rare = [c.name for c in comparison.classes if 0 < c.images < FEWEST_IMAGES]
    if rare:
        found.append(
            f'{_classes_are(rare)} on fewer than {FEWEST_IMAGES} images, too '
            'few for an interval: ' + _some(rare) + '.'
        )
    absent = [c.name for c in comparison.classes if c.images == 0]
    if absent:
        found.append(
            f'{_classes_are(absent)} without objects and in no mean: '
            + _some(absent)
            + '.'
        )
    return found


def points(value: float, sign: bool = True) -> str:
    """AP points: 0.012 is ``+1.2``."""
    if not math.isfinite(value):
        return 'n/a'
    text = f'{100 * value:+.1f}' if sign else f'{100 * value:.1f}'
    return text.replace('-0.0', '0.0').replace('+0.0', '0.0')


def interval(estimate: Estimate) -> str:
    """``+1.2 [+0.4, +2.0]`` in AP points."""
    low, high = estimate.interval
    value = points(estimate.value)
    if not math.isfinite(low):
        return f'{value} [n/a]'
    return f'{value} [{points(low)}, {points(high)}]'


def images_needed(estimate: Estimate, images: int) -> float:
    """Images that would show a difference of this size, 4 times in 5."""
    if not estimate.value or not math.isfinite(estimate.se):
        return math.inf
    normal = NormalDist()
    reach = normal.inv_cdf((1 + estimate.level) / 2) + normal.inv_cdf(POWER)
    return images * (reach * estimate.se / estimate.value) ** 2


def _conclusion(
    comparison: Comparison, metric: str, estimate: Estimate
) -> str:
    level = f'{100 * estimate.level:g} %'
    what = (
        'seeds and images'
        if metric in comparison.both
        else f'{comparison.images} images'
    )
    if not math.isfinite(estimate.p):
        return f'{metric}: no interval can be given on {what}.'
    text = f'{metric} {interval(estimate)} ({level} over {what}), '
    text += f'{_p(estimate.p)}: '
    low, high = estimate.interval
    if low > 0 or high < 0:
        side = 'better' if low > 0 else 'worse'
        return text + f'the candidate is {side}.'
    return text + 'no difference was shown. ' + _needed(comparison, metric)


def _needed(comparison: Comparison, metric: str) -> str:
    image = comparison.differences[metric]
    seeds = comparison.seeds.get(metric)
    if abs(image.value) < 1e-9:
        return 'There is none to settle.'
    parts = []
    images = images_needed(image, comparison.images)
    if images > comparison.images:
        parts.append(f'about {_round(images)} images')
    if seeds and seeds.se > 0:
        a_side = min(len(seeds.baseline), len(seeds.candidate))
        normal = NormalDist()
        reach = normal.inv_cdf((1 + image.level) / 2) + normal.inv_cdf(POWER)
        needed = a_side * (reach * seeds.se / image.value) ** 2
        if needed > a_side:
            parts.append(f'about {_round(needed)} seeds a side')
    if not parts:
        return 'More seeds a side would settle it.'
    return (
        'To show a difference of this size four times in five would take '
        + ' and '.join(parts)
        + '.'
    )


def _classes(comparison: Comparison) -> list[str]:
    if len(comparison.classes) < 2:
        return []
    alpha = 1 - comparison.differences['AP'].level
    tested = [c for c in comparison.classes if math.isfinite(c.holm)]
    if not tested:
        return []
    shown = [c for c in tested if c.holm < alpha]
    better = [c.name for c in shown if c.difference.value > 0]
    worse = [c.name for c in shown if c.difference.value < 0]
    if not shown:
        return [
            f'Of {len(tested)} classes tested, none differs after '
            "Holm's correction."
        ]
    parts = []
    if better:
        parts.append(f'{len(better)} improved ({_some(better)})')
    if worse:
        parts.append(f'{len(worse)} worsened ({_some(worse)})')
    return [
        f'Of {len(tested)} classes tested, ' + ' and '.join(parts) + ' at '
        f"{100 * alpha:g} % after Holm's correction."
    ]


def _classes_are(names: Sequence[str]) -> str:
    return '1 class is' if len(names) == 1 else f'{len(names)} classes are'


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def _p(p: float) -> str:
    if not math.isfinite(p):
        return 'p = n/a'
    return f'p = {p:.3f}' if p >= 0.001 else 'p < 0.001'


def _round(value: float) -> str:
    """Two significant digits, upwards."""
    if value > 1e7:
        return 'more than ten million'
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return f'{math.ceil(value / unit) * unit:,}'
