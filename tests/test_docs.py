# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Links in the docs exist, and the backbone in the guide works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob('*.md'),
    *(ROOT / 'docs').rglob('*.md'),
    *(ROOT / 'configs').rglob('*.md'),
]
GUIDE = ROOT / 'docs' / 'adding_a_backbone.md'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text)
    missing = [x for x in links if not (page.parent / x).exists()]
    # The guide's example has files that a reader creates.
    text = text.replace('configs/tinynet/', '')
    named = re.findall(
        r'(?<![\w/])(?:configs|tools|benchmarks)/[\w./+-]+\.\w+', text
    )
    missing += [x for x in named if not (ROOT / x).exists()]
    assert not missing


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
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    levels = detector.extract_feat(torch.rand(1, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(x.shape[2:]) for x in levels[:4]] == sizes


def test_the_guides_backbone_passes_the_tests_of_all(guide: Path) -> None:
    tests = ROOT / 'tests' / 'models' / 'test_backbones.py'
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'no:xdist']
        + ['-p', 'tinynet_case', str(tests), '-k', 'TinyNet'],
        cwd=guide,
        env={**os.environ, 'PYTHONPATH': f'{guide}:{ROOT}/tests/helpers'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r'\d\d passed', result.stdout)


def test_the_guides_header_is_that_of_a_config() -> None:
    header = 'tools/dist_train.sh configs/tinynet/'
    assert f'# {header}faster-rcnn_tinynet_fpn_1x_coco.py 8' in (
        GUIDE.read_text()
    )
