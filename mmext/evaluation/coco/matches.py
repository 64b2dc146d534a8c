# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What is left of a run once detections are matched to ground truth.

COCO's AP needs, for every detection, three facts: how it ranks among all
detections of its class, at which IoU thresholds it found an object, and at
which it is ignored. Everything after matching (accumulation, resampling,
curves) starts from these arrays, so matching is done once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: COCO's IoU thresholds, recall thresholds, areas and detection limits.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
AREAS = {
    'all': (0.0, 1e10),
    'small': (0.0, 32.0**2),
    'medium': (32.0**2, 96.0**2),
    'large': (96.0**2, 1e10),
}
MAX_DETS = (1, 10, 100)


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class over all images, best score first.

    Ties keep the order of images, then of scores within an image, as
    pycocotools' stable sort does.

    Args:
        image: (N,) index of the image.
        score: (N,) confidence.
        rank: (N,) place among the class's detections in its image, from 0.
        hit: (A, N) bit t is set where the detection is a true positive at
            IoU threshold t.
        ignored: (A, N) bit t is set where it counts neither way.
        row: (N,) its row in the predictions; -1 where there are none.
    """

    image: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class Matches:
    """A run's detections, matched.

    Args:
        image_ids: (I,) sorted COCO image ids.
        category_ids: (K,) sorted COCO category ids.
        names: K class names.
        areas: A labels of area ranges, the first is ``'all'``.
        objects: (I, K, A) ground-truth objects that count (not crowd, of
            that area).
        classes: K sets of detections.
        iou_type: ``'bbox'`` or ``'segm'``.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    areas: tuple[str, ...]
    objects: np.ndarray
    classes: tuple[ClassMatches, ...]
    iou_type: str = 'bbox'

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)
