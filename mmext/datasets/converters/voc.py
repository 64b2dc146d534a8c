# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of Pascal VOC, as exporters write it.

::

    VOC, CVAT   Annotations/*.xml  JPEGImages/*  ImageSets/Main/{train,val}.txt
    Roboflow    train/*.xml        train/*       the same in valid/
    labelImg    *.xml              *             in one folder
"""

from __future__ import annotations

import math
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from mmext.datasets.converters.common import (
    Labelled,
    LabelledImage,
    LabelledObject,
    folders_in,
    image_size,
    images_by_name,
    name_in,
    one_per_split,
    read_each,
    read_lines,
    split_of,
    usual_files,
)
from mmext.errors import UserError, did_you_mean
from mmext.utils.images import files_in, is_image
from mmext.utils.text import count, sentences, some

#: Names of folders of XML files and of images, in lower case.
ANNOTATIONS = ('annotations', 'annotation', 'xml', 'xmls', 'labels')
IMAGES = ('jpegimages', 'jpgimages', 'images', 'image', 'imgs', 'img')
IMAGES += ('photos',)


def is_voc(root: Path) -> bool:
    """Returns whether a folder has XML files where exporters write them."""
    return any(map(_is_xml, usual_files(root, (*ANNOTATIONS, *IMAGES))))


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == '.xml'


def read_voc(
    root: Path,
    zero_based: bool = False,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
) -> Labelled:
    """Reads the splits of a VOC folder, or all images as ``'train'``.

    VOC counts pixels from 1 and includes the last one: a box from 1 to 10 is
    10 pixels wide and begins at COCO's 0. Tools such as labelImg count from 0.
    ``annotations`` and ``images`` are the folders of XML files and images; by
    default they are found by their names. ``ImageSets/Main`` or folders name
    the splits.
    """
    root = Path(os.path.abspath(root))
    ann_dir, img_dir = _folders(root, annotations, images)
    files = {name_in(ann_dir, p): p for p in files_in(ann_dir) if _is_xml(p)}
    if not files:
        raise UserError(
            f'{ann_dir} has no XML files',
            'Give the folder that holds Annotations/ and JPEGImages/, or '
            'name others: --annotations DIR --images DIR.',
        )
    known = images_by_name(img_dir)
    paths = _images_of(files, known)
    if absent := [name for name, path in paths.items() if path is None]:
        raise UserError(
            f'{len(absent)} of {count(len(files), "XML file")} in {ann_dir} '
            f'have no image {Path(absent[0]).name}.* in {img_dir}: '
            + some((f'{name}.xml' for name in absent), 10),
            'Add the images, or remove the annotations. --images DIR names '
            'another folder.',
        )
    notes = []
    if without := len(known) - len(files):
        notes.append(
            f'{count(without, "image")} without an XML file: left out'
        )
    splits = {
        split: read_each(
            _read_file, [(files[n], paths[n], zero_based) for n in names]
        )
        for split, names in _splits(root, img_dir, paths).items()
    }
    read = [image for split in splits.values() for image in split]
    names = {o.name for image in read for o in image.objects}
    if not names:
        raise UserError(
            f'no XML file in {ann_dir} has an object',
            'Export the annotations with their objects.',
        )
    return Labelled(splits, sorted(names), notes)


def _folders(
    root: Path, annotations: str | Path | None, images: str | Path | None
) -> tuple[Path, Path]:
    """Returns the folders of XML files and of images.

    labelImg writes both into one folder.
    """
    folders = folders_in(root)
    names = [p.name for p in folders]
    given = {'annotations': annotations, 'images': images}
    for option, value in given.items():
        if value is not None and not (root / value).is_dir():
            raise UserError(
                f'--{option} {value}: {root / value} does not exist',
                sentences(
                    did_you_mean(str(value), names),
                    f'It has: {some(names) or "no folder"}',
                ),
            )
    if annotations is not None:
        ann_dir = root / annotations
    elif not is_voc(root):
        ann_dir = root / 'Annotations'
    else:
        ann_dir = next(
            (
                p
                for p in folders
                if p.name.lower() in ANNOTATIONS
                and any(map(_is_xml, files_in(p)))
            ),
            root,
        )
    if images is not None:
        return ann_dir, root / images
    known = [p for p in folders if p.name.lower() in IMAGES]
    if ann_dir == root or ann_dir in known:
        return ann_dir, ann_dir
    if known:
        return ann_dir, known[0]
    holders = [p for p in folders if any(map(is_image, files_in(p)))]
    if ann_dir in holders:
        return ann_dir, ann_dir
    return ann_dir, holders[0] if len(holders) == 1 else root


def _images_of(
    files: Mapping[str, Path], images: Mapping[str, Path]
) -> dict[str, Path | None]:
    """Returns the images of XML files, by their names without suffix.

    If XML files or images are in one folder, the others may be in sub-folders
    of theirs. Each image has one XML file.
    """
    found = {name: images.get(name) for name in files}
    if all(any('/' in name for name in names) for names in (files, images)):
        return found
    by_name: dict[str, list[Path]] = {}
    for name, path in images.items():
        by_name.setdefault(Path(name).name, []).append(path)
    counts = Counter(Path(name).name for name in files)
    for name, image in found.items():
        several = by_name.get(Path(name).name, [])
        if image is None and len(several) == counts[Path(name).name] == 1:
            found[name] = several[0]
    return found


def _splits(
    root: Path, img_dir: Path, images: Mapping[str, Path]
) -> dict[str, list[str]]:
    """Returns split -> names, by lists or by the names of folders."""
    for folder in ('ImageSets/Main', 'ImageSets', ''):
        lists = one_per_split((root / folder).glob('[!.]*.txt'))
        if not folder:  # which may have other text files
            lists = {s: p for s, p in lists.items() if _lists_any(p, images)}
        if lists:
            listed = {s: _listed(path, images) for s, path in lists.items()}
            used = {name for names in listed.values() for name in names}
            rest = [name for name in sorted(images) if name not in used]
            listed.setdefault('train', rest)  # as trainval.txt
            listed.pop('test', None)
            return listed
    splits: dict[str | None, list[str]] = {}
    for name in sorted(images):
        image = images[name].relative_to(img_dir)
        split = split_of(*Path(name).parts[:-1], *image.parts[:-1])
        splits.setdefault(split, []).append(name)
    test = splits.pop('test', [])
    if None in splits or 'train' not in splits:
        # The folders do not name splits.
        return {'train': sorted(sum(splits.values(), []) or test)}
    return splits


def _listed(path: Path, images: Mapping[str, Path]) -> list[str]:
    """Returns the names in a list.

    Lines are names, names of files or paths, and may contain spaces. Lists of
    one class have a second column, 1 or -1.
    """
    names = {line: _in_list(line, images) for line in read_lines(path) if line}
    if missing := [line for line, name in names.items() if name is None]:
        raise UserError(
            f'{path} lists {count(len(missing), "name")} without an XML '
            f'file: {some(map(repr, missing), 10)}',
            'Add the files, or remove the lines.',
        )
    return [name for name in names.values() if name]


def _lists_any(path: Path, images: Mapping[str, Path]) -> bool:
    return any(_in_list(line, images) for line in read_lines(path) if line)


def _in_list(line: str, images: Mapping[str, Path]) -> str | None:
    for text in (line, line.rsplit(maxsplit=1)[0], line.split()[0]):
        path = unicodedata.normalize('NFC', text).replace('\\', '/')
        for form in (path, os.path.splitext(path)[0]):
            parts = Path(form).parts
            ends = ('/'.join(parts[i:]) for i in range(len(parts)))
            if name := next((end for end in ends if end in images), None):
                return name
    return None


def _read_file(path: Path, image: Path, zero_based: bool) -> LabelledImage:
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f'{path} is not XML: {error}',
            'Export the annotations again, in UTF-8.',
        ) from error
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
        box = labelled.clip(x1 - shift, y1 - shift, x2, y2)
        if box is None:
            raise UserError(
                f'{where}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no '
                f'area inside the {width}x{height} image',
                'Correct or remove it.',
            )
        difficult = (node.findtext('difficult') or '').strip().lower()
        ignore = difficult in ('1', 'true')
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
