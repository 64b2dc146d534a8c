# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What the pages show can be typed: options, names, anchors, Python."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import mmdet
import pytest
from mmengine import registry

import mmext  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in [
        *ROOT.glob('*.md'),
        *(ROOT / 'docs').rglob('*.md'),
        *(ROOT / 'configs').rglob('*.md'),
    ]
}
each_page = pytest.mark.parametrize('page', PAGES)
FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.M | re.S)
SCRIPT = re.compile(
    r'((?:tools|benchmarks|tests)/[\w/]+\.(?:py|sh)|-m mmext[\w.]*)'
    r'([^|;&#\n]*)'
)
# Whose options a script hands on.
FORWARDS = {
    'tools/dist_train.sh': ('tools/dist_run.py', 'tools/train.py'),
    'tools/dist_test.sh': ('tools/dist_run.py', 'tools/test.py'),
    'tools/slurm_train.sh': ('tools/train.py',),
    'tools/slurm_test.sh': ('tools/test.py',),
    '-m mmext.mmcv_ext': ('mmext/mmcv_ext/__main__.py',),
    '-m mmext.datasets.shapes.generate': (
        'mmext/datasets/shapes/generate.py',
    ),
}


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of a page's code blocks, continued lines joined."""
    return [
        (language, text.replace('\\\n', ' '))
        for language, text in FENCE.findall(PAGES[page])
    ]


@each_page
def test_options_exist(page: str) -> None:
    """As ``'--name'`` in the script, or where several have it."""
    shared = (ROOT / 'mmext' / 'options.py').read_text()
    text = '\n'.join(t for language, t in blocks(page) if language != 'python')
    text += '\n'.join(re.findall(r'`([^`\n]+)`', PAGES[page]))
    for script, words in SCRIPT.findall(text):
        sources = FORWARDS.get(script, (script,))
        known = shared + ''.join((ROOT / s).read_text() for s in sources)
        for option in re.findall(r'(?<!\S)--[a-z][\w-]*', words):
            assert f"'{option}'" in known, f'{script} has no {option}'


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    text = FENCE.sub('', text)
    titles = re.findall(r'^#+ (.*)$', text, re.M)
    return {
        re.sub(r'[^\w\- ]', '', re.sub(r'\]\(.*?\)', '', t))
        .lower()
        .replace(' ', '-')
        for t in titles
    }


@each_page
def test_anchors_exist(page: str) -> None:
    for file, anchor in re.findall(
        r'\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)', PAGES[page]
    ):
        target = (ROOT / page).parent / file if file else ROOT / page
        assert anchor in anchors(target.read_text()), f'{file}#{anchor}'


@each_page
def test_files_named_alone_exist(page: str) -> None:
    """A config or script in backticks that is named without its folder."""
    folders = [
        ROOT / 'configs',
        ROOT / 'tools',
        ROOT / 'mmext',
        ROOT / 'tests',
    ]
    folders += [ROOT / 'benchmarks', Path(mmdet.__file__).parent / '.mim']
    here = {p.name for folder in folders for p in folder.rglob('*')}
    named = re.findall(r'`([\w.-]+_[\w.-]+\.(?:py|sh|md))`', PAGES[page])
    named += [
        f'{stem}.py'
        for stem in re.findall(
            r'`([\w-]+_(?:coco|in1k|ade20k-\w+))`', PAGES[page]
        )
    ]
    missing = {n for n in named if n not in here}
    assert not missing


def python_blocks() -> list[tuple[str, str]]:
    return [
        (page, text)
        for page in PAGES
        for language, text in FENCE.findall(PAGES[page])
        if language == 'python'
    ]


@pytest.mark.parametrize(('page', 'text'), python_blocks())
def test_python_reads_and_names_what_exists(page: str, text: str) -> None:
    tree = ast.parse(text)
    importlib.import_module('mmdet.utils').register_all_modules(False)
    registries = [
        r for r in vars(registry).values() if isinstance(r, registry.Registry)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), name.name
        if isinstance(node, ast.keyword) and node.arg == 'type':
            name = ast.literal_eval(node.value)
            assert f'class {name}(' in PAGES[page] or any(
                r.get(name) or r.get(f'mmdet.{name}') for r in registries
            ), name
