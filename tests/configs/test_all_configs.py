# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every config loads, survives a round trip, builds, trains and predicts.

Models are built on PyTorch's meta device, which costs no memory and little
time. One small config of each pair of detector and backbone runs a training
step and a prediction here; ``make test-slow`` does this for all configs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from leaves import (
    ENTRIES,
    EVIDENCE,
    MODELS,
    build,
    count_parameters,
    load,
)
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData

from mmext.checks.parts import check_parts
from mmext.evaluation.cost.complexity import input_shape

#: Config name -> number of parameters in its metafile.
PARAMETERS = {
    Path(model['Config']).stem: model['Metadata']['Parameters']
    for model in ENTRIES
}
# One of the smallest of each kind.
SAMPLE = (
    'faster-rcnn_stepnet-r50_fpn_1x_coco',
    'faster-rcnn_starnet-s1_fpn_1x_coco',
    'faster-rcnn_dwnet-tiny_fpn_1x_coco',
    'retinanet_starnet-s1_fpn_1x_coco',
    'mask-rcnn_starnet-s1_fpn_1x_coco',
    'fpn_starnet-s1_160k_ade20k-512x512',
    'starnet-s1_8xb256-300e_in1k',
    'retinanet_efficientnet-b0_fpn_1x_coco',
    'faster-rcnn_vit-s_sfp_1x_coco',
    'rtmdet-tiny_mobilenetv4-s_8xb32-300e_coco',
    'rtmdet-ins-tiny_starnet-s1_8xb32-300e_coco',
)


def test_every_config_is_in_a_metafile() -> None:
    assert set(PARAMETERS) == set(MODELS)


@pytest.mark.parametrize('name', MODELS)
def test_loads_dumps_reloads_and_builds(name: str, tmp_path: Path) -> None:
    cfg = load(name)
    # Without yapf, which takes up to a second.
    plain = Config(cfg.to_dict(), format_python_code=False)
    plain.dump(tmp_path / 'dumped.py')
    again = Config.fromfile(tmp_path / 'dumped.py')
    assert again.to_dict() == cfg.to_dict()
    assert 'mmext' in cfg.custom_imports.imports
    assert count_parameters(cfg) == PARAMETERS[name]
    check_parts(cfg, ('train', 'val', 'test'))


@pytest.mark.parametrize('name', EVIDENCE)
def test_evidence_loads_and_builds(name: str) -> None:
    cfg = load(name)
    assert 'mmext' in cfg.custom_imports.imports
    if 'val_dataloader' not in cfg:  # one cycle of the rate
        assert cfg.param_scheduler.total_steps == cfg.train_cfg.max_epochs
        lr = cfg.optim_wrapper.optimizer.lr
        assert cfg.param_scheduler.eta_max == lr
    assert count_parameters(cfg) > 0
    check_parts(cfg, ('train', 'test'))


@pytest.mark.parametrize(
    ('name', 'shape'),
    [('resnet20_cifar10', (32, 32)), ('fpn_resnet18_camvid', (176, 240))],
)
def test_costs_are_those_of_small_images(name: str, shape: tuple) -> None:
    """Images that are not resized have the size of the crops in training."""
    assert input_shape(load(name)) == shape


def batch(cfg: Config) -> dict[str, Any]:
    """Two small images with the annotations that the model's task needs."""
    # The DETRs with two stages choose among as many places as queries.
    shape = (3, 192, 256) if 'num_queries' in cfg.model else (3, 96, 128)
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        data = demo_mm_inputs(
            2,
            [shape] * 2,
            num_classes=2,
            with_mask="'with_mask': True" in str(cfg.train_dataloader),
        )
        for sample in data['data_samples']:
            # The one label that every head has.
            sample.gt_instances.labels.zero_()
        return data
    if cfg.default_scope == 'mmseg':
        from mmseg.structures import SegDataSample

        size = shape[1:]
        meta = {'img_shape': size, 'ori_shape': size}
        samples = [SegDataSample(metainfo=meta) for _ in range(2)]
        for i, sample in enumerate(samples):
            sample.gt_sem_seg = PixelData(data=torch.full((1, *size), i))
    else:
        from mmpretrain.structures import DataSample

        shape = (3, 224, 224)
        samples = [DataSample().set_gt_label(i) for i in range(2)]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (2, *shape), dtype=torch.uint8, generator=generator
    )
    return {'inputs': list(images), 'data_samples': samples}


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(n, marks=[] if n in SAMPLE else pytest.mark.slow)
        for n in MODELS
    ],
)
def test_trains_and_predicts(name: str) -> None:
    cfg = load(name)
    # Pre-trained weights need a network connection.
    cfg.model.backbone.init_cfg = None
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.pop('pretrained', None)
    if 'data_preprocessor' in cfg.model:
        # Mask2Former's pads to 1024x1024.
        cfg.model.data_preprocessor.batch_augments = None
    model = revert_sync_batchnorm(build(cfg))
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = batch(cfg)
    # TOOD reads it.
    MessageHub.get_current_instance().update_info('epoch', 0)
    model.train()
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    loss, log_vars = model.parse_losses(losses)
    assert torch.isfinite(loss), log_vars
    loss.backward()
    without = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert not without, 'these would stop distributed training'
    optimizer.step()
    model.eval()
    with torch.no_grad():
        outs = model(
            **model.data_preprocessor(batch(cfg), training=False),
            mode='predict',
        )
    assert len(outs) == 2
