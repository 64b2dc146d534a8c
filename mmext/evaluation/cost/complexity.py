# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Parameters and FLOPs of a detector, with the operators not counted.

FLOPs here are multiply-adds, as detection papers count them (one multiply-add
is one FLOP; Faster R-CNN R-50 at 800x1280 is about 207 G). They are counted
where PyTorch dispatches operators. This needs no list of module types, and a
custom layer counts as the operators that it runs. Operators without a formula
are returned by name: point-wise ones are cheap, a fused kernel is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mmext.evaluation.tested import Complexity
from mmext.models.build import build_from_config

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

# Operators that move or allocate memory and compute nothing.
_FREE = re.compile(
    r'alias|as_strided|arange|cat|clone|copy_|detach|empty(_like|_strided)?|'
    r'expand|fill_|full(_like)?|index|lift_fresh|(new_)?(empty|full|ones|zeros)|'
    r'ones_like|permute|resize_|_?reshape(_alias)?|scalar_tensor|select|slice|'
    r'split(_with_sizes)?|squeeze|stack|t|transpose|unbind|unsqueeze|_to_copy|'
    r'promote_types|(_unsafe_)?view|zero_|zeros_like|_local_scalar_dense'
)


class _Uncounted(TorchDispatchMode):
    """Counts the calls of operators without a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        packet = func._overloadpacket
        if packet not in flop_registry:
            self.calls[str(packet).removeprefix('aten.')] += 1
        return func(*args, **(kwargs or {}))


def count_complexity(
    model: nn.Module, shape: tuple[int, int] = (800, 1280)
) -> Complexity:
    """Counts the parameters of a detector and the multiply-adds of an image.

    Args:
        model: A detector, on its device.
        shape: Height and width in pixels. Default: (800, 1280).
    """
    params = sum(p.numel() for p in model.parameters())
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    samples = empty_samples(shape)
    training = model.training
    model.eval()
    flops, note = None, ''
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        seen = _Uncounted()
        try:
            with seen:
                model(image, samples, mode='tensor')
            flops = counter.get_total_flops() // 2
        except Exception as error:  # any operator of any detector may fail
            note = f'{type(error).__name__}: {error}'.splitlines()[0]
    model.train(training)
    uncounted = {
        name: n
        for name, n in sorted(seen.calls.items())
        if not _FREE.fullmatch(name)
    }
    return Complexity(params, flops, tuple(shape), uncounted, note)


def config_complexity(cfg: Config) -> Complexity:
    """Builds the model of a config, without its weights, and counts it.

    Raises:
        UserError: The model cannot be built.
    """
    return count_complexity(build_from_config(cfg), input_shape(cfg))


def input_shape(cfg: Config) -> tuple[int, int]:
    """Returns the height and width at which the cost is counted, in pixels.

    For detection and for classification without a centre crop they are those
    of the last ``Resize`` of the test pipeline, after padding. If it keeps
    the size of each image, they are those of the crops in training, or
    (800, 1280). Otherwise they are those of the centre crop; for segmentation
    those of the crops in training.
    """
    scope = cfg.get('default_scope', 'mmdet')
    if scope == 'mmseg':
        return tuple(cfg.model.data_preprocessor.size)
    if scope == 'mmpretrain':
        for step in cfg.test_dataloader.dataset.pipeline:
            if step['type'] == 'CenterCrop':
                return step['crop_size'], step['crop_size']
    pre = cfg.model.get('data_preprocessor') or {}
    divisor = pre.get('pad_size_divisor', 1)
    # A config may replace the loader's pipeline and leave `test_pipeline`.
    loader = cfg.get('test_dataloader') or {}
    pipeline = loader.get('dataset', {}).get('pipeline')
    pipeline = pipeline or cfg.get('test_pipeline') or []
    training = cfg.get('train_dataloader') or {}
    training = training.get('dataset', {}).get('pipeline')
    width, height = 1280, 800
    for step in training or cfg.get('train_pipeline') or []:
        if step.get('type') == 'RandomCrop':
            size = step['crop_size']
            height, width = (size, size) if isinstance(size, int) else size
    for step in pipeline:
        if 'Resize' in str(step.get('type')) and step.get('scale'):
            width, height = step['scale']
    return tuple(-(-side // divisor) * divisor for side in (height, width))


def empty_samples(
    shape: tuple[int, int], batch: int = 1
) -> list[DetDataSample]:
    """Returns samples of images that are neither resized nor padded."""
    from mmdet.structures import DetDataSample

    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    meta = {**dict.fromkeys(keys, shape), 'scale_factor': (1.0, 1.0)}
    return [DetDataSample(metainfo=meta) for _ in range(batch)]
