# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Test-time augmentation: of a config, and of models that predict masks."""

from __future__ import annotations

import copy

from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from mmext.evaluation.tested import in_words
from mmext.models.build import model_config
from mmext.utils.config import resize_scales


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel``, which merges boxes, without the masks."""

    def _merge_single_sample(
        self, data_samples: list[DetDataSample]
    ) -> DetDataSample:
        for sample in data_samples:
            sample.pred_instances.pop('masks', None)
        return super()._merge_single_sample(data_samples)


def set_tta(cfg: Config) -> str:
    """Tests every image as it is and mirrored, and merges with NMS.

    The config's ``tta_model`` and ``tta_pipeline`` are used if it has them.
    Returns a warning if they resize images to other scales than the test.
    """
    if cfg.get('tta_model') is None:
        nms = {'type': 'nms', 'iou_threshold': 0.5}
        tta_cfg = {'nms': nms, 'max_per_img': 100}
        cfg.tta_model = {'type': 'DetTTAModel', 'tta_cfg': tta_cfg}
    if cfg.tta_model['type'] in ('DetTTAModel', 'mmdet.DetTTAModel'):
        cfg.tta_model['type'] = 'BoxTTAModel'  # the model may predict masks
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if cfg.get('tta_pipeline') is None:
        pack = copy.deepcopy(dataset.pipeline[-1])
        keys = (*pack.get('meta_keys', ()), 'flip', 'flip_direction')
        pack['meta_keys'] = tuple(dict.fromkeys(keys))
        flips = [{'type': 'RandomFlip', 'prob': p} for p in (1.0, 0.0)]
        both = {'type': 'TestTimeAug', 'transforms': [flips, [pack]]}
        cfg.tta_pipeline = [*copy.deepcopy(dataset.pipeline[:-1]), both]
    ours, theirs = resize_scales(dataset), resize_scales(cfg.tta_pipeline)
    cfg.model = ConfigDict(**cfg.tta_model, module=model_config(cfg))
    dataset.pipeline = cfg.tta_pipeline
    if not ours or any(scale in theirs for scale in ours):
        return ''
    return (
        f'tta_pipeline resizes images to {in_words(theirs)}, and the test '
        f'pipeline to {in_words(ours)}. A detector that was trained at '
        'another scale may find nothing. If the config inherited it: '
        '--cfg-options tta_pipeline=None makes one of the test pipeline.'
    )
