# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares two sides on the same images: paired, resampled, over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmext.evaluation.coco.accumulate import IOU_METRICS
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    no_estimate,
)
from mmext.evaluation.statistics.resampling import Resampled
from mmext.evaluation.statistics.seeds import (
    seed_test,
    two_level,
    why_untestable,
)

#: A class on fewer images gets no interval, because no method is reliable.
FEWEST_IMAGES = 10


@dataclass(frozen=True)
class ClassEstimate:
    """AP of both sides on one class, mean over seeds, and their difference.

    For semantic segmentation it is the IoU, for classification the recall.

    Args:
        name: The class.
        images: Number of images that have the class, or of groups of images
            if these are resampled.
        baseline: AP from 0 to 1.
        candidate: AP from 0 to 1.
        difference: With its uncertainty over images. Interval and p are nan
            if ``images`` is smaller than ``FEWEST_IMAGES``.
        both: With its uncertainty over seeds and images. Default: None, if
            the methods are not tested.
    """

    name: str
    images: int
    baseline: float
    candidate: float
    difference: Estimate
    both: Estimate | None = None

    @property
    def best_estimate(self) -> Estimate:
        """The difference over seeds and images, or over images."""
        return self.both or self.difference

    @property
    def holm(self) -> float:
        """p-value after Holm's correction for all classes."""
        return self.best_estimate.holm


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on one ground truth, from 0 to 1.

    It has the answers to two questions. ``differences``: do these checkpoints
    differ on images like these? ``both``: do the methods differ, that is,
    would new trainings too?

    The corrected p-value, ``Estimate.holm``, is Holm's over the candidates for
    the primary metric, over the candidates and the other metrics for these
    (AP at one IoU threshold is in no test), and over the candidates and
    classes for the classes.

    Args:
        images: Number of images.
        resamples: Number of bootstrap resamples.
        baseline: Metric -> (S,) values, one a seed.
        candidate: Metric -> (S',) values, one a seed.
        differences: Metric -> difference, with its uncertainty over images.
        classes: One a class, in the order of the ground truth.
        seeds: Metric -> test between seeds; empty if a side has one seed.
        both: Metric -> difference, with its uncertainty over seeds and
            images; empty if the methods are not tested.
        untested: Why the methods are not tested. Default: they are.
        candidates: Number of candidates that were compared. Default: 1.
        groups: Number of groups of images, if these are resampled. Default:
            None, for images.
        primary: The metric that decides. Its p-value is not corrected for
            the others. Default: AP.
    """

    images: int
    resamples: int
    baseline: dict[str, np.ndarray]
    candidate: dict[str, np.ndarray]
    differences: dict[str, Estimate]
    classes: tuple[ClassEstimate, ...]
    seeds: dict[str, Estimate]
    both: dict[str, Estimate]
    untested: str = ''
    candidates: int = 1
    groups: int | None = None
    primary: str = 'AP'

    def best_estimate(self, metric: str) -> Estimate:
        """Returns the difference over seeds and images, or over images."""
        return self.both.get(metric) or self.differences[metric]


def compare_resampled(
    baseline: Sequence[Resampled],
    candidate: Sequence[Resampled],
    level: float = 0.95,
    *,
    untested: str = '',
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compares two sides, each with one resampled run a seed.

    Args:
        baseline: Runs of the baseline.
        candidate: Runs of the candidate.
        level: Coverage of the intervals. Default: 0.95.
        untested: Why these runs show nothing about the methods, apart from
            the number of seeds, which is checked here. Default: they do.
        groups: As in `ImageBootstrap`. Default: None.
    """
    first = baseline[0]
    count, present = first.resamples, first.present
    untested = untested or why_untestable(len(baseline), len(candidate))
    if groups is not None:
        present = np.stack(
            [present[groups == group].any(0) for group in np.unique(groups)]
        )

    def estimates(
        base: np.ndarray, cand: np.ndarray, images: int, fewest: int = 0
    ) -> tuple[Estimate, Estimate | None]:
        """Over images, and over seeds and images if that is tested."""
        found = _difference(base, cand, count, level, images)
        if images < fewest:
            found = no_estimate(found.value, level)
        if untested:
            return found, None
        base, cand = base[:, : count + 1], cand[:, : count + 1]
        return found, two_level(found, base, cand, level, images)

    base_values, cand_values = {}, {}
    differences, seeds, both = {}, {}, {}
    for name in first.metrics:
        base, cand = (
            np.stack([run.metrics[name] for run in side])
            for side in (baseline, candidate)
        )
        base_values[name], cand_values[name] = base[:, 0], cand[:, 0]
        differences[name], over_both = estimates(base, cand, len(present))
        if over_both:
            both[name] = over_both
        if over_both and min(len(baseline), len(candidate)) > 1:
            seeds[name] = seed_test(base[:, 0], cand[:, 0], level)
    base, cand = (
        np.stack([run.classes for run in side])
        for side in (baseline, candidate)
    )
    classes = []
    for k, (name, images) in enumerate(
        zip(first.names, present.sum(0).tolist(), strict=True)
    ):
        values = base[..., k], cand[..., k]
        means = [float(x[:, 0].mean()) for x in values]
        found = estimates(*values, images, FEWEST_IMAGES)
        classes.append(ClassEstimate(name, images, *means, *found))
    comparison = Comparison(
        images=len(first.present),
        resamples=count,
        baseline=base_values,
        candidate=cand_values,
        differences=differences,
        classes=tuple(classes),
        seeds=seeds,
        both=both,
        untested=untested,
        groups=None if groups is None else len(present),
        primary=first.primary,
    )
    return correct([comparison])[0]


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Applies Holm's correction to candidates that were compared together.

    See `Comparison` for what is corrected for what. A correction that was
    made before is replaced.
    """
    found = [
        replace(
            c,
            differences=dict(c.differences),
            both=dict(c.both),
            seeds=dict(c.seeds),
            candidates=len(comparisons),
        )
        for c in comparisons
    ]
    primary = found[0].primary
    untested = (primary, *IOU_METRICS)
    others = [m for m in found[0].differences if m not in untested]
    for key in ('differences', 'both', 'seeds'):
        tables = [getattr(c, key) for c in found]
        _correct(tables, [primary])
        _correct(tables, others)
    classes = []
    for key in ('difference', 'both'):
        tables = [
            {k: e for k, x in enumerate(c.classes) if (e := getattr(x, key))}
            for c in found
        ]
        _correct(tables, range(len(found[0].classes)))
        classes.append(tables)
    return [
        replace(
            c,
            classes=tuple(
                replace(x, difference=over_images[k], both=over_both.get(k))
                for k, x in enumerate(c.classes)
            ),
        )
        for c, over_images, over_both in zip(found, *classes, strict=True)
    ]


def _correct(tables: Sequence[dict], names: Iterable) -> None:
    """Sets ``holm`` of all estimates of these names, as one family."""
    places = [(t, n) for n in names for t in tables if n in t]
    adjusted = holm(np.array([table[name].p for table, name in places]))
    for (table, name), p in zip(places, adjusted.tolist(), strict=True):
        table[name] = replace(table[name], holm=p)


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
