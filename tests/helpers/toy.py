# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A model and a data set of a few numbers, for tests of the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmext.engine.runner import ReliableRunner


class Numbers(Dataset):
    """Images of 3x4x4 random numbers.

    Args:
        length: Number of images.
        bad: Image -> a value to put into it. Default: none.
    """

    metainfo = {'classes': ('number',)}

    def __init__(
        self, length: int, bad: dict[int, float] | None = None
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(length, 3, 4, 4, generator=generator)
        for index, value in (bad or {}).items():
            self.images[index, 0, 0, 0] = value

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = BaseDataElement(
            metainfo={'img_id': index, 'img_path': f'{index}.png'}
        )
        return {'inputs': self.images[index], 'data_samples': sample}


class Toy(BaseModel):
    """A convolution, a norm and a linear layer with two losses."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.noise = noise

    def forward(
        self,
        inputs: list[Tensor],
        data_samples: list | None = None,
        mode: str = 'loss',
    ) -> dict[str, Any] | list | None:
        x = self.bn(self.conv(torch.stack(inputs))).relu().mean((2, 3))
        x = x + self.noise * torch.rand_like(x)
        out = self.head(x)
        if mode != 'loss':
            return data_samples
        losses = {
            'loss_cls': out.square().mean(),
            'loss_box': [(out - 1).abs().mean(), out.abs().mean()],
            'acc': out.detach().mean(),
        }
        self.change(losses, [sample.img_id for sample in data_samples])
        return losses

    def change(self, losses: dict[str, Any], images: list[int]) -> None:
        """A subclass may change the losses of these images."""


@METRICS.register_module(force=True)
class Scores(BaseMetric):
    """Given metrics for each epoch."""

    def __init__(self, given: list[dict[str, float]], **more: Any) -> None:
        super().__init__(**more)
        self.given = given

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        epoch = MessageHub.get_current_instance().get_info('epoch')
        return self.given[epoch]


def loader(
    dataset: Dataset,
    batch_size: int = 2,
    num_workers: int = 0,
    shuffle: bool = False,
) -> dict[str, Any]:
    """Returns the config of a loader."""
    return {
        'batch_size': batch_size,
        'num_workers': num_workers,
        'dataset': dataset,
        'sampler': {'type': 'DefaultSampler', 'shuffle': shuffle},
        'collate_fn': {'type': 'pseudo_collate'},
    }


def build_runner(
    work_dir: Path,
    model: nn.Module | None = None,
    bad: dict[int, float] | None = None,
    images: int = 8,
    epochs: int = 1,
    batch_size: int = 2,
    shuffle: bool = False,
    cls: type[Runner] = ReliableRunner,
    **more: Any,
) -> Runner:
    """Builds the runner of a toy run.

    Args:
        work_dir: The work dir.
        model: Default: a :class:`Toy`.
        bad: See :class:`Numbers`.
        images: Number of training images. Default: 8.
        epochs: Default: 1.
        batch_size: Default: 2.
        shuffle: Whether the images are shuffled. Default: False.
        cls: Default: ``ReliableRunner``.
        more: Other arguments of the runner.
    """
    torch.manual_seed(0)
    settings = {
        'model': model or Toy(),
        'work_dir': str(work_dir),
        'train_dataloader': loader(
            Numbers(images, bad), batch_size, shuffle=shuffle
        ),
        'train_cfg': {'type': 'EpochBasedTrainLoop', 'max_epochs': epochs},
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.01}},
        'randomness': {'seed': 0},
        'experiment_name': f'{work_dir.name}_{id(work_dir)}',
        'default_scope': 'mmengine',
        'log_level': 'WARNING',
    }
    return cls(**{**settings, **more})
