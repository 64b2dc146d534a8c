# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares two sides on the same images: paired, resampled, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import (
    IOU_METRICS,
    METRICS,
    accumulate_weighted,
    summarize,
    summarize_classes,
)
from mmext.evaluation.coco.matching import Matches
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    no_estimate,
)
from mmext.evaluation.statistics.seeds import seed_test, two_level

#: A class on fewer images gets no interval, because no method is reliable.
FEWEST_IMAGES = 10
JACKKNIFE_GROUPS = 200


@dataclass(frozen=True)
class ClassEstimate:
    """AP of both sides on one class, mean over seeds, and their difference.

    Args:
        name: The class.
        images: Number of images with an object of the class.
        baseline: AP from 0 to 1.
        candidate: AP from 0 to 1.
        difference: With its uncertainty over images. Interval and p are nan
            if ``images`` is smaller than ``FEWEST_IMAGES``.
        holm: p-value after Holm's correction for all classes that are tested.
    """

    name: str
    images: int
    baseline: float
    candidate: float
    difference: Estimate
    holm: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on one ground truth, from 0 to 1.

    Args:
        images: Number of images.
        resamples: Number of bootstrap resamples.
        baseline: Metric -> (S,) values, one a seed.
        candidate: Metric -> (S',) values, one a seed.
        differences: Metric -> difference, with its uncertainty over images.
        classes: One a class, in the order of the ground truth.
        seeds: Metric -> test between seeds; empty if a side has one seed.
        both: Metric -> difference, with its uncertainty over seeds and
            images; empty if a side has one seed.
    """

    images: int
    resamples: int
    baseline: dict[str, np.ndarray]
    candidate: dict[str, np.ndarray]
    differences: dict[str, Estimate]
    classes: tuple[ClassEstimate, ...]
    seeds: dict[str, Estimate]
    both: dict[str, Estimate]

    def best_estimate(self, metric: str) -> Estimate:
        """Returns the difference over seeds and images, or over images."""
        return self.both.get(metric) or self.differences[metric]


@dataclass(frozen=True)
class Resampled:
    """The metrics of a run on all images and on each resample, 0 to 1.

    Args:
        metrics: Metric -> (1 + B + J,) values: on all images, on B bootstrap
            resamples, and without each of J groups of images.
        classes: (1 + B + J, K) AP of each class.
        resamples: B.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray
    resamples: int


class ImageBootstrap:
    """Draws images once, so that all runs are evaluated on equal resamples.

    Args:
        num_images: Number of images.
        resamples: Number of bootstrap resamples. Default: 1000.
        seed: Seed of the random draws. Default: 0.
    """

    def __init__(
        self, num_images: int, resamples: int = 1000, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.resamples = resamples
        self.weights = np.concatenate(
            [
                np.ones((1, num_images), np.int32),
                bootstrap_weights(num_images, resamples, rng),
                jackknife_weights(num_images, JACKKNIFE_GROUPS, rng),
            ]
        )

    def evaluate(
        self,
        matches: Matches,
        progress: Callable[[float], None] | None = None,
        threads: int = 2,
    ) -> Resampled:
        """Computes every metric of a run on every resample.

        ``progress`` is called with the share that is done, from 0 to 1.

        Raises:
            UserError: The fast and the exact values on all images differ.
        """
        cube = accumulate_weighted(matches, self.weights, threads, progress)
        exact = accumulate_weighted(
            matches, self.weights[:1], threads, exact=True
        )
        _require_equal(cube.ap[0], exact.ap[0])
        no_sizes = len(matches.areas) == 1
        names = tuple(
            m
            for m in (*METRICS, *IOU_METRICS)
            if not (no_sizes and m[-1] in 'sml')
        )
        metrics = summarize(cube, names)
        for name, value in summarize(exact, names).items():
            metrics[name][0] = value[0]
        classes = summarize_classes(cube)
        classes[0] = summarize_classes(exact)[0]
        return Resampled(metrics, classes, self.resamples)


def bootstrap_weights(
    num_images: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns (count, I) weights of images drawn with replacement."""
    share = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, share, count).astype(np.int32)


def jackknife_weights(
    num_images: int, groups: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns (J, I) weights, 0 for one random group, 1 for the others.

    The sizes of the J = min(I, groups) groups differ by at most one image.
    """
    count = min(num_images, groups)
    group = rng.permutation(num_images) % count
    return (group != np.arange(count)[:, None]).astype(np.int32)


def _require_equal(fast: np.ndarray, exact: np.ndarray) -> None:
    """Raises if the fast AP of all images differs from the exact AP.

    This runs every time: the arithmetic of the resamples was wrong twice,
    while the exact values were right.
    """
    wrong = ~np.isclose(fast, exact, rtol=0, atol=1e-4, equal_nan=True)
    if wrong.any():
        raise UserError(
            f'{wrong.sum()} of {wrong.size} AP values on all images are wrong '
            f'in the resampling: {fast[wrong][0]:.6f} instead of '
            f'{exact[wrong][0]:.6f}',
            'Please report this with the predictions and the annotations.',
        )


def compare_resampled(
    matches: Matches,
    baseline: Sequence[Resampled],
    candidate: Sequence[Resampled],
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two sides, each with one resampled run a seed.

    Args:
        matches: Any of the matched runs, for the objects of each class.
        baseline: Runs of the baseline.
        candidate: Runs of the candidate.
        level: Coverage of the intervals. Default: 0.95.
        seed: Seed of the draws of training seeds. Default: 0.
    """
    count = baseline[0].resamples
    several = min(len(baseline), len(candidate)) > 1
    rng = np.random.default_rng(seed + 1)
    base_values, cand_values = {}, {}
    differences, seeds, both = {}, {}, {}
    for name in baseline[0].metrics:
        base = np.stack([run.metrics[name] for run in baseline])
        cand = np.stack([run.metrics[name] for run in candidate])
        base_values[name], cand_values[name] = base[:, 0], cand[:, 0]
        found = _difference(base, cand, count, level, matches.num_images)
        differences[name] = found
        if several:
            seeds[name] = seed_test(base[:, 0], cand[:, 0], level)
            base, cand = base[:, : count + 1], cand[:, : count + 1]
            both[name] = two_level(found, base, cand, rng, level)
    return Comparison(
        images=matches.num_images,
        resamples=count,
        baseline=base_values,
        candidate=cand_values,
        differences=differences,
        classes=_classes(matches, baseline, candidate, level),
        seeds=seeds,
        both=both,
    )


def _difference(
    baseline: np.ndarray,
    candidate: np.ndarray,
    resamples: int,
    level: float,
    images: int,
) -> Estimate:
    """Estimates a difference of (S, 1 + B + J) values, mean over seeds."""
    # Rounded, because the same runs in another order differ by 1e-16.
    delta = (candidate.mean(0) - baseline.mean(0)).round(12)
    return estimate(
        float(delta[0]),
        delta[1 : resamples + 1],
        delta[resamples + 1 :],
        level,
        images,
    )


def _classes(
    matches: Matches,
    baseline: Sequence[Resampled],
    candidate: Sequence[Resampled],
    level: float,
) -> tuple[ClassEstimate, ...]:
    base, cand = (
        np.stack([run.classes for run in side])
        for side in (baseline, candidate)
    )
    images = (matches.objects[:, :, 0] > 0).sum(0).tolist()
    count = baseline[0].resamples
    differences = []
    for k, number in enumerate(images):
        found = _difference(base[..., k], cand[..., k], count, level, number)
        if number < FEWEST_IMAGES:
            found = no_estimate(found.value, level)
        differences.append(found)
    adjusted = holm(np.array([found.p for found in differences]))
    return tuple(
        ClassEstimate(
            name=name,
            images=images[k],
            baseline=float(base[:, 0, k].mean()),
            candidate=float(cand[:, 0, k].mean()),
            difference=differences[k],
            holm=float(adjusted[k]),
        )
        for k, name in enumerate(matches.names)
    )
