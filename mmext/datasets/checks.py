# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be wrong with a user's COCO annotations, said before training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, did_you_mean

NEEDED = {
    'images': {'id', 'file_name', 'width', 'height'},
    'annotations': {'id', 'image_id', 'category_id', 'bbox'},
    'categories': {'id', 'name'},
}


def read_coco(file: Path) -> dict:
    """Reads an annotation file.

    Args:
        file: COCO's ``instances_*.json``.

    Raises:
        UserError: If it is not JSON, or JSON of another format.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    except ValueError as error:
        raise UserError(
            f'{file} is not JSON: {error}',
            'is the file whole? Write or download it again',
        ) from error
    for key, fields in NEEDED.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            seen = (
                f'keys {sorted(content)}'
                if isinstance(content, dict)
                else f'a {type(content).__name__}'
            )
            raise UserError(
                f'{file} has no list of {key}; it holds {seen}',
                'a COCO annotation file holds images, annotations and '
                'categories; tools/dataset_converters writes one from VOC '
                'or YOLO files',
            )
        for i, entry in enumerate(entries):
            if missing := sorted(fields - set(entry)):
                raise UserError(
                    f'{file}: {key}[{i}] has no {missing[0]!r}; it holds '
                    f'{sorted(entry)}'
                )
    names = [c['name'] for c in content['categories']]
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        raise UserError(
            f'{file}: category name {twice[0]!r} is given to '
            f'{names.count(twice[0])} ids',
            'give each category its own name',
        )
    return content


def check_annotations(
    content: dict,
    file: Path,
    classes: Sequence[str],
    masks: bool = False,
) -> None:
    """Whether annotations can train a detector of these classes.

    Args:
        content: Of an annotation file, see :func:`read_coco`.
        file: Its path, for messages.
        classes: Names that the detector is to find.
        masks: Whether it is to predict masks. Default: False.

    Raises:
        UserError: For a class that the file does not have (with the nearest
            one it has), for no annotation of any class, for annotations
            without a mask where masks are needed.
    """
    names = {c['id']: c['name'] for c in content['categories']}
    for name in classes:
        if name not in names.values():
            near = did_you_mean(name, names.values())
            raise UserError(
                f'class {name!r} is not a category of {file}',
                f'{near} It has: {", ".join(names.values())}'.strip(),
            )
    counts = Counter(
        names.get(a['category_id']) for a in content['annotations']
    )
    if not any(counts[name] for name in classes):
        have = ', '.join(f'{n} ({c})' for n, c in counts.most_common(10))
        raise UserError(
            f'{file} has no annotation of any chosen class '
            f'({", ".join(classes)})',
            f'it has annotations of: {have}',
        )
    if not masks:
        return
    chosen = [
        a
        for a in content['annotations']
        if names.get(a['category_id']) in classes
    ]
    bare = [a for a in chosen if not a.get('segmentation')]
    if bare:
        raise UserError(
            f'{file}: {len(bare)} of {len(chosen)} annotations have a box '
            f'and no mask (the first: id {bare[0]["id"]}), and this config '
            'trains a mask detector',
            'use a box detector (Faster R-CNN, RetinaNet), or add '
            '`segmentation` to every annotation',
        )
