# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures for the tests of models."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def x() -> torch.Tensor:
    """Two images of 64x96 pixels."""
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What loading pre-trained weights logs."""
    lines: list[str] = []
    monkeypatch.setattr(
        'mmext.checkpoints.released.print_log',
        lambda line, **kwargs: lines.append(line),
    )
    return lines
