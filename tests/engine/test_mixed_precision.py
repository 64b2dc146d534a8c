# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which layers run in bfloat16 on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from toy import Toy, build_runner

from mmext.engine.mixed_precision import (
    CPUAmpOptimWrapper,
    keep_depthwise_in_float32,
)


def test_depthwise_convolutions_stay_in_float32() -> None:
    """Outputs are rounded once, and the gradients of weights not at all."""
    torch.manual_seed(0)
    model = nn.Conv2d(8, 8, 7, padding=3, groups=8)
    kept = nn.ModuleList([copy.deepcopy(model)])
    keep_depthwise_in_float32(kept)
    image = torch.randn(2, 8, 9, 9).bfloat16()
    exact = model(image.float())
    exact.sum().backward()
    with torch.autocast('cpu', torch.bfloat16):
        out = kept[0](image)
    out.float().sum().backward()
    assert torch.equal(out, exact.bfloat16())
    for a, b in zip(model.parameters(), kept[0].parameters(), strict=True):
        assert b.grad.dtype == torch.float32
        torch.testing.assert_close(a.grad, b.grad)
    # Without autocast, nothing changes.
    assert torch.equal(kept[0](image.float()), exact)


def test_others_do_not_change() -> None:
    class Own(nn.Conv2d):
        """May compute something else."""

    layers = nn.ModuleList(
        [
            nn.Conv2d(8, 8, 3),
            nn.Conv2d(8, 8, 3, groups=4),
            nn.Conv2d(1, 4, 3),
            Own(8, 8, 3, groups=8),
        ]
    )
    before = [type(layer) for layer in layers]
    keep_depthwise_in_float32(layers)
    assert [type(layer) for layer in layers] == before


def test_the_runner_keeps_them_with_amp(tmp_path: Path) -> None:
    optimizer = {'type': 'SGD', 'lr': 0.1}
    for kind in ('AmpOptimWrapper', 'OptimWrapper'):
        model = Toy()
        model.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        wrapper = {'type': kind, 'optimizer': optimizer}
        runner = build_runner(tmp_path / kind, model, optim_wrapper=wrapper)
        built = runner.build_optim_wrapper(wrapper)
        amp = kind == 'AmpOptimWrapper'
        assert isinstance(built, CPUAmpOptimWrapper) == amp
        with built.optim_context(model):
            image = torch.ones(1, 4, 5, 5)
            plain = type(model.depthwise) is nn.Conv2d
            dtype = model.depthwise(image.bfloat16() if amp else image).dtype
        assert plain == (not amp)
        assert dtype == (torch.bfloat16 if amp else torch.float32)
