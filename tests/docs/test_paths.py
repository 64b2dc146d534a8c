# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The paths of commands in docs/architecture.md name files of the project."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from commands import ROOT

PAGE = (ROOT / 'docs' / 'architecture.md').read_text()
PATHS = PAGE.split('## The path of a command')[1].split('\n### ')[1:]
FILES = [*ROOT.glob('mmext/**/*.py'), *ROOT.glob('tools/*.py')]


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.split()[1])
def test_the_path_of_a_command_passes_each_file_once(path: str) -> None:
    names = re.findall(r'`([\w/]+\.py)`', path)
    assert len(names) > 3
    files: list[Path] = []
    for name in names:
        found = [file for file in FILES if str(file).endswith(f'/{name}')]
        if len(found) > 1:  # a name alone is of the folder named before it
            found = [file for file in found if file.parent == files[-1].parent]
        assert len(found) == 1, name
        files += found
    assert max(Counter(files).values()) == 1
