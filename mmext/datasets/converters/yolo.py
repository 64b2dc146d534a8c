# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of YOLO (Ultralytics).

::

    data.yaml (names: [...]) or classes.txt
    images/train/*  images/val/*    labels/train/*.txt  labels/val/*.txt

A line is ``class cx cy w h`` for a box, ``class x0 y0 x1 y1 x2 y2 ...`` for a
polygon; coordinates are parts of the image's width and height.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mmext.datasets.converters.common import (
    IMAGE_SUFFIXES,
    LabelledImage,
    LabelledObject,
    clip_box,
    image_size,
)
from mmext.errors import UserError

SLACK = 0.01  # beyond the border, as part of the image: rounding of tools


def read_yolo(root: Path) -> tuple[dict[str, list[LabelledImage]], list[str]]:
    """Reads a YOLO folder.

    Args:
        root: The folder.

    Returns:
        Split (train, val) -> images, and the names of the classes. An image
        without a label file is one without objects.

    Raises:
        UserError: If a file is missing or a line is not what YOLO describes.
    """
    names = _names(root)
    splits = {}
    for split in ('train', 'val'):
        folder, labels = root / 'images' / split, root / 'labels' / split
        files = [
            p
            for p in sorted(folder.rglob('*'))
            if p.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not files:
            raise UserError(
                f'{folder} has no images',
                'YOLO data has images/{train,val}/ and labels/{train,val}/',
            )
        label_files = {
            labels / p.relative_to(folder).with_suffix('.txt'): p
            for p in files
        }
        for path in sorted(labels.rglob('*.txt')):
            if path not in label_files:
                raise UserError(f'{path} has no image in {folder}')
        splits[split] = [
            _read_file(path, image, names)
            for path, image in label_files.items()
        ]
    return splits, names


def _names(root: Path) -> list[str]:
    for path in sorted([*root.glob('*.yaml'), *root.glob('*.yml')]):
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
        except yaml.YAMLError as error:
            raise UserError(f'{path} is not YAML: {error}') from error
        names = content.get('names') if isinstance(content, dict) else None
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise UserError(
                    f'{path}: the keys of names are {sorted(names)}, not 0 to '
                    f'{len(names) - 1}'
                )
            names = [names[i] for i in range(len(names))]
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    path = root / 'classes.txt'
    if path.is_file():
        lines = path.read_text(encoding='utf-8').splitlines()
        return [line.strip() for line in lines if line.strip()]
    raise UserError(
        f'{root} has no data.yaml with names: [...] and no classes.txt',
        'write the class names, in the order of their numbers, to '
        f'{path}, one a line',
    )


def _read_file(path: Path, image: Path, names: list[str]) -> LabelledImage:
    width, height = image_size(image)
    labelled = LabelledImage(image, width, height)
    if not path.is_file():
        return labelled
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            labelled.objects.append(
                _read_line(line, f'{path}:{number}', names, width, height)
            )
    return labelled


def _read_line(
    line: str, where: str, names: list[str], width: int, height: int
) -> LabelledObject:
    fields = line.split()
    try:
        label, values = int(fields[0]), [float(v) for v in fields[1:]]
    except ValueError:
        raise UserError(
            f'{where}: {line.strip()!r} is not a class number and coordinates'
        ) from None
    if not 0 <= label < len(names):
        raise UserError(
            f'{where}: class {label}, and there are {len(names)} names '
            f'(0 to {len(names) - 1}): {", ".join(names)}'
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f'{where}: {len(values)} coordinates: a box has 4, a polygon 6 '
            'or more and an even number'
        )
    if outside := [v for v in values if not -SLACK <= v <= 1 + SLACK]:
        raise UserError(
            f'{where}: coordinate {outside[0]:g} is not in 0..1',
            'YOLO divides by the width and the height of the image',
        )
    polygon = None
    if len(values) == 4:
        cx, cy, w, h = values
        xs, ys = [cx - w / 2, cx + w / 2], [cy - h / 2, cy + h / 2]
    else:
        xs, ys = ([min(max(v, 0), 1) for v in values[i::2]] for i in (0, 1))
        polygon = [
            v
            for x, y in zip(xs, ys, strict=True)
            for v in (x * width, y * height)
        ]
    box = clip_box(
        min(xs) * width,
        min(ys) * height,
        max(xs) * width,
        max(ys) * height,
        width,
        height,
    )
    if box is None:
        raise UserError(f'{where}: the object has no area inside the image')
    return LabelledObject(names[label], box, polygon)
