# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The backbone in the guide for adding one works."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT, environment, run_python
from leaves import build
from mmengine.config import Config
from mmengine.registry import MODELS

GUIDE = ROOT / 'docs' / 'adding_a_backbone.md'


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a reader of the guide has, on Python's path."""
    blocks = re.findall(
        r'^`([\w-]+\.py)`[^`]*:\n\n```python\n(.*?)^```',
        GUIDE.read_text(),
        re.M | re.S,
    )
    assert len(blocks) == 3
    for name, block in blocks:
        (tmp_path / name).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    MODELS._module_dict.pop('TinyNet', None)
    sys.modules.pop('tinynet', None)


def test_the_guides_backbone_builds_in_a_detector(guide: Path) -> None:
    cfg = Config.fromfile(guide / 'faster-rcnn_tinynet_fpn_1x_coco.py')
    detector = build(cfg)
    levels = detector.extract_feat(torch.rand(1, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(x.shape[2:]) for x in levels[:4]] == sizes


def test_the_guides_backbone_passes_the_tests_of_all(guide: Path) -> None:
    tests = ROOT / 'tests' / 'models' / 'test_backbones.py'
    pytest_command = ('-m', 'pytest', '-p', 'no:xdist', '-p', 'tinynet_case')
    path = f'{guide}{os.pathsep}{environment()["PYTHONPATH"]}'
    result = run_python(
        *pytest_command,
        tests,
        '-k=TinyNet',
        environ={'PYTHONPATH': path},
        cwd=guide,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r'\d\d passed', result.stdout)
