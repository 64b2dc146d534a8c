# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A bad input: the mistake, how a user makes it, and the message.

A function decorated with :func:`mistake` makes the input in a new
:class:`World` and does what a user would do. It must end as a tool does: with
one message and exit status 2, and without a work dir.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from json_files import edit_json

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'bad_inputs.md'

#: Makes a bad input in a world and uses it.
Make = Callable[['World'], object]


@dataclass(frozen=True)
class BadInput:
    """One row of the table.

    Args:
        group: Heading of its table.
        title: The mistake.
        make: Makes the input and uses it.
        quotes: If the message quotes another package, whose wording may
            change with its version: the texts that it must contain. If
            empty, the message must be exactly that of the page.
    """

    group: str
    title: str
    make: Make
    quotes: tuple[str, ...]


CASES: list[BadInput] = []


def mistake(group: str, title: str, *quotes: str) -> Callable[[Make], Make]:
    """Registers a :class:`BadInput`."""

    def register(make: Make) -> Make:
        CASES.append(BadInput(group, title, make, quotes))
        return make

    return register


class World:
    """The current folder of a user, with ``data/`` and ``tiny.py``.

    Args:
        root: The folder.
        patch: Its changes are undone after the test.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.data, self.config = Path('data'), Path('tiny.py')

    def change(
        self, change: Callable[[dict], object], split: str = 'train'
    ) -> None:
        """Changes an annotation file."""
        edit_json(self.data / f'{split}.json', change)

    def tool(self, name: str, *arguments: object) -> None:
        """Runs a tool in this process."""
        path = ROOT / 'tools' / f'{name}.py'
        argv = [str(path), *map(str, arguments)]
        self.patch.setattr(sys, 'argv', argv)
        self.patch.setattr(os, 'environ', os.environ.copy())
        runpy.run_path(str(path), run_name='__main__')

    def train(self, *options: object) -> None:
        """Runs tools/train.py on the tiny config."""
        self.tool('train', self.config, '--work-dir', 'work', *options)

    def set(self, *options: str) -> None:
        """Runs tools/train.py with ``--cfg-options``."""
        self.train('--cfg-options', *options)

    def test(self, checkpoint: object, *options: object) -> None:
        """Runs tools/test.py on the tiny config."""
        arguments = (self.config, checkpoint, '--work-dir', 'work', *options)
        self.tool('test', *arguments)

    def checkpoint(self, name: str = 'epoch_1.pth') -> Path:
        """Writes a checkpoint of the tiny config's model."""
        from mmengine.registry import init_default_scope

        from mmext.models.build import build_model
        from mmext.utils.config import load_config

        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = build_model(load_config(self.config).model)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, name)
        return Path(name)


def message_in(error: str, root: Path) -> str:
    """Returns the message in a tool's stderr without paths of this machine."""
    text = error.rpartition('error: ')[2].strip()
    text = text.replace(f'{root}/', '').replace(str(root), '.')
    for place in (f'{ROOT}/', f'{ROOT.parent}/'):
        text = text.replace(place, '')
    text = re.sub(r'\b[0-9a-f]{64}\b', '<64 digits>', text)
    text = re.sub(r'\b[0-9a-f]{12,16}\.\.\.', '<digits>...', text)
    text = re.sub(r'process \d+ of \S+', 'process <n> of <machine>', text)
    return re.sub(r'\b\d+ bytes', '<n> bytes', text)


def row(case: BadInput, message: str) -> str:
    """Returns a line of the table."""
    lines = message.replace('<', '&lt;').replace('|', r'\|').splitlines()
    return f'| {case.title} | {"<br>".join(lines)} |'


def page(messages: dict[str, str]) -> str:
    """Returns the text of docs/bad_inputs.md.

    Args:
        messages: Title -> message.
    """
    lines = [
        '# What mmext reports for bad input',
        '',
        f'{len(CASES)} mistakes, and the message that mmext prints for each '
        'of them. The tests in\n`tests/bad_inputs` make every mistake and '
        'compare the message with this page. This\ncommand writes the page '
        'again after a message has changed:',
        '',
        '```shell',
        'MMEXT_WRITE_DOCS=1 python -m pytest tests/bad_inputs -p no:xdist',
        '```',
        '',
        'The exit status is 2, there is no traceback (`MMEXT_DEBUG=1` shows '
        'it), and no work\ndir is created. Names of folders are shortened.',
    ]
    for group in dict.fromkeys(case.group for case in CASES):
        lines += ['', f'## {group}', '', '| mistake | message |']
        lines += ['| --- | --- |']
        lines += [
            row(case, messages[case.title])
            for case in CASES
            if case.group == group
        ]
    return '\n'.join(lines) + '\n'
