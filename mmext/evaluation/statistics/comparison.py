# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two sides compared on the same images: paired, resampled, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import accumulate_weighted
from mmext.evaluation.coco.matches import Matches
from mmext.evaluation.coco.summary import (
    IOU_METRICS,
    METRICS,
    summarize,
    summarize_classes,
)
from mmext.evaluation.statistics.intervals import Estimate, estimate, holm
from mmext.evaluation.statistics.resampling import (
    bootstrap_weights,
    jackknife_weights,
)
from mmext.evaluation.statistics.seeds import SeedTest, seed_test, two_level

#: A class on fewer images gets no interval: no method is reliable there.
FEWEST_IMAGES = 10


@dataclass(frozen=True)
class ClassEstimate:
    """One class: AP of both sides and their difference.

    Args:
        name: The class.
        images: Images that hold an object of it.
        baseline: AP, mean over seeds.
        candidate: AP, mean over seeds.
        difference: With its uncertainty over images; no interval and p nan
            on fewer than ``FEWEST_IMAGES`` images.
        holm: p-value adjusted for the number of classes tested.
    """

    name: str
    images: int
    baseline: float
    candidate: float
    difference: Estimate
    holm: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on one ground truth.

    Args:
        images: Number of images.
        resamples: Number of bootstrap resamples.
        baseline: Metric -> (S,) values, one a seed.
        candidate: Metric -> (S',) values.
        differences: Metric -> difference, uncertainty over images.
        classes: One a class, in the order of the ground truth.
        seeds: Metric -> test between seeds; empty with one seed a side.
        both: Metric -> difference with seeds and images resampled together;
            empty with one seed a side.
    """

    images: int
    resamples: int
    baseline: dict[str, np.ndarray]
    candidate: dict[str, np.ndarray]
    differences: dict[str, Estimate]
    classes: tuple[ClassEstimate, ...]
    seeds: dict[str, SeedTest]
    both: dict[str, Estimate]


@dataclass(frozen=True)
class Resampled:
    """A run's metrics on all images, the resamples and the jackknife.

    Args:
        metrics: Metric -> (1 + B + J,) values.
        classes: (1 + B + J, K) AP of each class.
        resamples: B.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray
    resamples: int


class ImageBootstrap:
    """Draws images once, so that all runs see the same resamples.

    Args:
        num_images: Number of images.
        resamples: Bootstrap resamples. Default: 1000.
        seed: Of the random draws. Default: 0.
        groups: Most groups that the jackknife leaves out. Default: 200.
    """

    def __init__(
        self,
        num_images: int,
        resamples: int = 1000,
        seed: int = 0,
        groups: int = 200,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.resamples = resamples
        self.weights = np.concatenate(
            [
                np.ones((1, num_images), np.int32),
                bootstrap_weights(num_images, resamples, rng),
                jackknife_weights(num_images, groups, rng),
            ]
        )

    def evaluate(
        self,
        matches: Matches,
        progress: Callable[[float], None] | None = None,
        threads: int = 2,
    ) -> Resampled:
        """Every metric of a run on every resample."""
        cube = accumulate_weighted(matches, self.weights, threads, progress)
        # Of all images, to the last digit.
        exact = accumulate_weighted(
            matches, self.weights[:1], threads, exact=True
        )
        _require_equal(cube.ap[0], exact.ap[0])
        names = [
            m
            for m in (*METRICS, *IOU_METRICS)
            if m[-1] not in 'sml'
            or any(a[0] == m[-1] for a in matches.areas[1:])
        ]
        metrics = summarize(cube, tuple(names))
        for name, value in summarize(exact, tuple(names)).items():
            metrics[name][0] = value[0]
        classes = summarize_classes(cube)
        classes[0] = summarize_classes(exact)[0]
        return Resampled(metrics, classes, self.resamples)


def _require_equal(fast: np.ndarray, exact: np.ndarray) -> None:
    """Holds the fast AP of all images against the exact one, every time.

    Twice the arithmetic of the resamples was wrong at times, where the values
    on all images, computed by themselves, were right.
    """
    wrong = ~np.isclose(fast, exact, rtol=0, atol=1e-4, equal_nan=True)
    if wrong.any():
        raise UserError(
            f'{wrong.sum()} of {wrong.size} AP of all images are off among '
            f'the resamples: {fast[wrong][0]:.6f} in place of '
            f'{exact[wrong][0]:.6f}',
            'Please report this with the predictions and the annotations.',
        )


def compare(
    matches: Matches,
    baseline: Sequence[Resampled],
    candidate: Sequence[Resampled],
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two sides, one resampled run a seed.

    Args:
        matches: Any of the runs' matches (for the objects of each class).
        baseline: One a seed.
        candidate: One a seed.
        level: Of the intervals. Default: 0.95.
        seed: Of the draws of seeds. Default: 0.
    """
    count = baseline[0].resamples
    sides: list[dict[str, np.ndarray]] = [
        {m: np.stack([r.metrics[m] for r in side]) for m in side[0].metrics}
        for side in (baseline, candidate)
    ]
    differences, seeds, both = {}, {}, {}
    several = min(len(baseline), len(candidate)) > 1
    rng = np.random.default_rng(seed + 1)
    for name in sides[0]:
        base, cand = sides[0][name], sides[1][name]
        # Rounded: the same runs in another order differ by 1e-16.
        delta = (cand.mean(0) - base.mean(0)).round(12)
        differences[name] = estimate(
            float(delta[0]),
            delta[1 : count + 1],
            delta[count + 1 :],
            level,
            matches.num_images,
        )
        if several:
            seeds[name] = seed_test(base[:, 0], cand[:, 0], level)
            both[name] = two_level(
                differences[name],
                *(base[:, : count + 1], cand[:, : count + 1], rng, level),
            )
    return Comparison(
        images=matches.num_images,
        resamples=count,
        baseline={m: v[:, 0] for m, v in sides[0].items()},
        candidate={m: v[:, 0] for m, v in sides[1].items()},
        differences=differences,
        classes=_classes(matches, baseline, candidate, level),
        seeds=seeds,
        both=both,
    )


def _classes(
    matches: Matches,
    baseline: Sequence[Resampled],
    candidate: Sequence[Resampled],
    level: float,
) -> tuple[ClassEstimate, ...]:
    count = baseline[0].resamples
    base, cand = (
        np.mean([r.classes for r in side], axis=0)
        for side in (baseline, candidate)
    )
    images = (matches.objects[:, :, 0] > 0).sum(0)
    found = []
    for k in range(len(matches.names)):
        delta = (cand[:, k] - base[:, k]).round(12)
        if images[k] < FEWEST_IMAGES:
            delta[1:] = np.nan
        found.append(
            estimate(
                float(delta[0]),
                delta[1 : count + 1],
                delta[count + 1 :],
                level,
                int(images[k]),
            )
        )
    adjusted = holm(np.array([e.p for e in found]))
    return tuple(
        ClassEstimate(
            *(name, int(images[k]), float(base[0, k]), float(cand[0, k])),
            *(found[k], float(adjusted[k])),
        )
        for k, name in enumerate(matches.names)
    )
