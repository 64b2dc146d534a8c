# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which blocks need their attention: the lottery ticket of a trained model.

The paper (see :mod:`mmext.analysis.stiffness`) argues that attention in a few
blocks is enough, because few blocks are stiff. Two scores rank the blocks:
their NSI, and an *ablation*: the block's step is fixed to its mean over the
images, channel by channel, and the change of the backbone's outputs is
measured. A fixed step can be folded into the norm before it, so what the
ablation removes is exactly what only attention can do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.layers import StepAdaptor

from .residual import removed
from .stiffness import Trajectories, measure


@dataclass(frozen=True)
class RankedBlock:
    """A block with attention.

    Attributes:
        name: Name within the backbone, such as ``layer3.2``.
        nsi: Mean NSI; NaN for the first block of a stage.
        effect: Relative change of the backbone's outputs, ``||y' - y|| /
            ||y||``, when its step is fixed to its mean; the mean over images
            and levels.
    """

    name: str
    nsi: float
    effect: float


def rank_blocks(
    backbone: nn.Module,
    images: Iterable[Any],
    run: Callable[[nn.Module, Any], Any] = lambda model, x: model(x),
) -> tuple[list[RankedBlock], Trajectories]:
    """Ranks the blocks with attention by the effect of their step.

    Costs one forward pass an image and block, beside the first two.

    Args:
        backbone: A trained backbone.
        images: What ``run`` takes, at least two.
        run: Runs the backbone on one of them. Default: calls it.

    Raises:
        UserError: Where no block has attention, or with fewer than two
            images, whose mean step is each image's own.
    """
    images = list(images)
    if len(images) < 2:
        raise UserError(
            f'{len(images)} image is too few: the ablation fixes a step to '
            'its mean over images.',
            'Name at least two, better 50.',
        )
    found = measure(backbone, images, run)
    gates = {b: g for stage in found.stages for b, g in stage.gates.items()}
    if not gates:
        raise UserError(
            f'No block of {type(backbone).__name__} has a step: neither a '
            'StepAdaptor nor channel attention at the end of the branch.',
            'Take a StepNet config, or one with attention plugins.',
        )
    effects: dict[str, list[float]] = {block: [] for block in gates}
    with torch.no_grad():
        for image in images:
            normal = _levels(run(backbone, image))
            for block, gate in gates.items():
                mean = torch.from_numpy(_mean_step(found.steps[block]))
                with removed(_fix(backbone.get_submodule(gate), mean)):
                    fixed = _levels(run(backbone, image))
                effects[block].append(_change(normal, fixed))
    column = {block: i for i, block in enumerate(found.blocks)}
    ranked = [
        RankedBlock(
            block,
            float(found.nsi[:, column[block]].mean())
            if block in column
            else float('nan'),
            float(np.mean(values)),
        )
        for block, values in effects.items()
    ]
    return sorted(ranked, key=lambda b: -b.effect), found


def propose(ranked: list[RankedBlock], share: float = 0.9) -> int:
    """The fewest blocks whose effects add up to ``share`` of the total.

    Args:
        ranked: Blocks, the largest effect first, of :func:`rank_blocks`.
        share: Of the sum of all effects, in 0..1. Default: 0.9.

    Raises:
        UserError: No block has an effect.
    """
    effects = np.array([b.effect for b in ranked])
    if not effects.sum():
        raise UserError(
            'Fixing any step changes nothing: all steps are the same for all '
            'images.',
            'Train the attention first; a fresh StepNet has step 1.',
        )
    reached = np.cumsum(effects) / effects.sum()
    return int(np.searchsorted(reached, share - 1e-12) + 1)


def ticket_config(
    config: str | Path, cfg: Config, keep: list[str], out: str | Path
) -> str:
    """Text of a config whose attention is active in ``keep`` only.

    StepNet is told block by block (``step_blocks``). mmdet's ``plugins`` know
    only whole stages: one stays if any of its blocks is kept.

    Args:
        config: The config to inherit from.
        cfg: The same, loaded.
        keep: Names of blocks in an mmdet ResNet, such as ``layer3.2``.
        out: Where the text will be, for the relative ``_base_``.

    Raises:
        UserError: For a backbone that has neither of the two.
    """
    backbone = cfg.model.backbone
    places = [re.fullmatch(r'layer(\d)\.(\d+)', name) for name in keep]
    has_steps = 'StepNet' in backbone.type
    if not all(places) or not (has_steps or backbone.get('plugins')):
        raise UserError(
            f'{backbone.type} has no setting for attention in chosen blocks.',
            'This is written for StepNetResNet and for plugins of ResNet.',
        )
    stages = backbone.get('num_stages', 4)
    blocks = [
        sorted(int(p[2]) for p in places if int(p[1]) == stage + 1)
        for stage in range(stages)
    ]
    base = os.path.relpath(Path(config).resolve(), Path(out).resolve().parent)
    head = f"_base_ = '{base}'\n\n# Attention in {', '.join(keep)} only.\n"
    if has_steps:
        setting = f'step_blocks={blocks}'
    else:
        active = [bool(b) for b in blocks]
        plugins = [
            {
                **plugin,
                'stages': [
                    a and s for a, s in zip(active, _on(plugin), strict=False)
                ],
            }
            for plugin in ConfigDict(plugins=backbone.plugins).to_dict()[
                'plugins'
            ]
        ]
        head += '# Plugins are active in whole stages.\n'
        setting = f'plugins={plugins}'
    return f'{head}model = dict(backbone=dict({setting}))\n'


def _on(plugin: dict) -> list[bool]:
    return list(plugin.get('stages') or [True] * 4)


def _mean_step(steps: np.ndarray) -> np.ndarray:
    """Mean over images, (channels,); 0 where no image knows it."""
    known = np.isfinite(steps)
    return np.where(known, steps, 0).sum(0) / known.sum(0).clip(1)


def _fix(gate: nn.Module, step: Tensor) -> list:
    """Hooks that make a gate scale by ``step`` whatever it sees."""
    if isinstance(gate, StepAdaptor):
        return [
            gate.register_forward_hook(
                lambda module, args, out: (
                    step.to(out).expand(len(out), -1).reshape(out.shape)
                )
            )
        ]
    step = step.view(1, -1, 1, 1)
    before: list[Tensor] = []

    def save(module, args):
        before[:] = [args[0].clone()]

    return [
        gate.register_forward_pre_hook(save),
        gate.register_forward_hook(
            lambda module, args, out: before.pop() * step.to(out)
        ),
    ]


def _levels(output: Any) -> list[Tensor]:
    levels = output if isinstance(output, (tuple, list)) else [output]
    return [level.double() for level in levels]


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    changes = [
        float((b - a).norm() / a.norm()) if a.any() else 0.0
        for a, b in zip(before, after, strict=True)
    ]
    return sum(changes) / len(changes)
