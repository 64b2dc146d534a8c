# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Processes that are forked after an export compute gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from forked import in_two_processes


def test_gradients_in_processes_that_are_forked_after_an_export(
    tmp_path: Path,
) -> None:
    torch.export.export(torch.nn.Linear(2, 1), (torch.ones(1, 2),))

    def gradient(rank: int) -> float:
        x = torch.ones(1, requires_grad=True)
        (x * (rank + 2)).sum().backward()
        return float(x.grad)

    gradient(0)
    assert in_two_processes(tmp_path, gradient) == [2.0, 3.0]
