# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the detector of a checkpoint as :class:`ExportedFile` runs a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import nn

from mmext.export.detections import Detections
from mmext.export.preparation import Prepared


class EagerDetector:
    """mmdet's ``test_step`` on prepared images.

    Several threads may call it at once.

    Args:
        model: A detector in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detects in prepared images of one size."""
        inputs, samples = [], []
        for image in images:
            pixels = np.ascontiguousarray(image.pixels.transpose(2, 0, 1))
            inputs.append(torch.from_numpy(pixels))
            shape = {
                'img_shape': image.pixels.shape[:2],
                'ori_shape': image.size,
                'scale_factor': image.scale,
            }
            samples.append(DetDataSample(metainfo=shape))
        data = {'inputs': inputs, 'data_samples': samples}
        with torch.inference_mode():
            results = self.model.test_step(data)
        found = [sample.pred_instances.cpu().numpy() for sample in results]
        return [
            Detections(f.bboxes, f.scores, f.labels, f.get('masks'))
            for f in found
        ]
