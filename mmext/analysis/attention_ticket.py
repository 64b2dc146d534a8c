# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the blocks of a trained model that need their attention.

The paper (see :mod:`mmext.analysis.stiffness`) argues that attention in a few
blocks is enough, because few blocks are stiff; it calls them a lottery
ticket. Two scores rank the blocks: their NSI, and an *ablation*, which fixes
a block's step to its mean over the images, channel by channel, and measures
how the backbone's outputs change. A fixed step can be folded into the norm
before it, so the ablation removes exactly what only attention can do.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmext.analysis.loading import image_inputs, load_model
from mmext.analysis.residual import removed, watch_input
from mmext.analysis.stiffness import measure
from mmext.errors import UserError
from mmext.evaluation.report.table import Table
from mmext.models import StepAdaptor
from mmext.utils.files import replacing
from mmext.utils.images import find_images


@dataclass(frozen=True)
class RankedBlock:
    """A block with attention, such as ``layer3.2`` of the backbone.

    ``nsi`` is its mean NSI, NaN for the first block of a stage. ``effect`` is
    the relative change of the backbone's outputs, ``||y' - y|| / ||y||``, if
    its step is fixed to its mean; the mean over images and levels.
    """

    name: str
    nsi: float
    effect: float


def write_ticket(
    config: str | Path,
    checkpoint: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    keep: int | None = None,
    limit: int = 20,
    device: str = 'cpu',
) -> Table:
    """Writes a config with the best blocks of a model; returns the ranking.

    Args:
        config: Config of the trained model.
        checkpoint: Its weights.
        images: Image files or folders.
        out: The config to write.
        keep: Number of blocks that keep their attention. Default: those with
            90 % of the effect.
        limit: Number of images at most. Default: 20.
        device: Default: ``'cpu'``.

    Raises:
        UserError: ``keep`` is out of range, there are fewer than two images,
            or the model has no such blocks.
    """
    files = find_images(images, limit)
    cfg, model = load_model(config, checkpoint, device)
    ranked = rank_blocks(model.backbone, image_inputs(cfg, model, files))
    keep = propose(ranked) if keep is None else keep
    if not 0 < keep <= len(ranked):
        raise UserError(
            f'--keep {keep}: the model has {len(ranked)} blocks with '
            'attention.',
            f'Choose 1 to {len(ranked)}.',
        )
    names = sorted(b.name for b in ranked[:keep])
    text = ticket_config(config, cfg, model.backbone, names, out)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        part.write_text(text)
    total = sum(b.effect for b in ranked) or 1.0
    rows = []
    for i, block in enumerate(ranked):
        nsi = 'first' if math.isnan(block.nsi) else f'{block.nsi:.3f}'
        share = f'{block.effect / total:.1%}'
        kept = 'keep' if i < keep else ''
        rows.append((block.name, nsi, f'{block.effect:.5f}', share, kept))
    note = f'wrote {out}: attention in {keep} of {len(ranked)} blocks'
    return Table(('block', 'NSI', 'effect', 'share', ''), rows, notes=[note])


def rank_blocks(
    backbone: nn.Module, images: Iterable[Tensor]
) -> list[RankedBlock]:
    """Ranks the blocks with attention of a trained backbone by their effect.

    Needs two forward passes per image, and one more per block with attention.
    Raises `UserError` if no block has attention, or if there are fewer than
    two images.
    """
    images = list(images)
    if len(images) < 2:
        raise UserError(
            f'{len(images)} image is too few: the ablation fixes a step to '
            'its mean over images.',
            'Name at least 2, better 50.',
        )
    found = measure(backbone, images)
    gates = {b: g for stage in found.stages for b, g in stage.gates.items()}
    if not gates:
        raise UserError(
            f'No block of {type(backbone).__name__} has a step: neither a '
            'StepAdaptor nor channel attention at the end of the branch.',
            'Use a StepNet config, or one with attention plugins.',
        )
    effects: dict[str, list[float]] = {block: [] for block in gates}
    means = {b: torch.from_numpy(_mean_step(found.steps[b])) for b in gates}
    with torch.no_grad():
        for image in images:
            normal = _levels(backbone(image))
            for block, gate in gates.items():
                with removed(_fix(backbone.get_submodule(gate), means[block])):
                    fixed = _levels(backbone(image))
                effects[block].append(_change(normal, fixed))
    ranked = []
    for block, values in effects.items():
        nsi = found.of_block(block)
        mean = float(nsi.mean()) if nsi.size else math.nan
        ranked.append(RankedBlock(block, mean, float(np.mean(values))))
    return sorted(ranked, key=lambda b: -b.effect)


def propose(ranked: list[RankedBlock], share: float = 0.9) -> int:
    """Returns how many of the ranked blocks have a share of all effects.

    Raises `UserError` if no block has an effect.
    """
    effects = np.array([b.effect for b in ranked])
    if not effects.sum():
        raise UserError(
            'Fixing a step changes nothing: each step is the same for all '
            'images.',
            'Train the attention first; an untrained StepNet has step 1.',
        )
    reached = np.cumsum(effects) / effects.sum()
    return int(np.searchsorted(reached, share - 1e-12) + 1)


def ticket_config(
    config: str | Path,
    cfg: Config,
    backbone: nn.Module,
    keep: list[str],
    out: str | Path,
) -> str:
    """Returns the text of a config with attention in some blocks only.

    StepNet has an option for blocks (``step_blocks``). mmdet's ``plugins``
    are active in complete stages, so a stage with a kept block stays. ``cfg``
    is the loaded ``config``, which the text inherits from with a path relative
    to ``out``, and ``backbone`` is built from it. ``keep`` has names such as
    ``layer3.2``. Raises `UserError` if the backbone has neither
    ``step_blocks`` nor plugins.
    """
    places = [re.fullmatch(r'layer(\d)\.(\d+)', name) for name in keep]
    plugins = cfg.model.backbone.get('plugins')
    has_steps = any(getattr(backbone, 'step_blocks', ()))
    if not all(places) or not (has_steps or plugins):
        raise UserError(
            f'{type(backbone).__name__} has no setting for attention in some '
            'blocks.',
            'StepNetResNet and the plugins of ResNet have one.',
        )
    stages = backbone.num_stages
    blocks: list[list[int]] = [[] for _ in range(stages)]
    for place in places:
        blocks[int(place[1]) - 1].append(int(place[2]))
    base = os.path.relpath(Path(config).resolve(), Path(out).resolve().parent)
    head = f"_base_ = '{base}'\n\n# Attention in {', '.join(keep)} only.\n"
    if has_steps:
        setting = f'step_blocks={[sorted(kept) for kept in blocks]}'
    else:
        plugins = ConfigDict(plugins=plugins).to_dict()['plugins']
        for plugin in plugins:
            before = plugin.get('stages') or [True] * stages
            plugin['stages'] = [
                bool(kept) and active
                for kept, active in zip(blocks, before, strict=False)
            ]
        head += '# Plugins are active in complete stages.\n'
        setting = f'plugins={plugins}'
    return f'{head}model = dict(backbone=dict({setting}))\n'


def _mean_step(steps: np.ndarray) -> np.ndarray:
    """Returns the mean over images, (channels,); 0 if it is unknown."""
    known = np.isfinite(steps)
    return np.where(known, steps, 0).sum(0) / known.sum(0).clip(1)


def _fix(gate: nn.Module, step: Tensor) -> list[RemovableHandle]:
    """Adds hooks with which a gate always scales by ``step``."""

    def constant(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        fixed = step.to(output).expand(len(output), -1)
        return fixed.reshape(output.shape)

    if isinstance(gate, StepAdaptor):
        return [gate.register_forward_hook(constant)]
    factor = step.view(1, -1, 1, 1)
    return watch_input(gate, lambda x, output: x * factor.to(output))


def _levels(output: Any) -> list[Tensor]:
    levels = output if isinstance(output, tuple | list) else [output]
    return [level.double() for level in levels]


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    changes = [
        float((b - a).norm() / a.norm()) if a.any() else 0.0
        for a, b in zip(before, after, strict=True)
    ]
    return sum(changes) / len(changes)
