# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmcv's synchronised batch norm against PyTorch's on all images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext
from mmext.mmcv_ext import permanent

# isort: split
from mmcv.ops import SyncBatchNorm

RANK = """
import os, site, sys
folder, rank = sys.argv[1], int(sys.argv[2])
site.addsitedir(folder)
import torch
import torch.distributed as dist
from mmcv.ops import SyncBatchNorm
torch.set_num_threads(1)
store = 'file://' + folder + '/store'
dist.init_process_group('gloo', store, rank=rank, world_size=2)
case = torch.load(folder + '/case.pt')
out = {}
for mode, parts in case['parts'].items():
    bn = SyncBatchNorm(3, stats_mode=mode)
    bn.load_state_dict(case['state'])
    low, high = parts[rank]
    x = case['x'][low:high].clone().requires_grad_()
    y = bn(x)
    y.backward(case['grad'][low:high])
    out[mode] = dict(
        y=y.detach(), gx=x.grad, gw=bn.weight.grad, gb=bn.bias.grad,
        mean=bn.running_mean, var=bn.running_var,
    )
torch.save(out, f'{folder}/out{rank}.pt')
dist.barrier()
dist.destroy_process_group()
# Gloo's threads can abort the interpreter when it ends.
os._exit(0)
"""


def reference(x: Tensor, grad: Tensor) -> dict:
    bn = nn.BatchNorm2d(3)
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        bn.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    state = {k: v.clone() for k, v in bn.state_dict().items()}
    x = x.clone().requires_grad_()
    y = bn(x)
    y.backward(grad)
    return {
        'state': state,
        'y': y.detach(),
        'gx': x.grad,
        'gw': bn.weight.grad,
        'gb': bn.bias.grad,
        'mean': bn.running_mean,
        'var': bn.running_var,
    }


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 6, generator=g) * 3 + 2
    return x, torch.randn(4, 3, 5, 6, generator=g)


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
    want = reference(x, grad)
    bn = SyncBatchNorm(3)
    bn.load_state_dict(want['state'])
    x = x.requires_grad_()
    y = bn(x)
    y.backward(grad)
    for got, name in (
        (y, 'y'),
        (x.grad, 'gx'),
        (bn.weight.grad, 'gw'),
        (bn.bias.grad, 'gb'),
        (bn.running_mean, 'mean'),
        (bn.running_var, 'var'),
    ):
        torch.testing.assert_close(got, want[name], rtol=1e-4, atol=1e-5)
    half = bn(x.detach().half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), y, rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(sys.platform == 'win32', reason='gloo over a file')
def test_two_processes_equal_one_on_the_complete_batch(tmp_path: Path) -> None:
    permanent.install(tmp_path)
    x, grad = batch()
    want = reference(x, grad)
    parts = {'default': [(0, 2), (2, 4)], 'N': [(0, 1), (1, 4)]}
    torch.save(
        {'x': x, 'grad': grad, 'state': want['state'], 'parts': parts},
        tmp_path / 'case.pt',
    )
    ranks = [
        subprocess.Popen([sys.executable, '-c', RANK, tmp_path, str(rank)])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    outs = [torch.load(tmp_path / f'out{rank}.pt') for rank in range(2)]
    for mode in parts:
        y = torch.cat([out[mode]['y'] for out in outs])
        torch.testing.assert_close(y, want['y'], rtol=1e-4, atol=1e-5)
        for name in ('mean', 'var') if mode == 'default' else ('mean',):
            for out in outs:
                torch.testing.assert_close(out[mode][name], want[name])
    gx = torch.cat([out['default']['gx'] for out in outs])
    torch.testing.assert_close(gx, want['gx'], rtol=1e-4, atol=1e-5)
    for name in ('gw', 'gb'):
        # mmcv averages them over processes, as DDP does with all others.
        for out in outs:
            torch.testing.assert_close(
                out['default'][name] * 2, want[name], rtol=1e-4, atol=1e-5
            )
