# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The memory of functions."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Returns the most bytes allocated at once above those before."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True
    ) as profile:
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            most = max(most, held)
    return most
