# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The fastest way to run a checkpoint's model that detects the same."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from mmext.evaluation.report.table import Table
from mmext.export.bf16 import in_bf16
from mmext.export.eager import EagerDetector
from mmext.export.fold import folded
from mmext.export.parity import BF16, EXACT, Parity
from mmext.export.preparation import Prepared
from mmext.utils.text import short
from mmext.utils.timing import in_turn

_ROUNDS = 5


def fastest(
    model: nn.Module, images: Sequence[Prepared], bf16: bool = False
) -> tuple[EagerDetector, Table]:
    """Measures several ways to run a model, and returns the fastest.

    Those are norms that are folded into convolutions, channels last, and
    ``torch.compile``. One that raises an exception or does not find the same
    objects, within the limits of :mod:`mmext.export.parity`, is left out.

    Args:
        model: A detector in evaluation mode. It is not changed.
        images: What is measured, one after the other.
        bf16: Compute convolutions in bfloat16 too, with its wider limits.
            Default: False.

    Returns:
        The detector, and a table of what was measured.
    """
    plain = EagerDetector(model)
    expected = [plain([image])[0] for image in images]
    kept, notes = {'as loaded': plain}, {}
    for name, make in _variants(model, images[0], bf16):
        parity = Parity(BF16 if 'bf16' in name else EXACT)
        try:
            detector = make()
            for image, found in zip(images, expected, strict=True):
                parity.add(found, detector([image])[0])
        except Exception as error:  # of a compiler, or of a head's views
            notes[name] = f'{type(error).__name__}: {short(str(error))}'
            continue
        notes[name] = parity.summary()
        if parity.agrees:
            kept[name] = detector
    times = in_turn(
        {
            name: partial(_run, detector, images)
            for name, detector in kept.items()
        },
        _ROUNDS,
    )
    seconds = {k: statistics.median(v) / len(images) for k, v in times.items()}
    best = min(seconds, key=seconds.get)
    rows = [
        [
            f'{name} (chosen)' if name == best else name,
            f'{1000 * seconds[name]:.1f}' if name in seconds else 'left out',
            notes.get(name, ''),
        ]
        for name in ('as loaded', *notes)
    ]
    header = ['model', 'ms an image', 'difference']
    return kept[best], Table(header, rows)


def _run(detector: EagerDetector, images: Sequence[Prepared]) -> None:
    for image in images:
        detector([image])


def _variants(
    model: nn.Module, image: Prepared, bf16: bool
) -> Iterator[tuple[str, Callable[[], EagerDetector]]]:
    fewer = folded(model, lambda model: EagerDetector(model)([image]))
    last = copy.deepcopy(fewer).to(memory_format=torch.channels_last)
    kinds = {'norms folded': fewer, 'norms folded, channels last': last}
    if bf16:
        kinds['norms folded, channels last, bf16'] = in_bf16(last)
    for name, kind in kinds.items():
        yield name, partial(EagerDetector, kind)
    yield f'{name}, compiled', partial(_compiled, kind)


def _compiled(model: nn.Module) -> EagerDetector:
    model = copy.copy(model)  # of the same parts
    model.extract_feat = torch.compile(model.extract_feat)
    return EagerDetector(model)
