# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A small classifier around any backbone, for experiments of minutes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmext.analysis.loading import quiet
from mmext.errors import UserError


def sklearn(module: str) -> ModuleType:
    """Imports a module of scikit-learn, such as ``'svm'``."""
    try:
        return import_module(f'sklearn.{module}')
    except ImportError as error:
        raise UserError(
            f'This experiment needs scikit-learn: {error}.',
            'pip install scikit-learn',
        ) from error


@dataclass(frozen=True)
class Digits:
    """Some of scikit-learn's 1,797 handwritten digits in ten classes."""

    x: Tensor  # (N, 1, 8 scale, 8 scale), of mean 0 and deviation 1
    y: Tensor  # (N,)

    @staticmethod
    def split(
        train: int, seed: int = 0, scale: int = 1
    ) -> tuple[Digits, Digits]:
        """Returns ``train`` random images, and the others, enlarged."""
        data = sklearn('datasets').load_digits()
        x = torch.from_numpy(data.images).float()[:, None]
        x = (x - x.mean()) / x.std()
        x = nn.functional.interpolate(x, scale_factor=scale)
        y = torch.from_numpy(data.target).long()
        order = np.random.default_rng(seed).permutation(len(y))
        first, rest = order[:train], order[train:]
        return Digits(x[first], y[first]), Digits(x[rest], y[rest])


class Classifier(BaseModel):
    """A backbone, the mean of its last level, and a layer for ten classes."""

    def __init__(self, backbone: dict, channels: int, seed: int) -> None:
        super().__init__()
        init_default_scope('mmdet')
        torch.manual_seed(seed)
        self.backbone = MODELS.build(copy.deepcopy(backbone))
        self.head = nn.Linear(channels, 10)
        with quiet():
            self.init_weights()

    def forward(
        self, inputs: Tensor, data_samples: Tensor, mode: str = 'loss'
    ) -> dict[str, Tensor] | Tensor:
        """Returns the loss, or the classes (N,) in mode ``'predict'``."""
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
    cfg: Config,
    seed: int,
    hook: Hook | None = None,
) -> None:
    """Trains with AdamW, a cosine schedule and shifts by up to one pixel.

    ``cfg`` has ``epochs``, ``batch_size`` and ``lr``, the highest learning
    rate; ``hook`` runs around each step.
    """
    batch_size, lr = cfg.batch_size, cfg.lr
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    steps_per_epoch = len(data.y) // batch_size
    steps = cfg.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=max(0.1, 3 / steps)
    )
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    if hook is not None:
        hook.before_train(runner)
    model.train()
    for number in range(steps):
        i = number % steps_per_epoch
        if i == 0:
            order = torch.randperm(len(data.y), generator=generator)
        pick = order[i * batch_size : (i + 1) * batch_size]
        shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
        x, y = data.x[pick].roll(shift, (2, 3)), data.y[pick]
        runner.iter = number
        if hook is not None:
            hook.before_train_iter(runner, number)
        optimizer.zero_grad()
        losses = model(x, y, mode='loss')
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        schedule.step()
        if hook is not None:
            hook.after_train_iter(runner, number)


@torch.no_grad()
def accuracy(model: Classifier, data: Digits) -> float:
    """Returns the share of images that are classified correctly."""
    model.eval()
    correct = model(data.x, data.y, mode='predict') == data.y
    return float(correct.float().mean())


def mean_and_spread(
    values: Sequence[float] | np.ndarray, digits: int = 2, sign: str = ''
) -> str:
    """Returns ``'71.70 ± 0.25'``: the mean and the standard deviation.

    The deviation is the sample's (n - 1), as in reports; one value has none.
    """
    mean = f'{np.mean(values):{sign}.{digits}f}'
    if len(values) < 2:
        return mean
    return f'{mean} ± {np.std(values, ddof=1):.{digits}f}'
