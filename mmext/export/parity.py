# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the detections of an exported file with those of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from mmext.export.detections import Detections
from mmext.export.detector import Run
from mmext.export.preparation import Prepared
from mmext.utils.text import count

BOX = 0.01  # pixels
SCORE = 1e-5
#: Of all masks together: a value at the threshold may be rounded either way.
MASK_IOU = 0.999
#: Detections further apart than this are not the same one, in pixels.
_NEAR = 1.0
#: Of all detections, how many may have no partner. Where two boxes have the
#: same score to within rounding, NMS may keep the one or the other.
ALONE = 0.01
#: Sizes of the pictures, as shares of the size that the config resizes to,
#: and batch sizes. The exporter saw neither.
SHARES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.6))
BATCHES = (1, 3)


@dataclass
class Parity:
    """How far the detections of two models are apart.

    Attributes:
        images: The number of images.
        pairs: The number of detections that both have.
        box: The largest difference of their boxes, in pixels.
        score: The largest difference of their scores.
        mask_iou: The smallest IoU of their masks; None without masks.
        mask_pixels: Pixels in both masks and in either, of all pairs.
        alone: Detections without a partner, as text.
        sizes: Sizes of the batches, as text.
    """

    images: int = 0
    pairs: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_iou: float | None = None
    mask_pixels: np.ndarray = field(default_factory=lambda: np.zeros(2))
    alone: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether there are detections, and all differ by rounding only."""
        total = 2 * self.pairs + len(self.alone)
        return (
            self.pairs > 0
            and self.box <= BOX
            and self.score <= SCORE
            and self.mask_pixels[0] >= MASK_IOU * self.mask_pixels[1]
            and len(self.alone) <= ALONE * total
        )

    def add(self, eager: Detections, exported: Detections) -> None:
        """Adds what two models found in the same image."""
        self.images += 1
        rows, columns = pair(eager, exported)
        for found, mine, name in (
            (eager, rows, 'model'),
            (exported, columns, 'file'),
        ):
            for i in np.setdiff1d(np.arange(len(found)), mine):
                box = ', '.join(f'{x:.2f}' for x in found.boxes[i])
                self.alone.append(
                    f'only in the {name}: label {found.labels[i]}, score '
                    f'{found.scores[i]:.6f}, box {box}'
                )
        if not len(rows):
            return
        self.pairs += len(rows)
        box = np.abs(eager.boxes[rows] - exported.boxes[columns]).max()
        score = np.abs(eager.scores[rows] - exported.scores[columns]).max()
        self.box = max(self.box, float(box))
        self.score = max(self.score, float(score))
        if eager.masks is not None:
            a, b = eager.masks[rows], exported.masks[columns]
            shared, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
            self.mask_pixels += shared.sum(), either.sum()
            iou = (np.where(either, shared, 1) / np.maximum(either, 1)).min()
            known = 1.0 if self.mask_iou is None else self.mask_iou
            self.mask_iou = min(known, float(iou))

    def lines(self) -> list[str]:
        """Returns the result as sentences."""
        text = [
            f'{count(self.images, "image")} in batches of '
            f'{", ".join(self.sizes)}: {count(self.pairs, "detection")} of '
            'both. Largest difference of boxes '
            f'{self.box:.2g} px (limit {BOX:g}), of scores {self.score:.2g} '
            f'(limit {SCORE:g}).'
        ]
        if self.mask_iou is not None:
            text.append(
                f'Smallest IoU of masks {self.mask_iou:.6f}, of all together '
                f'{self.mask_pixels[0] / max(self.mask_pixels[1], 1):.6f} '
                f'(limit {MASK_IOU:g}).'
            )
        text.append(
            f'{count(len(self.alone), "detection")} without a partner (limit '
            f'{ALONE:.0%}).'
        )
        if not self.pairs and not self.alone:
            text.append('Both found nothing, so that nothing was compared.')
        text += self.alone[:5]
        if len(self.alone) > 5:
            text.append(f'and {len(self.alone) - 5} more')
        return text


def pair(a: Detections, b: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of detections that are the same, in any order.

    Two are the same if they have the same label, and corners less than a
    pixel apart. Every detection has at most one partner.
    """
    pairs: list[tuple[int, int]] = []
    for label in np.intersect1d(a.labels, b.labels):
        (rows,), (columns,) = (
            np.nonzero(found.labels == label) for found in (a, b)
        )
        boxes = np.abs(a.boxes[rows, None] - b.boxes[columns]).max(2)
        scores = np.abs(a.scores[rows, None] - b.scores[columns])
        far = boxes > _NEAR
        # One far pair costs more than all near ones.
        cost = np.where(far, 1e6, boxes + scores)
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if not far[i, j]:
                pairs.append((rows[i], columns[j]))
    found = np.array(pairs, int).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def compare_networks(
    eager: Run,
    exported: Run,
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    multiple: int = 1,
    fixed: bool = False,
) -> Parity:
    """Compares two models on images of three sizes, in two batch sizes.

    Args:
        eager: The model.
        exported: What was exported from it.
        images: (H, W, 3), uint8; they are resized.
        size: Height and width of the largest ones.
        multiple: Height and width are made multiples of it. Default: 1.
        fixed: Whether the file takes images of ``size`` only. Default: False.
    """
    result = Parity()
    left = list(images)
    for share in SHARES[:1] if fixed else SHARES:
        height, width = (
            max(round(side * part / multiple), 1) * multiple
            for side, part in zip(size, share, strict=True)
        )
        for batch in BATCHES:
            batch_of = [left[i % len(left)] for i in range(batch)]
            left = left[batch:] + left[:batch]
            prepared = [
                Prepared(
                    cv2.resize(image, (width, height)),
                    (height, width),
                    (1.0, 1.0),
                )
                for image in batch_of
            ]
            result.sizes.append(f'{batch} x {width}x{height}')
            found = zip(eager(prepared), exported(prepared), strict=True)
            for one, other in found:
                result.add(one, other)
    return result
