# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Data sets that were made to do harm: they are reported, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run_tool
from json_files import edit_json

from mmext.checks.data import check_data
from mmext.datasets.coco import read_coco
from mmext.datasets.converters.folder import convert_folder
from mmext.datasets.crops import write_crops
from mmext.errors import UserError

LONG = 'x' * 5000
CODES = '\x1b[31mred\x1b]0;title\x07\x9b2J\u202e'


def named(name: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content['images'][0]['file_name'] = name

    return change


def far_away(content: dict) -> None:
    content['annotations'][0].update(area=0, segmentation=[[1e9] * 6])


def not_numbers(content: dict) -> None:
    nan = float('nan')
    content['annotations'][0].update(area=0, segmentation=[[nan] * 6])


def nested(content: dict) -> None:
    content['annotations'][0]['segmentation'] = [[[[[1]]]] * 3]


@pytest.mark.parametrize(
    'change',
    [
        named(LONG),
        named(f'{LONG}/1.png'),
        named('\ud800.png'),
        named('.'),
        named('..'),
        named('/'),
        named('\u202egnp.1'),
        far_away,
        not_numbers,
        nested,
    ],
)
def test_entries(
    data: Path,
    change: Callable[[dict], None],
    capfd: pytest.CaptureFixture,
) -> None:
    edit_json(data / 'train.json', change)
    report = check_data(data, masks=True, fix=data / 'fixed')
    assert report.errors
    assert not any(ord(c) < 32 and c != '\n' for c in str(report))
    str(report).encode()
    for file in report.fixed:
        assert read_coco(file)
    assert run_tool('misc/check_data.py', data, '--masks') in (0, 1, 2)
    seen = capfd.readouterr()
    assert '\x1b[31m' not in seen.out + seen.err
    assert 'Traceback' not in seen.err


@pytest.mark.parametrize('name', [f'{CODES}.png', 'a\nb.png', 'a\0.png'])
def test_names_of_files_with_control_characters(data: Path, name: str) -> None:
    edit_json(data / 'train.json', named(name))
    with pytest.raises(UserError, match='control') as caught:
        check_data(data)
    assert '\x1b' not in str(caught.value)


@pytest.mark.parametrize('name', [CODES, '\ud800', 'a\r'])
def test_class_names_that_a_log_could_not_show(data: Path, name: str) -> None:
    def change(content: dict) -> None:
        content['categories'][0]['name'] = name

    edit_json(data / 'train.json', change)
    with pytest.raises(UserError, match='printable') as caught:
        check_data(data)
    assert '\x1b' not in str(caught.value)
    str(caught.value).encode()


def test_pipes_instead_of_files(data: Path) -> None:
    (data / 'train' / '1.png').unlink()
    os.mkfifo(data / 'train' / '1.png')
    assert any('1.png' in f.problem for f in check_data(data).errors)
    (data / 'val.json').unlink()
    os.mkfifo(data / 'val.json')
    with pytest.raises(UserError):
        check_data(data)


@pytest.mark.parametrize('name', ['../secret.png', '{}/secret.png'])
def test_crops_are_of_the_image_folder(data: Path, name: str) -> None:
    cv2.imwrite(str(data / 'secret.png'), np.zeros((96, 128, 3), np.uint8))
    edit_json(data / 'train.json', named(name.format(data)))
    with pytest.raises(UserError, match='cannot be read'):
        write_crops(data / 'train.json', data / 'train', data / 'crops')
    assert not (data / 'crops').exists()


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for split in ('train', 'val'):
        (tmp_path / 'images' / split).mkdir(parents=True)
        (tmp_path / 'labels' / split).mkdir(parents=True)
        image = np.zeros((32, 32, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / split / 'a.png'), image)
        label = tmp_path / 'labels' / split / 'a.txt'
        label.write_text('0 0.5 0.5 0.5 0.5\n')
    return tmp_path


def bomb() -> str:
    lines = ['x0: &x0 [a, b, c, d, e, f, g, h, i, j]']
    for i in range(8):
        aliases = ', '.join([f'*x{i}'] * 10)
        lines.append(f'x{i + 1}: &x{i + 1} [{aliases}]')
    return '\n'.join(lines)


GOOD = 'train: images/train\nval: images/val\nnames: [cell]\n'


@pytest.mark.parametrize(
    'text',
    [
        f'{GOOD}{bomb()}',
        f'{bomb()}\nnames: *x8',
        GOOD + 'a: ' + '[' * 5000,
        GOOD.replace('images/train', LONG),
        GOOD.replace('images/train', '"\\ud800"'),
        GOOD.replace('images/train', '"\\0"'),
        GOOD.replace('images/train', '[[images/train]]'),
        GOOD.replace('images/train', '{a: images/train}'),
        GOOD.replace('images/train', '1:' * 3000 + '1'),
        GOOD.replace('images/train', '/dev/zero'),
        GOOD.replace('[cell]', '[[cell]]'),
        GOOD.replace('[cell]', '{{}: cell}'),
        GOOD.replace('[cell]', '["\\e]0;title\\a"]'),
        GOOD.replace('[cell]', '["\\ud800"]'),
        GOOD.replace('[cell]', '{0: ' + '1:' * 3000 + '1}'),
        f'path: {LONG}\n{GOOD}names2: 1'.replace('images/train', 'nowhere'),
    ],
)
def test_a_data_yaml(yolo: Path, text: str) -> None:
    (yolo / 'data.yaml').write_text(text)
    with pytest.raises(UserError) as caught:
        convert_folder(yolo, out=yolo / 'out')
    str(caught.value).encode()
    assert '\x1b' not in str(caught.value)
    assert not (yolo / 'out').exists()


def test_a_list_of_images(yolo: Path) -> None:
    (yolo / 'data.yaml').write_text(GOOD.replace('images/train', 't.txt'))
    for line in (LONG, '\0', '../' * 2000, '/dev/zero'):
        (yolo / 't.txt').write_text(f'images/train/a.png\n{line}\n')
        with pytest.raises(UserError):
            convert_folder(yolo, out=yolo / 'out')
    (yolo / 't.txt').write_text('images/train/a.png\n')
    assert convert_folder(yolo, out=yolo / 'out')
