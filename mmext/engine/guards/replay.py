# Licensed under the Apache License, Version 2.0. See LICENSE.
"""One training step, run again: where is its first non-finite value?

What a step depends on is its weights, its batch and the state of the random
generators. ``NumericalGuardHook`` saves the three where a loss or gradient is
not finite; ``tools/misc/replay_step.py``
runs them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmext.checkpoints.files import replace_durably
from mmext.checkpoints.read import load
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.random_state import set_random_state


@dataclass
class Diagnosis:
    """The first non-finite value of a step, by where it was looked for.

    Attributes:
        weight: A parameter or buffer, before the step.
        activation: A module's output, in order of the forward pass.
        losses: The loss terms that are not finite.
        gradient: The gradient of a module's output, in order of the backward
            pass; looked for where the losses are finite.
        error: What the step stopped with instead, if it did.
    """

    weight: str | None = None
    activation: str | None = None
    losses: dict[str, float] = field(default_factory=dict)
    gradient: str | None = None
    error: str | None = None

    def __bool__(self) -> bool:
        return bool(
            self.weight or self.activation or self.losses or self.gradient
        )

    def lines(self) -> list[str]:
        """What was found, a line each."""
        found = []
        if self.weight:
            found.append(f'already not finite before the step: {self.weight}')
        if self.losses:
            terms = ', '.join(f'{k} = {v}' for k, v in self.losses.items())
            found.append(f'loss terms: {terms}')
        if self.activation:
            found.append(f'first in the forward pass: {self.activation}')
        if self.gradient:
            found.append(f'first in the backward pass: {self.gradient}')
        if self.error:
            found.append(f'run again, the step stops with: {self.error}')
        return found or ['run again, every value of the step is finite']


def finite(value: Any) -> bool:
    """Whether all floating-point numbers in nested containers are finite."""
    return all(bool(t.isfinite().all()) for t in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from (t for v in value.values() for t in _tensors(v))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from (t for v in value for t in _tensors(v))


def non_finite_terms(losses: Mapping[str, Any]) -> dict[str, float]:
    """The loss terms that are not finite; the total only if no term is."""
    found = {
        name: float(sum(t.sum() for t in _tensors(value)))
        for name, value in losses.items()
        if 'loss' in name and not finite(value)
    }
    terms = {k: v for k, v in found.items() if k != 'loss'}
    return terms or found


def diagnose(
    model: nn.Module,
    data: Any,
    context: AbstractContextManager | None = None,
) -> Diagnosis:
    """Runs a step forward and backward; no weight is changed.

    Args:
        model: The detector, not wrapped. Its gradients are lost and the
            statistics of its batch norms go on.
        data: A batch as the loader gives it.
        context: Of the forward pass: mixed precision. Default: none.
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
        with context or nullcontext():
            losses = model(**model.data_preprocessor(data, True), mode='loss')
        found.losses = non_finite_terms(losses)
        if not found.losses:
            model.parse_losses(losses)[0].backward()
    except Exception as error:
        # Whatever a network does with values that are not finite.
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
            found.gradient = f'what comes back to {where}'

    for tensor in _tensors(output):
        if tensor.requires_grad:
            tensor.register_hook(look_back)


def images_of(data: Any) -> list[str]:
    """Ids and paths of a batch's images, as far as it knows them."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    found = []
    for sample in samples or ():
        meta = getattr(sample, 'metainfo', {})
        words = (meta.get('img_id'), meta.get('img_path'))
        found.append(' '.join(str(w) for w in words if w is not None))
    return found


def save_step(path: Path, content: dict[str, Any]) -> None:
    """Writes a step whole or not at all.

    Args:
        path: The file.
        content: ``meta``, ``state_dict`` and ``batches``, a list of
            dictionaries of ``data`` and ``random_state``.
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        torch.save(content, temporary)
        replace_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_step(path: str | Path) -> dict[str, Any]:
    """Reads what :func:`save_step` wrote, running nothing that is in it.

    Raises:
        UserError: No such file, or not a saved step.
    """
    # What a loader's batch is made of.
    kinds = [set, bytes, BaseDataElement, *_subclasses(BaseDataElement)]
    try:
        from mmdet.structures.bbox import BaseBoxes
        from mmdet.structures.mask import BitmapMasks, PolygonMasks

        kinds += [*_subclasses(BaseBoxes), BitmapMasks, PolygonMasks]
    except ImportError:  # a segmentor or classifier without mmdet
        pass
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
    cfg: Config, path: str | Path, device: str = 'cpu'
) -> list[Diagnosis]:
    """Runs a saved step again: one diagnosis a batch of it.

    Args:
        cfg: The run's config.
        path: The file that the guard wrote.
        device: Where to run it. Default: the CPU.

    Raises:
        UserError: The file is no saved step, or of another model.
    """
    content = load_step(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = build_model(cfg.model)
    try:
        model.load_state_dict(content['state_dict'])
    except RuntimeError as error:
        raise UserError(
            f'{path} is a step of another model than the config: '
            f'{str(error).splitlines()[-1].strip()}',
            "Give the config that lies in the run's work folder.",
        ) from error
    model.to(device)
    found = []
    for batch in content['batches']:
        context = nullcontext()
        if dtype := content['meta'].get('autocast'):
            context = torch.autocast(device, getattr(torch, dtype))
        set_random_state(batch['random_state'])
        found.append(diagnose(model, batch['data'], context))
    return found
