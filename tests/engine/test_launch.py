# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext.train`` and ``mmext.test`` with plain arguments."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from same_end import assert_same_end
from tiny_run import write_config
from trained import records

import mmext
from mmext.checks.preflight import preflight
from mmext.engine.launch import build_runner
from mmext.errors import UserError
from mmext.utils.config import load_config
from mmext.utils.random_state import seed_everything

RATE = 'optim_wrapper.optimizer.lr'


@pytest.fixture(scope='module')
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('launch')
    return write_config(folder / 'tiny.py', data, epochs=2)


@pytest.fixture(scope='module')
def trained(config: Path) -> Path:
    """The work dir of two epochs."""
    runner = mmext.train(config, work_dir=config.parent / 'work')
    assert runner.epoch == 2
    return config.parent / 'work'


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The types that are built, and the files that are read and verified."""
    found: dict[str, list[str]] = {}

    def spy(owner: object, method: str, name: str, of: Callable) -> None:
        real, seen = getattr(owner, method), found.setdefault(name, [])

        def call(first: object, *args: object, **kwargs: object) -> object:
            seen.append(of(first))
            return real(first, *args, **kwargs)

        monkeypatch.setattr(owner, method, call)

    spy(MODELS, 'build', 'built', lambda cfg: cfg['type'])
    spy(CheckpointLoader, 'load_checkpoint', 'read', os.path.basename)
    spy(ZipFile, 'testzip', 'verified', lambda a: Path(a.filename).name)
    return found


def test_resume_builds_and_reads_once(config, trained, tmp_path, counts):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'epoch_1.pth').write_bytes((trained / 'epoch_1.pth').read_bytes())
    mmext.train(config, work_dir=work, resume=True)
    assert counts['built'].count('FasterRCNN') == 1
    assert counts['read'] == ['epoch_1.pth']
    # Verified when it is found; a new one is verified when it is written.
    written = [name.removesuffix('.tmp') for name in counts['verified']]
    assert written == ['epoch_1.pth', 'epoch_2.pth']
    assert_same_end(trained / 'epoch_2.pth', work / 'epoch_2.pth')


def test_test_builds_and_reads_once(config, trained, tmp_path, counts):
    metrics = mmext.test(
        config, trained / 'epoch_2.pth', work_dir=tmp_path / 'work', tta=True
    )
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    assert counts['built'].count('FasterRCNN') == 1
    assert counts['read'] == ['epoch_2.pth']


def test_warnings_before_the_log_are_in_its_file(
    config, trained, tmp_path, capfd
):
    """A log that has an AP has the reason not to believe it, too."""
    mmext.test(
        config,
        trained / 'epoch_2.pth',
        work_dir=tmp_path / 'work',
        cfg_options={'test_dataloader.dataset.indices': 1},
    )
    text = 'test_dataloader.dataset: indices=1: 1 of '
    (log,) = (tmp_path / 'work').glob('*/*.log')
    lines = [x for x in log.read_text().split('\n') if text in x]
    assert len(lines) == 1 and ' - WARNING - ' in lines[0]
    assert capfd.readouterr().out.count(text) == 1


@pytest.mark.parametrize('seed', [3, None])
def test_the_model_of_preflight_has_the_weights_of_the_runner(
    config, tmp_path, seed
):
    ends = []
    for name in ('checked', 'plain'):
        seed_everything(0)  # a seed that is None is drawn from NumPy
        cfg = load_config(config, {'randomness.seed': seed})
        cfg.work_dir = str(tmp_path / name)
        checked = preflight(cfg, ('train', 'val'), data=False)
        runner = build_runner(cfg, checked if name == 'checked' else None)
        ends.append((runner.seed, runner.model.state_dict(), torch.rand(3)))
    (seed_1, weights_1, drawn_1), (seed_2, weights_2, drawn_2) = ends
    assert seed_1 == seed_2
    assert torch.equal(drawn_1, drawn_2)
    for name, value in weights_1.items():
        assert torch.equal(value, weights_2[name]), name


def test_a_config_object_is_not_changed(config, trained, tmp_path):
    cfg = load_config(config)
    before = cfg.pretty_text
    work = tmp_path / 'work'
    runner = mmext.train(
        cfg,
        work_dir=work,
        cfg_options=[f'{RATE}=0', 'train_cfg.max_epochs=1'],
        check_data=False,
    )
    assert cfg.pretty_text == before
    assert runner.epoch == 1
    assert records(work)[0]['lr'] == 0


def test_resume_names_a_checkpoint(config, tmp_path):
    with pytest.raises(UserError, match='gone.pth does not exist'):
        mmext.train(config, work_dir=tmp_path / 'w', resume='gone.pth')
    assert not (tmp_path / 'w').exists()
