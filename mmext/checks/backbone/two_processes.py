# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the gradients of two processes with those of one."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from mmext.checks.backbone.measures import (
    copied,
    equal,
    error_of,
    gradients,
    loss_of,
)
from mmext.checks.backbone.properties import Property
from mmext.checks.backbone.source import Source
from mmext.utils.text import some

#: Seconds for each of two processes.
TIMEOUT = 120


def check_two_processes(where: Source, x: Tensor) -> Property:
    """Whether two processes with one image each get the gradients of one.

    Two steps on the CPU over gloo: parameters without a gradient stop the
    second one. ``x`` has two images.
    """
    with copied(where.build(), x, True) as model:
        unused = gradients(model, model(x)).unused
    with copied(where.build(), x) as model:
        found = gradients(model, model(x))
    why = ''
    if len(found.unused) == found.total:
        why = 'no parameter gets a gradient'
    elif any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        why = 'SyncBatchNorm needs GPUs'
    if why:
        return Property('two processes', None, why)
    (sum(loss_of(model(x[i : i + 1])) for i in (0, 1)) / 2).backward()
    alone = _gradients(model)
    # A forked process need not import everything again, which takes most of
    # the time; where there is a GPU, a backward pass starts threads that
    # forbid it, on the CPU as well.
    forks = sys.platform == 'linux' and not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(
            _train_two_steps,
            (where, x, folder, bool(found.unused)),
            2,
            join=False,
            start_method='fork' if forks else 'spawn',
        )
        if not processes.join(TIMEOUT) and not processes.join(TIMEOUT):
            for process in processes.processes:
                process.kill()
            raise TimeoutError(f'no end within {2 * TIMEOUT} seconds')
        both = torch.load(Path(folder, 'grads.pth'))
    error = error_of(
        *(
            [torch.cat([grads[name].flatten() for name in alone])]
            for grads in (both, alone)
        )
    )
    text = f'gradients differ by {error:.1e} from those of one process'
    if unused:
        text += (
            '; only with find_unused_parameters=True, because of '
            f'{some(unused, 2)}'
        )
    return Property('two processes', equal(error) and not unused, text)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {n: p.grad for n, p in named if p.grad is not None}


def _train_two_steps(
    rank: int, where: Source, x: Tensor, folder: str, find_unused: bool
) -> None:
    """Runs in one of two processes; the first saves the gradients."""
    torch.set_num_threads(1)
    # It concerns the speed of a training on several GPUs.
    warnings.filterwarnings('ignore', 'Grad strides do not match')
    dist.init_process_group(
        'gloo', f'file://{folder}/meet', rank=rank, world_size=2
    )
    with copied(where.build(), x) as model:
        wrapped = DistributedDataParallel(
            model, find_unused_parameters=find_unused
        )
    for _ in range(2):
        model.zero_grad()
        loss_of(wrapped(x[rank : rank + 1])).backward()
    if rank == 0:
        torch.save(_gradients(model), Path(folder, 'grads.pth'))
    dist.barrier()
    dist.destroy_process_group()
