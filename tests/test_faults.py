# Licensed under the Apache License, Version 2.0. See LICENSE.
"""benchmarks/faults.py compares trainings correctly and fills its page."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from commands import ROOT
from trained import write_log


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return importlib.import_module('faults')


def run(folder: Path, weight: float, loss: float, best: int = 1) -> Path:
    """Writes the files of a finished training."""
    times = {'time': folder.name, 'data_time': 0}
    trained = {'loss': loss, 'iter': 12, **times}
    write_log(folder, [trained, {'coco/bbox_mAP': 0.1, **times}])
    content = {
        'meta': {'epoch': 4, 'iter': 12, 'time': folder.name},
        'message_hub': {},
        'state_dict': {'w': torch.tensor([weight, 1.0])},
    }
    torch.save(content, folder / 'epoch_4.pth')
    (folder / f'best_epoch_{best}.pth').touch()
    return folder


def test_any_difference_is_found(faults, tmp_path):
    reference = run(tmp_path / 'a', 0.5, 2.0)
    assert faults.same_end(reference, run(tmp_path / 'b', 0.5, 2.0))
    nearly = 0.5 + 2**-24
    assert not faults.same_end(reference, run(tmp_path / 'c', nearly, 2.0))
    assert not faults.same_end(reference, run(tmp_path / 'd', 0.5, 2.1))
    assert not faults.same_end(
        reference, run(tmp_path / 'e', 0.5, 2.0, best=2)
    )
    (reference / 'epoch_4.pth.tmp').touch()
    assert not faults.same_end(tmp_path / 'b', reference)


def test_the_table_counts(faults):
    outcomes = [
        faults.Outcome(True, 3, True, writing=True),
        faults.Outcome(True, 0, False),
        faults.Outcome(False, 1, False),
    ]
    name, *cells = faults.row(faults.kill_writing, outcomes)
    assert '(certainly inside a write: 1)' in name
    assert cells == ['3', '2', '1, 3', '1']
    assert 'skipped' in faults.row(faults.full_disk, [])[2]


def test_a_fault_that_was_not_reported_has_not_recovered(faults, capsys):
    good = faults.Outcome(True, 3, True)
    assert faults._refused(2, good) == good
    assert faults._refused(1, good) == faults.Outcome(False, 3, True)
    assert 'status 1' in capsys.readouterr().out


def test_a_change_of_any_file_is_seen(faults, tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'b').write_text('1')
    before = faults.contents(tmp_path)
    (tmp_path / 'a' / 'b').write_text('2')
    assert faults.contents(tmp_path).keys() == before.keys()
    assert faults.contents(tmp_path) != before


def test_the_page_shows_the_results(faults):
    result = faults.RESULT.read_text(encoding='utf-8')
    begin, end = faults.MARKS
    page = faults.PAGE.read_text(encoding='utf-8')
    assert page.split(begin)[1].split(end)[0] == result
