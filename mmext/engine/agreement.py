# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A yes or no that all processes of a run come to know at the same step."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from mmengine.dist import get_comm_device, get_world_size
from torch import Tensor


class Agreement:
    """Whether any process wants something.

    Each process asks at the same places of the run. What it wants is sent
    while its next step runs and read when it asks again, so that nobody waits:
    the answer is the one to the question before. One process answers itself.

    Over NCCL reading it waits for the device, as MMEngine has done just before
    when it read the losses.
    """

    def __init__(self) -> None:
        self._sent: tuple[dist.Work, Tensor] | None = None

    def any(self, mine: bool, at_once: bool = False) -> bool:
        """Whether any process had said yes when it last asked.

        Args:
            mine: What this process says now.
            at_once: Whether to wait for what the others say now, and to leave
                nothing on its way. Default: False.
        """
        if get_world_size() == 1:
            return mine
        answer = self._read()
        flag = torch.tensor([mine], dtype=torch.int32)
        flag = flag.to(get_comm_device())
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)
        self._sent = work, flag
        return self._read() or answer if at_once else answer

    def close(self) -> None:
        """Waits for what is on its way: a process must not end before."""
        with contextlib.suppress(RuntimeError):  # the other side is gone
            self._read()

    def _read(self) -> bool:
        if self._sent is None:
            return False
        work, flag = self._sent
        self._sent = None
        work.wait()
        return bool(flag.item())
