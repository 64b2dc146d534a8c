# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmcv's synchronised batch norm against PyTorch's on all images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import in_two_processes
from torch import Tensor, nn

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
from mmcv.ops import SyncBatchNorm


def batch() -> tuple[Tensor, Tensor]:
    """Returns four images and a gradient of their output."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 6, generator=g) * 3 + 2
    return x, torch.randn(4, 3, 5, 6, generator=g)


def measure(bn: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Returns outputs, gradients and statistics after a step."""
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        bn.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    x = x.clone().requires_grad_()
    y = bn(x)
    y.backward(grad)
    return {
        'y': y.detach(),
        'gx': x.grad,
        'gw': bn.weight.grad,
        'gb': bn.bias.grad,
        'mean': bn.running_mean,
        'var': bn.running_var,
    }


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one, because mmcv's layer asks for its size."""
    dist.init_process_group(
        'gloo', store=dist.HashStore(), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def test_one_process_equals_batch_norm(alone: None) -> None:
    x, grad = batch()
    want = measure(nn.BatchNorm2d(3), x, grad)
    bn = SyncBatchNorm(3)
    for name, got in measure(bn, x, grad).items():
        close(got, want[name])
    half = bn(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), want['y'], rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(sys.platform == 'win32', reason='processes are forked')
def test_two_processes_equal_one_on_the_complete_batch(tmp_path: Path) -> None:
    x, grad = batch()
    parts = {
        'default': [slice(0, 2), slice(2, 4)],
        'N': [slice(0, 1), slice(1, 4)],
    }

    def work(rank: int) -> dict[str, dict[str, Tensor]]:
        dist.init_process_group('gloo')
        out = {}
        for mode, part in parts.items():
            bn = SyncBatchNorm(3, stats_mode=mode)
            out[mode] = measure(bn, x[part[rank]], grad[part[rank]])
        dist.barrier()
        dist.destroy_process_group()
        return out

    outs = in_two_processes(tmp_path, work)
    want = measure(nn.BatchNorm2d(3), x, grad)
    for mode in parts:
        close(torch.cat([out[mode]['y'] for out in outs]), want['y'])
        for name in ('mean', 'var') if mode == 'default' else ('mean',):
            for out in outs:
                torch.testing.assert_close(out[mode][name], want[name])
    close(torch.cat([out['default']['gx'] for out in outs]), want['gx'])
    for name in ('gw', 'gb'):
        # mmcv averages them over processes, as DDP does with all others.
        for out in outs:
            close(out['default'][name] * 2, want[name])
