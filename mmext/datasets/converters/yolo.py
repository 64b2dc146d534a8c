# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of YOLO (Ultralytics).

::

    data.yaml (names: [...]) or classes.txt
    images/train/*  images/val/*    labels/train/*.txt  labels/val/*.txt

A line is ``class cx cy w h`` for a box, ``class x0 y0 x1 y1 x2 y2 ...`` for a
polygon; coordinates are fractions of the image's width and height.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mmext.datasets.converters.common import (
    LabelledImage,
    LabelledObject,
    clip_box,
    image_size,
    images_by_name,
    read_lines,
)
from mmext.errors import UserError

SLACK = 0.01  # fraction of the image beyond its border: tools round


def read_yolo(root: Path) -> tuple[dict[str, list[LabelledImage]], list[str]]:
    """Reads a train and a val split, and the names of the classes.

    An image without a label file has no objects.
    """
    names = _names(root)
    splits = {}
    for split in ('train', 'val'):
        folder, labels = root / 'images' / split, root / 'labels' / split
        images = images_by_name(folder, folder.rglob('*'))
        files = {
            p.relative_to(labels).with_suffix('').as_posix(): p
            for p in sorted(labels.rglob('*'))
            if p.suffix.lower() == '.txt'
        }
        if not images or not files:
            raise UserError(
                f'{labels} has no label files'
                if images
                else f'{folder} has no images',
                'YOLO data has images/{train,val}/ and labels/{train,val}/.',
            )
        for name, path in files.items():
            # labelImg writes the class names beside the labels.
            if name not in images and path.name != 'classes.txt':
                raise UserError(
                    f'{path} has no image in {folder}',
                    'Add the image, or remove the labels.',
                )
        splits[split] = [
            _read_file(files.get(name), image, names)
            for name, image in images.items()
        ]
    return splits, names


def _names(root: Path) -> list[str]:
    for path in sorted([*root.glob('*.yaml'), *root.glob('*.yml')]):
        try:
            content = yaml.safe_load(path.read_bytes())
        except yaml.YAMLError as error:
            raise UserError(
                f'{path} is not YAML: {error}', 'Correct the file.'
            ) from error
        content = content if isinstance(content, dict) else {}
        if 'kpt_shape' in content:  # its lines would be read as polygons
            raise UserError(
                f'{path} describes keypoints (kpt_shape)',
                'Only boxes and polygons can be converted; remove the '
                'keypoints.',
            )
        names = content.get('names')
        if isinstance(names, dict):
            if set(names) != set(range(len(names))):
                raise UserError(
                    f'{path}: the keys of names are {[*names]}, not 0 to '
                    f'{len(names) - 1}',
                    'Number the names without gaps.',
                )
            names = [names[i] for i in range(len(names))]
        if isinstance(names, list) and names:
            # YAML reads no, off and null as False and None.
            if odd := [n for n in names if type(n) in (bool, type(None))]:
                raise UserError(
                    f'{path}: a name is {odd[0]!r}, not a word',
                    'Put it in quotes.',
                )
            return [str(name) for name in names]
    path = root / 'classes.txt'
    if path.is_file():
        return [line for line in read_lines(path) if line]
    raise UserError(
        f'{root} has no data.yaml with names: [...] and no classes.txt',
        'Write the class names in the order of their numbers to '
        f'{path}, one a line.',
    )


def _read_file(
    path: Path | None, image: Path, names: list[str]
) -> LabelledImage:
    width, height = image_size(image)
    labelled = LabelledImage(image, width, height)
    for number, line in enumerate(read_lines(path) if path else [], 1):
        if line:
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
            f'{where}: {line!r} is not a class number and coordinates',
            'A line is `class cx cy w h`, or `class x0 y0 x1 y1 x2 y2 ...`.',
        ) from None
    if not 0 <= label < len(names):
        raise UserError(
            f'{where}: class {label}, and there are {len(names)} names '
            f'(0 to {len(names) - 1}): {", ".join(names)}',
            'Correct the line, or add the names.',
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f'{where}: {len(values)} coordinates; a box has 4, a polygon an '
            'even number of 6 or more',
            'Correct the line.',
        )
    if outside := [v for v in values if not -SLACK <= v <= 1 + SLACK]:
        raise UserError(
            f'{where}: coordinate {outside[0]:g} is not in 0..1',
            'YOLO divides by the width and the height of the image.',
        )
    polygon = None
    if len(values) == 4:
        cx, cy, w, h = values
        w, h = max(w, 0), max(h, 0)
        xs, ys = [cx - w / 2, cx + w / 2], [cy - h / 2, cy + h / 2]
    else:
        xs, ys = ([min(max(v, 0), 1) for v in values[i::2]] for i in (0, 1))
        points = zip(xs, ys, strict=True)
        polygon = [v for x, y in points for v in (x * width, y * height)]
    left, right = min(xs) * width, max(xs) * width
    top, bottom = min(ys) * height, max(ys) * height
    box = clip_box(left, top, right, bottom, width, height)
    if box is None:
        raise UserError(
            f'{where}: the object has no area inside the image',
            'Correct or remove the line.',
        )
    return LabelledObject(names[label], box, polygon)
