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
            Default: one.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)


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
    resize = pad = None
    keep_ratio, pad_value = True, 0
    for i, step in enumerate(pipeline):
        kind = str(step['type']).rpartition('.')[2]
        options = {*step} - {'type'}
        scale, size = step.get('scale'), step.get('size')
        value = step.get('pad_val', 0)
        value = value.get('img', 0) if isinstance(value, Mapping) else value
        values = {*value} if isinstance(value, list | tuple) else {value}
        if kind in _READERS and all(
            step.get(k, v) == v for k, v in _COLOURS.items()
        ):
            continue
        if kind == 'Resize' and step.get('scale_factor') == 1:
            continue
        if (
            kind == 'Resize'
            and scale
            and options <= {'scale', 'keep_ratio'}
            and resize is pad is None
        ):
            resize = (scale, scale) if isinstance(scale, int) else tuple(scale)
            keep_ratio = step.get('keep_ratio', False)
        elif (
            kind == 'Pad'
            and size
            and options <= {'size', 'pad_val'}
            and pad is None
            and len(values) == 1
        ):
            pad, (pad_value,) = tuple(size), values
        else:
            raise UserError(
                f'step {i} of the test pipeline cannot be a part of an '
                f'exported file: {dict(step)}',
                'Exported files have Resize(scale=(W, H), keep_ratio=...) and '
                'Pad(size=(W, H), pad_val=NUMBER). Change '
                'test_dataloader.dataset.pipeline.',
            )
    return Preparation(resize, keep_ratio, pad, pad_value)


def resized(image: np.ndarray, size: tuple[int, int]) -> Prepared:
    """Returns an image (H, W, 3) as one of ``size``, height and width."""
    return Prepared(cv2.resize(image, size[::-1]), size)
