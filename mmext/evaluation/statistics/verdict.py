# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a comparison shows and what it does not show, in sentences.

Two claims are kept apart. One is about the checkpoints that were tested, on
images like these. The other is about the methods: would new trainings differ
too? One training a side shows nothing about the methods.
"""

from __future__ import annotations

import math

import numpy as np

from mmext.evaluation.statistics.comparison import (
    FEWEST_IMAGES,
    Comparison,
)
from mmext.evaluation.statistics.intervals import Estimate
from mmext.evaluation.statistics.seeds import largest_seed_sd
from mmext.utils.text import count, p_value, points, points_range, some

#: Smallest number of images for which the coverage was measured.
MEASURED_IMAGES = 100


def verdict(comparison: Comparison, margin: float | None = None) -> list[str]:
    """Returns the sentences under a table.

    The first two are the two claims, that about the methods first if they are
    tested.

    Args:
        comparison: The comparison.
        margin: A loss of the primary metric, from 0 to 1, that would not
            matter. The claims then say whether a larger loss is excluded.
            Default: None.
    """
    claims = [
        _claim_about_methods(comparison, margin),
        _claim_about_checkpoints(comparison, margin),
    ]
    lines = claims if comparison.both else claims[::-1]
    seeds = comparison.seeds.get(comparison.primary)
    if seeds and math.isfinite(seeds.se):
        claim = _claim(comparison, seeds, 'seeds', 'the candidate is', margin)
        lines.insert(1, f'The methods, on these images: {claim}')
    lines += _classes(comparison)
    return [*lines, *_warnings(comparison)]


def interval(value: float, ends: tuple[float, float]) -> str:
    """Returns ``+1.2 [+0.4, +2.0]`` in points, ``[n/a]`` for ends of nan.

    ``value`` and ``ends`` are shares from -1 to 1.
    """
    if not math.isfinite(ends[0]):
        return f'{points(value)} [n/a]'
    return f'{points(value)} {points_range(ends)}'


def _claim_about_checkpoints(
    comparison: Comparison, margin: float | None
) -> str:
    base, cand = map(len, _seeds(comparison))
    who = 'two' if base == cand == 1 else f'{base} and {cand}'
    return f'These {who} checkpoints, on images like these: ' + _claim(
        comparison,
        comparison.differences[comparison.primary],
        _drawn(comparison),
        f"the candidate's checkpoint{' is' if cand == 1 else 's are'}",
        margin,
    )


def _claim_about_methods(comparison: Comparison, margin: float | None) -> str:
    if comparison.both:
        return 'The methods, on images like these: ' + _claim(
            comparison,
            comparison.both[comparison.primary],
            'seeds and images',
            'the candidate is',
            margin,
        )
    text = f'The methods: not tested ({comparison.untested}).'
    if max(map(len, _seeds(comparison))) == 1:
        largest = largest_seed_sd(
            comparison.differences[comparison.primary], comparison.candidates
        )
        if largest > 0:
            text += (
                ' This difference would survive a standard deviation between '
                f'seeds of at most {_points(comparison, largest)}.'
            )
    return text


def _claim(
    comparison: Comparison,
    found: Estimate,
    drawn: str,
    candidate: str,
    margin: float | None,
) -> str:
    """The difference, its uncertainty and the conclusion."""
    if not math.isfinite(found.p):
        return (
            f'{comparison.primary} {points(found.value)}, no interval can be '
            f'given over {drawn}.'
        )
    # Without the error of the subtraction: 1 - 0.95 is above 0.05.
    alpha = round(1 - found.level, 12)
    level = f'{100 * found.level:.4g} %'
    text = (
        f'{comparison.primary} {interval(found.value, found.interval)} '
        f'({level} over {drawn}), {p_text(found.p)}'
    )
    p = found.p
    if comparison.candidates > 1 and math.isfinite(found.holm):
        p = found.holm
        text += (
            f" ({p_text(p)} after Holm's correction for "
            f'{comparison.candidates} candidates)'
        )
    if abs(found.value) < 1e-9:
        text += ': the two values are equal.'
    elif p >= alpha:
        text += ': no difference was shown.'
    else:
        text += f': {candidate} {"better" if found.value > 0 else "worse"}.'
    loss = max(0.0, -found.least)
    if margin is None and (loss == 0 or (p < alpha and found.value < 0)):
        return text
    alone = ', of this candidate alone' if comparison.candidates > 1 else ''
    text += (
        f' A loss is at most {_points(comparison, loss)} (one-sided {level}'
        f'{alone})'
    )
    if margin is not None:
        where = 'within' if loss < margin else 'beyond'
        text += f', {where} the margin of {_points(comparison, margin)}'
    return f'{text}.'


def _classes(comparison: Comparison) -> list[str]:
    level = comparison.differences[comparison.primary].level
    alpha = round(1 - level, 12)
    tested = [c for c in comparison.classes if math.isfinite(c.holm)]
    if len(comparison.classes) < 2 or not tested:
        return []
    shown = [c for c in tested if c.holm < alpha]
    better = [c.name for c in shown if c.best_estimate.value > 0]
    worse = [c.name for c in shown if c.best_estimate.value < 0]
    parts = [
        f'{len(names)} {verb} ({some(names, 8)})'
        for names, verb in ((better, 'improved'), (worse, 'worsened'))
        if names
    ]
    found = f'{" and ".join(parts)} at {100 * alpha:.3g} %'
    if not shown:
        found = 'none differs'
    who = 'The methods' if comparison.both else 'These checkpoints'
    number = count(len(tested), 'class', 'classes')
    return [f"{who}: of {number} tested, {found} after Holm's correction."]


def _warnings(comparison: Comparison) -> list[str]:
    """The reasons to read the conclusion with caution."""
    found = []
    known = [len(v) for v in _seeds(comparison) if len(v) > 1]
    if comparison.both and len(known) == 1:
        found.append(
            'Warning: One side has one training. Its spread between seeds is '
            'assumed to be that of the other side.'
        )
    if comparison.both and min(known) < 4:
        found.append(
            f'Warning: {min(known)} seeds give a rough estimate of the spread '
            'between trainings.'
        )
    if (comparison.groups or comparison.images) < MEASURED_IMAGES:
        found.append(
            f'Warning: The intervals were checked for {MEASURED_IMAGES} '
            f'images or more (docs/comparing.md). With {_drawn(comparison)} '
            'they are rough.'
        )
    rare = [c.name for c in comparison.classes if 0 < c.images < FEWEST_IMAGES]
    few = f'on fewer than {FEWEST_IMAGES} images, too few for an interval'
    absent = [c.name for c in comparison.classes if c.images == 0]
    without = 'on no image'
    if comparison.primary == 'AP':
        without = 'without objects and in no mean'
    for names, problem in (
        (rare, few),
        (absent, without),
    ):
        if names:
            are = 'class is' if len(names) == 1 else 'classes are'
            found.append(f'{len(names)} {are} {problem} ({some(names, 8)}).')
    return found


def _seeds(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    return comparison.baseline[comparison.primary], comparison.candidate[
        comparison.primary
    ]


def _drawn(comparison: Comparison) -> str:
    images = count(comparison.images, 'image')
    if comparison.groups is None:
        return images
    return f'{count(comparison.groups, "group")} of {images}'


def _points(comparison: Comparison, share: float) -> str:
    return f'{points(share, sign=False)} {comparison.primary}'


def p_text(p: float) -> str:
    """Returns ``p = 0.012`` or ``p < 0.001``."""
    text = p_value(p)
    return f'p < {text[1:]}' if text.startswith('<') else f'p = {text}'
