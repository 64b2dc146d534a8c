# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which memory format a detector runs in.

mmdet runs contiguous (N, C, H, W). On a CPU, convolutions are faster with the
channels last. The choice depends on the config and the device alone, so that
a resumed run makes it again. A config forces it by its top-level key::

    memory_format = 'channels_last'  # or 'contiguous'; default: 'auto'

Measured on one core with benchmarks/backbones.py: see the second table of its
result. Backbones that arrange their memory themselves (DWNet, gMLP, Swin) are
as fast either way; on GPUs nothing was measured. Both are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import nn

from mmext.models.arguments import choose

FORMATS = {
    'channels_last': torch.channels_last,
    'contiguous': torch.contiguous_format,
}
# Convolutional throughout; names cover mmpretrain's and mmseg's, too.
BACKBONES = ('ResNet', 'StarNet')
# Some of mmdet's other heads call `view` on maps, which refuses the format.
DETECTORS = ('TwoStageDetector', 'RetinaNet', 'ImageClassifier')


def set_memory_format(
    model: nn.Module, device: str, memory_format: str = 'auto'
) -> str:
    """Puts a model's weights into a memory format; maps follow the weights.

    Args:
        model: A model, not wrapped for distribution yet.
        device: Where it runs, such as ``'cpu'``.
        memory_format: ``'channels_last'``, ``'contiguous'``, or ``'auto'``:
            see :func:`faster_format`.

    Returns:
        The format that was set.

    Raises:
        UserError: Another ``memory_format``.
    """
    choose('memory_format', memory_format, ('auto', *FORMATS))
    name = memory_format
    if name == 'auto':
        name = faster_format(model, device)
    model.to(memory_format=FORMATS[name])
    print_log(f'Memory format: {name} ({memory_format})', logger='current')
    return name


@contextmanager
def drawn_in_usual_order(model: nn.Module) -> Iterator[None]:
    """Makes weights contiguous for a while, and then what they were.

    PyTorch draws random numbers in the order of memory: with the channels
    last, the same seed would give other initial weights.
    """
    last = [
        p for p in model.parameters() if p.dim() == 4 and not p.is_contiguous()
    ]
    for parameter in last:
        parameter.data = parameter.data.contiguous()
    yield
    for parameter in last:
        parameter.data = parameter.data.contiguous(
            memory_format=torch.channels_last
        )


def faster_format(model: nn.Module, device: str) -> str:
    """``channels_last`` where it was measured to be faster and is safe."""
    convolutional = _is_a(getattr(model, 'backbone', None), BACKBONES)
    on_cpu = torch.device(device).type == 'cpu'
    faster = on_cpu and convolutional and _is_a(model, DETECTORS)
    return 'channels_last' if faster else 'contiguous'


def _is_a(model: nn.Module | None, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(model).__mro__)
