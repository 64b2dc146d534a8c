# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From the small masks in an exported file's output to masks of the image.

A file returns masks as the model computes them, because full masks of 100
detections would take 100 MB at 800 x 1333 pixels. There are two kinds:

- ``'box'`` (Mask R-CNN, Cascade Mask R-CNN): values from 0 to 1 in a grid
  over the box.
- ``'image'`` (RTMDet-Ins): logits in a grid over the padded input.

A pixel belongs to the object if the value that is interpolated there is above
the threshold, or equal to it for ``'box'``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from mmext.export.preparation import Prepared


def full_masks(
    values: np.ndarray,
    boxes: np.ndarray,
    how: Mapping[str, Any],
    image: Prepared,
) -> np.ndarray:
    """Returns masks (N, H, W) of the image, bool.

    Args:
        values: (N, h, w).
        boxes: (N, 4), in pixels of the image.
        how: ``kind``, ``threshold`` and, of ``'image'``, ``stride``.
        image: What the values were computed from.
    """
    masks = np.zeros((len(values), *image.size), bool)
    for mask, value, box in zip(masks, values, boxes, strict=True):
        if how['kind'] == 'box':
            _paste(mask, value, box, how['threshold'])
        else:
            resized = _resize(value, how['stride'], image)
            mask[:] = resized > how['threshold']
    return masks


def _paste(
    mask: np.ndarray, value: np.ndarray, box: np.ndarray, threshold: float
) -> None:
    """Interpolates as PyTorch's ``grid_sample`` does, around the box only.

    The grid is parallel to the axes, so the weights of rows and columns are
    two matrices.
    """
    height, width = mask.shape
    x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
    x2, y2 = np.ceil(box[2:]).astype(int) + 1
    x2, y2 = min(x2, width), min(y2, height)
    if x2 <= x1 or y2 <= y1:
        return
    rows = _weights(y1, y2, box[1], box[3], value.shape[0])
    columns = _weights(x1, x2, box[0], box[2], value.shape[1])
    mask[y1:y2, x1:x2] = rows @ value @ columns.T >= threshold


def _weights(
    first: int, end: int, low: float, high: float, cells: int
) -> np.ndarray:
    """Returns weights (pixels, cells) of linear interpolation."""
    pixels = np.arange(first, end, dtype=np.float32) + 0.5
    side = high - low
    at = (pixels - low) / side * cells - 0.5 if side else 0 * pixels
    distance = np.abs(at[:, None] - np.arange(cells, dtype=np.float32))
    return np.maximum(1 - distance, 0)


def _resize(value: np.ndarray, stride: int, image: Prepared) -> np.ndarray:
    """Resizes a grid to the input, and that to the image, as mmdet does."""
    height, width = value.shape[0] * stride, value.shape[1] * stride
    value = cv2.resize(value, (width, height))
    size = (
        math.ceil(width / image.scale[0]),
        math.ceil(height / image.scale[1]),
    )
    if size != (width, height):
        value = cv2.resize(value, size)
    return value[: image.size[0], : image.size[1]]
