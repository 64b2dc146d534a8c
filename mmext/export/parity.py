# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the detections of two models, such as a file and its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmext.export.detections import Detections, Run
from mmext.export.preparation import resized
from mmext.utils.text import count


@dataclass(frozen=True)
class Limits:
    """By how much the detections of two models may differ.

    Args:
        box: Pixels, of a corner of a box.
        score: Of a score.
        mask_iou: The least IoU of all masks together: a value at the
            threshold may be rounded either way.
        alone: Of all detections, how many may have no partner. Where two
            boxes have the same score to within rounding, NMS may keep the one
            or the other.
    """

    box: float
    score: float
    mask_iou: float
    alone: float


#: Of float32, and of convolutions in bfloat16.
EXACT = Limits(0.01, 1e-5, 0.999, 0.01)
BF16 = Limits(2.0, 0.05, 0.9, 0.1)
#: Sizes of the pictures, as shares of the size that the config resizes to,
#: and batch sizes. The exporter saw neither.
SHARES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.6))
BATCHES = (1, 3)


@dataclass
class Parity:
    """How far the detections of two models are apart.

    Attributes:
        limits: By how much they may differ. Default: by rounding.
        images: The number of images.
        pairs: The number of detections that both have.
        box: The largest difference of their boxes, in pixels.
        score: The largest difference of their scores.
        mask_pixels: Pixels in both masks and in either, of all pairs.
        alone: Detections without a partner, as text.
        sizes: Sizes of the batches, as text.
    """

    limits: Limits = EXACT
    images: int = 0
    pairs: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_pixels: np.ndarray = field(default_factory=lambda: np.zeros(2))
    alone: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)

    @property
    def mask_iou(self) -> float | None:
        """The IoU of all masks together; None without masks."""
        shared, either = self.mask_pixels
        return shared / either if either else None

    @property
    def agrees(self) -> bool:
        """Whether there are detections, and all differ within the limits."""
        limits = self.limits
        total = 2 * self.pairs + len(self.alone)
        return (
            self.pairs > 0
            and self.box <= limits.box
            and self.score <= limits.score
            and (self.mask_iou is None or self.mask_iou >= limits.mask_iou)
            and len(self.alone) <= limits.alone * total
        )

    def add(self, first: Detections, second: Detections) -> None:
        """Adds what the models found in the same image."""
        self.images += 1
        rows, columns = pair(first, second, max(1.0, self.limits.box))
        for found, mine, name in (
            (first, rows, 'model'),
            (second, columns, 'file'),
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
        box = np.abs(first.boxes[rows] - second.boxes[columns]).max()
        score = np.abs(first.scores[rows] - second.scores[columns]).max()
        self.box = max(self.box, float(box))
        self.score = max(self.score, float(score))
        if first.masks is not None:
            a, b = first.masks[rows], second.masks[columns]
            self.mask_pixels += (a & b).sum(), (a | b).sum()

    def summary(self) -> str:
        """Returns the differences and their limits as a sentence."""
        limits = self.limits
        masks = ''
        if self.mask_iou is not None:
            masks = f', IoU of masks {self.mask_iou:.6f} ({limits.mask_iou:g})'
        return (
            f'{count(self.pairs, "detection")} of both; largest difference '
            f'(limit) of boxes {self.box:.2g} px ({limits.box:g}), of scores '
            f'{self.score:.2g} ({limits.score:g}){masks}; '
            f'{len(self.alone)} without a partner ({limits.alone:.0%})'
        )

    def lines(self) -> list[str]:
        """Returns the result as sentences, with the first that differ."""
        text = [
            f'{count(self.images, "image")} in batches of '
            f'{", ".join(self.sizes)}: {self.summary()}.'
        ]
        if not self.pairs and not self.alone:
            text.append('Both found nothing, so that nothing was compared.')
        text += self.alone[:5]
        if len(self.alone) > 5:
            text.append(f'and {len(self.alone) - 5} more')
        return text


def pair(
    a: Detections, b: Detections, near: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of detections that are the same, in any order.

    Two are the same if they have the same label, and corners at most ``near``
    pixels apart. Every detection has at most one partner.
    """
    # One far pair costs more than all near ones.
    boxes = np.abs(a.boxes[:, None] - b.boxes).max(2, initial=0)
    far = (boxes > near) | (a.labels[:, None] != b.labels)
    scores = np.abs(a.scores[:, None] - b.scores)
    rows, columns = linear_sum_assignment(np.where(far, 1e6, boxes + scores))
    good = ~far[rows, columns]
    return rows[good], columns[good]


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
            prepared = [resized(i, (height, width)) for i in batch_of]
            result.sizes.append(f'{batch} x {width}x{height}')
            found = zip(eager(prepared), exported(prepared), strict=True)
            for one, other in found:
                result.add(one, other)
    return result
