# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that the parts of a model fit each other, its hooks and metrics."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmext.checks.backbone.measures import gradients, maps_of, stride_of
from mmext.checks.normalization import check_normalization
from mmext.errors import UserError
from mmext.models import SimpleFeaturePyramid
from mmext.models.backbones.base_backbone import BaseBackbone
from mmext.utils.config import evaluates_masks
from mmext.utils.text import some

SIDE = 128  # pixels: every stage of a backbone gets a feature map


def check_model(
    cfg: Config,
    model: nn.Module,
    stages: tuple[str, ...],
    log: Callable[[str], object] = print,
) -> None:
    """Checks a model, which is left in evaluation mode.

    ``log`` gets each warning, and prints because there is no log yet.

    Raises:
        UserError: The parts of the model, its hooks and its evaluators do not
            fit each other, or several processes could not train it.
    """
    for stage in stages:
        _check_masks(cfg, model, stage)
    _check_pyramid(model)
    maps = _check_channels(model)
    if warning := stride_warning(cfg, model, maps):
        log(f'warning: {warning}')
    if 'train' in stages:
        _check_hooks(cfg, model)
        check_normalization(cfg, model)
        _check_optimizer(cfg, model)
        if cfg.get('launcher', 'none') != 'none':
            _check_unused(cfg, model)


def size_for(model: nn.Module) -> tuple[int, int]:
    """Returns the size of an image that every stage can take."""
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, BaseBackbone):
        return SIDE, SIDE
    side = 224 if any(SIDE % s for s in backbone.strides) else SIDE  # 16 * 14
    return getattr(backbone, 'fixed_size', None) or (side, side)


def _check_pyramid(model: nn.Module) -> None:
    neck = getattr(model, 'neck', None)
    backbone = getattr(model, 'backbone', None)
    if (
        isinstance(neck, SimpleFeaturePyramid)
        and isinstance(backbone, BaseBackbone)
        and neck.stride != backbone.strides[-1]
    ):
        raise UserError(
            f'model.neck.stride is {neck.stride}, and the map of the backbone '
            f'has stride {backbone.strides[-1]}',
            f'--cfg-options model.neck.stride={backbone.strides[-1]}',
        )


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


def _check_optimizer(cfg: Config, model: nn.Module) -> None:
    """Builds our constructor, and lets it check the model."""
    given = cfg.get('optim_wrapper') or {}
    kind = given.get('constructor')
    if isinstance(kind, str):
        kind = OPTIM_WRAPPER_CONSTRUCTORS.get(kind)
    if hasattr(kind, 'check_model'):
        options = {k: v for k, v in given.items() if k != 'constructor'}
        paramwise = options.pop('paramwise_cfg', None)
        kind(options, paramwise).check_model(model)


def _check_hooks(cfg: Config, model: nn.Module) -> None:
    """Calls ``check_model`` of hooks before the run writes its work dir."""
    for hook in cfg.get('custom_hooks') or ():
        options = {k: v for k, v in hook.items() if k != 'priority'}
        kind = options['type']
        kind = HOOKS.get(kind) if isinstance(kind, str) else kind
        if hasattr(kind, 'check_model'):
            HOOKS.build(options).check_model(model)


def _check_channels(model: nn.Module) -> list[Tensor]:
    """Runs one small empty image through the model.

    Returns the maps that the heads get; none if they are not known. Errors
    that are not about channels come from the image, not the config.
    """
    wrong: list[str] = []
    outs: list[Any] = []
    maps: list[Tensor] = []

    def compare(layer: nn.Module, args: tuple) -> None:
        conv = isinstance(layer, nn.Conv2d)
        takes = layer.in_channels if conv else layer.in_features
        gets = args[0].shape[1 if conv else -1]
        if takes != gets:
            wrong.append(
                f'model.{names[layer]} takes {takes} channels and gets {gets}'
            )

    names = {layer: name for name, layer in model.named_modules()}
    hooks = [
        layer.register_forward_pre_hook(compare)
        for layer in names
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    neck = getattr(model, 'neck', None)
    backbone = getattr(model, 'backbone', None)
    if backbone is not None:
        hooks.append(
            backbone.register_forward_hook(lambda *io: outs.append(io[2]))
        )
    place = f'model.backbone: {type(backbone).__name__}'
    try:
        model.eval()
        with torch.no_grad():
            features = model.extract_feat(torch.zeros(1, 3, *size_for(model)))
            if isinstance(features, list | tuple):
                maps.extend(features)
            # A head would take the images of a batch for the levels.
            if neck is None and outs and isinstance(outs[0], Tensor):
                maps_of(outs[0], place)
            _run_heads(model, features)
    except UserError:
        raise
    except Exception as error:  # of any model
        if outs and not isinstance(outs[0], list | tuple):
            maps_of(outs[0], place)
        levels = [level.shape[1] for level in outs[0]] if outs else []
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
    return maps


def _run_heads(model: nn.Module, features: Any) -> None:
    """Runs the heads of an OpenMMLab model, one after the other."""
    for name in ('rpn_head', 'bbox_head', 'decode_head'):
        if (head := getattr(model, name, None)) is not None:
            head(features)
    if (head := getattr(model, 'roi_head', None)) is not None:
        from mmdet.structures import DetDataSample

        size = size_for(model)
        box = InstanceData(bboxes=torch.tensor([[0.0, 0, *size[::-1]]]))
        sample = DetDataSample(metainfo={'img_shape': size})
        head(features, [box], [sample])


def stride_warning(
    cfg: Config, model: nn.Module, maps: Sequence[Tensor]
) -> str:
    """Returns a warning if parts assume other strides than the maps have.

    Boxes and anchors are then in the wrong places, and AP stays close to 0.
    ``maps`` are those that the heads get for an image of ``size_for``.
    """
    if not all(isinstance(m, Tensor) and m.dim() == 4 for m in maps):
        return ''
    sides = [m.shape[2] for m in maps]
    height = size_for(model)[0]
    actual = [stride_of(height, side) for side in sides]
    assumed, options = {}, {}
    for name, module in model.named_modules():
        key, strides = _assumed_strides(cfg, name, module)
        if any(
            abs(side - height / stride) > 1
            for side, stride in zip(sides, strides, strict=False)
        ):
            right = ','.join(map(str, actual[: len(strides)]))
            assumed[key] = f'{key} is {strides}'
            options[key] = f'{key}={right}'
    if not assumed:
        return ''
    return (
        f'{", ".join(assumed.values())}, and the maps have strides {actual}: '
        'objects are looked for in the wrong places, and AP will be close to '
        f'0. Use --cfg-options {" ".join(options.values())}, or a backbone '
        'with other strides'
    )


def _assumed_strides(
    cfg: Config, name: str, module: nn.Module
) -> tuple[str, list[int]]:
    """Returns the key in the config and the strides, [] if there are none.

    RoI extractors have strides, and heads whose anchors or points have some.
    """
    place = re.sub(r'\.\d+', '', name)
    if place in ('roi_head.bbox_roi_extractor', 'roi_head.mask_roi_extractor'):
        strides = getattr(module, 'featmap_strides', ())
        return f'model.{place}.featmap_strides', [*strides]
    if place not in ('rpn_head', 'bbox_head', 'rpn_head.stages'):
        return '', []
    part = cfg.model.get(place) or {}
    kinds = ('anchor_generator', 'prior_generator', 'point_generator')
    kind = next((f'{kind}.' for kind in kinds if kind in part), '')
    generator = getattr(module, 'prior_generator', None)
    strides = getattr(generator, 'strides', ())
    return (
        f'model.{place}.{kind}strides',
        [s[0] if isinstance(s, tuple) else s for s in strides],
    )


def _check_unused(cfg: Config, model: nn.Module) -> None:
    """Finds parameters without a gradient, which stop several processes."""
    wrapper = cfg.get('model_wrapper_cfg') or {}
    kind = wrapper.get('type', 'MMDistributedDataParallel')
    if (
        kind != 'MMDistributedDataParallel'
        or wrapper.get('find_unused_parameters')
        or cfg.get('find_unused_parameters')
    ):
        return
    # A part may be used in training only. The model keeps its statistics.
    net = copy.deepcopy(model)
    net.train()
    try:
        found = gradients(
            net, net.extract_feat(torch.rand(2, 3, *size_for(model)))
        )
    except Exception:  # of any model, which may need another image
        return
    unused = [n for n in found.unused if n.startswith(('backbone.', 'neck.'))]
    if unused:
        raise UserError(
            f'{len(unused)} parameters get no gradient (model.'
            f'{some(unused, 3)}), and several processes would stop in the '
            'second step: "Expected to have finished reduction"',
            'Remove them from the model, or --cfg-options '
            'find_unused_parameters=True, which is slower.',
        )
