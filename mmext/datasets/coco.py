# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The one reader of COCO annotation files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmext.errors import UserError, printable
from mmext.utils import documents
from mmext.utils.text import count, short, some

SECTIONS = ('images', 'categories', 'annotations')
#: Field of an annotation -> the section that it refers to.
REFERENCES = {'image_id': 'images', 'category_id': 'categories'}


class Field(NamedTuple):
    """The values that a field of an entry may have, as a test and in words."""

    test: Callable[[Any], bool]
    kind: str
    needed: bool = True


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number, not a bool or a string."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _is_box(value: object) -> bool:
    return (
        type(value) is list and len(value) == 4 and all(map(is_number, value))
    )


def _is_whole(value: object) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _id(bits: int) -> Field:
    return Field(
        lambda v: _is_whole(v) and abs(v) < 2**bits,
        f'a whole number up to 2^{bits}',
    )


_NUMBER = Field(is_number, 'a number')
#: Names are printed in logs, tables and pictures. Those of files may hold
#: bytes that are not UTF-8, which Python keeps as surrogates.
_NAME = Field(
    lambda v: (
        type(v) is str and bool(v) and not re.search(r'[\0-\x1f\x7f]', v)
    ),
    'a name without control characters',
)
_CLASS = Field(
    lambda v: _NAME.test(v) and v == printable(v),
    'a name of printable characters',
)
_CROWD = Field(lambda v: v in (0, 1), '0 or 1', needed=False)
#: Section -> field, for training.
TRAINING = {
    'images': {
        'id': _id(63),
        'file_name': _NAME,
        'width': _NUMBER,
        'height': _NUMBER,
    },
    'categories': {'id': _id(63), 'name': _CLASS},
    'annotations': {
        'id': _id(63),
        'image_id': _id(63),
        'category_id': _id(63),
        'bbox': Field(_is_box, '[x, y, width, height] in pixels'),
        'area': Field(is_number, 'a number', needed=False),
        'iscrowd': _CROWD,
        'segmentation': Field(
            lambda v: v is None or isinstance(v, list | dict),
            'polygons or RLE',
            needed=False,
        ),
    },
}
#: Section -> field, for evaluation. JSON carries whole numbers up to 2^53.
EVALUATION = {
    'images': {'id': _id(53)},
    'categories': {'id': _id(53)},
    'annotations': {
        'id': _id(53),
        'bbox': Field(
            lambda v: _is_box(v) and min(v[2:]) >= 0,
            '[x, y, width, height] in pixels with sizes of 0 or more',
        ),
        'area': Field(
            lambda v: is_number(v) and v >= 0,
            "the object's number of pixels, by which COCO decides small, "
            'medium and large',
        ),
        'iscrowd': _CROWD,
    },
}


def read_coco(
    path: str | Path, *, repeated_names: bool = False
) -> dict[str, Any]:
    """Reads an annotation file such as COCO's ``instances_*.json``.

    See :func:`parse_coco`, also for the errors.
    """
    return parse_coco(read_bytes(path), path, repeated_names=repeated_names)


def read_bytes(path: str | Path) -> bytes:
    """Reads a file for :func:`parse_coco`; raises `UserError` if it fails."""
    fix = 'Check the path (of mmext compare: --ann).'
    return documents.read_bytes(path, 'annotation file', fix)


def parse_coco(
    data: bytes,
    path: str | Path,
    *,
    strict: bool = False,
    repeated_names: bool = False,
) -> dict[str, Any]:
    """Parses the bytes of an annotation file and checks their format.

    With ``strict`` the file must be usable as ground truth: annotations,
    unique ids, references to images and categories that exist, and an area
    for every object. Otherwise it must have what a training needs, gets empty
    ``annotations`` if it has none, and errors in the values (with
    ``repeated_names`` also categories of the same name) are left to
    :func:`~mmext.checks.annotations.check_annotations`. Raises `UserError` if
    the file is not JSON in UTF-8, is of another format, or has an entry
    without a needed field or with a value of another kind.

    A byte order mark is skipped. Ids such as 1.0 become integers if
    ``strict``.
    """
    content = documents.parse_json(data, path)
    problems = _format_problems(content, strict, repeated_names)
    _raise_first(problems, path)
    if strict:
        for section in SECTIONS:
            for entry in content[section]:
                make_ids_integers(entry)
        require_references(content, path)
    return content


def float_ids(entry: dict[str, Any]) -> list[str]:
    """Returns the ids of an entry that are numbers such as 1.0."""
    names = ('id', *REFERENCES)
    return [n for n in names if type(entry.get(n)) is float]


def make_ids_integers(entry: dict[str, Any]) -> None:
    """Replaces ids such as 1.0 by integers, in place."""
    for name in float_ids(entry):
        if entry[name].is_integer():
            entry[name] = int(entry[name])


def repeated(content: dict[str, Any], masks: bool) -> list[dict]:
    """Returns annotations of objects that an earlier one describes already.

    They have the same image, category, box and, with ``masks``, mask.
    """
    seen: dict[tuple, list[dict]] = {}
    found = []
    for a in content['annotations']:
        box = (round(v, 1) for v in a['bbox'])  # exporters round
        crowd = bool(a.get('iscrowd'))
        key = (a['image_id'], a['category_id'], crowd, *box)
        equal = seen.setdefault(key, [])
        mask = a.get('segmentation')
        if equal and (
            not masks or any(mask == b.get('segmentation') for b in equal)
        ):
            found.append(a)
        equal.append(a)
    return found


def require_references(content: dict[str, Any], path: str | Path) -> None:
    """Raises `UserError` if an id occurs twice or refers to no entry."""
    _raise_first(_reference_problems(content), path)


def _raise_first(problems: Iterator[str], path: str | Path) -> None:
    for problem in problems:
        fix = (
            'It must hold images (id, file_name, width, height), annotations '
            '(id, image_id, category_id, bbox, area) and categories (id, '
            'name).'
        )
        if not problem.startswith(SECTIONS):  # it is not one in an entry
            fix += ' mmext convert writes one from VOC or YOLO files.'
        raise UserError(
            f'{path} is not a COCO annotation file: {problem}', fix
        )


def _format_problems(
    content: Any, strict: bool, repeated_names: bool
) -> Iterator[str]:
    """Yields problems, each of which may make the following ones crash."""
    if isinstance(content, list):
        first = content[0] if content else None
        if isinstance(first, dict) and 'score' in first:
            yield 'it is a list of detections (a result file)'
        yield 'it is a list'
    if not isinstance(content, dict):
        yield f'it is a {type(content).__name__}'
    if 'shapes' in content and 'imagePath' in content:
        yield 'it is a LabelMe file'
    if not strict and {'images', 'categories'} <= content.keys():
        content.setdefault('annotations', [])  # as COCO's test-dev
    for section in SECTIONS:
        if not isinstance(content.get(section), list):
            yield f'no list {section!r}; its keys are {some(content)}'
        if not content[section] and section != 'annotations':
            yield f'{section!r} is empty'
    for section, fields in (EVALUATION if strict else TRAINING).items():
        entries = content[section]
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                yield f'{section}[{i}] is {short(entry)}'
        for name, field in fields.items():
            yield from _field_problems(section, entries, name, field)
    if not (strict or repeated_names):
        counts = Counter(c['name'] for c in content['categories'])
        for name, ids in counts.items():
            if ids > 1:
                yield f'category name {name!r} is given to {ids} ids'


def _field_problems(
    section: str, entries: list[dict], name: str, field: Field
) -> Iterator[str]:
    bad = [
        i
        for i, entry in enumerate(entries)
        if (not field.test(entry[name]) if name in entry else field.needed)
    ]
    if not bad:
        return
    i, entry = bad[0], entries[bad[0]]
    if name in entry:
        problem = f'has {name} {short(entry[name])}, not {field.kind}'
    else:
        problem = f'has no {name!r}; it holds {some(entry)}'
    like = f', like {count(len(bad) - 1, "other")}, ' if bad[1:] else ' '
    yield f'{section}[{i}]{like}{problem}'


def _reference_problems(content: dict[str, Any]) -> Iterator[str]:
    known: dict[str, Counter] = {}
    for section in SECTIONS:
        known[section] = Counter(entry['id'] for entry in content[section])
        for value, uses in known[section].items():
            if uses > 1:
                yield f'id {value} occurs twice in {section}'
    for i, annotation in enumerate(content['annotations']):
        for name, section in REFERENCES.items():
            value = annotation.get(name)
            if type(value) not in (int, float) or value not in known[section]:
                yield (
                    f'annotations[{i}] (id {annotation["id"]}) has {name} '
                    f'{short(value)}, which "{section}" does not list'
                )
