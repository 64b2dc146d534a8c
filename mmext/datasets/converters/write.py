# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes labelled images as COCO annotations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.datasets.converters.common import (
    CONVERTED,
    Converted,
    Labelled,
    LabelledImage,
    LabelledObject,
    hold_out,
    is_converted,
    parse_json,
    require_classes,
)
from mmext.errors import UserError, printable
from mmext.utils.files import write_json
from mmext.utils.text import count, short, some


def to_coco(
    data: Labelled, root: Path, classes: Sequence[str], val_part: float
) -> Converted:
    """Returns COCO annotations of the objects of some classes.

    A fraction ``val_part`` of the images is held out if no split is for
    validation. Raises `UserError` if a class is unknown or named twice, or if
    a split has no images.
    """
    require_classes(classes, data.names, root)
    splits, notes = data.splits, [*data.notes]
    if 'val' not in splits:
        splits = hold_out(splits['train'], val_part, notes)
    for split, images in splits.items():
        total = sum(len(i.objects) for i in images)
        if not images:
            raise UserError(
                f'split {split!r} of {root} has no images',
                'Training needs images to train and images to validate.',
            )
        repeats = {i.path: n for i in images if (n := _drop_repeats(i))}
        if repeats:
            number = count(sum(repeats.values()), 'object')
            notes.append(
                f'{split}: {number} listed twice (the first in the '
                f'annotations of {next(iter(repeats))}): each is kept once'
            )
        if cut := [i for i in images if i.cut]:
            notes.append(
                f'{split}: {sum(i.cut for i in cut)} of '
                f'{count(total, "object")} reach beyond their image (the '
                f'first in {cut[0].path}): they are cut at its edge'
            )
    paths = [i.path for images in splits.values() for i in images]
    base = root
    if not all(path.is_relative_to(root) for path in paths):
        base = Path(os.path.commonpath([p.parent for p in paths]))
    contents = {s: _coco(i, classes, root, base) for s, i in splits.items()}
    return Converted(contents, base, notes)


def _drop_repeats(image: LabelledImage) -> int:
    """Keeps each object once, and returns how many were left out."""
    unique: list[LabelledObject] = []
    for o in image.objects:
        if o not in unique:
            unique.append(o)
    dropped = len(image.objects) - len(unique)
    image.objects = unique
    return dropped


def write_folder(data: Converted, root: Path, out: Path) -> dict[str, Path]:
    """Writes ``annotations/instances_<split>.json`` for every split.

    If ``out`` is not ``root``, images are copied. Returns the files by split.
    Raises `UserError` if ``out`` is ``root`` and images are elsewhere.
    """
    same = out.resolve() == root.resolve()
    if same and data.base != root:
        raise UserError(
            f'the images are in {data.base}, outside of {root}',
            '--out DIR writes a folder with annotations and copies of them.',
        )
    folder = out / 'annotations'
    written = {s: folder / f'instances_{s}.json' for s in data.contents}
    for file in written.values():
        if file.is_file() and not is_converted(parse_json(file)):
            raise UserError(
                f'{file} exists, and mmext did not write it',
                'Move it, or write to another folder with --out DIR.',
            )
    if not same:
        _copy_images(data, out)
    folder.mkdir(parents=True, exist_ok=True)
    for split, file in written.items():
        write_json(file, data.contents[split])
    return written


def _copy_images(data: Converted, out: Path) -> None:
    """Copies all images or, if one is not in the folder, none."""
    names = [
        i['file_name'] for c in data.contents.values() for i in c['images']
    ]
    wrong = [
        name
        for name in names
        if os.path.normpath(name).startswith(('../', '/'))
        or not os.path.isfile(data.base / name)
    ]
    if wrong:
        raise UserError(
            f'{len(wrong)} of {count(len(names), "image")} cannot be copied, '
            f'because they are not in {data.base}: {some(wrong)}',
            'Add them, or remove their entries. mmext check-data --fix DIR '
            'writes corrected annotations.',
        )
    for name in names:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(data.base / name, target)


def _coco(
    images: Sequence[LabelledImage],
    names: Sequence[str],
    root: Path,
    base: Path,
) -> dict:
    if odd := [name for name in names if name != printable(name)]:
        raise UserError(
            f'class {short(odd[0])} of {root} has characters that cannot be '
            'printed',
            'Rename the class.',
        )
    ids = {name: i + 1 for i, name in enumerate(names)}
    records, annotations = [], []
    for image_id, image in enumerate(images, 1):
        record = {
            'id': image_id,
            'file_name': image.path.relative_to(base).as_posix(),
            'width': image.width,
            'height': image.height,
        }
        records.append(record)
        for o in image.objects:
            if o.name not in ids:
                continue
            annotation = {
                'id': len(annotations) + 1,
                'image_id': image_id,
                'category_id': ids[o.name],
                'bbox': [round(v, 3) for v in o.bbox],
                'area': round(_area(o), 3),
                'iscrowd': int(o.ignore),
            }
            if o.polygon is not None:
                annotation['segmentation'] = [[round(v, 3) for v in o.polygon]]
            annotations.append(annotation)
    return {
        'info': {'description': f'{CONVERTED} {root.name}'},
        'licenses': [],
        'images': records,
        'annotations': annotations,
        'categories': [{'id': ids[n], 'name': n} for n in names],
    }


def _area(o: LabelledObject) -> float:
    if o.polygon is None:
        return o.bbox[2] * o.bbox[3]
    x, y = np.array(o.polygon[::2]), np.array(o.polygon[1::2])
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
