# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a comparison shows and what it does not show, in sentences."""

from __future__ import annotations

import math
from statistics import NormalDist

from mmext.evaluation.statistics.comparison import FEWEST_IMAGES, Comparison
from mmext.evaluation.statistics.intervals import Estimate
from mmext.utils.text import p_value, points, points_range, some

#: Identical trainings differ by as much as this share of AP.
SMALL_GAIN = 0.003
#: Smallest number of images for which the coverage was measured.
MEASURED_IMAGES = 100
#: Probability with which `size_needed` shows a difference.
POWER = 0.8


def verdict(comparison: Comparison) -> list[str]:
    """Returns the sentences under a table, the conclusion first."""
    image = comparison.differences['AP']
    lines = [_conclusion(comparison)]
    seeds = comparison.seeds.get('AP')
    if seeds and math.isfinite(seeds.se):
        lines.append(
            f'Over images alone {interval(image.value, image.interval)}, '
            f'{_p(image.p)}; between seeds '
            f'{interval(seeds.value, seeds.interval)}, {_p(seeds.p)} '
            f'(Welch, {len(comparison.baseline["AP"])} and '
            f'{len(comparison.candidate["AP"])} seeds).'
        )
    lines += _classes(comparison)
    return [*lines, *_warnings(comparison)]


def _warnings(comparison: Comparison) -> list[str]:
    """The reasons to read the conclusion with caution."""
    found = []
    fewest, most = sorted(
        (len(comparison.baseline['AP']), len(comparison.candidate['AP']))
    )
    covers = (
        'the interval covers the choice of test images, not the randomness '
        'of training. Train more seeds.'
    )
    if fewest == 1 and abs(comparison.differences['AP'].value) < SMALL_GAIN:
        found.append(
            f'Warning: One seed and a difference under {100 * SMALL_GAIN:g} '
            'AP, by which identical trainings differ too: ' + covers
        )
    elif fewest == 1:
        side = 'a side' if most == 1 else 'on one side'
        found.append(f'Warning: One seed {side}: {covers}')
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
    few = f'on fewer than {FEWEST_IMAGES} images, too few for an interval'
    absent = [c.name for c in comparison.classes if c.images == 0]
    for names, problem in (
        (rare, few),
        (absent, 'without objects and in no mean'),
    ):
        if names:
            are = 'class is' if len(names) == 1 else 'classes are'
            found.append(f'{len(names)} {are} {problem}: {some(names, 8)}.')
    return found


def interval(value: float, ends: tuple[float, float]) -> str:
    """Returns ``+1.2 [+0.4, +2.0]`` in AP points, ``[n/a]`` for ends of nan.

    ``value`` and ``ends`` are shares from -1 to 1.
    """
    if not math.isfinite(ends[0]):
        return f'{points(value)} [n/a]'
    return f'{points(value)} {points_range(ends)}'


def size_needed(estimate: Estimate, size: int) -> float:
    """Returns how many images or seeds would show a difference of this size.

    With so many its interval, estimated on ``size`` of them, excludes zero
    with probability ``POWER``. The number is infinite if there is no
    difference or no standard error.
    """
    if not estimate.value or not math.isfinite(estimate.se):
        return math.inf
    normal = NormalDist()
    reach = normal.inv_cdf((1 + estimate.level) / 2) + normal.inv_cdf(POWER)
    return size * (reach * estimate.se / estimate.value) ** 2


def _conclusion(comparison: Comparison) -> str:
    estimate = comparison.best_estimate('AP')
    what = f'{comparison.images} images'
    if 'AP' in comparison.both:
        what = 'seeds and images'
    if not math.isfinite(estimate.p):
        return f'AP: no interval can be given on {what}.'
    text = (
        f'AP {interval(estimate.value, estimate.interval)} '
        f'({100 * estimate.level:g} % over {what}), {_p(estimate.p)}: '
    )
    low, high = estimate.interval
    if low > 0:
        return text + 'the candidate is better.'
    if high < 0:
        return text + 'the candidate is worse.'
    return text + 'no difference was shown. ' + _needed(comparison)


def _needed(comparison: Comparison) -> str:
    image = comparison.differences['AP']
    seeds = comparison.seeds.get('AP')
    if abs(image.value) < 1e-9:
        return 'The two values are equal.'
    parts = []
    images = size_needed(image, comparison.images)
    if images > comparison.images:
        parts.append(f'about {_round_up(images)} images')
    if seeds and seeds.se > 0:
        sides = (comparison.baseline, comparison.candidate)
        fewest = min(len(values['AP']) for values in sides)
        needed = size_needed(seeds, fewest)
        if needed > fewest:
            parts.append(f'about {_round_up(needed)} seeds a side')
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
    parts = [
        f'{len(names)} {verb} ({some(names, 8)})'
        for names, verb in ((better, 'improved'), (worse, 'worsened'))
        if names
    ]
    found = f'{" and ".join(parts)} at {100 * alpha:g} %'
    if not shown:
        found = 'none differs'
    return [
        f"Of {len(tested)} classes tested, {found} after Holm's correction."
    ]


def _p(p: float) -> str:
    text = p_value(p)
    return f'p < {text[1:]}' if text.startswith('<') else f'p = {text}'


def _round_up(value: float) -> str:
    """Rounds up to two significant digits."""
    if value > 1e7:
        return 'more than ten million'
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return f'{math.ceil(value / unit) * unit:,}'
