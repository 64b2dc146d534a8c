"""Slots of the CPU that other plans on this machine do not share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope='module', autouse=True)
def own_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gives a module a temporary folder of its own, where slots are locked.

    A plan that somebody runs on this machine would otherwise be waited for.
    """
    folder = tmp_path_factory.mktemp('slots')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TMPDIR', str(folder))
        patch.setattr('tempfile.tempdir', str(folder))
        yield folder
