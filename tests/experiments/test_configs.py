# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The configs of a plan: hashes, differences, options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from commands import run_python
from experiments import plan_of

from mmext.errors import UserError
from mmext.experiments.configs import (
    config_sha256,
    planned_config,
    side_config,
    unplanned_differences,
)
from mmext.utils.config import load_config, parse_options


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    base = write(tmp_path / 'base.py', "model = dict(type='A', depth=50)")
    a = write(tmp_path / 'a.py', "_base_ = 'base.py'\nmodel = dict(x=1)")
    b = write(tmp_path / 'b.py', "model = dict(x=1, depth=50, type='A')")
    assert config_sha256(a) == config_sha256(b)
    before = config_sha256(a)
    base.write_text("model = dict(type='A', depth=18)")
    assert config_sha256(a) != before


def test_the_hash_is_equal_in_every_process(tmp_path: Path) -> None:
    """Sets and objects have another order and address in each."""
    path = write(
        tmp_path / 'a.py',
        'import torch\n'
        "names = {'a', 'b', 'c', 'd'}\n"
        "mixed = {1: 2, 'k': object()}\n"
        'model = dict(type=torch.nn.Conv2d, act=lambda x: x)\n',
    )
    code = (
        'from mmext.experiments.configs import config_sha256\n'
        f'print(config_sha256({str(path)!r}))'
    )
    found = run_python('-c', code, environ={'PYTHONHASHSEED': '1'}).stdout
    assert found == f'{config_sha256(path)}\n'


def test_differences_in_more_than_the_model(tmp_path: Path) -> None:
    common = (
        "train_cfg = dict(max_epochs={})\nmodel = dict(type='{}')\n"
        "visualizer = dict(name='{}')\nunused = {}\n"
        'train_dataloader = dict(num_workers={}, batch_size=2)\n'
    )
    a = write(tmp_path / 'a.py', common.format(1, 'A', 'x', 1, 0))
    b = write(tmp_path / 'b.py', common.format(1, 'B', 'y', 2, 4))
    c = write(tmp_path / 'c.py', common.format(3, 'A', 'x', 1, 0))
    first = load_config(a)
    assert unplanned_differences(first, load_config(b)) == []
    assert unplanned_differences(first, load_config(c)) == [
        'train_cfg.max_epochs: 1 and 3'
    ]


@pytest.mark.parametrize(
    'option',
    ['a=(640,640)', 'a=[(1,2),(3,4)]', 'a=1,2', "a=[x,'b c']", 'a=None', 'a='],
)
def test_options_of_a_plan_are_those_of_the_command_line(
    tmp_path: Path, option: str
) -> None:
    """A plan has tuples as text, because YAML has none."""
    path = write(tmp_path / 'a.py', 'a = 0')
    options = parse_options([option])
    for given in (options, {'a': str(options['a'])}):
        assert planned_config(path, given).a == options['a']


def test_a_config_that_was_changed(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.py', "model = dict(type='A')")
    plan = plan_of()
    digest = config_sha256(path)
    side = replace(plan.baseline, config=str(path), sha256=digest)
    assert side_config(plan, side).model.type == 'A'
    path.write_text("model = dict(type='B')")
    with pytest.raises(UserError, match='is not the config of the plan'):
        side_config(plan, side)
