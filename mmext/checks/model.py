# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that the parts of a model fit each other, its hooks and metrics."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData
from torch import nn

from mmext.errors import UserError
from mmext.utils.config import evaluates_masks

SIDE = 128  # pixels: every stage of a backbone gets a feature map


def check_model(
    cfg: Config, model: nn.Module, stages: tuple[str, ...]
) -> None:
    """Checks a model, which is left in evaluation mode."""
    for stage in stages:
        _check_masks(cfg, model, stage)
    _check_channels(model)
    if 'train' in stages:
        _check_hooks(cfg, model)


def _check_masks(cfg: Config, model: nn.Module, stage: str) -> None:
    """Finds early what would stop mmdet at the end of its first validation."""
    parts = ' '.join(
        f'{name} {type(module).__name__}'
        for name, module in model.named_modules()
    ).lower()
    predicts_masks = 'mask' in parts or 'panoptic' in parts
    if evaluates_masks(cfg, stage) and not predicts_masks:
        raise UserError(
            f"{stage}_evaluator evaluates masks (metric 'segm'), and "
            f'{type(model).__name__} predicts boxes only',
            f'--cfg-options {stage}_evaluator.metric=bbox, or a detector '
            'with a mask head such as Mask R-CNN.',
        )


def _check_hooks(cfg: Config, model: nn.Module) -> None:
    """Calls ``check_model`` of hooks before the run writes its work dir."""
    for hook in cfg.get('custom_hooks') or ():
        options = {k: v for k, v in hook.items() if k != 'priority'}
        kind = options['type']
        kind = HOOKS.get(kind) if isinstance(kind, str) else kind
        if hasattr(kind, 'check_model'):
            HOOKS.build(options).check_model(model)


def _check_channels(model: nn.Module) -> None:
    """Runs one small empty image through the model.

    Errors that are not about channels come from the image, not the config.
    """
    wrong: list[str] = []
    levels: list[int] = []

    def compare(layer: nn.Module, args: tuple) -> None:
        conv = isinstance(layer, nn.Conv2d)
        takes = layer.in_channels if conv else layer.in_features
        gets = args[0].shape[1 if conv else -1]
        if takes != gets:
            wrong.append(
                f'model.{names[layer]} takes {takes} channels and gets {gets}'
            )

    def record(neck: nn.Module, args: tuple) -> None:
        levels.extend(level.shape[1] for level in args[0])

    names = {layer: name for name, layer in model.named_modules()}
    hooks = [
        layer.register_forward_pre_hook(compare)
        for layer in names
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    neck = getattr(model, 'neck', None)
    if neck is not None:
        hooks.append(neck.register_forward_pre_hook(record))
    try:
        with torch.no_grad():
            _run(model.eval())
    except Exception as error:  # of any model
        takes = getattr(neck, 'in_channels', None)
        several = isinstance(takes, list | tuple) and bool(levels)
        # Sorted, because YOLOv3's neck counts from the smallest map.
        if several and sorted(takes) != sorted(levels):
            raise UserError(
                f'model.neck.in_channels is {list(takes)}, and the backbone '
                f'gives {levels}',
                '--cfg-options model.neck.in_channels='
                + ','.join(map(str, levels)),
            ) from error
        if wrong:
            raise UserError(
                wrong[0],
                'Make the out_channels of one part and the in_channels of '
                'the next equal. MMEXT_DEBUG=1 shows the traceback.',
            ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _run(model: nn.Module) -> None:
    """Runs the parts of an OpenMMLab model, one after the other."""
    image = torch.zeros(1, 3, SIDE, SIDE)
    features = model.extract_feat(image)
    for name in ('rpn_head', 'bbox_head', 'decode_head'):
        if (head := getattr(model, name, None)) is not None:
            head(features)
    if (head := getattr(model, 'roi_head', None)) is not None:
        from mmdet.structures import DetDataSample

        box = InstanceData(bboxes=image.new_tensor([[0, 0, SIDE, SIDE]]))
        sample = DetDataSample(metainfo={'img_shape': (SIDE, SIDE)})
        head(features, [box], [sample])
