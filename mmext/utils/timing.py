# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Times functions in turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

Key = TypeVar('Key', bound=Hashable)


def in_turn(
    work: dict[Key, Callable[[], Any]],
    rounds: int,
    cpu_time: bool = False,
    warm_up: int = 1,
) -> dict[Key, list[float]]:
    """Runs functions in turn, round after round, in one process.

    A busy machine slows all of them, so that ratios within a round stay
    right. Every second round has the reverse order.

    Args:
        work: The functions, by name.
        rounds: How many rounds to time.
        cpu_time: Whether to take the CPU time of the process, for a machine
            that others share. Default: the clock, False.
        warm_up: Rounds before, which do not count. Default: 1.

    Returns:
        The seconds of each round.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    cuda = torch.cuda.is_available()
    times: dict[Key, list[float]] = {name: [] for name in work}
    for i in range(warm_up + rounds):
        order = list(work) if i % 2 == 0 else list(reversed(work))
        for name in order:
            gc.collect()
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            work[name]()
            if cuda:
                torch.cuda.synchronize()
            if i >= warm_up:
                times[name].append(clock() - start)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """Returns the median over rounds of a over b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
