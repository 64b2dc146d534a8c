# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A detector in an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.export.detections import Detections
from mmext.export.formats import module_of
from mmext.export.masks import full_masks
from mmext.export.metadata import parse
from mmext.export.preparation import Prepared
from mmext.utils.documents import require_regular
from mmext.utils.text import short


class ExportedFile:
    """A detector in a file that ``mmext export`` wrote.

    Several threads may call it at once.

    Args:
        path: The file, with the suffix of its format.

    Raises:
        UserError: It is not such a file, or not trusted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            require_regular(self.path)
            raise UserError(f'model {path} does not exist', 'Check the path.')
        self._run, text = module_of(self.path.suffix).open_file(self.path)
        self.meta = parse(text, path)

    def __call__(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detects in prepared images of one size.

        Raises:
            UserError: The file does not take images of this size.
        """
        pixels = np.stack([image.pixels for image in images])
        height, width = pixels.shape[1:3]
        size, multiple = self.meta.size, self.meta.multiple
        if size is not None and (height, width) != size:
            raise UserError(
                f'{self.path} takes images of {size[1]}x{size[0]} pixels, and '
                f'this one has {width}x{height} after resizing',
                'Export without --size for images of any size.',
            )
        if height % multiple or width % multiple:
            raise UserError(
                f'{self.path} takes images whose sides are multiples of '
                f'{multiple}, and this one has {width}x{height} pixels after '
                'resizing',
                'Pad it on the right and at the bottom.',
            )
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        try:
            rows = list(zip(images, *self._run(pixels), strict=True))
        except Exception as error:  # of types of three packages
            raise UserError(
                f'{self.path} fails for {len(pixels)} images of '
                f'{width}x{height} pixels: {short(str(error), 200)}',
                'Export with --size for images of one size, or with '
                '--format torch.',
            ) from error
        return [self._detections(*row) for row in rows]

    def _detections(
        self,
        image: Prepared,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Detections:
        found = scores >= 0
        boxes = boxes[found] / np.tile(np.float32(image.scale), 2)
        if masks is not None:
            masks = full_masks(masks[found], boxes, self.meta.masks, image)
        return Detections(boxes, scores[found], labels[found], masks)
