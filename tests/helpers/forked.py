# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs two processes over gloo without importing everything twice."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest
import torch

#: For tests whose processes would use GPUs.
cpus = pytest.mark.skipif(
    torch.cuda.is_available(), reason='forked processes are for CPUs'
)


def in_two_processes(folder: Path, work: Callable[[int], Any]) -> list[Any]:
    """Runs ``work(rank)`` in two forked processes; returns both results.

    No launcher forwards signals to the processes. A process that has used
    CUDA cannot be forked.

    Args:
        folder: A folder for the results.
        work: A function that starts the process group, for example with a
            runner.
    """
    free = socket.socket()
    # Bound until the processes end, so that no other test gets the port.
    free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    free.bind(('127.0.0.1', 0))
    port = str(free.getsockname()[1])

    def run(rank: int) -> None:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE='2',
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port,
        )
        torch.set_num_threads(1)
        torch.save(work(rank), folder / f'returned_{rank}.pth')

    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=run, args=(r,)) for r in (0, 1)]
    for process in processes:
        process.start()
    connection.wait([process.sentinel for process in processes], 300)
    for process in processes:
        if not any(p.exitcode for p in processes):  # else it waits in vain
            process.join(300)
        process.kill()
        process.join()
    free.close()
    assert [p.exitcode for p in processes] == [0, 0]
    return [torch.load(folder / f'returned_{rank}.pth') for rank in (0, 1)]
