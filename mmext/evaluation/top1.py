# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Classification: the label and the best predictions of each image.

top-1 and top-5 are those of MMPretrain's ``Accuracy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

#: The predictions of an image that are kept.
KEPT = 5


@dataclass(frozen=True)
class Labels:
    """The label of each image and what was predicted.

    Args:
        names: K classes.
        label: (I,) index of the true class.
        predicted: (I, P) indices of the P classes with the highest scores,
            best first; -1 for none. P is 1 or ``KEPT``.
    """

    task: ClassVar[str] = 'top1'
    primary: ClassVar[str] = 'top-1'

    names: tuple[str, ...]
    label: np.ndarray
    predicted: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(I, K) whether an image is of a class."""
        return self.label[:, None] == np.arange(len(self.names))

    def weighted(
        self, weights: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns metric -> (R,) values and (R, K) recall of the classes.

        ``weights`` are (R, I) integers: how often an image counts. All
        values are from 0 to 1. The recall of a class without images is nan.
        """
        right = self.predicted == self.label[:, None]
        images = self._by_class(np.ones_like(self.label), weights)
        hits = self._by_class(right[:, 0], weights)
        count = np.maximum(images.sum(1), 1)
        metrics = {'top-1': hits.sum(1) / count}
        if self.predicted.shape[1] == KEPT:
            best = self._by_class(right.any(1), weights)
            metrics['top-5'] = best.sum(1) / count
        recall = np.where(images > 0, hits / np.maximum(images, 1), np.nan)
        return metrics, recall

    def _by_class(self, of: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(R, K) weighted sums over the images of a class."""
        shape = len(self.names), len(self.label)
        place = self.label, np.arange(len(self.label))
        found = csr_array((of.astype(np.int64), place), shape=shape)
        return (found @ weights.T).T
