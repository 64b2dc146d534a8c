# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Test-time augmentation of the boxes of a model that predicts masks."""

from __future__ import annotations

from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel``, which merges boxes, without the masks."""

    def _merge_single_sample(
        self, data_samples: list[DetDataSample]
    ) -> DetDataSample:
        for sample in data_samples:
            sample.pred_instances.pop('masks', None)
        return super()._merge_single_sample(data_samples)
