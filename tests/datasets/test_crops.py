# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Cuts the objects of a detection data set out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import pytest
from json_files import edit_json
from tiny_run import CLASSES, make_coco

from mmext.datasets.crops import write_crops
from mmext.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_coco(tmp_path / 'data', 3, 1)


def edit(data: Path, key: str, **values: object) -> None:
    edit_json(data / 'train.json', lambda c: c[key][0].update(values))


def write(data: Path, **options: object) -> dict[str, int]:
    out = data.parent / 'crops'
    return write_crops(data / 'train.json', data / 'train', out, **options)


def test_one_crop_for_each_object(data: Path, tmp_path: Path) -> None:
    edit(data, 'annotations', iscrowd=1)
    counts = write(data, margin=0)
    content = json.loads((data / 'train.json').read_text())
    kept = content['annotations'][1:]
    expected = Counter(CLASSES[a['category_id'] - 1] for a in kept)
    assert counts == {name: expected[name] for name in CLASSES}
    last = kept[-1]
    name = CLASSES[last['category_id'] - 1]
    crop = cv2.imread(str(tmp_path / f'crops/{name}/{last["id"]:06d}.png'))
    x, y, w, h = last['bbox']
    image = cv2.imread(str(data / 'train' / f'{last["image_id"]}.png'))
    assert (crop == image[y : y + h, x : x + w]).all()
    with pytest.raises(UserError, match='exists already'):
        write(data)


@pytest.mark.parametrize(
    'values',
    [
        {'category_id': 99},
        {'image_id': 99},
        {'bbox': [1, 2, '3', 4]},
        {'id': '../a/b'},
        {'id': 2},
    ],
)
def test_annotations_that_cannot_be_cropped(
    data: Path, tmp_path: Path, values: dict
) -> None:
    edit(data, 'annotations', **values)
    with pytest.raises(UserError, match='not a COCO annotation file'):
        write(data)
    assert not list(tmp_path.glob('crops*'))


def test_names_that_give_the_same_folder(data: Path, tmp_path: Path) -> None:
    edit(data, 'categories', name='a/b')
    edit_json(
        data / 'train.json', lambda c: c['categories'][1].update(name='a_b')
    )
    with pytest.raises(UserError, match="'a/b' and 'a_b'"):
        write(data)
    assert not list(tmp_path.glob('crops*'))


def test_names_that_are_no_file_names(data: Path, tmp_path: Path) -> None:
    edit(data, 'categories', name='../a')
    counts = write(data)
    assert counts['../a'] == len(list((tmp_path / 'crops/___a').iterdir()))
    content = json.loads((data / 'train.json').read_text())
    assert sum(counts.values()) == len(content['annotations'])
