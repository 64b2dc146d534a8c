# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Semantic segmentation: areas of each image and class, and what they give.

mIoU, aAcc and mAcc are those of MMSegmentation's ``IoUMetric``: areas are
added over the data set before they are divided. "mIoU-I" is the mean
over images of the mean IoU of the classes that an image has (Wang et al.
2023, Revisiting Evaluation Metrics for Semantic Segmentation: Optimization
and Evaluation of Fine-grained Intersection over Union; official code:
zifuwanggg/JDTLosses). It gives a small image or object as much weight as a
large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

INTERSECTION, PREDICTION, LABEL = range(3)


@dataclass(frozen=True)
class Areas:
    """The areas of the classes in each image, in pixels.

    Pixels that the evaluation ignores are in none of them.

    Args:
        names: K classes.
        pixels: (I, K, 3) integers: pixels that are of a class and were
            predicted as it, that were predicted as it, and that are of it.
    """

    task: ClassVar[str] = 'mIoU'
    primary: ClassVar[str] = 'mIoU'

    names: tuple[str, ...]
    pixels: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(I, K) whether an image has a class."""
        return self.pixels[:, :, LABEL] > 0

    def weighted(
        self, weights: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns metric -> (R,) values and (R, K) IoU of the classes.

        ``weights`` are (R, I) integers: how often an image counts. All
        values are from 0 to 1. The IoU of a class that is neither in a label
        nor in a prediction is nan, and in no mean.
        """
        # Sums of pixels are exact in float64.
        weights = weights.astype(np.float64)
        flat = self.pixels.reshape(len(self.pixels), -1)
        totals = weights @ flat.astype(np.float64)
        totals = totals.reshape(len(weights), *self.pixels.shape[1:])
        iou = _iou(totals)
        hit, label = totals[..., INTERSECTION], totals[..., LABEL]
        by_image = _mean(np.where(self.present, _iou(self.pixels), np.nan))
        counted = np.isfinite(by_image)
        return {
            'mIoU': _mean(iou),
            'aAcc': _share(hit.sum(1), label.sum(1)),
            'mAcc': _mean(_share(hit, label)),
            'mIoU-I': _share(
                weights[:, counted] @ by_image[counted],
                weights[:, counted].sum(1),
            ),
        }, iou


def _iou(pixels: np.ndarray) -> np.ndarray:
    hit = pixels[..., INTERSECTION]
    union = pixels[..., PREDICTION] + pixels[..., LABEL] - hit
    return _share(hit, union)


def _share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The quotient, nan where the total is zero."""
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of all values but nan; nan if none."""
    there = np.isfinite(values)
    return _share(np.where(there, values, 0.0).sum(-1), there.sum(-1))
