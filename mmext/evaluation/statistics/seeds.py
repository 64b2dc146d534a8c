# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests between training seeds.

Images answer whether other test images would agree, seeds whether another
training run would agree. A difference that is clear on the images of two
checkpoints may still depend on the seeds, so methods are compared on both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from mmext.evaluation.statistics.intervals import (
    Estimate,
    no_estimate,
    student,
)

#: Fewest seeds of a side whose spread stands for that of a side with one.
#: With two, equal methods differ at 5 % in up to 12 % of comparisons.
FEWEST_TO_BORROW = 3


def why_untestable(baseline: int, candidate: int) -> str:
    """Returns why numbers of seeds allow no statement about the methods.

    The result is empty if they allow it.
    """
    fewest, most = sorted((baseline, candidate))
    if most == 1:
        return 'one training each'
    if fewest == 1 and most < FEWEST_TO_BORROW:
        return (
            f'one training of a side needs {FEWEST_TO_BORROW} of the other, '
            f'which has {most}'
        )
    return ''


def seed_test(
    baseline: np.ndarray, candidate: np.ndarray, level: float = 0.95
) -> Estimate:
    """Compares the means over training seeds by Welch's t-test.

    Args:
        baseline: (S,) one value a seed.
        candidate: (S',) one value a seed.
        level: Coverage of the interval. Default: 0.95.

    Returns:
        The difference between the means, with nan for p and interval if a
        side has one seed, or if no seed of a side differs from another.
    """
    value = float(np.mean(candidate) - np.mean(baseline))
    sides = (baseline, candidate)
    if min(map(len, sides)) < 2:
        return no_estimate(value, level)
    sizes = [len(side) for side in sides]
    between = np.array([np.var(side, ddof=1) / len(side) for side in sides])
    variance, df = satterthwaite(between, sizes)
    return student(value, float(variance), float(df), level)


def two_level(
    image: Estimate,
    baseline: np.ndarray,
    candidate: np.ndarray,
    level: float = 0.95,
    images: float = math.inf,
) -> Estimate:
    """Estimates the difference between two methods, over seeds and images.

    The variance of the difference of means is ``sum_k s_k^2 / S_k`` between
    the seeds of each side k, plus the variance over images, ``V_img``, less
    the part of it that differs between seeds and is in ``s_k^2`` already:
    ``sum_k v_k / S_k``, where ``v_k`` is the mean over resamples of the
    variance over seeds of (value on the resample - value on all images). It
    is at least ``V_img``. The degrees of freedom are Satterthwaite's.

    If one side has a single seed, the standard deviation of the other side
    stands for both: ``(1 + 1 / S) s^2 + V_img``.

    Args:
        image: The estimate over images alone.
        baseline: (S, 1 + B) values: on all images, then on each resample.
        candidate: (S', 1 + B) values.
        level: Coverage of the interval. Default: 0.95.
        images: Number of images on which ``image`` depends. Default: many.

    Returns:
        The estimate, with nan for p and interval if there is none over images
        or the seeds are too few (`why_untestable`).
    """
    value = float(candidate[:, 0].mean() - baseline[:, 0].mean())
    sides = [side for side in (baseline, candidate) if len(side) > 1]
    few = why_untestable(len(baseline), len(candidate))
    if few or not math.isfinite(image.se):
        return no_estimate(value, level)
    borrowed = len(sides) == 1
    between, shared, sizes = [], 0.0, [*map(len, sides), images]
    for side in sides:
        weight = 1 / len(side) + borrowed
        between.append(weight * np.var(side[:, 0], ddof=1))
        if not borrowed:
            shared += weight * seed_image_variance(side)
    parts = seed_and_image_parts(np.array(between), image.se**2, shared)
    variance, df = satterthwaite(parts, sizes)
    return student(value, float(variance), float(df), level)


def seed_image_variance(side: np.ndarray) -> float:
    """Returns the part of the variance between seeds that images explain.

    It is the mean over resamples of the variance over seeds of the change
    from all images to the resample.

    Args:
        side: (S, 1 + B) values: on all images, then on each resample.
    """
    change = side[:, 1:] - side[:, :1]
    change = change[:, np.isfinite(change).all(0)]
    return float(np.var(change, 0, ddof=1).mean()) if change.size else 0.0


def seed_and_image_parts(
    between: np.ndarray,
    over_images: np.ndarray | float,
    shared: np.ndarray | float,
) -> np.ndarray:
    """Splits the variance of a difference into independent parts.

    Args:
        between: (P, ...) variances between the seeds of the sides.
        over_images: (...) variance over images.
        shared: (...) what both contain.

    Returns:
        (P + 1, ...) the variances between seeds, then that over images alone.
    """
    # At most what is between seeds, so that the sum is over_images or more.
    shared = np.minimum(shared, between.sum(0))
    alone = np.maximum(0, over_images - shared)
    return np.concatenate([between, alone[None]])


def satterthwaite(
    parts: np.ndarray, sizes: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of independent variances and its degrees of freedom.

    Args:
        parts: (P, ...) variances.
        sizes: Number of observations behind each of the P.
    """
    variance = parts.sum(0)
    curvature = sum(
        part**2 / (size - 1)
        for part, size in zip(parts, sizes, strict=True)
        if size > 1
    )
    with np.errstate(divide='ignore', invalid='ignore'):
        df = np.fmin(1e6, np.divide(variance**2, curvature))
    return variance, df


def largest_seed_sd(image: Estimate, candidates: int = 1) -> float:
    """Returns the spread between seeds that a difference would survive.

    With one training a side, the interval for the methods would exclude zero
    if the standard deviation between seeds were known to be at most this,
    ``sqrt(((D / z)^2 - se^2) / 2)``. It is 0 if the interval over images
    alone contains zero, and nan if there is no standard error. The level is
    that of Bonferroni for several ``candidates``.
    """
    z = -float(ndtri((1 - image.level) / 2 / candidates))
    left = (image.value / z) ** 2 - image.se**2
    return math.sqrt(left / 2) if not left < 0 else 0.0
