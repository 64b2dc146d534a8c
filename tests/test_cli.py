# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The command ``mmext``; tests/tools/test_startup.py runs each sub-command."""

from __future__ import annotations

import sys

import pytest

import mmext
from mmext.cli import COMMANDS, GROUPS, main


@pytest.mark.parametrize('argv', [[], ['--help'], ['-h'], ['help']])
def test_the_overview_lists_all_commands(argv, capsys):
    main(argv)
    out = capsys.readouterr().out
    assert out.startswith('usage: mmext COMMAND')
    for name in (*GROUPS, *COMMANDS):
        assert name in out
    assert max(map(len, out.splitlines())) < 80


def test_version(capsys):
    main(['--version'])
    assert capsys.readouterr().out == f'{mmext.__version__}\n'


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(['tarin'])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "mmext has no command 'tarin'\n  -> Did you mean 'train'?" in err
    with pytest.raises(SystemExit):
        main(['qqqqqqqqq'])
    assert '-> mmext --help lists them.' in capsys.readouterr().err


def test_a_command_gets_the_options(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['mmext'])
    with pytest.raises(SystemExit) as end:
        main(['train', str(tmp_path / 'absent.py'), '--no-such-option'])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith('usage: mmext train ')
    assert 'unrecognized arguments: --no-such-option' in err


def test_a_command_of_two_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmext'])
    with pytest.raises(SystemExit):
        main(['convert', 'voc', '--help'])
    assert capsys.readouterr().out.startswith('usage: mmext convert voc ')
    with pytest.raises(SystemExit):
        main(['convert', 'vox'])
    assert "Did you mean 'convert voc'?" in capsys.readouterr().err
