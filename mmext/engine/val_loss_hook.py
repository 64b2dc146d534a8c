# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The training loss on the validation images, which shows overfitting."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.errors import UserError
from mmext.utils.modules import unwrap
from mmext.utils.random_state import random_state_kept, seed_everything


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds ``val_loss`` and its terms to the metrics of a validation.

    They are logged and drawn with the metrics, and can be monitored
    (``save_best='val_loss'``, ``EarlyStoppingHook(monitor='val_loss')``). The
    model is in evaluation mode. What the losses draw at random (anchors,
    regions) is the same in every epoch, and the hook does not change what
    training draws. It costs a second pass over the validation images.

    Args:
        dataloader: Images with annotations as for training. Default: the
            validation loader, with the annotations loaded before the images
            are resized, so that boxes and masks are resized as well.
    """

    priority = 'HIGHEST'  # before the hooks that log, save the best, or stop

    def __init__(self, dataloader: dict | None = None) -> None:
        self.dataloader = dataloader
        self._loader = None

    @torch.no_grad()
    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        if self._loader is None:
            cfg = self.dataloader or for_losses(runner.cfg.val_dataloader)
            self._loader = runner.build_dataloader(cfg, seed=runner.seed)
        model = unwrap(runner.model).eval()
        sums: dict[str, Any] = {}
        images = 0
        with random_state_kept():
            seed_everything(0)
            for data in self._loader:
                count = len(data['inputs'])
                data = model.data_preprocessor(data, True)
                _, logged = model.parse_losses(model(**data, mode='loss'))
                images += count
                for name, value in logged.items():
                    if 'loss' in name:
                        sums[name] = sums.get(name, 0) + count * value
        total = torch.stack([*sums.values()]).double()
        total = torch.cat([total, total.new_tensor([images])])
        all_reduce(total)
        means = (total[:-1] / total[-1]).tolist()
        for name, mean in zip(sums, means, strict=True):
            metrics[f'val_{name}'] = mean
            # MMEngine logs a mean over 50 steps of names with 'loss'.
            runner.message_hub.log_scalars.pop(f'val/val_{name}', None)


def for_losses(loader: dict) -> ConfigDict:
    """Returns the config of a loader with annotations that suit the losses."""
    loader = copy.deepcopy(loader)
    dataset = loader['dataset']
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    dataset['test_mode'] = False
    steps = dataset['pipeline']
    kinds = [str(step['type']).split('.')[-1] for step in steps]
    if 'LoadAnnotations' not in kinds:
        raise UserError(
            'ValLossHook: the validation pipeline loads no annotations',
            "Add dict(type='LoadAnnotations', with_bbox=True) to it, or give "
            'the hook its own dataloader.',
        )
    steps.insert(1, steps.pop(kinds.index('LoadAnnotations')))
    return loader
