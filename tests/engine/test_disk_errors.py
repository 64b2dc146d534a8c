# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A disk that is full, read-only or fails, in the middle of a run."""

from __future__ import annotations

import errno
import io
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run_tool
from tiny_run import write_config
from toy import build_runner

import mmext
from mmext.errors import UserError
from mmext.utils.figures import new_figure, save
from mmext.utils.images import write_image


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def failing(number: int, name: str = ''):
    """Returns a function that fails for files whose names contain a text."""
    real = os.replace

    def call(*paths: object) -> None:
        if not name or any(name in str(path) for path in paths):
            raise error(number)
        real(*paths)

    return call


@pytest.mark.parametrize('call', ['fsync', 'replace'])
@pytest.mark.parametrize(
    'number, fix',
    [
        (errno.ENOSPC, 'Free some space. The same command with --resume'),
        (errno.EDQUOT, 'Your quota is used up: free some space, or raise it'),
        (errno.EROFS, 'The file system is read-only: mount it for writing'),
        (errno.ESTALE, 'The file server has replaced the folder: mount it'),
        (errno.EIO, 'has failed, and more space does not help: see the log'),
    ],
)
def test_the_advice_fits_the_error(tmp_path, monkeypatch, call, number, fix):
    runner = build_runner(tmp_path / 'work')
    monkeypatch.setattr(
        os, call, failing(number, '' if call == 'fsync' else '.pth')
    )
    with pytest.raises(UserError, match=os.strerror(number)) as caught:
        runner.train()
    assert fix in str(caught.value)
    assert '--resume' in str(caught.value)
    assert not [*(tmp_path / 'work').glob('*.pth*')]


@pytest.mark.parametrize(
    'cfg, advice',
    [
        ({}, 'The same command with --resume'),
        ({'resume': True, 'load_from': None}, 'The same command'),
        # It would begin at that file again.
        (
            {'resume': True, 'load_from': 'epoch_1.pth'},
            'The same command with --resume',
        ),
    ],
)
def test_what_continues_a_training(tmp_path, cfg, advice):
    runner = build_runner(tmp_path / 'work')
    runner.cfg.update(cfg)
    assert runner.same_command == advice


def test_a_tool_reports_the_disk(tmp_path, monkeypatch, capsys, data):
    config = write_config(tmp_path / 'tiny.py', data)

    def fail(self: Path, *args: object, **options: object) -> None:
        raise error(errno.ENOSPC)

    monkeypatch.setattr(Path, 'write_text', fail)
    out = tmp_path / 'passport'
    status = run_tool('misc/check_backbone.py', config, '--out', out)
    text = capsys.readouterr().err
    assert status == 2 and 'Traceback' not in text
    assert f"No space left on device: '{out}/" in text
    assert 'Free some space, then run the same command again.' in text


def test_a_run_names_where_it_writes(tmp_path, monkeypatch, data):
    config = write_config(tmp_path / 'tiny.py', data)

    def fail(*args: object) -> None:
        raise error(errno.ENOSPC)

    monkeypatch.setattr('mmext.engine.launch.build_runner', fail)
    with pytest.raises(OSError, match='No space') as caught:
        mmext.train(config, work_dir=tmp_path / 'work')
    assert caught.value.filename.startswith(f'{tmp_path}/work or ')
    assert not (tmp_path / 'work').exists()


def test_a_log_without_space_is_one_warning(tmp_path, capsys):
    runner = build_runner(tmp_path, log_level='INFO')
    (handler,) = (
        h for h in runner.logger.handlers if isinstance(h, logging.FileHandler)
    )
    usual = handler.stream
    with Path('/dev/full').open('wb', buffering=0) as full:
        handler.stream = io.TextIOWrapper(full, write_through=True)
        runner.logger.info('one')
        runner.logger.info('two')
        handler.stream = usual
    text = capsys.readouterr().err
    assert text.count(f'lines are missing in {handler.baseFilename}') == 1
    assert 'Traceback' not in text


def test_a_picture_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    """A regression: ``cv2.imwrite`` returned True on a full disk."""
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    write_image(tmp_path / 'a.png', pixels)
    assert (cv2.imread(str(tmp_path / 'a.png')) == pixels).all()
    monkeypatch.setattr(os, 'replace', failing(errno.ENOSPC))
    with pytest.raises(OSError, match='No space left'):
        write_image(tmp_path / 'b.png', pixels)
    with pytest.raises(OSError, match='No space left'):
        save(new_figure(1, 1), tmp_path / 'c.png')
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']


def test_a_run_is_later_than_those_before_it(tmp_path):
    """The clock may be set back, and logs are read in their order."""
    (tmp_path / '29990101_235959').mkdir()
    for other in ('99_99', '99991231_235959'):  # no time, none after it
        (tmp_path / other).mkdir()
    names = [build_runner(tmp_path).timestamp for _ in range(2)]
    assert names == ['29990102_000000', '29990102_000001']
