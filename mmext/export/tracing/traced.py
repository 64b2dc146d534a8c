# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A detector as one function of images, which an exporter can follow."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mmext.export.tracing.dense import dense_detections
from mmext.export.tracing.roi import roi_detections


class TracedDetector(nn.Module):
    """From images to boxes, scores, labels and, of some models, masks.

    Args:
        model: A detector that
            :func:`~mmext.export.tracing.supported.require_supported` accepts.

    Shape:
        - input: uint8 (B, 3, H, W), in the order of the config's images (BGR
          by default).
        - boxes: (B, N, 4), x1, y1, x2, y2 in pixels of the input.
        - scores: (B, N), -1 in rows without a detection.
        - labels: (B, N).
        - masks: (B, N, h, w), see :mod:`mmext.export.masks`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        size = image.shape[-2:]
        feats = self.model.extract_feat(self.prepare(image))
        if not hasattr(self.model, 'roi_head'):
            return dense_detections(self.model.bbox_head, feats, size)
        boxes, scores, _ = dense_detections(self.model.rpn_head, feats, size)
        return roi_detections(self.model.roi_head, feats, boxes, scores, size)

    def prepare(self, image: Tensor) -> Tensor:
        """Does what the model's ``DetDataPreprocessor`` does."""
        how = self.model.data_preprocessor
        x = image.float()
        if how._channel_conversion:
            x = x.flip(1)
        if how._enable_normalize:
            x = (x - how.mean) / how.std
        divisor = how.pad_size_divisor
        if divisor == 1:
            return x
        # Written so that the size is a product, which PyTorch simplifies.
        down, right = (
            divisor * ((side + divisor - 1) // divisor) - side
            for side in x.shape[-2:]
        )
        return functional.pad(x, (0, right, 0, down), value=how.pad_value)
