# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Accumulated gradients are those of the whole batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from ddp_worker import load_fixed
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from tiny_run import make_coco, write_config

from mmext.engine.launch import build_runner


@pytest.fixture
def runner(tmp_path: Path):
    """A detector whose every anchor and proposal is used, nothing drawn."""
    config = write_config(tmp_path / 'tiny.py', make_coco(tmp_path / 'coco'))
    cfg = load_fixed(
        str(config), Config({'launcher': 'none', 'work_dir': str(tmp_path)})
    )
    runner = build_runner(cfg)
    generator = torch.Generator().manual_seed(0)
    for p in runner.model.parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = noise * 0.5 / max(1, p[0].numel()) ** 0.5
    return runner


def step(runner, batches: list[list[int]]) -> list[torch.Tensor]:
    """How far one step of the optimiser, of rate 1, moves the weights."""
    model = copy.deepcopy(runner.model).train()
    before = [p.detach().clone() for p in model.parameters()]
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=1.0),
        accumulative_counts=len(batches),
    )
    wrapper.initialize_count_status(model, 0, len(batches))
    dataset = runner.build_dataloader(runner.cfg.val_dataloader).dataset
    for batch in batches:
        samples = [dataset[i] for i in batch]
        keys = ('inputs', 'data_samples')
        data = {key: [s[key] for s in samples] for key in keys}
        model.train_step(data, wrapper)
    return [
        p.detach() - b for p, b in zip(model.parameters(), before, strict=True)
    ]


def test_two_batches_of_two_are_one_of_four(runner):
    whole = step(runner, [[0, 1, 2, 3]])
    both = step(runner, [[0, 2], [1, 3]])
    half = step(runner, [[0, 2]])
    moved = differ = 0
    for one, two, other in zip(whole, both, half, strict=True):
        scale = one.abs().max()
        if scale > 0:
            moved += 1
            assert (two - one).abs().max() < 1e-3 * scale
            differ += (other - one).abs().max() > 1e-2 * scale
    assert moved > 60 and differ > 0.9 * moved
