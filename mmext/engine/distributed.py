# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Several processes, on GPUs or on none.

MMEngine's launchers assume a GPU a process. On a machine without one the
same launchers (``torchrun``, ``srun``, ``mpirun``) work here over gloo.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.model import convert_sync_batchnorm
from torch import nn

from mmext.errors import UserError

#: Variables each launcher sets for its processes.
NEEDED = {
    'pytorch': (
        'RANK',
        'LOCAL_RANK',
        'WORLD_SIZE',
        'MASTER_ADDR',
        'MASTER_PORT',
    ),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'MASTER_ADDR',
    ),
}
COMMANDS = {
    'pytorch': 'torchrun --nproc_per_node=2 tools/train.py CONFIG '
    '--launcher pytorch (or: tools/dist_train.sh CONFIG 2)',
    'slurm': 'tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR',
    'mpi': 'MASTER_ADDR=127.0.0.1 mpirun -np 2 python tools/train.py CONFIG '
    '--launcher mpi',
}


def check_launcher(
    launcher: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Stops where a launcher's variables are absent or ask too much.

    Args:
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        environ: The environment. Default: this process's.

    Raises:
        UserError: A variable is missing, or a machine runs more processes
            than it has GPUs (and has any).
    """
    if launcher == 'none':
        return
    if launcher not in NEEDED:
        raise UserError(
            f'launcher {launcher!r} is unknown',
            f'Known: none, {", ".join(NEEDED)}.',
        )
    missing = [name for name in NEEDED[launcher] if name not in environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs {", ".join(missing)} in the '
            'environment; nobody set them, so the launcher did not start '
            'this process',
            f'Start it with: {COMMANDS[launcher]}. For one process leave '
            '--launcher out.',
        )
    gpus = torch.cuda.device_count()
    local = local_rank(launcher, environ)
    if 0 < gpus <= local:
        raise UserError(
            f'process {local} of this machine has no GPU: {gpus} visible '
            f'(CUDA_VISIBLE_DEVICES={environ.get("CUDA_VISIBLE_DEVICES")})',
            f'Start {gpus} processes a machine, or '
            'CUDA_VISIBLE_DEVICES=-1 to train on the CPU.',
        )


def local_rank(launcher: str, environ: Mapping[str, str] = os.environ) -> int:
    """Which process of this machine this is, by its launcher's variables."""
    name = {
        'slurm': 'SLURM_LOCALID',
        'mpi': 'OMPI_COMM_WORLD_LOCAL_RANK',
    }.get(launcher, 'LOCAL_RANK')
    return int(environ.get(name, 0))


def is_first_process(
    launcher: str, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether this is rank 0, asked before the processes have met."""
    name = {'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
    return (
        launcher == 'none'
        or int(environ.get(name.get(launcher, 'RANK'), 0)) == 0
    )


def init_gloo(launcher: str, timeout: float | None = None) -> None:
    """Joins the other processes over gloo; the CPU's ``init_dist``.

    Args:
        launcher: ``pytorch``, ``slurm`` or ``mpi``.
        timeout: Seconds that a collective may take. Default: torch's.
    """
    if launcher == 'slurm':
        nodes = os.environ['SLURM_NODELIST']
        os.environ.setdefault(
            'MASTER_ADDR',
            subprocess.getoutput(f'scontrol show hostname {nodes} | head -n1'),
        )
        os.environ['RANK'] = os.environ['SLURM_PROCID']
        os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    elif launcher == 'mpi':
        os.environ['RANK'] = os.environ['OMPI_COMM_WORLD_RANK']
        os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ['LOCAL_RANK'] = str(local_rank(launcher))
    wait = {} if timeout is None else {'timeout': timedelta(seconds=timeout)}
    dist.init_process_group('gloo', **wait)
    atexit.register(_let_go)


def _let_go() -> None:
    """Gives gloo's threads time to release the tensors they sent last.

    That takes Python's lock; a thread that asks for it while the interpreter
    ends aborts the process (3 of 16 runs that ended right after a collective).
    """
    time.sleep(0.5)


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def replace_torch_sync_bn(model: nn.Module) -> None:
    """Puts mmcv's SyncBN where PyTorch's, which needs a GPU, stands."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                setattr(module, name, convert_sync_batchnorm(child, 'mmcv'))


def mend_sync_bn(model: nn.Module) -> None:
    """Lets mmcv's SyncBN take what autocast gives it on a CPU, bfloat16."""
    from mmcv.ops import SyncBatchNorm

    class Float32SyncBatchNorm(SyncBatchNorm):
        """Computes in float32, as PyTorch's batch norm does."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.float()).to(x.dtype)

    for module in model.modules():
        if type(module) is SyncBatchNorm:
            module.__class__ = Float32SyncBatchNorm
