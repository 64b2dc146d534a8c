# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a detector finds in an image, and its COCO results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle

from mmext.export.preparation import Prepared


@dataclass(frozen=True)
class Detections:
    """What a detector finds in an image, best first.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the image.
        scores: (N,), from 0 to 1.
        labels: (N,), places in the detector's ``classes``.
        masks: (N, H, W), bool. Default: None, of a detector without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[int, float, list[float]]]:
        """Yields label, score and box of each detection."""
        columns = self.labels, self.scores, self.boxes
        yield from zip(*(c.tolist() for c in columns), strict=True)

    def coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """Returns COCO results; each has a box, and a mask if there is one.

        Args:
            image_id: The image's id.
            category_ids: The id of each label.
        """
        entries = [
            {
                'image_id': image_id,
                'category_id': category_ids[label],
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': score,
            }
            for label, score, (x1, y1, x2, y2) in self
        ]
        if self.masks is not None:
            for entry, mask in zip(entries, self.masks, strict=True):
                code = rle.encode(np.asfortranarray(mask, np.uint8))
                counts = code['counts'].decode()
                entry['segmentation'] = {**code, 'counts': counts}
        return entries


#: Detects in prepared images of one size.
Run = Callable[[Sequence[Prepared]], list[Detections]]
