# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A yes or no that all processes of a run learn at the same step."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from mmengine.dist import get_comm_device, get_world_size
from torch import Tensor


class Agreement:
    """Answers whether any process of a run has said yes.

    All processes ask at the same places of the run. Each value is sent while
    the next step runs and read at the next question, so that no process
    waits: an answer belongs to the question before. In a run of one process
    the answer is its own value.

    Over NCCL, reading an answer waits for the device. MMEngine has waited for
    it just before, when it read the losses.
    """

    def __init__(self) -> None:
        self._work: dist.Work | None = None
        # One tensor for all questions, kept as long as this object: gloo's
        # thread releases it last. If it then had to free the tensor, it would
        # need Python's lock, and would abort a process that is ending.
        self._flag: Tensor | None = None

    def any(self, mine: bool, at_once: bool = False) -> bool:
        """Returns whether any process said yes to the last question.

        Args:
            mine: The value of this process.
            at_once: Whether to wait for the values of this question too, so
                that no message is in flight afterwards. Default: False.
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
        if at_once:
            answer = self._read() or answer
        return answer

    def close(self) -> None:
        """Waits for the message in flight; a process must not end before."""
        with contextlib.suppress(RuntimeError):  # the other process has ended
            self._read()

    def _read(self) -> bool:
        if self._work is None:
            return False
        work, self._work = self._work, None
        work.wait()
        return bool(self._flag.item())
