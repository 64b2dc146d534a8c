# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The memory format that a detector runs in.

mmdet uses contiguous (N, C, H, W) tensors. On a CPU, convolutions are faster
with channels last. The choice depends only on the config and the device, so
that a resumed run makes the same one. A config sets it with a top-level key::

    memory_format = 'channels_last'  # or 'contiguous'; default: 'auto'

The second table of benchmarks/results/backbones.md has times of backbones,
training_step.md those of detectors. DWNet and Swin arrange their memory
themselves and are equally fast in both formats, but the neck and the heads
behind them are not. GPUs were not measured: ``'auto'`` keeps the format
contiguous there, and in classifiers of these two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmext.models.arguments import choose

FORMATS = {
    'channels_last': torch.channels_last,
    'contiguous': torch.contiguous_format,
}
# They consist of convolutions. mmpretrain and mmseg use the same names.
BACKBONES = ('ResNet', 'StarNet', 'CSPNeXt')
# They do not, but what follows them in a detector does.
TOKENS = ('DWNet', 'SwinTransformer')
# Some other heads of mmdet call `view` on maps, which fails in this format.
DETECTORS = ('TwoStageDetector', 'RetinaNet', 'RTMDet')


def set_memory_format(
    model: nn.Module, device: str, memory_format: str = 'auto'
) -> str:
    """Puts a model's weights, and so its maps, into a memory format.

    The model is not wrapped for distribution yet. Returns the format's name.
    """
    choose('memory_format', memory_format, ('auto', *FORMATS))
    auto = memory_format == 'auto'
    name = faster_format(model, device) if auto else memory_format
    model.to(memory_format=FORMATS[name])
    return name


@contextmanager
def drawn_in_usual_order(model: nn.Module) -> Iterator[None]:
    """Makes the weights contiguous inside of the block.

    PyTorch draws random numbers in the order of memory. With channels last,
    the same seed would give other initial weights.
    """
    last = [
        p for p in model.parameters() if p.dim() == 4 and not p.is_contiguous()
    ]
    for p in last:
        p.data = p.data.contiguous()
    yield
    for p in last:
        p.data = p.data.contiguous(memory_format=torch.channels_last)


def faster_format(model: nn.Module, device: str) -> str:
    """Returns ``channels_last`` if it was measured to be faster and works."""
    backbone = getattr(model, 'backbone', None)
    faster = (
        _is_a(model, DETECTORS) and _is_a(backbone, BACKBONES + TOKENS)
    ) or (_is_a(model, ('ImageClassifier',)) and _is_a(backbone, BACKBONES))
    on_cpu = torch.device(device).type == 'cpu'
    return 'channels_last' if on_cpu and faster else 'contiguous'


def _is_a(model: nn.Module | None, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(model).__mro__)
