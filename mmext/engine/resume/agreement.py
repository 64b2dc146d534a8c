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
        self._work: dist.Work | None = None
        # One tensor for all questions, kept as long as this object: gloo's
        # thread, which lets go of it last, would else want Python's lock to
        # free it, and abort the process where that is just ending.
        self._flag: Tensor | None = None

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
        if self._flag is None:
            device = get_comm_device()
            self._flag = torch.zeros(1, dtype=torch.int32, device=device)
        self._flag.fill_(mine)
        self._work = dist.all_reduce(
            self._flag, dist.ReduceOp.MAX, async_op=True
        )
        return self._read() or answer if at_once else answer

    def close(self) -> None:
        """Waits for what is on its way: a process must not end before."""
        with contextlib.suppress(RuntimeError):  # the other side is gone
            self._read()

    def _read(self) -> bool:
        if self._work is None:
            return False
        work, self._work = self._work, None
        work.wait()
        return bool(self._flag.item())
