# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Repeats a training step to find its first non-finite value.

A step depends on its weights, its batch and the state of the random
generators. ``NumericalGuardHook`` saves all three if a loss or gradient is
not finite, and ``tools/misc/replay_step.py`` repeats the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmext.checkpoints.load import load
from mmext.errors import UserError
from mmext.models.build import build_from_config
from mmext.utils.random_state import set_random_state


@dataclass
class Diagnosis:
    """The first non-finite values of a step."""

    weight: str | None = None  # the parameter or buffer, before the step
    activation: str | None = None  # the module in the forward pass
    losses: dict[str, float] = field(default_factory=dict)
    # The module in the backward pass, which needs finite losses.
    gradient: str | None = None
    error: str | None = None  # the exception that the step raised

    def __bool__(self) -> bool:
        found = (self.weight, self.activation, self.losses, self.gradient)
        return any(found)

    def lines(self) -> list[str]:
        """Returns one line for each value that was found."""
        terms = [f'{k} = {v}' for k, v in self.losses.items()]
        texts = {
            'already not finite before the step': self.weight,
            'loss terms': ', '.join(terms),
            'first in the forward pass': self.activation,
            'first in the backward pass': self.gradient,
            'repeated, the step raises': self.error,
        }
        lines = [f'{where}: {text}' for where, text in texts.items() if text]
        return lines or ['repeated, every value of the step is finite']


def tensors(value: Any) -> Iterator[Tensor]:
    """Yields the floating-point tensors in nested containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from (t for v in value.values() for t in tensors(v))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from (t for v in value for t in tensors(v))


def finite(value: Any) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors(value))


def non_finite_terms(losses: Mapping[str, Any]) -> dict[str, float]:
    """Returns the loss terms that are not finite, or else the total."""
    found = {
        name: float(sum(t.sum() for t in tensors(value)))
        for name, value in losses.items()
        if 'loss' in name and not finite(value)
    }
    terms = {k: v for k, v in found.items() if k != 'loss'}
    return terms or found


def diagnose(
    model: nn.Module, data: Any, context: AbstractContextManager
) -> Diagnosis:
    """Runs a step forward and backward without changing the weights.

    The model's gradients are cleared, and the statistics of its batch norms
    are updated. The forward pass runs in the context, for mixed precision.
    """
    found = Diagnosis()
    for name, value in model.state_dict().items():
        if not finite(value):
            found.weight = name
            break
    handles = [
        module.register_forward_hook(partial(_look, found, name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        model.train()
        with context:
            losses = model(**model.data_preprocessor(data, True), mode='loss')
        found.losses = non_finite_terms(losses)
        if not found.losses:
            model.parse_losses(losses)[0].backward()
    except Exception as error:
        # Layers may raise anything if they get values that are not finite.
        found.error = f'{type(error).__name__}: {error}'.splitlines()[0]
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
    return found


def _look(
    found: Diagnosis, name: str, module: nn.Module, args: Any, output: Any
) -> None:
    where = f'{name} ({type(module).__name__})'
    if found.activation is None and not finite(output):
        found.activation = where

    def look_back(gradient: Tensor) -> None:
        if found.gradient is None and not finite(gradient):
            found.gradient = f'the gradient of the output of {where}'

    for tensor in tensors(output):
        if tensor.requires_grad:
            tensor.register_hook(look_back)


def images_of(data: Any) -> list[str]:
    """Returns ids and paths of a batch's images, if it contains them."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    found = []
    for sample in samples or ():
        meta = getattr(sample, 'metainfo', {})
        words = (meta.get('img_id'), meta.get('img_path'))
        found.append(' '.join(str(w) for w in words if w is not None))
    return found


def load_step(path: str | Path) -> dict[str, Any]:
    """Reads what ``NumericalGuardHook`` saved, without running code in it."""
    # The types in a batch of a loader.
    kinds = [set, bytes, BaseDataElement, BitmapMasks, PolygonMasks]
    kinds += [*_subclasses(BaseDataElement), *_subclasses(BaseBoxes)]
    with torch.serialization.safe_globals(kinds):
        content = load(path)
    if 'batches' not in content:
        raise UserError(
            f'{path} is not a saved step',
            'NumericalGuardHook writes them: WORK_DIR/nonfinite_iter_*.pth.',
        )
    return content


def _subclasses(cls: type) -> set[type]:
    below = {c for child in cls.__subclasses__() for c in _subclasses(child)}
    return {*cls.__subclasses__(), *below}


def replay(
    cfg: Config, step: Mapping[str, Any], device: str = 'cpu'
) -> list[Diagnosis]:
    """Repeats a step of :func:`load_step`; diagnoses each of its batches."""
    model = build_from_config(cfg)
    try:
        model.load_state_dict(step['state_dict'])
    except RuntimeError as error:
        raise UserError(
            'the saved step is of another model than the config: '
            f'{str(error).splitlines()[-1].strip()}',
            "Give the config from the run's work dir.",
        ) from error
    model.to(device)
    found = []
    for batch in step['batches']:
        context = nullcontext()
        if dtype := step['meta'].get('autocast'):
            kind = torch.device(device).type  # older releases want no index
            context = torch.autocast(kind, getattr(torch, dtype))
        set_random_state(batch['random_state'])
        found.append(diagnose(model, batch['data'], context))
    return found
