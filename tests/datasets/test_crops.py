# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Cuts the objects of a detection data set out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import pytest
from tiny_run import CLASSES, make_coco

from mmext.datasets.crops import write_crops
from mmext.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_coco(tmp_path / 'data', 3, 1)


def edit(data: Path, **values: object) -> None:
    content = json.loads((data / 'train.json').read_text())
    content['annotations'][0].update(values)
    (data / 'train.json').write_text(json.dumps(content))


def test_one_crop_for_each_object(data: Path, tmp_path: Path) -> None:
    edit(data, iscrowd=1)
    out = tmp_path / 'crops'
    counts = write_crops(data / 'train.json', data / 'train', out, margin=0)
    content = json.loads((data / 'train.json').read_text())
    kept = content['annotations'][1:]
    expected = Counter(CLASSES[a['category_id'] - 1] for a in kept)
    assert counts == {name: expected[name] for name in CLASSES}
    last = kept[-1]
    name = CLASSES[last['category_id'] - 1]
    crop = cv2.imread(str(out / name / f'{last["id"]:06d}.png'))
    x, y, w, h = last['bbox']
    image = cv2.imread(str(data / 'train' / f'{last["image_id"]}.png'))
    assert (crop == image[y : y + h, x : x + w]).all()
    with pytest.raises(UserError, match='exists already'):
        write_crops(data / 'train.json', data / 'train', out)


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
    edit(data, **values)
    with pytest.raises(UserError, match='not a COCO annotation file'):
        write_crops(data / 'train.json', data / 'train', tmp_path / 'crops')
    assert not list(tmp_path.glob('crops*'))


def test_names_that_give_the_same_folder(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / 'train.json').read_text())
    content['categories'][0]['name'] = 'a/b'
    content['categories'][1]['name'] = 'a_b'
    (data / 'train.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match="'a/b' and 'a_b'"):
        write_crops(data / 'train.json', data / 'train', tmp_path / 'crops')
    assert not list(tmp_path.glob('crops*'))


def test_names_that_are_no_file_names(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / 'train.json').read_text())
    content['categories'][0]['name'] = '../a'
    (data / 'train.json').write_text(json.dumps(content))
    out = tmp_path / 'crops'
    counts = write_crops(data / 'train.json', data / 'train', out)
    assert counts['../a'] == len(list((out / '___a').iterdir()))
    assert sum(counts.values()) == len(content['annotations'])
