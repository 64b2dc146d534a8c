# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every bad input ends with the message on docs/bad_inputs.md."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import bad_checkpoints  # noqa: F401  these register their cases
import bad_commands  # noqa: F401
import bad_configs  # noqa: F401
import bad_data  # noqa: F401
import bad_exports  # noqa: F401
import bad_plans  # noqa: F401
import bad_predictions  # noqa: F401
import bad_records  # noqa: F401
import bad_runs  # noqa: F401
import pytest
from bad_input import CASES, PAGE, BadInput, World, message_in, row
from tiny_run import write_config

from mmext.errors import command


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.title)
def test_bad_input(
    case: BadInput, good_data, messages, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good_data, 'data')
    write_config(Path('tiny.py'), Path('data'))
    with pytest.raises(SystemExit) as end:
        command(case.make)(World(tmp_path, monkeypatch))
    assert end.value.code == 2
    seen = capfd.readouterr()
    assert 'Traceback' not in seen.out + seen.err
    assert seen.err.count('error: ') == 1
    message = messages[case.title] = message_in(seen.err, tmp_path)
    assert str(tmp_path) not in message
    for text in case.quotes:
        assert text in message
    # What to do follows an arrow, or argparse shows the usage.
    assert '  -> ' in message or 'usage:' in seen.err
    left = [p for p in tmp_path.rglob('*') if p.name.endswith('.tmp')]
    assert not left and not Path('work').exists()
    if not os.environ.get('MMEXT_WRITE_DOCS'):
        known = PAGE.read_text(encoding='utf-8').splitlines()
        assert any(x.startswith(f'| {case.title} | ') for x in known)
        if not case.quotes:
            assert row(case, message) in known


def test_the_page_has_these_and_no_others():
    titles = [case.title for case in CASES]
    assert len(CASES) >= 60
    assert [t for t, n in Counter(titles).items() if n > 1] == []
    if not os.environ.get('MMEXT_WRITE_DOCS'):
        lines = PAGE.read_text(encoding='utf-8').splitlines()
        rows = [x for x in lines if x.startswith('| ')]
        headings = sum(x.startswith('## ') for x in lines)
        assert len(rows) == len(CASES) + 2 * headings
