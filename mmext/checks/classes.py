# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of class names against the categories of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mmext.checks.findings import NOTE, WARNING, Finding, Split
from mmext.errors import did_you_mean
from mmext.utils.text import sentences, some


def used_names(content: dict[str, Any], split: Split) -> list[str]:
    """Returns the classes of the split in the order of their labels."""
    names = [c['name'] for c in content['categories']]
    return [n for n in names if not split.classes or n in split.classes]


def of_classes(content: dict[str, Any], split: Split) -> list[dict]:
    """Returns the annotations of the classes that the split uses."""
    used = used_names(content, split)
    ids = {c['id'] for c in content['categories'] if c['name'] in used}
    return [a for a in content['annotations'] if a['category_id'] in ids]


def unused_root(*contents: dict[str, Any]) -> dict | None:
    """Returns the category that Roboflow adds as the root of the others.

    It has id 0 and no annotation in any of the files, and the others are below
    it. A detector would get a class that it never sees. It is taken from the
    first file.
    """
    first, *others = sorted(contents[0]['categories'], key=lambda c: c['id'])
    is_root = (
        first['id'] == 0
        and first.get('supercategory') in (None, '', 'none')
        and others
        and all(c.get('supercategory') == first['name'] for c in others)
    )
    used = any(
        a['category_id'] == 0
        for content in contents
        for a in content['annotations']
    )
    return first if is_root and not used else None


def check_classes(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    """Checks that a detector of the split's classes can use the annotations.

    mmdet numbers labels by the order of the categories *in the file*. A
    detector whose ``metainfo['classes']`` has another order trains and
    evaluates, but every image and every prediction shows the wrong names.
    """
    file = split.ann_file
    root = unused_root(content)
    names = {c['id']: c['name'] for c in content['categories']}
    have = list(names.values())
    if twice := [n for n, c in Counter(have).items() if c > 1]:
        mine = [c['id'] for c in content['categories'] if c['name'] in twice]
        # Without the root, each name may be that of one id.
        only_root = root and twice == [root['name']] and len(mine) == 2
        yield split.error(
            'class names',
            f'{file}: category {some(map(repr, twice))} is given to ids '
            f'{some(mine)}'
            + ('; 0 is the root that Roboflow adds' if only_root else ''),
            'Remove category 0, which has no annotations.'
            if only_root
            else 'Give each category a name of its own.',
            count=len(twice),
            fixable=bool(only_root),
        )
        return
    spellings: dict[str, list[str]] = {}
    for name in have:
        spellings.setdefault(' '.join(name.split()).casefold(), []).append(
            name
        )
    for same in spellings.values():
        if len(same) > 1:
            yield split.warning(
                'similar classes',
                f'{file}: {some(map(repr, same))} differ only in spaces or '
                'in upper and lower case, and are classes of their own',
                'If they mean the same, give their objects one category.',
            )
    if root and root['name'] in (split.classes or have):
        yield split.warning(
            'class names',
            f'{file}: category 0, {root["name"]!r}, is the root that '
            'Roboflow adds to each file; no object belongs to it, and the '
            'detector would have a class too many',
            'Remove it.',
            fixable=True,
        )
    classes = split.classes or tuple(have)
    unknown = [name for name in classes if name not in have]
    if len(unknown) == len(classes):
        yield split.error(
            'class names',
            f'none of the classes {some(classes)} is among the categories of '
            f'{file}: {some(have)}',
            sentences(
                did_you_mean(unknown[0], have),
                f'metainfo=dict(classes={tuple(have)!r}), and the same number '
                'as num_classes of the heads.',
            ),
        )
        return
    if unknown:
        near = [did_you_mean(name, have) for name in unknown[:4]]
        if len(unknown) > 1:
            near = [
                f'{name!r}: {text}'
                for name, text in zip(unknown, near, strict=False)
                if text
            ]
        yield split.error(
            'class names',
            f'class {some(map(repr, unknown))} is not a category of {file}',
            sentences(*near, f'It has: {some(have, 20)}'),
            count=len(unknown),
        )
    if repeated := [n for n, c in Counter(classes).items() if c > 1]:
        yield split.error(
            'class names',
            f'class {some(map(repr, repeated))} is named twice in metainfo',
            'Name each class once.',
        )
    in_file = [name for name in have if name in classes]
    wanted = [name for name in classes if name in have]
    if not repeated and in_file != wanted:
        at = next(i for i, n in enumerate(wanted) if n != in_file[i])
        yield split.error(
            'class order',
            f'classes and the categories of {file} differ in order: '
            f'label {at} is {in_file[at]!r} there and {wanted[at]!r} in '
            'metainfo. mmdet numbers labels by the file, so every image '
            'would show wrong names',
            f'metainfo=dict(classes={tuple(in_file)!r}), or the categories '
            'of the file in the order of metainfo.',
        )
    ids = list(names)
    if ids != sorted(ids):
        yield split.note(
            'category order',
            f'the categories of {file} are not in the order of their ids: '
            "without mmext, mmdet's CocoMetric gives the AP of a class under "
            'the name of another',
            fixable=True,
        )
    counts = Counter(
        names.get(a['category_id']) for a in content['annotations']
    )
    found = [name for name in in_file if counts[name]]
    absent = [name for name in in_file if not counts[name]]
    if root and root['name'] in absent:
        absent.remove(root['name'])
    if not found and not split.training and not content['annotations']:
        yield split.warning(
            'no objects',
            f'{file} has no annotation, so that every AP is -1 or nan',
            'Use validation images with objects.',
        )
    elif not found:
        seen = ', '.join(f'{n} ({c})' for n, c in counts.most_common(10))
        yield split.error(
            'class names',
            f'{file} has no annotation of any chosen class '
            f'({some(classes, 10)})',
            f'It has annotations of: {seen or "nothing"}',
        )
    elif absent:
        yield split.finding(
            WARNING if split.training else NOTE,
            'class names',
            f'{len(absent)} of {len(in_file)} classes have no annotation '
            f'and {"cannot be learned" if split.training else "get no AP"}: '
            f'{some(absent)}',
            count=len(absent),
        )
    if left := {n: c for n, c in counts.items() if n and n not in classes}:
        yield split.note(
            'class names',
            f'{sum(left.values())} annotations of other categories are left '
            f'out: {some(left)}',
            count=sum(left.values()),
        )
    chosen = of_classes(content, split) if split.masks else []
    bare = [a for a in chosen if not a.get('segmentation')]
    if bare:
        yield split.error(
            'masks',
            f'{file}: {len(bare)} of {len(chosen)} annotations have a box and '
            f'no mask (ids {some(a["id"] for a in bare)}), and this config '
            'needs masks',
            'Use a box detector (Faster R-CNN, RetinaNet), or add '
            '`segmentation` to every annotation.',
            count=len(bare),
        )
