# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs of several processes, with or without GPUs.

MMEngine's launchers assume one GPU for each process. Here ``torchrun``,
``srun`` and ``mpirun`` also work without GPUs, over gloo.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.dist import broadcast, init_dist, is_distributed
from mmengine.model import convert_sync_batchnorm
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

from mmext.errors import UserError

#: Launcher -> the environment variables that it sets for its processes.
NEEDED = {
    'pytorch': 'RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT',
    'slurm': 'SLURM_PROCID SLURM_NTASKS SLURM_NODELIST',
    'mpi': 'OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_LOCAL_RANK '
    'OMPI_COMM_WORLD_SIZE MASTER_ADDR',
}
#: Launcher -> the variables of the rank, in all and on the machine.
RANKS = {
    'pytorch': ('RANK', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
#: Launcher -> how to start it.
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
    """Checks that a launcher started this process, and has a GPU for it.

    Raises `UserError` if a variable of the launcher is missing, or if the
    machine has GPUs, but fewer than processes.
    """
    if launcher == 'none':
        return
    if launcher not in NEEDED:
        raise UserError(
            f'launcher {launcher!r} is unknown',
            f'Known: none, {", ".join(NEEDED)}.',
        )
    missing = [n for n in NEEDED[launcher].split() if n not in environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs {", ".join(missing)} in the '
            'environment. They are not set: the launcher did not start this '
            'process',
            f'Start it with: {COMMANDS[launcher]}. Omit --launcher to run '
            'one process.',
        )
    gpus = torch.cuda.device_count()
    local = local_rank(launcher, environ)
    if 0 < gpus <= local:
        raise UserError(
            f'process {local} of this machine has no GPU: {gpus} visible '
            f'(CUDA_VISIBLE_DEVICES={environ.get("CUDA_VISIBLE_DEVICES")})',
            f'Start {gpus} processes on each machine, or set '
            'CUDA_VISIBLE_DEVICES=-1 to train on the CPU.',
        )


def local_rank(launcher: str, environ: Mapping[str, str] = os.environ) -> int:
    """Returns the number of this process on its machine, from 0."""
    if launcher == 'none':
        return 0
    return int(environ.get(RANKS[launcher][1], 0))


def is_first_process(
    launcher: str, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether this is rank 0, before there is a process group."""
    return launcher == 'none' or int(environ.get(RANKS[launcher][0], 0)) == 0


class SharedError(UserError):
    """An error that all processes raise at the same step."""


@contextmanager
def reported_once(launcher: str) -> Iterator[None]:
    """Lets only the first process of a machine raise a ``UserError``.

    It is for what all processes do alone with the same files, such as reading
    the config. The others exit with status 0: if they failed, the launcher
    could end the first process before it has printed the message.
    """
    try:
        yield
    except UserError:
        if local_rank(launcher) > 0:
            raise SystemExit(0) from None
        raise


def join_processes(launcher: str, env_cfg: Mapping[str, Any]) -> None:
    """Waits for the other processes, if there are any.

    Call it before a runner is built, which makes the work dir first of all.
    The first process comes when its checks have passed.
    """
    if launcher == 'none' or is_distributed():
        return
    # MMEngine's init_dist would set another start method otherwise.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    dist_cfg = env_cfg.get('dist_cfg', {})
    if get_device() == 'cpu':
        init_gloo(launcher, dist_cfg.get('timeout'))
    else:
        init_dist(launcher, **dist_cfg)
    broadcast(torch.zeros(1))  # NCCL waits only when it sends something


def init_gloo(launcher: str, timeout: float | None = None) -> None:
    """Joins the process group over gloo: ``init_dist`` for the CPU."""
    if launcher == 'slurm':
        nodes = os.environ['SLURM_NODELIST']
        os.environ.setdefault(
            'MASTER_ADDR',
            subprocess.getoutput(f'scontrol show hostname {nodes} | head -n1'),
        )
        os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    elif launcher == 'mpi':
        os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ['RANK'] = os.environ[RANKS[launcher][0]]
    os.environ['LOCAL_RANK'] = str(local_rank(launcher))
    wait = {} if timeout is None else {'timeout': timedelta(seconds=timeout)}
    dist.init_process_group('gloo', **wait)
    # Gloo's threads need Python's lock to release the tensors that they sent
    # last. A thread that asks for it while the interpreter ends aborts the
    # process: 3 of 16 runs that ended right after a collective.
    atexit.register(time.sleep, 0.5)


def replace_torch_sync_bn(model: nn.Module) -> None:
    """Replaces PyTorch's SyncBN, which needs a GPU, with mmcv's."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                setattr(module, name, convert_sync_batchnorm(child, 'mmcv'))


def allow_bfloat16_sync_bn(model: nn.Module) -> None:
    """Makes mmcv's SyncBN accept bfloat16, which autocast gives on the CPU."""
    from mmcv.ops import SyncBatchNorm

    class Float32SyncBatchNorm(SyncBatchNorm):
        """Computes in float32, as PyTorch's batch norm does."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.float()).to(x.dtype)

    for module in model.modules():
        if type(module) is SyncBatchNorm:
            module.__class__ = Float32SyncBatchNorm
