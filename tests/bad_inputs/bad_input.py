# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A bad input: what is wrong, how a user meets it, and what is said.

A function decorated with :func:`bad` makes the input in a fresh
:class:`World` and does what a user would do. It must end as a tool ends: one
message, exit status 2, no work dir.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'bad_inputs.md'


@dataclass(frozen=True)
class BadInput:
    """One row of the table.

    Args:
        group: Heading that it stands under.
        title: What is wrong.
        says: What the message must name.
        make: Makes it and meets it.
        quotes: Whether the message quotes another package, whose words may
            change with its version.
    """

    group: str
    title: str
    says: tuple[str, ...]
    make: Callable[[World], object]
    quotes: bool = False


CASES: list[BadInput] = []


def bad(group: str, title: str, *says: str, quotes: bool = False) -> Callable:
    """Registers a bad input."""

    def register(make: Callable[[World], object]) -> Callable:
        CASES.append(BadInput(group, title, says, make, quotes))
        return make

    return register


class World:
    """The current folder of a user: ``data/``, ``tiny.py``, no ``work/``.

    Args:
        root: The folder.
        patch: Undone after the test.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.data, self.config = Path('data'), Path('tiny.py')

    def change(self, change: Callable[[dict], object], split='train') -> None:
        """Changes an annotation file; a value returned replaces it."""
        file = self.data / f'{split}.json'
        content = json.loads(file.read_text())
        content = change(content) or content
        file.write_text(json.dumps(content))

    def tool(self, name: str, *arguments: object) -> None:
        """Runs a tool in this process."""
        path = ROOT / 'tools' / f'{name}.py'
        argv = [str(path), *map(str, arguments)]
        self.patch.setattr(sys, 'argv', argv)
        self.patch.setattr(os, 'environ', os.environ.copy())
        runpy.run_path(str(path), run_name='__main__')

    def train(self, *options: object) -> None:
        """tools/train.py on the tiny config."""
        self.tool('train', self.config, '--work-dir', 'work', *options)

    def set(self, *options: str) -> None:
        """The same with ``--cfg-options``."""
        self.train('--cfg-options', *options)

    def test(self, checkpoint: object, *options: object) -> None:
        """tools/test.py on the tiny config."""
        arguments = (self.config, checkpoint, '--work-dir', 'work', *options)
        self.tool('test', *arguments)

    def checkpoint(self, name: str = 'epoch_1.pth', **more: object) -> Path:
        """A checkpoint of the tiny config's model."""
        from mmengine.registry import init_default_scope

        from mmext.models.build import build_model
        from mmext.utils.config import load_config

        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = build_model(load_config(self.config).model)
        content = {'state_dict': model.state_dict(), 'meta': {}, **more}
        torch.save(content, name)
        return Path(name)


def told(error: str, root: Path) -> str:
    """The message of a tool's stderr, with nothing of this machine in it."""
    text = error.rpartition('error: ')[2].strip()
    text = text.replace(f'{root}/', '').replace(str(root), '.')
    for place in (f'{ROOT}/', f'{ROOT.parent}/'):
        text = text.replace(place, '')
    text = re.sub(r'\b[0-9a-f]{64}\b', '<64 digits>', text)
    text = re.sub(r'\b[0-9a-f]{12,16}\.\.\.', '<digits>...', text)
    return re.sub(r'\b\d+ bytes', '<n> bytes', text)


def row(case: BadInput, message: str) -> str:
    """A line of the table."""
    said = message.replace('<', '&lt;').replace('|', r'\|').splitlines()
    return f'| {case.title} | {"<br>".join(said)} |'


def page(messages: dict[str, str]) -> str:
    """The whole of docs/bad_inputs.md.

    Args:
        messages: What was said, by title.
    """
    lines = [
        '# What is said about bad input',
        '',
        f'{len(CASES)} mistakes and the message of each. The tests make every '
        'one of them and\ncompare: `tests/bad_inputs`. After a change of a '
        'message write this page anew:',
        '',
        '```shell',
        'MMEXT_WRITE_DOCS=1 python -m pytest tests/bad_inputs -p no:xdist',
        '```',
        '',
        'Each ends with exit status 2, one message without a traceback '
        '(`MMEXT_DEBUG=1`\nshows it) and no work dir. Names of folders are '
        'shortened.',
    ]
    for group in dict.fromkeys(case.group for case in CASES):
        lines += ['', f'## {group}', '', '| what is wrong | what is said |']
        lines += ['| --- | --- |']
        lines += [
            row(case, messages[case.title])
            for case in CASES
            if case.group == group
        ]
    return '\n'.join(lines) + '\n'
