# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Packs images without copying them into another memory layout."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmengine.registry import TRANSFORMS

from mmext.datasets.loading.transport import empty


@TRANSFORMS.register_module()
class PackChannelsLastInputs(PackDetInputs):
    """``PackDetInputs`` that keeps images in the layout of the decoder.

    ``inputs`` has the values and the shape, (C, H, W), of the parent's. Its
    memory is that of the decoded image, (H, W, C), which the parent copies.

    Args:
        meta_keys: Of ``PackDetInputs``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs an image and its annotations."""
        image = results.get('img')
        if image is None:
            return super().transform(results)
        # The parent would copy it.
        rest = {key: results[key] for key in results if key != 'img'}
        packed = super().transform(rest)
        return {'inputs': _channels_first(image), **packed}


def _channels_first(image: np.ndarray) -> torch.Tensor:
    """Returns a (C, H, W) view of an image, (H, W, C) or (H, W)."""
    image = image.reshape(*image.shape[:2], -1)
    planes = image.transpose(2, 0, 1)
    if planes.flags.c_contiguous:
        return torch.from_numpy(planes)
    packed = empty(image.shape, image.dtype)
    if image.strides[1] < 0:
        # Flipped by a view. NumPy would copy it pixel by pixel.
        both = image.strides[0] < 0
        unflipped = np.flip(image, (0, 1) if both else 1)
        cv2.flip(unflipped, -1 if both else 1, packed)
    else:
        np.copyto(packed, image)
    return torch.from_numpy(packed).permute(2, 0, 1)
