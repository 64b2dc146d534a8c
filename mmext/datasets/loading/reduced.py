# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Decodes JPEGs at a half, a quarter or an eighth of their size.

libjpeg computes a smaller image from fewer coefficients of the discrete
cosine transform. It is used as far as the image is still at least as large as
the size that it is resized to, so it also filters what a bilinear resizing by
more than two would skip.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmext.errors import UserError
from mmext.utils.images import orientation, turned_size

FLAGS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
_ANNOTATED = ['LoadImageFromFile', 'LoadAnnotations']
_RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')


@TRANSFORMS.register_module()
class LoadEncodedImage(LoadImageFromFile):
    """Reads a JPEG and leaves the decoding to :class:`DecodeAndResize`.

    Other formats are decoded as the parent does. Only transforms that need no
    pixels, such as ``LoadAnnotations``, may follow before the resizing.

    Args:
        backend_args: Of ``LoadImageFromFile``.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        super().__init__(backend_args=backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Adds ``encoded``, ``img_shape`` and ``ori_shape``."""
        content = get(results['img_path'], backend_args=self.backend_args)
        try:
            with Image.open(io.BytesIO(content), formats=['JPEG']) as image:
                width, height = turned_size(*image.size, orientation(image))
        except Exception:  # its type depends on the content
            return super().transform(results)
        results['encoded'] = content
        results['img_shape'] = results['ori_shape'] = height, width
        return results


@TRANSFORMS.register_module()
class DecodeAndResize(Resize):
    """``Resize`` that decodes no more pixels than it needs.

    Sizes, boxes, masks and maps are those of the parent. Pixels are too
    unless the image is reduced.

    Args:
        scale: (width, height), which must be given.
        kwargs: Of ``Resize``.
    """

    def __init__(self, scale: int | tuple[int, int], **kwargs: Any) -> None:
        super().__init__(scale=scale, **kwargs)

    def _resize_img(self, results: dict[str, Any]) -> None:
        content = results.pop('encoded', None)
        if content is None:
            super()._resize_img(results)
            return
        height, width = results['ori_shape']
        size = tuple(results['scale'])
        if self.keep_ratio:
            size = mmcv.rescale_size((width, height), size)
        factor = next(
            n
            for n in FLAGS
            if n == 1 or (width // n >= size[0] and height // n >= size[1])
        )
        image = cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS[factor])
        assert image is not None, (
            f'failed to load image: {results["img_path"]}'
        )
        results['img'] = mmcv.imresize(
            image, size, interpolation=self.interpolation, backend=self.backend
        )
        results['img_shape'] = size[::-1]
        results['scale_factor'] = (size[0] / width, size[1] / height)
        results['keep_ratio'] = self.keep_ratio


def use_reduced_decoding(cfg: Config) -> None:
    """Replaces the loading and resizing of a config's training images.

    Raises:
        UserError: No pipeline of the training data loads an image with the
            default options and resizes it before it uses its pixels.
    """
    if not _replace(cfg.train_dataloader.dataset):
        raise UserError(
            f'{cfg.filename}: reduced_decoding has no effect: no training '
            'pipeline is LoadImageFromFile (default options), annotations, '
            f'{", ".join(_RESIZES[:-1])} or {_RESIZES[-1]}',
            'Put the resizing right after LoadAnnotations, or remove '
            'reduced_decoding.',
        )


def _replace(dataset: Any) -> int:
    """Returns the number of pipelines that were changed."""
    if isinstance(dataset, dict):
        found = sum(map(_replace, dataset.values()))
        return found + _replace_in(dataset.get('pipeline') or ())
    if isinstance(dataset, list):
        return sum(map(_replace, dataset))
    return 0


def _replace_in(pipeline: Sequence[dict]) -> bool:
    names = [str(step.get('type')).removeprefix('mmdet.') for step in pipeline]
    at = next((i for i, name in enumerate(names) if name in _RESIZES), 0)
    if (
        names[:at] not in (['LoadImageFromFile'], _ANNOTATED)
        or not pipeline[0].keys() <= {'type', 'backend_args'}
        or not pipeline[at].keys() & {'scale', 'scales'}
        or 'resize_type' in pipeline[at]
    ):
        return False
    pipeline[0]['type'] = 'LoadEncodedImage'
    key = 'type' if names[at] == 'Resize' else 'resize_type'
    pipeline[at][key] = 'DecodeAndResize'
    return True
