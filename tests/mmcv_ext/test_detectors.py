# Licensed under the Apache License, Version 2.0. See LICENSE.
"""MMDetection's detectors with mmext's ops: build, train a step, predict.

Each test runs a config of mmdet with a narrow backbone on small images. On
the CPU mmdet and mmcv do not use two of the ops that they use on a GPU, the
focal loss and multi-scale deformable attention; here they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv
import mmdet
from mmcv.ops import multi_scale_deform_attn
from mmdet.models.losses import focal_loss
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.registry import DefaultScope

pytestmark = pytest.mark.skipif(
    not hasattr(mmcv._ext, '__path__'), reason='mmcv is compiled'
)
CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
DETR = {
    'encoder.num_layers': 1,
    'decoder.num_layers': 2,  # DDQ predicts from the last but one
    'num_queries': 20,
}
# Config -> functions that must have run. The first list runs in CI.
CI = {
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco': (
        'deform_conv_backward_parameters nms roi_align_backward'
    ),
    'dyhead/atss_r50_fpn_dyhead_1x_coco': (
        'modulated_deform_conv_backward nms sigmoid_focal_loss_backward'
    ),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': (
        'ms_deform_attn_backward'
    ),
}
SLOW = {
    'atss/atss_r50_fpn_1x_coco': 'sigmoid_focal_loss_backward nms',
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco': (
        'carafe_backward roi_align_backward'
    ),
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco': 'roi_align_backward',
    'dcn/faster-rcnn_r50_fpn_dpool_1x_coco': 'deform_roi_pool_backward',
    'dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco': (
        'deform_conv_backward_input roi_align_backward'
    ),
    'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco': 'deform_roi_pool_backward',
    'dcnv2/faster-rcnn_r50-mdconv-group4-c3-c5_fpn_1x_coco': (
        'modulated_deform_conv_backward'
    ),
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco': 'ms_deform_attn_backward nms',
    'dino/dino-4scale_r50_8xb2-12e_coco': 'ms_deform_attn_backward',
    'faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco': 'softnms',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': 'sigmoid_focal_loss_backward',
    'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco': (
        'deform_conv_backward_input sigmoid_focal_loss_backward'
    ),
    'guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco': (
        'deform_conv_backward_input nms'
    ),
    'guided_anchoring/ga-retinanet_r50_fpn_1x_coco': (
        'deform_conv_backward_input masked_im2col_forward '
        'masked_col2im_forward'
    ),
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco': 'nms roi_align_backward',
    'pisa/faster-rcnn_r50_fpn_pisa_1x_coco': 'nms_match',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco': 'roi_align_backward',
    'reppoints/reppoints-moment_r50_fpn_1x_coco': (
        'deform_conv_backward_input sigmoid_focal_loss_backward'
    ),
    'retinanet/retinanet_r50_fpn_1x_coco': 'sigmoid_focal_loss_backward nms',
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco': 'nms',
    'tood/tood_r50_fpn_1x_coco': 'deform_conv_backward_input',
    'vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco': (
        'modulated_deform_conv_backward deform_conv_backward_input'
    ),
    'yolox/yolox_tiny_8xb8-300e_coco': 'nms',
}


def narrow(model: ConfigDict) -> ConfigDict:
    """Reduces a ResNet to an eighth of its width, a DETR to few layers."""
    backbone = model.backbone
    backbone.pop('init_cfg', None)
    if backbone.type == 'ResNet':
        backbone.update(base_channels=8, stem_channels=8)
        backbone.frozen_stages = -1
        neck = model.neck[0] if isinstance(model.neck, list) else model.neck
        neck.in_channels = [c // 8 for c in neck.in_channels]
    for key, value in DETR.items():
        at, _, name = key.rpartition('.')
        owner = model.get(at) if at else model
        if owner is not None and name in owner:
            owner[name] = value
    if 'dn_cfg' in model:
        model.dn_cfg.group_cfg.num_dn_queries = 10
    # Proposals and heads take most of the time.
    for cfg in (model.get('train_cfg') or {}, model.test_cfg):
        for stage in ('rpn', 'rpn_proposal'):
            if 'max_per_img' in cfg.get(stage, {}):
                cfg[stage].max_per_img = 60
    stages = (model.get('train_cfg') or {}).get('rcnn', [])
    for cfg in stages if isinstance(stages, list) else [stages]:
        if 'sampler' in cfg:
            cfg.sampler.num = 32
            if cfg.sampler.type == 'ScoreHLRSampler':
                cfg.sampler.score_thr = 0.0
    heads = model.get('roi_head', {}).get('bbox_head', [])
    for head in heads if isinstance(heads, list) else [heads]:
        if 'fc_out_channels' in head:
            head.fc_out_channels = 32
    for cfg in (model.test_cfg, *model.test_cfg.values()):
        if isinstance(cfg, dict) and 'score_thr' in cfg:
            cfg.score_thr = 0.0
    return model


def build(model: ConfigDict) -> nn.Module:
    torch.manual_seed(0)
    np.random.seed(0)
    hub = MessageHub.get_current_instance()  # TOOD and YOLOX read it
    hub.update_info_dict({'iter': 0, 'epoch': 0})
    # SyncBN runs on GPUs only.
    built = revert_sync_batchnorm(MODELS.build(model))
    built.init_weights()
    return built


def train_step(model: nn.Module, data: dict) -> tuple[Tensor, dict]:
    """Returns the loss and its parts; the gradients stay."""
    model.train()
    losses = model.forward(**model.data_preprocessor(data, True), mode='loss')
    loss, parts = model.parse_losses(losses)
    loss.backward()
    return loss, parts


@torch.no_grad()
def predict(model: nn.Module, data: dict, image: int = 0) -> DetDataSample:
    """Returns the prediction of one image, as guided anchoring needs."""
    model.eval()
    one = {key: value[image : image + 1] for key, value in data.items()}
    (result,) = model.forward(
        **model.data_preprocessor(one, False), mode='predict'
    )
    return result


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Records the names of the ops that run, including GPU-only ones."""
    names: set[str] = set()

    def recorded(name: str, op: Callable) -> Callable:
        def run(*args: object, **kwargs: object) -> object:
            names.add(name)
            return op(*args, **kwargs)

        return run

    for name in mmcv._ext.__all__:
        op = getattr(mmcv._ext, name)
        monkeypatch.setattr(mmcv._ext, name, recorded(name, op))

    def focal(
        pred: Tensor, target: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        background = 1 - target.sum(1, keepdim=True)  # of one-hot rows
        index = torch.cat([target, background], 1).argmax(1)
        got = focal_loss.sigmoid_focal_loss(pred, index, *args, **kwargs)
        want = in_python(pred, target, *args, **kwargs)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
        return got

    def attend(
        value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        sizes = shapes.prod(1)
        start = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
        got = multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(
            value, shapes, start, locations, weights, 64
        )
        want = sampled(value, shapes, locations, weights)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        return got

    in_python = focal_loss.py_sigmoid_focal_loss
    sampled = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    monkeypatch.setattr(focal_loss, 'py_sigmoid_focal_loss', focal)
    monkeypatch.setattr(
        multi_scale_deform_attn, 'multi_scale_deformable_attn_pytorch', attend
    )
    yield names


@pytest.mark.parametrize(
    'name',
    [*CI, *[pytest.param(n, marks=pytest.mark.slow) for n in SLOW]],
)
def test_detector_trains_and_predicts(name: str, called: set[str]) -> None:
    cfg = narrow(Config.fromfile(CONFIGS / f'{name}.py').model)
    masks = 'mask' in name or 'point' in name or '-ins' in name
    shapes = [(3, 128, 160), (3, 160, 128)]
    if '-ins' in name:  # RTMDet-Ins pads no masks
        shapes[1] = shapes[0]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build(cfg)
        data = demo_mm_inputs(2, shapes, [2, 3], 80, with_mask=masks)
        loss, _ = train_step(model, data)
        assert loss.isfinite()
        for key, weight in model.named_parameters():
            if weight.grad is not None:
                assert weight.grad.isfinite().all(), key
        results = [predict(model, data, image) for image in (0, 1)]
    for result in results:
        boxes = result.pred_instances.bboxes
        assert boxes.shape[1:] == (4,)
        assert len(boxes) > 0 and boxes.isfinite().all()
    missing = set((CI | SLOW)[name].split()) - called
    assert not missing, f'never ran: {missing}'
