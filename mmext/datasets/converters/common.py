# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What every source format is read into, and how COCO is written from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmext.errors import UserError, did_you_mean

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_ORIENTATION = 0x0112  # EXIF tag


@dataclass
class LabelledObject:
    """One object, in pixels of its image.

    Args:
        name: Its class.
        bbox: x, y, width, height.
        polygon: x0, y0, x1, y1, ... or None for a box only.
        ignore: Neither learnt nor counted; becomes ``iscrowd``.
    """

    name: str
    bbox: tuple[float, float, float, float]
    polygon: list[float] | None = None
    ignore: bool = False


@dataclass
class LabelledImage:
    """One image and what is in it.

    Args:
        path: The file.
        width: Pixels, as shown (EXIF rotation applied).
        height: Pixels.
        objects: Its objects.
    """

    path: Path
    width: int
    height: int
    objects: list[LabelledObject] = field(default_factory=list)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as OpenCV loads it.

    Raises:
        UserError: If the file is no image.
    """
    try:
        with Image.open(path) as image:
            size, tag = image.size, image.getexif().get(_ORIENTATION, 1)
        if tag not in (0, 1):  # heeded or not: OpenCV's choice by format
            data = np.fromfile(path, np.uint8)
            size = cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1::-1]
    except Exception as error:  # what is raised is up to the format
        raise UserError(f'{path} is not a readable image: {error}') from error
    return size


def find_images(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Images by their path in ``folder`` without the suffix.

    Raises:
        UserError: If two differ in the suffix alone: their annotations would
            be one file.
    """
    images: dict[str, Path] = {}
    for path in sorted(files):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(folder).with_suffix('').as_posix()
            if (other := images.setdefault(name, path)) != path:
                raise UserError(
                    f'{other} and {path} would have the same annotations',
                    'rename one of them, or remove it where it is a copy',
                )
    return images


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, with or without a BOM, stripped.

    Raises:
        UserError: If the file is of another encoding.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not UTF-8: {error}', 'save it in that encoding'
        ) from error
    return [line.strip() for line in text.splitlines()]


def clip_box(
    x1: float, y1: float, x2: float, y2: float, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """x, y, w, h of the part inside the image; None where there is none.

    Args:
        x1: Left edge, pixels.
        y1: Upper edge.
        x2: Right edge.
        y2: Lower edge.
        width: Of the image, pixels.
        height: Of the image, pixels.
    """
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

    Args:
        splits: Name of the split -> its images.
        names: Classes, in the order of their ids; objects of others are left
            out.
        root: Folder that the images lie in; file names are relative to it.
        out: Folder to write to. Where it is not ``root``, the images are
            copied.

    Raises:
        UserError: If a class is named twice or nowhere in the data, or a
            split is empty.
    """
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(
            f'class {twice[0]!r} is named twice: {", ".join(names)}',
            'give each class a name of its own',
        )
    seen = {
        o.name for images in splits.values() for i in images for o in i.objects
    }
    for name in names:
        if name not in seen:
            raise UserError(
                f'no object of class {name!r} in {root}',
                f'{did_you_mean(name, seen)} It has: '
                f'{", ".join(sorted(seen)) or "no objects"}'.strip(),
            )
    contents = {}
    for split, images in splits.items():
        if not images:
            raise UserError(
                f'split {split!r} of {root} has no images',
                'training needs images to train and images to validate',
            )
        contents[split] = _coco(images, names, root)
    folder = out / 'annotations'
    folder.mkdir(parents=True, exist_ok=True)
    if out.resolve() != root.resolve():
        for image in (i for images in splits.values() for i in images):
            target = out / image.path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(image.path, target)
    written = {}
    for split, content in contents.items():
        written[split] = folder / f'instances_{split}.json'
        partial = written[split].with_suffix('.partial')
        partial.write_text(json.dumps(content), encoding='utf-8')
        os.replace(partial, written[split])
    return written


def _coco(
    images: Sequence[LabelledImage], names: Sequence[str], root: Path
) -> dict:
    ids = {name: i + 1 for i, name in enumerate(names)}
    records, annotations = [], []
    for image_id, image in enumerate(images, 1):
        records.append(
            {
                'id': image_id,
                'file_name': image.path.relative_to(root).as_posix(),
                'width': image.width,
                'height': image.height,
            }
        )
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
