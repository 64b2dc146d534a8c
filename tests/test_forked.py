# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests run two forked processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
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


def test_a_process_does_not_wait_for_one_that_failed(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(AssertionError):
        in_two_processes(tmp_path, lambda rank: time.sleep(100 / rank))
    assert time.monotonic() - begun < 50
