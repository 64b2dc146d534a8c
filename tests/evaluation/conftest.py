# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures of the comparison's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_cases import Write, json_writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a JSON file into the temporary folder; returns its path."""
    return json_writer(tmp_path)
