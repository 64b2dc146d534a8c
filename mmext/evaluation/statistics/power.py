# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Power of a comparison before it is run, by simulation.

A simulated plan draws the values of its seeds and the variances that the
report would estimate, and uses the formulas of the tests in the report
(`seeds.py`). Formulas of power with a noncentral t-distribution are too
optimistic for few seeds: 64 % where Welch's test has 53 % at three.

All values are shares from 0 to 1, as everywhere in ``evaluation``.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import chdtri, ndtri, stdtrit

from mmext.evaluation.statistics.seeds import (
    satterthwaite,
    seed_and_image_parts,
    seed_image_variance,
    why_untestable,
)

#: 'images': methods on images like these, tested by `two_level`. 'data set':
#: methods on this data set, tested between seeds by `seed_test`.
Scope = Literal['images', 'data set']
#: Of the report, which estimates the variance over images from them.
RESAMPLES = 1000


@dataclass(frozen=True)
class Noise:
    """What makes the difference of two methods uncertain.

    Args:
        seed_sd: Standard deviation between trainings of a method, on the
            test images.
        image_se: Standard error over images of the difference of the methods
            (method x image), without noise of seed and image.
        images: Number of test images on which these hold.
        seed_image_sd: The part of ``seed_sd`` that differs between images
            (seed x image), as a standard deviation. If 0 stands for an
            unknown value, power of 80 % is up to 3 points too high for the
            scope 'images'. Default: 0.
    """

    seed_sd: float
    image_se: float
    images: int
    seed_image_sd: float = 0.0

    def on(self, images: int) -> Noise:
        """Returns the noise on another number of images like these."""
        share = self.images / images
        with_images = share * self.seed_image_sd**2
        alone = max(0.0, self.seed_sd**2 - self.seed_image_sd**2)
        return Noise(
            seed_sd=math.sqrt(alone + with_images),
            image_se=self.image_se * math.sqrt(share),
            images=images,
            seed_image_sd=math.sqrt(with_images),
        )


def least_gains(
    seeds: int,
    noise: Noise,
    *,
    images: int | None = None,
    scope: Scope = 'images',
    levels: Sequence[float] = (0.05,),
    looks: Sequence[int] | None = None,
    candidates: int = 1,
    trials: int = 20_000,
    seed: int = 0,
) -> np.ndarray:
    """Simulates plans and returns the least gain that each of them would show.

    A plan shows a gain if one of its tests finds the candidate better.

    Args:
        seeds: Number of trainings of each side.
        noise: The noise.
        images: Number of test images. Default: that of ``noise``.
        scope: What the claim is about. Default: 'images'.
        levels: Two-sided level of the test at each look. Default: 0.05.
        looks: Numbers of seeds at which the report may decide, ``seeds`` last.
            Default: ``seeds`` alone.
        candidates: Number of candidates, whose p-values the report corrects
            by Holm's method. The smallest level of Holm's, that of
            Bonferroni, is used, so that power is at least the result.
            Default: 1.
        trials: Number of simulated plans. The default, 20,000, gives power to
            0.7 points (95 %).
        seed: Seed of the simulation. Default: 0.

    Returns:
        (trials,) gains, inf if no gain would be shown.

    Raises:
        ValueError: A value of the noise is unknown, or the last of the looks
            is not ``seeds``.
    """
    looks = tuple(looks or (seeds,))
    if looks[-1] != seeds:
        raise ValueError(f'the last of the looks {looks} is not {seeds}')
    over_images = scope == 'images'
    needs = (noise.seed_sd, noise.image_se if over_images else 0)
    if not np.isfinite(needs).all():
        raise ValueError(f'{noise} has unknown values')
    noise = noise.on(images or noise.images)
    rng = np.random.default_rng(seed)
    values = rng.normal(0, noise.seed_sd, (seeds, 2, trials))
    if over_images:
        error = rng.normal(0, noise.image_se, trials)
        freedom = np.array([max(1, noise.images - 1), RESAMPLES - 1])[:, None]
        # Of the variance over images: from these images, by resampling.
        estimated = rng.chisquare(freedom, (2, trials)) / freedom
    least = np.full(trials, math.inf)
    for look, level in zip(looks, levels, strict=True):
        if why_untestable(look, look):
            continue
        known = values[:look]
        base, cand = known.mean(0)
        difference = cand - base
        parts, sizes = known.var(0, ddof=1) / look, [look, look]
        if over_images:
            difference += error
            shared = 2 * noise.seed_image_sd**2 / look
            variance = (noise.image_se**2 + shared) * estimated.prod(0)
            parts = seed_and_image_parts(parts, variance, shared)
            sizes.append(noise.images)
        variance, df = satterthwaite(parts, sizes)
        reach = stdtrit(df, 1 - level / candidates / 2) * np.sqrt(variance)
        # Without any variance, the tests have no p-value.
        needed = np.where(variance > 0, reach - difference, math.inf)
        least = np.minimum(least, needed)
    return least


def power(gain: float, seeds: int, noise: Noise, **options: Any) -> float:
    """Returns the share of plans that show the candidate better.

    Args:
        gain: The true gain, from 0 to 1.
        seeds: Number of trainings of each side.
        noise: The noise.
        options: Those of `least_gains`.

    Example:
        >>> noise = Noise(seed_sd=0.002, image_se=0.0, images=5000)
        >>> round(power(0.004, 6, noise, scope='data set'), 2)
        0.87
    """
    return _share(least_gains(seeds, noise, **options), gain)


def smallest_gain(
    seeds: int, noise: Noise, *, power: float = 0.8, **options: Any
) -> float:
    """Returns the smallest true gain that is shown with this power.

    It is inf if no gain is, as with one training a side.

    Args:
        seeds: Number of trainings of each side.
        noise: The noise.
        power: Share of plans that show the gain. Default: 0.8.
        options: Those of `least_gains`.
    """
    least = least_gains(seeds, noise, **options)
    return float(np.quantile(least, power, method='inverted_cdf'))


def fewest_seeds(
    gain: float,
    noise: Noise,
    *,
    power: float = 0.8,
    most: int = 50,
    **options: Any,
) -> int | None:
    """Returns the fewest trainings a side that show a gain with this power.

    The result is None if ``most`` are not enough, or no number of them is
    (`fewest_images`).

    Args:
        gain: The true gain, from 0 to 1.
        noise: The noise.
        power: Share of plans that show the gain. Default: 0.8.
        most: Largest number to try. Default: 50.
        options: Those of `least_gains`, for a single look.
    """
    found = bisect.bisect_left(
        range(most + 1),
        power,
        lo=2,
        key=lambda s: _share(least_gains(s, noise, **options), gain),
    )
    return found if found <= most else None


def fewest_images(
    gain: float, noise: Noise, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Returns the fewest images on which seeds can show a gain.

    On fewer images like these, no number of seeds shows it with this power
    for the scope 'images': what remains with many seeds is the error over
    images, e, and the gain must be at least 2.8 e for 80 %.

    Args:
        gain: The true gain, from 0 to 1.
        noise: The noise.
        power: Share of plans that show the gain. Default: 0.8.
        alpha: Two-sided level, divided by the number of candidates. Default:
            0.05.
    """
    errors = float(ndtri(1 - alpha / 2) + ndtri(power))
    return math.ceil(noise.images * (errors * noise.image_se / gain) ** 2)


def pooled_sd(sides: Sequence[np.ndarray]) -> tuple[float, int]:
    """Returns the standard deviation within sides and its degrees of freedom.

    It is nan, with 0 degrees of freedom, if no side has two values.

    Args:
        sides: One value a seed, of each side.
    """
    df = sum(max(0, len(side) - 1) for side in sides)
    if not df:
        return math.nan, 0
    squares = sum(len(side) * float(np.var(side)) for side in sides)
    return math.sqrt(squares / df), df


def inflated_sd(sd: float, df: int, share: float = 0.2) -> float:
    """Returns an upper bound of a standard deviation that was estimated.

    The standard deviation of few seeds is often too small, and a plan that
    takes it as it is has too little power. The bound, ``sd * sqrt(df /
    chi2)`` with the quantile ``share`` of chi-square, is too small in this
    share of pilots. The factor is 2.12 for three seeds, 1.56 for five.

    Args:
        sd: The estimate.
        df: Its degrees of freedom, S - 1 for S seeds of one side.
        share: Share of pilots with a larger true value. Default: 0.2.
    """
    return sd * math.sqrt(df / float(chdtri(df, 1 - share))) if df else sd


def noise_from_pilot(sides: Sequence[np.ndarray], images: int) -> Noise:
    """Estimates the noise from runs that exist.

    Args:
        sides: (S, 1 + B) values of the primary metric of each side, the
            baseline first: on all images, then on each resample.
        images: Number of images.

    Returns:
        The noise, with the standard deviations between seeds inflated
        (`inflated_sd`). They are nan if no side has two seeds. ``image_se``
        is the largest of the candidates', and nan if there is only one side.
    """
    sd, df = pooled_sd([side[:, 0] for side in sides])
    several = [side for side in sides if len(side) > 1]
    freedom = [len(side) - 1 for side in several]
    shared = [seed_image_variance(side) for side in several]
    with_images = float(np.average(shared, weights=freedom)) if df else 0.0
    alone = [_image_variance(sides[0], side) for side in sides[1:]]
    return Noise(
        seed_sd=inflated_sd(sd, df),
        image_se=math.sqrt(max(alone)) if alone else math.nan,
        images=images,
        seed_image_sd=inflated_sd(min(math.sqrt(with_images), sd), df),
    )


def _image_variance(baseline: np.ndarray, candidate: np.ndarray) -> float:
    """The variance of a difference over images alone, as in `two_level`."""
    change = candidate.mean(0) - baseline.mean(0)
    change = change[1:][np.isfinite(change[1:])]
    several = [s for s in (baseline, candidate) if len(s) > 1]
    between = np.array([np.var(s[:, 0], ddof=1) / len(s) for s in several])
    shared = sum(seed_image_variance(s) / len(s) for s in several)
    parts = seed_and_image_parts(between, np.var(change, ddof=1), shared)
    return float(parts[-1])


def _share(least: np.ndarray, gain: float) -> float:
    return float(np.mean(least < gain))
