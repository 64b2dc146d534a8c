# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a config's test pipeline does to an image before the model.

It resizes and pads. These steps are written into exported files as numbers,
so that running a file needs OpenCV and not MMDetection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmext.errors import UserError

#: Steps of a pipeline that do not change the image.
_READERS = (
    'InferencerLoader',
    'LoadAnnotations',
    'LoadImageFromFile',
    'LoadImageFromNDArray',
    'PackDetInputs',
)
#: Options of these steps that would change what is read.
_COLOURS = {'color_type': 'color', 'imdecode_backend': 'cv2'}


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it.

    Args:
        pixels: (H, W, 3), uint8.
        size: Height and width of the image before.
        scale: Pixels in ``pixels`` for one of the image, in x and y.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Preparation:
    """The resizing and padding of mmdet's ``Resize`` and ``Pad``.

    Args:
        resize: Width and height that ``Resize`` fits images into. Default:
            images keep their size.
        keep_ratio: Whether the ratio of the sides stays. Default: True.
        pad: Width and height that ``Pad`` fills up to. Default: no padding.
        pad_value: The colour of the padding. Default: 0.
    """

    resize: tuple[int, int] | None = None
    keep_ratio: bool = True
    pad: tuple[int, int] | None = None
    pad_value: float = 0

    def __call__(self, image: np.ndarray) -> Prepared:
        """Prepares an image (H, W, 3) of type uint8."""
        height, width = image.shape[:2]
        new = (width, height)
        if self.resize is not None:
            new = self.resize
            if self.keep_ratio:
                factor = min(
                    max(new) / max(height, width),
                    min(new) / min(height, width),
                )
                new = int(width * factor + 0.5), int(height * factor + 0.5)
            image = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR)
        if self.pad is not None:
            right, down = (
                max(a - b, 0) for a, b in zip(self.pad, new, strict=True)
            )
            image = cv2.copyMakeBorder(
                image,
                *(0, down, 0, right),
                cv2.BORDER_CONSTANT,
                value=(self.pad_value,) * 3,
            )
        scale = new[0] / width, new[1] / height
        return Prepared(image, (height, width), scale)


def find_preparation(pipeline: list[Mapping[str, Any]]) -> Preparation:
    """Returns what a test pipeline does.

    Raises:
        UserError: It has a step that an exported file cannot have.
    """
    found: dict[str, Any] = {}
    for i, step in enumerate(pipeline):
        name = str(step['type']).rpartition('.')[2]
        given = {k: v for k, v in step.items() if k != 'type'}
        if name == 'Resize' and not found:
            scale = given.pop('scale', None)
            scale = (scale, scale) if isinstance(scale, int) else scale
            found['resize'] = scale and tuple(scale)
            found['keep_ratio'] = given.pop('keep_ratio', False)
        elif name == 'Pad' and 'pad' not in found:
            size = given.pop('size', None)
            found['pad'] = size and tuple(size)
            value = given.pop('pad_val', 0)
            is_map = isinstance(value, Mapping)
            value = value.get('img', 0) if is_map else value
            values = {*value} if isinstance(value, list | tuple) else {value}
            (found['pad_value'],) = values if len(values) == 1 else (None,)
        elif name in _READERS:
            given = {
                k: v
                for k, v in given.items()
                if k in _COLOURS and v != _COLOURS[k]
            }
        else:
            given = {'type': name}
        known = found.get('resize', True) and found.get('pad', True)
        if given or not known or found.get('pad_value', 0) is None:
            raise UserError(
                f'step {i} of the test pipeline cannot be a part of an '
                f'exported file: {dict(step)}',
                'Exported files have Resize(scale=(W, H), keep_ratio=...) and '
                'Pad(size=(W, H), pad_val=NUMBER). Change '
                'test_dataloader.dataset.pipeline.',
            )
    return Preparation(**found)
