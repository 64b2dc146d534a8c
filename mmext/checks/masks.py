# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the masks in a COCO annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmext.checks.findings import (
    ERROR,
    SUSPICIOUS,
    WARNING,
    Finding,
    Split,
)
from mmext.datasets.masks import is_polygon, mask_problems
from mmext.utils.text import some

NEAR = 3.0  # pixels between the corners of a mask and its box


def check_masks(
    content: dict[str, Any], split: Split, frames: np.ndarray
) -> Iterator[Finding]:
    """Checks that every mask that is there fits its image and its box.

    ``frames`` (N, 2) has the width and height of each annotation's image, NaN
    if its box is not right.
    """
    images = {image['id']: image for image in content['images']}
    total = len(content['annotations'])
    unusable, broken, drawn = [], [], []
    masks = [a.get('segmentation') or [] for a in content['annotations']]
    found = [images.get(a['image_id']) for a in content['annotations']]
    sizes = [image and (image['height'], image['width']) for image in found]
    problems = mask_problems(masks, sizes)
    for i, annotation in enumerate(content['annotations']):
        mask, problem = masks[i], problems[i]
        if mask and problem:
            broken.append((annotation, problem))
        elif isinstance(mask, list) and not all(map(is_polygon, mask)):
            unusable.append(annotation)
        elif mask and not np.isnan(frames[i, 0]):
            drawn.append((annotation, frames[i]))
    if broken:
        first, problem = broken[0]
        more = some(a['id'] for a, _ in broken[1:])
        yield split.error(
            'masks',
            f'{len(broken)} of {total} masks cannot be read: that of '
            f'annotation {first["id"]} {problem}'
            + (f'. The others: {more}' if more else ''),
            'Export the masks again, or remove these annotations.',
            count=len(broken),
        )
    if unusable:
        level, effect = ERROR, 'the evaluation of masks would stop at them'
        if split.training:
            level = WARNING
            effect = 'mmdet drops such polygons, and an object without other'
        yield split.finding(
            level,
            'masks',
            f'{len(unusable)} of {total} masks have a polygon that is not 3 '
            f'or more points x, y (annotations '
            f'{some(a["id"] for a in unusable)}); {effect}',
            'Draw them again.',
            count=len(unusable),
            fixable=True,
        )
    yield from _check_places(drawn, split)


def _check_places(
    drawn: list[tuple[dict, np.ndarray]], split: Split
) -> Iterator[Finding]:
    """Checks that masks lie in the boxes of their objects."""
    if not drawn:
        return
    masks = np.array([mask_corners(a['segmentation']) for a, _ in drawn])
    boxes = np.array([a['bbox'] for a, _ in drawn], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    ends = np.array([[*size, *size] for _, size in drawn])
    # Either may have been cut at the edge of the image.
    inside = masks.clip(0, ends), boxes.clip(0, ends)
    # Exporters round, which matters to small objects.
    near = np.abs(inside[0] - inside[1]).max(1) <= NEAR
    elsewhere = ~near & (_overlap(*inside) < 0.5)
    if not elsewhere.any():
        return
    many = elsewhere.mean() >= SUSPICIOUS
    first = int(elsewhere.argmax())
    mask, box = (
        ', '.join(f'{v:g}' for v in corners[first])
        for corners in (masks, boxes)
    )
    guess = _guess(masks[elsewhere], boxes[elsewhere]) if many else ''
    yield split.finding(
        ERROR if many else WARNING,
        'masks elsewhere',
        f'{elsewhere.sum()} of {len(drawn)} masks are not in the box of their '
        f'object: that of annotation {drawn[first][0]["id"]} has the corners '
        f'{mask}, its box {box}{guess}',
        'Export the masks again, as x1, y1, x2, y2, ... in pixels of the '
        'image.',
        count=int(elsewhere.sum()),
    )


def _guess(masks: np.ndarray, boxes: np.ndarray) -> str:
    """Returns what is wrong if it makes most masks fit their boxes."""
    if (masks <= 1).all():
        return '. They seem to be fractions of the image'
    if (_overlap(masks[:, [1, 0, 3, 2]], boxes) >= 0.5).mean() > 0.5:
        return '. x and y seem to be exchanged'
    ratios = boxes[:, 2:] / np.maximum(masks[:, 2:], 1e-9)
    scale = np.median(ratios, axis=0)
    if (_overlap(masks * [*scale, *scale], boxes) >= 0.5).mean() > 0.5:
        return (
            '. They seem to be drawn in images of another size, '
            f'{1 / scale[0]:.3g} x {1 / scale[1]:.3g} times as large'
        )
    return ''


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the IoU of each box of ``a`` with the same of ``b``, (N, 4)."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = sides.clip(0).prod(1)
    areas = [(c[:, 2:] - c[:, :2]).prod(1) for c in (a, b)]
    return common / np.maximum(sum(areas) - common, 1e-9)


def mask_corners(mask: list | dict) -> list[float]:
    """Returns x1, y1, x2, y2 of the box around a mask that can be read."""
    if isinstance(mask, list):
        x = [v for polygon in mask for v in polygon[::2]]
        y = [v for polygon in mask for v in polygon[1::2]]
        return [min(x), min(y), max(x), max(y)]
    if isinstance(mask['counts'], list):
        mask = rle.frPyObjects(mask, *mask['size'])
    x, y, w, h = rle.toBbox(mask).tolist()
    return [x, y, x + w, y + h]
