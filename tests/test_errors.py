# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Messages of errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mmext.errors import (
    MissingPackagesError,
    UserError,
    command,
    did_you_mean,
    nearest,
    printable,
)

ARCHS = ('s1', 's2', 's3', 's4', 's050', 's100', 's150')


@pytest.mark.parametrize(
    'word, choices, meant',
    [
        ('s5', ARCHS, 's4'),  # shares more letters with s150
        ('S15', ARCHS, 's150'),
        ('StarNett', ('StarNet', 'StepNetResNet'), 'StarNet'),
        ('inhomogenous', ('homogeneous', 'inhomogeneous'), 'inhomogeneous'),
        ('trian.json', ('train', 'train.json', 'val.json'), 'train.json'),
        ('DEPTH', ('depth', 'width'), 'depth'),
        ('tinny', ('base', 'tiny', 'small'), 'tiny'),
        ('xyz', ARCHS, None),
        ('s5', (), None),
    ],
)
def test_the_nearest_takes_the_fewest_edits(
    word: str, choices: tuple[str, ...], meant: str | None
) -> None:
    assert nearest(word, choices) == meant
    assert did_you_mean(word, choices) == (
        f'Did you mean {meant!r}?' if meant else ''
    )


@pytest.mark.parametrize(
    'error, status, message',
    [
        (UserError('a is wrong', 'Use b.'), 2, 'a is wrong\n  -> Use'),
        (
            PermissionError(13, 'Permission denied', '/theirs/val.json'),
            2,
            "[Errno 13] Permission denied: '/theirs/val.json'\n  ->",
        ),
        (KeyboardInterrupt(), 130, 'interrupted (Ctrl-C)'),
    ],
    ids=['wrong', 'permission', 'interrupt'],
)
def test_an_error_of_the_user_is_one_message(
    capsys, monkeypatch, error, status, message
):
    @command
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == status
    assert f'error: {message}' in capsys.readouterr().err
    if status == 2:
        monkeypatch.setenv('MMEXT_DEBUG', '1')
        with pytest.raises(type(error)):
            main()


@pytest.mark.parametrize('name', ['sklearn', 'mmdet.no_such_module'])
def test_other_missing_modules_keep_their_traceback(name):
    @command
    def main() -> None:
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    with pytest.raises(ModuleNotFoundError):
        main()


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(UserError('a is wrong', 'Use b.')))
    assert (error.problem, error.fix) == ('a is wrong', 'Use b.')
    missing = pickle.loads(pickle.dumps(MissingPackagesError()))
    assert isinstance(missing, ImportError)


@pytest.mark.parametrize('lines', [10, 100_000])
def test_a_tool_ends_silently_if_its_reader_has_ended(lines):
    """A regression: ``mmext doctor | head`` ended in a traceback."""
    script = (
        'from mmext.errors import command\n'
        'import sys\n'
        'sys.stdin.read()\n'  # until the reader has ended
        f'command(lambda: print("a line\\n" * {lines}))()'
    )
    tool = subprocess.Popen(
        [sys.executable, '-c', script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    tool.stdout.close()
    tool.stdin.close()
    assert tool.stderr.read() == b''
    assert tool.wait() == 1


def test_other_broken_pipes_keep_their_traceback():
    @command
    def main() -> None:
        raise BrokenPipeError(32, 'Broken pipe')

    with pytest.raises(BrokenPipeError):
        main()


@pytest.mark.parametrize(
    'text, shown',
    [
        ('Äpfel\t„1“\n日本', 'Äpfel\t„1“\n日本'),
        ('\x1b[31mred', r'\x1b[31mred'),
        ('\x1b]0;title\x07', r'\x1b]0;title\x07'),
        ('\x9b2J\x7f\0\r', r'\x9b2J\x7f\x00\r'),
        ('a\u202egnp.exe', r'a\u202egnp.exe'),
        ('\ud800', r'\ud800'),
    ],
)
def test_a_terminal_shows_a_text_and_obeys_nothing(text: str, shown: str):
    assert printable(text) == shown
    error = UserError(text, text)
    assert (error.problem, error.fix) == (shown, shown)


def test_a_message_is_short_if_a_name_is_long():
    error = UserError(f'no file {"x" * 5000} here', 'y' * 999)
    assert error.problem == f'no file {"x" * 200}... here'
    assert error.fix == 'y' * 999


def test_names_that_a_file_system_or_an_encoding_refuses(capfd):
    @command
    def main(name: str) -> None:
        print('\ud800')
        Path(name).stat()

    with pytest.raises(SystemExit) as end:
        main('x' * 5000)
    assert end.value.code == 2
    seen = capfd.readouterr()
    assert r'\ud800' in seen.out
    assert 'has 5000 characters' in seen.err
