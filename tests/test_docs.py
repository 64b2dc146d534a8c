# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The docs lead somewhere, and the backbone they show works."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text)
    missing = [x for x in links if not (page.parent / x).exists()]
    named = re.findall(
        r'(?<![\w/])(?:configs|tools|benchmarks)/[\w./+-]+\.\w+', text
    )
    missing += [x for x in named if not (ROOT / x).exists()]
    assert not missing


def test_the_guides_backbone_builds_in_a_detector() -> None:
    page = (ROOT / 'docs' / 'adding_a_backbone.md').read_text()
    code, config = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    try:
        exec(code, {})
        init_default_scope('mmdet')
        cfg = Config.fromstring(config, '.py')
        detector = MODELS.build(cfg.model)
        levels = detector.extract_feat(torch.rand(1, 3, 64, 96))
        assert [tuple(x.shape[2:]) for x in levels[:4]] == [
            (16, 24),
            (8, 12),
            (4, 6),
            (2, 3),
        ]
    finally:
        MODELS._module_dict.pop('TinyNet', None)
