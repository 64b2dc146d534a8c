# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The memory that a function allocates."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_memory(run: Callable[[], object]) -> int:
    """Returns the most bytes on the CPU at once above those before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            most = max(most, held)
    return most
