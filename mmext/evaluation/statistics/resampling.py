# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Evaluates runs on resamples of the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

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

JACKKNIFE_GROUPS = 200


class ImageResults(Protocol):
    """Results of one run on each image, of which metrics are sums.

    `~mmext.evaluation.semantic.Areas` and `~mmext.evaluation.top1.Labels`
    are such results. `Matches` is not: AP has code of its own.
    """

    primary: str  # the metric that decides
    names: tuple[str, ...]  # K classes

    @property
    def present(self) -> np.ndarray:
        """(I, K) whether an image has a class."""

    def weighted(
        self, weights: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns metric -> (R,) values and the (R, K) values of classes.

        ``weights`` are (R, I) integers: how often an image counts.
        """


@dataclass(frozen=True)
class Resampled:
    """The metrics of a run on all images and on each resample, 0 to 1.

    Args:
        metrics: Metric -> (1 + B + J,) values: on all images, on B bootstrap
            resamples, and without each of J groups of images.
        classes: (1 + B + J, K) values of each class.
        resamples: B.
        names: K classes.
        present: (I, K) whether an image has the class.
        primary: The metric that decides. Default: AP.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray
    resamples: int
    names: tuple[str, ...]
    present: np.ndarray
    primary: str = 'AP'


class ImageBootstrap:
    """Draws images once, so that all runs are evaluated on equal resamples.

    Args:
        num_images: Number of images.
        resamples: Number of bootstrap resamples. Default: 1000.
        seed: Seed of the random draws. Default: 0.
        groups: (I,) integers. Images with the same one are drawn together,
            such as the frames of a video. Default: None, each image alone.
    """

    def __init__(
        self,
        num_images: int,
        resamples: int = 1000,
        seed: int = 0,
        groups: np.ndarray | None = None,
    ) -> None:
        self.num_images, self.resamples = num_images, resamples
        self.seed, self.groups = seed, groups

    @cached_property
    def weights(self) -> np.ndarray:
        """(1 + B + J, I) how often an image counts.

        They are drawn when they are needed, while the next run is read.
        """
        rng = np.random.default_rng(self.seed)
        count, group = self.num_images, slice(None)
        if self.groups is not None:
            found, group = np.unique(self.groups, return_inverse=True)
            count = len(found)
        draws = [
            np.ones((1, count), np.int32),
            bootstrap_weights(count, self.resamples, rng),
            jackknife_weights(count, JACKKNIFE_GROUPS, rng),
        ]
        return np.concatenate(draws)[:, group]

    def evaluate(
        self,
        results: Matches | ImageResults,
        progress: Callable[[float], None] | None = None,
        threads: int = 2,
    ) -> Resampled:
        """Computes every metric of a run on every resample.

        ``progress`` is called with the share that is done, from 0 to 1.

        Raises:
            UserError: The fast and the exact AP on all images differ.
        """
        if isinstance(results, Matches):
            found = self._coco(results, progress, threads)
            present, primary = results.objects[:, :, 0] > 0, 'AP'
        else:
            found = results.weighted(self.weights)
            present, primary = results.present, results.primary
            if progress:
                progress(1.0)
        return Resampled(
            *found, self.resamples, results.names, present, primary
        )

    def _coco(
        self,
        matches: Matches,
        progress: Callable[[float], None] | None,
        threads: int,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
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
        return metrics, classes


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
