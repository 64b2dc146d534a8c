# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs in two processes under torchrun, and in one for comparison.

    torchrun --nproc_per_node=2 ddp_worker.py CONFIG OUT
    python ddp_worker.py CONFIG OUT

Writes what each rank saw to ``OUT/<world size>_<rank>.pth``.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from mmext.engine.runner import ReliableRunner
from mmext.utils.config import load_config
from mmext.utils.modules import unwrap

WORLD = int(os.environ.get('WORLD_SIZE', 1))
RANK = int(os.environ.get('RANK', 0))


@MODELS.register_module()
class NormOnly(BaseModel):
    """A convolution and a norm; SyncBN by its name or by ``sync_bn``."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}[norm](4)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor'):
        return self.norm(self.conv(inputs))


class Initial(Hook):
    """Keeps the weights that the training starts from."""

    def before_train(self, runner: Runner) -> None:
        self.state = state(runner.model)


def build(cfg: Config, **changes: object) -> ReliableRunner:
    """Builds a runner from a config with other values of some keys."""
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        cfg[key] = value
    return ReliableRunner.from_cfg(cfg)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        k.removeprefix('module.'): v.clone()
        for k, v in model.state_dict().items()
    }


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        k.removeprefix('module.'): p.grad.clone()
        for k, p in model.named_parameters()
        if p.grad is not None
    }


def sync_bn(cfg: Config, out: dict) -> None:
    """The statistics and gradients of six images, three in each process."""
    whole = torch.sin(torch.arange(6 * 3 * 9 * 7) * 0.37).view(6, 3, 9, 7)
    mine = whole.chunk(WORLD)[RANK]
    for name, norm, convert in (
        ('named', 'SyncBN', None),
        ('torch', 'BN', 'torch'),
        ('mmcv', 'BN', 'mmcv'),
        ('bf16', 'SyncBN', None),
    ):
        model = {'type': 'NormOnly', 'norm': norm if WORLD > 1 else 'BN'}
        changes = {'model': model, 'sync_bn': convert}
        runner = build(cfg, **changes, experiment_name=name)
        torch.manual_seed(0)
        for value in runner.model.parameters():
            value.data.copy_(torch.randn(value.shape) * 0.3)
        runner.model.train()
        with torch.autocast('cpu', enabled=name == 'bf16'):
            result = runner.model(mine)
        # DDP averages over processes: the mean of equal shares is the mean.
        (result.sigmoid() ** 2).mean().backward()
        out[f'sync_bn_{name}'] = {
            'result': result.detach(),
            'state': state(runner.model),
            'gradients': gradients(runner.model),
        }


def whole_batch(cfg: Config, out: dict) -> None:
    """Gradients of a detector on four images, two in each process."""
    runner = build(cfg, experiment_name='gradients')
    model = unwrap(runner.model)
    for p, value in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(p)
        noise = torch.randn(value.shape, generator=generator)
        # In place: the buckets of DDP were made for this memory layout.
        value.data.copy_(noise * 0.5 / max(1, value[0].numel()) ** 0.5)
    runner.model.train()
    dataset = runner.build_dataloader(cfg.val_dataloader).dataset
    samples = [dataset[i] for i in range(4)]
    data = {
        key: [s[key] for s in samples][RANK::WORLD]
        for key in ('inputs', 'data_samples')
    }
    data = model.data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(runner.model(**data, mode='loss'))
    loss.backward()
    out['gradients'] = gradients(runner.model)
    out['loss'] = loss.item()


def training(cfg: Config, out: dict) -> None:
    """The weights before and after a training run with validation."""
    runner = build(cfg, experiment_name='training')
    hook = Initial()
    runner.register_hook(hook)
    runner.train()
    out['initial'] = hook.state
    out['trained'] = state(runner.model)
    if RANK == 0:
        # One process validates the same weights later.
        runner.save_checkpoint(cfg.work_dir, 'trained.pth')


def validation(cfg: Config, checkpoint: Path) -> None:
    """Validates with one process what two processes have trained."""
    cfg = copy.deepcopy(cfg)
    evaluator = cfg.val_evaluator
    prefix = Path(evaluator.outfile_prefix)
    evaluator.outfile_prefix = str(prefix.with_name('alone'))
    cfg.load_from = str(checkpoint)
    build(cfg, experiment_name='alone').val()


def main() -> None:
    config, folder = sys.argv[1:3]
    cfg = load_config(config)
    cfg.launcher = 'pytorch' if WORLD > 1 else 'none'
    cfg.work_dir = str(Path(folder, f'work_{WORLD}'))
    out: dict = {}
    sync_bn(cfg, out)
    whole_batch(load_fixed(config, cfg), out)
    if WORLD > 1:
        training(cfg, out)
    else:
        validation(cfg, Path(folder, 'work_2', 'trained.pth'))
    torch.save(out, Path(folder, f'{WORLD}_{RANK}.pth'))


def load_fixed(config: str, cfg: Config) -> Config:
    """Reads a config and makes it use every anchor and every proposal.

    Nothing is drawn, no anchor is ignored and NMS removes nothing. Every
    image therefore has the same number of samples, and the means of the
    losses can be averaged.
    """
    every = 10**6
    fixed = load_config(
        config,
        {
            'model.backbone.norm_eval': True,
            'model.train_cfg.rpn.assigner.neg_iou_thr': 0.5,
            'model.train_cfg.rpn.assigner.pos_iou_thr': 0.5,
            'model.train_cfg.rpn.assigner.min_pos_iou': 0.5,
            'model.train_cfg.rpn.sampler.num': every,
            'model.train_cfg.rpn_proposal.nms.iou_threshold': 1.0,
            'model.train_cfg.rcnn.assigner.neg_iou_thr': 0.2,
            'model.train_cfg.rcnn.assigner.pos_iou_thr': 0.2,
            'model.train_cfg.rcnn.assigner.min_pos_iou': 0.2,
            'model.train_cfg.rcnn.sampler.num': every,
            'model.train_cfg.rcnn.sampler.add_gt_as_proposals': False,
            'val_dataloader.dataset.test_mode': False,
        },
    )
    fixed.launcher, fixed.work_dir = cfg.launcher, cfg.work_dir
    return fixed


if __name__ == '__main__':
    main()
