# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common form of all source formats, and how COCO is written from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmext.errors import UserError, did_you_mean
from mmext.utils.files import write_json
from mmext.utils.images import is_image, stored_size, turned_size
from mmext.utils.text import sentences


@dataclass
class LabelledObject:
    """One object, in pixels of its image."""

    name: str
    bbox: tuple[float, float, float, float]  # x, y, width, height
    polygon: list[float] | None = None  # x0, y0, x1, y1, ...
    ignore: bool = False  # neither learned nor counted: ``iscrowd``


@dataclass
class LabelledImage:
    """One image, its size as shown (EXIF rotation applied), its objects."""

    path: Path
    width: int
    height: int
    objects: list[LabelledObject] = field(default_factory=list)


def image_size(path: Path) -> tuple[int, int]:
    """Returns the width and height of an image as OpenCV loads it."""
    try:
        with Image.open(path) as image:
            return turned_size(*stored_size(path, image))
    except Exception as error:  # its type depends on the format
        raise UserError(
            f'{path} is not a readable image: {error}',
            'Replace the file, or remove it with its annotations.',
        ) from error


def images_by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Returns images by their path in ``folder`` without the suffix."""
    images: dict[str, Path] = {}
    for path in sorted(filter(is_image, files)):
        name = path.relative_to(folder).with_suffix('').as_posix()
        if name in images:
            raise UserError(
                f'{images[name]} and {path} would have the same annotations',
                'Rename one of them, or remove it if it is a copy.',
            )
        images[name] = path
    return images


def read_lines(path: Path) -> list[str]:
    """Returns the stripped lines of a UTF-8 file, with or without a BOM."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not UTF-8: {error}', 'Save it in that encoding.'
        ) from error
    return [line.strip() for line in text.splitlines()]


def clip_box(
    x1: float, y1: float, x2: float, y2: float, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Returns x, y, width, height of the part in the image, None if empty."""
    x1, x2 = max(0.0, x1), min(float(width), x2)
    y1, y2 = max(0.0, y1), min(float(height), y2)
    if x2 <= x1 or y2 <= y1:
        return None
    return x1, y1, x2 - x1, y2 - y1


def write_coco_folder(
    splits: Mapping[str, Sequence[LabelledImage]],
    names: Sequence[str],
    root: Path,
    out: Path,
) -> dict[str, Path]:
    """Writes ``annotations/instances_<split>.json`` for every split.

    Objects of classes that are not among ``names`` are left out. File names
    are relative to ``root``; if ``out`` is another folder, images are copied.
    Returns the files by split.
    """
    seen = class_names(splits)
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f'class {name!r} is named twice: {", ".join(names)}',
                'Give each class a name of its own.',
            )
        if name not in seen:
            known = ', '.join(sorted(seen)) or 'no objects'
            raise UserError(
                f'no object of class {name!r} in {root}',
                sentences(did_you_mean(name, seen), f'It has: {known}'),
            )
    contents = {}
    for split, images in splits.items():
        if not images:
            raise UserError(
                f'split {split!r} of {root} has no images',
                'Training needs images to train and images to validate.',
            )
        contents[split] = _coco(images, names, root)
    folder = out / 'annotations'
    folder.mkdir(parents=True, exist_ok=True)
    if out.resolve() != root.resolve():
        for image in (i for images in splits.values() for i in images):
            target = out / image.path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(image.path, target)
    written = {split: folder / f'instances_{split}.json' for split in splits}
    for split, file in written.items():
        write_json(file, contents[split])
    return written


def class_names(splits: Mapping[str, Sequence[LabelledImage]]) -> set[str]:
    """Returns the names of all objects."""
    return {
        o.name for images in splits.values() for i in images for o in i.objects
    }


def _coco(
    images: Sequence[LabelledImage], names: Sequence[str], root: Path
) -> dict:
    ids = {name: i + 1 for i, name in enumerate(names)}
    records, annotations = [], []
    for image_id, image in enumerate(images, 1):
        record = {
            'id': image_id,
            'file_name': image.path.relative_to(root).as_posix(),
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
        'info': {'description': f'converted from {root.name}'},
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
