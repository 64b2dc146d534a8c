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


def check_classes(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    """Checks that a detector of the split's classes can use the annotations.

    mmdet numbers labels by the order of the categories *in the file*. A
    detector whose ``metainfo['classes']`` has another order trains and
    evaluates, but every image and every prediction shows the wrong names.
    """
    file = split.ann_file
    names = {c['id']: c['name'] for c in content['categories']}
    have = list(names.values())
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
        near = did_you_mean(unknown[0], have)
        others = [
            f'{n!r}: {did_you_mean(n, have) or "?"}' for n in unknown[1:4]
        ]
        yield split.error(
            'class names',
            f'class {unknown[0]!r} is not a category of {file}'
            + (f', nor are {len(unknown) - 1} others' if others else ''),
            sentences(near, *others, f'It has: {some(have, 20)}'),
            count=len(unknown),
        )
    if repeated := [n for n, c in Counter(classes).items() if c > 1]:
        yield split.error(
            'class names',
            f'class {repeated[0]!r} is named twice in metainfo',
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
    counts = Counter(
        names.get(a['category_id']) for a in content['annotations']
    )
    found = [name for name in in_file if counts[name]]
    absent = [name for name in in_file if not counts[name]]
    if not found and (split.training or content['annotations']):
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
            f'no mask (the first: id {bare[0]["id"]}), and this config needs '
            'masks',
            'Use a box detector (Faster R-CNN, RetinaNet), or add '
            '`segmentation` to every annotation.',
            count=len(bare),
        )
