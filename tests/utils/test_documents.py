# Licensed under the Apache License, Version 2.0. See LICENSE.
"""JSON, YAML and other files that were made to do harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmext.errors import UserError
from mmext.utils.documents import parse_json, parse_yaml, read_bytes

TEN = ', '.join(['{}'] * 10)


def laughs(template: str) -> str:
    """Returns nine levels, each with ten aliases of the one before."""
    lines = [f'x0: &x0 [{TEN.format(*range(10))}]']
    for i in range(1, 9):
        aliases = TEN.format(*[f'*x{i - 1}'] * 10)
        lines.append(f'x{i}: &x{i} {template.format(aliases)}')
    return '\n'.join(lines)


@pytest.mark.parametrize(
    'text, message',
    [
        (laughs('[{}]'), 'its aliases'),
        (laughs('{{<<: [{}]}}').replace('[0, 1', '[{{a: 1}}, 1'), 'aliases'),
        ('&a [*a]', 'nested too deeply'),
        ('&a {? *a : 1}', 'nested too deeply'),
        ('[' * 5000, 'nested too deeply'),
        ('\n'.join(' ' * i + 'a:' for i in range(2000)), 'nested too deeply'),
        ('!!python/object/apply:os.system [ls]', 'is not YAML'),
        ('{[]: 1}', 'is not YAML'),
        ('a: 2000-13-45', 'is not YAML'),
        ('!!int ""', 'is not YAML'),
        ('!!bool 5', 'is not YAML'),
        ('!!timestamp x', 'is not YAML'),
        ('\0', 'is not YAML'),
    ],
)
def test_yaml(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_yaml(text.encode(), 'data.yaml')


def test_yaml_that_is_used() -> None:
    text = 'a: &a [x, y]\nb: *a\nnames: {0: cat, 1: dog}'
    found = parse_yaml(text, 'data.yaml')
    assert found == {
        'a': ['x', 'y'],
        'b': ['x', 'y'],
        'names': {0: 'cat', 1: 'dog'},
    }
    assert parse_yaml(b'', 'data.yaml') is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text('{}[]:,-&*!<\'"|>%@ \nab0.~?#', max_size=40))
def test_any_yaml_is_read_as_before_or_refused(text: str) -> None:
    try:
        found = parse_yaml(text, 'data.yaml')
    except UserError:
        return
    assert repr(found) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    'data, message',
    [
        (b'[' * 100_000, 'nested too deeply'),
        (b'{"a":' * 100_000, 'nested too deeply'),
        (b'1' * 5000, 'is not JSON'),
        (b'\xff', 'is not JSON'),
        (b'["\xff"]', 'is not UTF-8'),
        (b'\xff\xfe[\0', 'is UTF-16'),
        (b'', 'is not JSON'),
    ],
)
def test_json(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_json(data, 'a.json')


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=30))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data, 'a.json')
    except UserError:
        return


def test_files_without_an_end(tmp_path: Path) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    for path in (pipe, '/dev/zero', '/dev/tty'):
        with pytest.raises(UserError, match='is a pipe, a device'):
            read_bytes(path)


@pytest.mark.parametrize('name', ['a' * 5000, '\ud800', 'a\0b', '.', 'none'])
def test_files_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match='cannot be read') as caught:
        read_bytes(tmp_path / name)
    str(caught.value).encode()  # a terminal can show it
    assert len(str(caught.value)) < 600


def test_a_file_larger_than_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> bytes:
        raise MemoryError

    (tmp_path / 'large').touch()
    monkeypatch.setattr(Path, 'read_bytes', read)
    with pytest.raises(UserError, match='does not fit into the memory'):
        read_bytes(tmp_path / 'large')
