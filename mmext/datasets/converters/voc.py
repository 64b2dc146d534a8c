# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of Pascal VOC (and of labelImg).

::

    Annotations/*.xml    JPEGImages/*    ImageSets/Main/{train,val}.txt
"""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from xml.etree import ElementTree

from mmext.datasets.converters.common import (
    LabelledImage,
    LabelledObject,
    clip_box,
    image_size,
    images_by_name,
    read_lines,
)
from mmext.errors import UserError


def read_voc(
    root: Path, zero_based: bool = False, val_part: float = 0.2
) -> dict[str, list[LabelledImage]]:
    """Reads a VOC folder into a train and a val split.

    VOC counts pixels from 1 and includes the last one: a box from 1 to 10 is
    10 pixels wide and begins at COCO's 0. Tools such as labelImg count from 0.
    If ``ImageSets/Main`` has no lists, a fraction ``val_part`` of the images
    is held out for validation, always the same ones.
    """
    if not 0 < val_part < 1:
        raise UserError(
            f'--val-part {val_part:g} is not a fraction of the images',
            'Give one between 0 and 1, such as 0.2.',
        )
    folder = root / 'Annotations'
    inside = sorted(folder.glob('*'))
    files = {p.stem: p for p in inside if p.suffix.lower() == '.xml'}
    if not files:
        raise UserError(
            f'{folder} has no XML files',
            'Give the folder that holds Annotations/ and JPEGImages/.',
        )
    img_dir = root / 'JPEGImages'
    images = images_by_name(img_dir, img_dir.glob('*'))
    return {
        split: [_read_file(files[s], images, zero_based) for s in stems]
        for split, stems in _splits(root, files, val_part).items()
    }


def _splits(
    root: Path, files: dict[str, Path], val_part: float
) -> dict[str, list[str]]:
    lists = {s: root / 'ImageSets/Main' / f'{s}.txt' for s in ('train', 'val')}
    if not all(p.is_file() for p in lists.values()):
        stems = list(files)
        random.Random(0).shuffle(stems)
        count = round(val_part * len(stems))
        return {'train': sorted(stems[count:]), 'val': sorted(stems[:count])}
    splits = {}
    for split, path in lists.items():
        # Lists of one class have a second column, 1 or -1. Names may contain
        # spaces.
        stems = [
            line if line in files else line.rsplit(maxsplit=1)[0]
            for line in read_lines(path)
            if line
        ]
        if missing := [s for s in stems if s not in files]:
            raise UserError(
                f'{path} lists {missing[0]!r}, and '
                f'{root / "Annotations" / missing[0]}.xml does not exist',
                'Add the file, or remove the line.',
            )
        splits[split] = stems
    return splits


def _read_file(
    path: Path, images: dict[str, Path], zero_based: bool
) -> LabelledImage:
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f'{path} is not XML: {error}', 'Export the annotations again.'
        ) from error
    image = images.get(path.stem)
    if image is None:
        raise UserError(
            f'{path} has no image {path.stem}.* in '
            f'{path.parents[1] / "JPEGImages"}',
            'Add the image, or remove the annotations.',
        )
    width, height = image_size(image)
    try:
        size = [float(tree.findtext(f'size/{k}')) for k in ('width', 'height')]
    except (TypeError, ValueError):
        size = [0, 0]  # not given
    if min(size) > 0 and size != [width, height]:
        raise UserError(
            f'{path} is for a {size[0]:g}x{size[1]:g} image, and {image} is '
            f'{width}x{height} as OpenCV reads it',
            'The image may have been resized, or turned by its EXIF tag, '
            'after its boxes were drawn. If the boxes are right, remove '
            '<size>.',
        )
    labelled = LabelledImage(image, width, height)
    for i, node in enumerate(tree.iter('object')):
        name = (node.findtext('name') or '').strip()
        where = f'{path}: object {i + 1} ({name or "without a name"})'
        if not name:
            raise UserError(
                f'{where}: <name> is missing or empty', 'Add it to the file.'
            )
        x1, y1, x2, y2 = (
            _number(node, key, where)
            for key in ('xmin', 'ymin', 'xmax', 'ymax')
        )
        if x2 < x1 or y2 < y1:
            raise UserError(
                f'{where}: the box ends before it begins: xmin {x1:g}, '
                f'xmax {x2:g}, ymin {y1:g}, ymax {y2:g}',
                'Exchange the corners.',
            )
        if not zero_based and min(x1, y1) == 0:
            warnings.warn(
                f'boxes of {path.parent} begin at 0, and corners count from '
                '1 in VOC. If the tool that wrote them counts from 0, every '
                'box is off by one pixel without --zero-based',
                stacklevel=2,
            )
        shift = 0 if zero_based else 1
        box = clip_box(x1 - shift, y1 - shift, x2, y2, width, height)
        if box is None:
            raise UserError(
                f'{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no '
                f'area inside the {width}x{height} image',
                'Correct or remove it.',
            )
        ignore = (node.findtext('difficult') or '0').strip() == '1'
        labelled.objects.append(LabelledObject(name, box, ignore=ignore))
    return labelled


def _number(node: ElementTree.Element, key: str, where: str) -> float:
    text = node.findtext(f'bndbox/{key}')
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f'{where}: <bndbox><{key}> is '
            + ('missing' if text is None else f'{text!r}, not a number'),
            'Correct the file, or export the annotations again.',
        )
    return value
