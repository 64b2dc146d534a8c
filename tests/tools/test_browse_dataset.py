# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/analysis_tools/browse_dataset.py draws the annotations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from commands import run_tool
from tiny_run import HEIGHT, WIDTH, write_config

TOOL = 'analysis_tools/browse_dataset.py'
WRAPPED = """
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=2,
    dataset=dict(train_dataloader['dataset'], type='CocoDataset')))
"""


@pytest.mark.parametrize('more', ['', WRAPPED])
def test_boxes_are_drawn_on_the_stored_image(data, tmp_path, more):
    config = write_config(tmp_path / 'tiny.py', data, more=more)
    out = tmp_path / 'browse'
    options = ('--original', '--count', 2, '--out', out)
    assert run_tool(TOOL, config, *options) == 0
    files = sorted(out.iterdir())
    assert [f.name for f in files] == ['00000_1.jpg', '00001_2.jpg']
    drawn = cv2.imread(str(files[0])).astype(int)
    stored = cv2.imread(str(data / 'train' / '1.png')).astype(int)
    assert drawn.shape == stored.shape == (HEIGHT, WIDTH, 3)
    changed = np.abs(drawn - stored).max(2) > 60
    assert 0.005 < changed.mean() < 0.5


def test_a_split_that_the_config_does_not_have(tmp_path, capfd):
    config = tmp_path / 'a.py'
    config.write_text("default_scope = 'mmdet'\nval_dataloader = None\n")
    options = ('--split', 'val', '--out', tmp_path / 'b')
    assert run_tool(TOOL, config, *options) == 2
    assert 'a.py has no val_dataloader' in capfd.readouterr().err
    assert not (tmp_path / 'b').exists()
