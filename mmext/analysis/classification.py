# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A small classifier around any backbone, for experiments of minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from .optional import sklearn


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, ten classes.

    Attributes:
        x: Images (N, 1, 8 scale, 8 scale), of mean 0 and deviation 1.
        y: Classes (N,).
    """

    x: Tensor
    y: Tensor

    @staticmethod
    def split(
        train: int, seed: int = 0, scale: int = 1
    ) -> tuple[Digits, Digits]:
        """That many images to train on, the rest to test, enlarged."""
        data = sklearn('datasets').load_digits()
        x = torch.from_numpy(data.images).float()[:, None]
        x = (x - x.mean()) / x.std()
        x = nn.functional.interpolate(x, scale_factor=scale)
        y = torch.from_numpy(data.target).long()
        order = torch.from_numpy(
            np.random.default_rng(seed).permutation(len(y))
        )
        return (
            Digits(x[order[:train]], y[order[:train]]),
            Digits(x[order[train:]], y[order[train:]]),
        )


class Classifier(BaseModel):
    """Backbone, global average of its last map, one linear layer.

    Args:
        backbone: Config of a backbone.
        channels: Channels of its last map.
        num_classes: Default: 10.
    """

    def __init__(
        self, backbone: dict, channels: int, num_classes: int = 10
    ) -> None:
        super().__init__()
        init_default_scope('mmdet')
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(channels, num_classes)

    def forward(
        self, inputs: Tensor, data_samples: Tensor, mode: str = 'loss'
    ) -> dict | Tensor:
        level = self.backbone(inputs)[-1]
        if level.dim() == 4:
            level = level.mean((2, 3))
        scores = self.head(level)
        if mode == 'predict':
            return scores.argmax(1)
        return {'loss_cls': nn.functional.cross_entropy(scores, data_samples)}


def train_classifier(
    model: Classifier,
    data: Digits,
    epochs: int,
    batch_size: int = 64,
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    around_step: Callable[[int, Callable[[], None]], None] | None = None,
) -> None:
    """AdamW with a cosine schedule, images shifted by up to a pixel.

    Args:
        around_step: Called with the step's number and the step itself, to
            put hooks around it.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr, weight_decay=weight_decay
    )
    steps = epochs * (len(data.y) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=max(0.1, 3 / steps)
    )
    model.train()
    count = 0
    for _ in range(epochs):
        order = torch.randperm(len(data.y), generator=generator)
        for i in range(len(data.y) // batch_size):
            pick = order[i * batch_size : (i + 1) * batch_size]
            shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
            x, y = data.x[pick].roll(shift, (2, 3)), data.y[pick]

            def step(x: Tensor = x, y: Tensor = y) -> None:
                optimizer.zero_grad()
                losses = model(x, y, mode='loss')
                sum(losses.values()).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5)
                optimizer.step()
                schedule.step()

            if around_step is None:
                step()
            else:
                around_step(count, step)
            count += 1


@torch.no_grad()
def accuracy(model: Classifier, data: Digits) -> float:
    """Share of images classified right."""
    model.eval()
    right = model(data.x, data.y, mode='predict') == data.y
    return float(right.float().mean())
