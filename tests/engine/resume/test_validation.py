# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A resumed run validates the epoch that was not validated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run_tool
from mmengine.runner import ValLoop
from same_end import assert_same_end
from tiny_run import write_config


def run(config: Path, work: Path, *options: str) -> None:
    assert run_tool('train.py', config, '--work-dir', work, *options) == 0


def validations(work: Path) -> dict[int, float]:
    """Returns epoch -> AP of all runs in a work dir."""
    found = {}
    for file in work.glob('*/vis_data/scalars.json'):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'coco/bbox_mAP' in record:
                found[record['step']] = record['coco/bbox_mAP']
    return found


class KilledError(BaseException):
    """Ends a training like SIGKILL."""


@pytest.fixture(scope='module')
def whole(tmp_path_factory, data) -> Path:
    """Two epochs with different AP."""
    folder = tmp_path_factory.mktemp('resume')
    more = "default_hooks.update(checkpoint=dict(save_best='auto'))"
    config = write_config(folder / 'tiny.py', data, epochs=2, more=more)
    run(config, folder / 'whole')
    return folder


@pytest.mark.parametrize('epoch', [1, 2])
def test_no_validation_is_lost(whole, tmp_path, monkeypatch, epoch):
    """The run is killed between the checkpoint and the validation."""
    validate = ValLoop.run

    def die(self) -> dict:
        if self.runner.epoch == epoch:
            raise KilledError
        return validate(self)

    monkeypatch.setattr(ValLoop, 'run', die)
    with pytest.raises(KilledError):
        run(whole / 'tiny.py', tmp_path / 'work')
    monkeypatch.undo()
    assert (tmp_path / 'work' / f'epoch_{epoch}.pth').exists()
    assert sorted(validations(tmp_path / 'work')) == [1, 2][: epoch - 1]
    run(whole / 'tiny.py', tmp_path / 'work', '--resume')
    want = validations(whole / 'whole')
    assert sorted(want) == [1, 2] and want[1] != want[2]
    assert validations(tmp_path / 'work') == want
    kept = {p.name for p in (whole / 'whole').glob('*.pth')}
    best = f'best_coco_bbox_mAP_epoch_{max(want, key=want.get)}.pth'
    assert best in kept
    assert {p.name for p in (tmp_path / 'work').glob('*.pth')} == kept
    # The checkpoint that is written again after a new best has its state.
    for name in kept:
        assert_same_end(whole / 'whole' / name, tmp_path / 'work' / name)


def test_a_new_run_does_not_validate_first(whole):
    logs = [p.read_text() for p in (whole / 'whole').glob('*/*.log')]
    assert 'ResumeValidationHook' in logs[0]
    assert 'Validating first' not in logs[0]
