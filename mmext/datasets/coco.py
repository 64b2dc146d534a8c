# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads COCO annotation files and refuses those of another format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmext.errors import UserError
from mmext.utils.text import short, some


def is_number(value: object) -> bool:
    """A finite number that is no bool and no string."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _is_id(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_name(value: object) -> bool:
    return type(value) is str and value != '' and '\0' not in value


def _is_box(value: object) -> bool:
    return (
        type(value) is list and len(value) == 4 and all(map(is_number, value))
    )


# Field -> what makes a value of it usable, and that in words.
Test = tuple[Callable[[object], bool], str]


ID: Test = (_is_id, 'a whole number')


NUMBER: Test = (is_number, 'a number')


NAME: Test = (_is_name, 'a name')


NEEDED: dict[str, dict[str, Test]] = {
    'images': {'id': ID, 'file_name': NAME, 'width': NUMBER, 'height': NUMBER},
    'categories': {'id': ID, 'name': NAME},
    'annotations': {
        'id': ID,
        'image_id': ID,
        'category_id': ID,
        'bbox': (_is_box, '[x, y, width, height] in pixels'),
    },
}


OPTIONAL: dict[str, Test] = {
    'area': NUMBER,
    'iscrowd': (lambda v: v in (0, 1) and type(v) in (int, bool), '0 or 1'),
    'segmentation': (
        lambda v: v is None or isinstance(v, list | dict),
        'polygons or RLE',
    ),
}


def read_coco(file: Path) -> dict:
    """Reads an annotation file.

    Args:
        file: COCO's ``instances_*.json``.

    Raises:
        UserError: If it is not JSON, JSON of another format, or has an entry
            without a needed field or with a value of another kind.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{file} is not JSON: {error}',
            'Is the file whole? Write or download it again.',
        ) from error
    if isinstance(content, dict) and {'images', 'categories'} <= {*content}:
        content.setdefault('annotations', [])  # as COCO's test-dev
    if problem := _not_coco(content):
        raise UserError(
            f'{file} is not a COCO annotation file: {problem}',
            'It must hold images (id, file_name, width, height), annotations '
            '(id, image_id, category_id, bbox) and categories (id, name). '
            'tools/dataset_converters writes one from VOC or YOLO files.',
        )
    return content


def _not_coco(content: object) -> str | None:
    if isinstance(content, list):
        first = content[0] if content else None
        return 'it is a list' + (
            ' of detections (a result file)'
            if isinstance(first, dict) and 'score' in first
            else ''
        )
    if not isinstance(content, dict):
        return f'it is a {type(content).__name__}'
    if 'shapes' in content and 'imagePath' in content:
        return 'it is a LabelMe file'
    for key, needed in NEEDED.items():
        if not isinstance(content.get(key), list):
            return f'no list {key!r}; its keys are {some(content)}'
        if not content[key] and key != 'annotations':
            return f'{key!r} is empty'
        tests = {**needed, **(OPTIONAL if key == 'annotations' else {})}
        for i, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                return f'{key}[{i}] is {short(entry)}'
            for field, (test, kind) in tests.items():
                if field not in entry:
                    if field in needed:
                        return (
                            f'{key}[{i}] has no {field!r}; it holds '
                            f'{some(entry)}'
                        )
                elif not test(entry[field]):
                    return (
                        f'{key}[{i}] has {field} {short(entry[field])}, not '
                        f'{kind}'
                    )
    names = [c['name'] for c in content['categories']]
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        return (
            f'category name {twice[0]!r} is given to '
            f'{names.count(twice[0])} ids'
        )
    return None
