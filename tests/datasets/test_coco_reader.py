# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The reader of COCO annotation files."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mmext.datasets.coco import parse_coco
from mmext.errors import UserError


def content() -> dict:
    return {
        'images': [
            {'id': 1, 'file_name': '1.png', 'width': 8, 'height': 8},
            {'id': 2, 'file_name': '2.png', 'width': 8, 'height': 8},
        ],
        'categories': [{'id': 1, 'name': '圆盘'}, {'id': 2, 'name': 'b'}],
        'annotations': [
            {
                'id': i,
                'image_id': 1,
                'category_id': 2,
                'bbox': [i, 1, 2, 2],
                'area': 4,
            }
            for i in (1, 2)
        ],
    }


def parse(change: Callable[[dict], object] = id, **options: bool) -> dict:
    data = content()
    change(data)
    return parse_coco(json.dumps(data).encode(), 'a.json', **options)


@pytest.mark.parametrize('strict', [False, True])
def test_a_byte_order_mark_is_skipped(strict: bool) -> None:
    data = json.dumps(content()).encode('utf-8-sig')
    assert parse_coco(data, 'a.json', strict=strict) == parse()


def floats(data: dict) -> None:
    for entry in [*data['images'], *data['annotations'], *data['categories']]:
        for name in ('id', 'image_id', 'category_id'):
            if name in entry:
                entry[name] = float(entry[name])


def test_ids_as_pandas_writes_them() -> None:
    """A training gets what mmdet gets, an evaluation gets integers."""
    assert parse(floats) == parse()
    assert type(parse(floats)['images'][0]['id']) is float
    read = parse(floats, strict=True)
    assert json.dumps(read) == json.dumps(content())


@pytest.mark.parametrize('value', [1.5, float('inf'), '1', True, None, 2**70])
def test_ids_that_are_no_numbers(value: object) -> None:
    for strict in (False, True):
        with pytest.raises(UserError, match='images.0. has id .*, not a who'):
            parse(lambda c: c['images'][0].update(id=value), strict=strict)


def test_repeated_names_are_left_to_the_checks() -> None:
    def change(data: dict) -> None:
        data['categories'][1]['name'] = '圆盘'

    with pytest.raises(UserError, match="'圆盘' is given to 2 ids"):
        parse(change)
    assert len(parse(change, repeated_names=True)['categories']) == 2
