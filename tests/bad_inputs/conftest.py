# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The data that bad inputs are made from, and the page of the messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input import CASES, PAGE, page
from tiny_run import make_coco


@pytest.fixture(scope='session')
def good_data(tmp_path_factory) -> Path:
    """A COCO folder without errors."""
    return make_coco(tmp_path_factory.mktemp('good') / 'data', 3, 2)


@pytest.fixture(scope='session')
def messages() -> Iterator[dict[str, str]]:
    """Title -> message; ``MMEXT_WRITE_DOCS=1`` writes the page."""
    found: dict[str, str] = {}
    yield found
    if os.environ.get('MMEXT_WRITE_DOCS') and len(found) == len(CASES):
        PAGE.write_text(page(found), encoding='utf-8')
