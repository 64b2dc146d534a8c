# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Links, options, names, anchors and Python in the docs are valid."""

from __future__ import annotations

import ast
import functools
import io
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import mmext  # noqa: F401  isort: skip  (before mmdet)
import mmdet
import pytest
from commands import ROOT
from mmdet.utils import register_all_modules
from mmengine import registry

from mmext import cli

PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md')
    for page in ROOT.glob(pattern)
}
each_page = pytest.mark.parametrize('page', PAGES)
FENCE = re.compile(r'^ *```(\w*)\n(.*?)^ *```', re.M | re.S)
SCRIPT = re.compile(
    r'((?:tools|benchmarks|tests)/[\w/]+\.(?:py|sh)|-m mmext[\w.]*)'
    r'([^|;&#\n]*)'
)
COMMAND = re.compile(
    r'(?<![\w./-])(?<!train )(?<!test )(?<!search )(?<!download )'
    r'mmext ((?:convert (?=voc|yolo|crops|weights))?[a-z][a-z-]+)([^|;&#\n]*)'
)
# Scripts that pass their options on to others.
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
SCRIPTS = {f'tools/{script}': k for k, script in cli.COMMANDS.items()}


def shell_text(page: str) -> str:
    """Returns all code that may contain commands, continued lines joined."""
    text = [
        block.replace('\\\n', ' ')
        for language, block in FENCE.findall(PAGES[page])
        if language != 'python'
    ]
    without_blocks = FENCE.sub('', PAGES[page])
    return '\n'.join([*text, *re.findall(r'`([^`\n]+)`', without_blocks)])


@functools.cache
def help_of(command: str) -> str:
    """Returns what ``mmext COMMAND --help`` prints."""
    printed, arguments = io.StringIO(), sys.argv
    with redirect_stdout(printed), suppress(SystemExit):
        cli.main([*command.split(), '--help'])
    sys.argv = arguments
    return printed.getvalue()


def options(words: str) -> list[str]:
    return re.findall(r'(?<!\S)--[a-z][\w-]*', words)


@each_page
def test_links_and_named_files_exist(page: str) -> None:
    text, folder = PAGES[page], (ROOT / page).parent
    links = re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text)
    missing = [x for x in links if not (folder / x).exists()]
    # The guide's example has files that a reader creates.
    text = text.replace('configs/tinynet/', '')
    named = re.findall(
        r'(?<![\w/])(?:configs|tools|benchmarks)/[\w./+-]+\.\w+', text
    )
    missing += [x for x in named if not (ROOT / x).exists()]
    assert not missing


def has_option(option: str, text: str) -> bool:
    return bool(re.search(rf'(?<![\w-]){option}(?![\w-])', text))


@each_page
def test_options_of_scripts_exist(page: str) -> None:
    for script, words in SCRIPT.findall(shell_text(page)):
        for option in options(words):
            sources = FORWARDS.get(script, (script,))
            known = ' '.join(
                help_of(SCRIPTS[source])
                if source in SCRIPTS
                else (ROOT / source).read_text()
                for source in sources
            )
            assert has_option(option, known), f'{script} has no {option}'


@each_page
def test_commands_and_their_options_exist(page: str) -> None:
    for command, words in COMMAND.findall(shell_text(page)):
        assert command in cli.COMMANDS, f'mmext has no command {command}'
        for option in options(words):
            assert has_option(option, help_of(command)), (
                f'mmext {command} has no {option}'
            )


def anchors(text: str) -> set[str]:
    """Returns the anchors of the headings, as GitHub makes them."""
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
    names = ('configs', 'tools', 'mmext', 'tests', 'benchmarks')
    folders = [ROOT / name for name in names]
    folders.append(Path(mmdet.__file__).parent / '.mim')
    here = {p.name for folder in folders for p in folder.rglob('*')}
    # Files that a reader of the guide creates.
    here |= {'faster-rcnn_tinynet_fpn_1x_coco.py', 'tinynet_case.py'}
    named = re.findall(r'`([\w.-]+_[\w.-]+\.(?:py|sh|md))`', PAGES[page])
    named += [
        f'{stem}.py'
        for stem in re.findall(
            r'`([\w-]+_(?:coco|in1k|ade20k-\w+))`', PAGES[page]
        )
    ]
    assert set(named) <= here


PYTHON = [
    (page, text)
    for page in PAGES
    for language, text in FENCE.findall(PAGES[page])
    if language == 'python'
]


@pytest.mark.parametrize(('page', 'text'), PYTHON)
def test_python_parses_and_names_exist(page: str, text: str) -> None:
    register_all_modules(False)
    registries = [
        r for r in vars(registry).values() if isinstance(r, registry.Registry)
    ]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = getattr(node, 'module', node.names[0].name)
            # Else it is another block of the page.
            if f'`{name}.py`' not in PAGES[page]:
                exec(ast.unparse(node), {})
        if isinstance(node, ast.Attribute):
            of_mmext = ast.unparse(node.value) == 'mmext'
            assert not of_mmext or hasattr(mmext, node.attr), node.attr
        if isinstance(node, ast.keyword) and node.arg == 'type':
            name = ast.literal_eval(node.value)
            assert f'class {name}(' in PAGES[page] or any(
                r.get(name) or r.get(f'mmdet.{name}') for r in registries
            ), name
