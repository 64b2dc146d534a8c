# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the boxes in a COCO annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmext.checks.findings import SUSPICIOUS, Finding, Split
from mmext.utils.text import some

TOLERANCE = 1.0  # pixels: converters round differently


class Boxes:
    """The boxes of an annotation file as arrays of one row an annotation."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.annotations: list[dict] = content['annotations']
        # The last of a repeated id counts, as in pycocotools.
        images = {image['id']: image for image in content['images']}
        unlisted = {'width': np.nan, 'height': np.nan}
        mine = [images.get(a['image_id'], unlisted) for a in self.annotations]
        sizes = np.array([(i['width'], i['height']) for i in mine], np.float64)
        boxes = np.array([a['bbox'] for a in self.annotations], np.float64)
        #: (N, 2): width and height of the image, NaN if it is not listed.
        self.sizes = sizes.reshape(-1, 2)
        #: (N, 4): x, y, width and height in pixels.
        self.boxes = boxes.reshape(-1, 4)

        start, sides = self.boxes[:, :2], self.boxes[:, 2:]
        end, limit = start + sides, self.sizes + TOLERANCE
        visible = np.minimum(end, self.sizes) - np.maximum(start, 0)
        before, beyond = (start < -TOLERANCE).any(1), (end > limit).any(1)
        #: (N,): with a side below 1 pixel; mmdet drops these.
        self.degenerate = (sides < 1).any(1)
        #: (N,): with no part inside the image; mmdet drops these.
        self.outside = (visible <= 0).any(1) & ~self.degenerate
        #: (N,): with no area inside the image.
        self.unusable = self.degenerate | self.outside
        #: (N,): with a part outside the image.
        self.over_edge = (before | beyond) & ~self.unusable

        #: (N,): whose image is listed.
        self.known = ~np.isnan(self.sizes[:, 0])
        fits = ~before & (sides > start).all(1) & (sides <= limit).all(1)
        #: Whether the boxes are most likely x1, y1, x2, y2: almost all are
        #: inside their images if they are, and many reach beyond if not.
        self.as_corners = bool(
            self.known.any()
            and fits[self.known].mean() > 0.99
            and beyond[self.known].mean() >= SUSPICIOUS
        )
        #: Whether the boxes are fractions of the image's sides, as YOLO's.
        self.as_fractions = bool(
            (self.boxes <= 1).all() and (self.sizes[self.known] > 1).any()
        )

    @property
    def frames(self) -> np.ndarray:
        """(N, 2): sizes, NaN where a box does not say where its object is."""
        wrong = self.as_corners or self.as_fractions
        return np.where(self.unusable[:, None] | wrong, np.nan, self.sizes)

    def some(self, mask: np.ndarray) -> str:
        """Returns some of the boxes that an array (N,) marks."""
        return '; '.join(map(self.example, np.flatnonzero(mask)[:3])) + (
            '; ...' if mask.sum() > 3 else ''
        )

    def example(self, i: int) -> str:
        """Returns the id and the box of annotation ``i``, for a message."""
        box = ', '.join(f'{v:g}' for v in self.boxes[i])
        text = f'annotation {self.annotations[i]["id"]}, [{box}]'
        if not self.known[i]:
            return text
        width, height = self.sizes[i]
        return f'{text} in {width:g} x {height:g}'


def check_boxes(boxes: Boxes, split: Split) -> Iterator[Finding]:
    """Checks that boxes are x, y, width, height in pixels of their image."""
    total = len(boxes.boxes)
    beyond = boxes.over_edge | boxes.outside
    if boxes.as_corners:
        yield split.error(
            'boxes as corners',
            'bbox seems to be [x1, y1, x2, y2]: read in that order, boxes '
            "are inside their images; in COCO's order [x, y, width, height], "
            f'{beyond.sum()} of {total} reach beyond '
            f'({boxes.example(beyond.argmax())})',
            'Write [x1, y1, x2 - x1, y2 - y1].',
            count=total,
            fixable=True,
        )
        return
    if boxes.as_fractions:
        yield split.error(
            'boxes as fractions',
            'all numbers of all boxes are at most 1 '
            f'({boxes.example(0)}): fractions of the image, not pixels',
            'Write [x, y, width, height] in pixels. '
            'mmext convert converts YOLO labels.',
            count=total,
        )
        return
    redraw = 'Remove them or draw them again.'
    for check, mask, text, remedy in (
        (
            'boxes degenerate',
            boxes.degenerate,
            'have a side below 1 pixel; mmdet drops them',
            redraw,
        ),
        (
            'boxes outside',
            boxes.outside,
            'are outside their image; mmdet drops them',
            redraw,
        ),
        (
            'boxes over the edge',
            boxes.over_edge,
            'reach beyond their image',
            'Cut them at the edge.',
        ),
    ):
        if mask.any():
            yield split.warning(
                check,
                f'{mask.sum()} of {total} boxes {text}: {boxes.some(mask)}',
                remedy,
                count=int(mask.sum()),
                fixable=True,
            )
    if boxes.known.any() and boxes.unusable[boxes.known].all():
        yield split.error(
            'boxes degenerate',
            f'no box is left that mmdet would use: {boxes.some(boxes.known)}',
            'bbox is [x, y, width, height] in pixels.',
            count=total,
        )


def check_areas(annotations: list[dict], split: Split) -> Iterator[Finding]:
    """Checks that every annotation has an area above 0."""
    missing = [a for a in annotations if 'area' not in a]
    if missing:
        yield split.error(
            'areas',
            f'{len(missing)} of {len(annotations)} annotations have no area '
            f'(ids {some(a["id"] for a in missing)}); mmdet cannot load the '
            'file',
            "Add 'area': the mask's pixels, else width * height.",
            count=len(missing),
            fixable=True,
        )
    empty = [a for a in annotations if a.get('area', 1) <= 0]
    if empty:
        yield split.warning(
            'areas',
            f'{len(empty)} of {len(annotations)} annotations have an area of '
            f'0 or less (ids {some(a["id"] for a in empty)}); mmdet drops '
            'them',
            "Write the mask's pixels, else width * height.",
            count=len(empty),
            fixable=True,
        )
