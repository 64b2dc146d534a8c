# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the entries in a COCO annotation file.

The level of a finding follows what mmdet does. It is an error if mmdet
crashes, learns something wrong or loses many entries; a warning if mmdet drops
or cuts a box; a note if mmdet leaves something out on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from mmext.checks.classes import check_classes
from mmext.checks.findings import ERROR, NOTE, Finding, Split
from mmext.checks.masks import check_masks
from mmext.datasets.coco import SECTIONS

TOLERANCE = 1.0  # pixels: converters round differently
# Fraction of boxes beyond their image from which x1, y1, x2, y2 is likely.
SUSPICIOUS = 0.2


class Entries:
    """The numbers of an annotation file as arrays of one row an annotation.

    Args:
        content: A parsed file, see :func:`~mmext.datasets.coco.read_coco`.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.images: list[dict] = content['images']
        self.annotations: list[dict] = content['annotations']

    @cached_property
    def by_id(self) -> dict[int, dict]:
        """Image entries by id; the last of a repeated id, as pycocotools."""
        return {image['id']: image for image in self.images}

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4): x, y, width and height in pixels."""
        boxes = [a['bbox'] for a in self.annotations]
        return np.array(boxes, np.float64).reshape(-1, 4)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2): width and height of each image, NaN if it is not listed."""
        unknown = {'width': np.nan, 'height': np.nan}
        images = [
            self.by_id.get(a['image_id'], unknown) for a in self.annotations
        ]
        sizes = [(image['width'], image['height']) for image in images]
        return np.array(sizes, np.float64).reshape(-1, 2)

    @cached_property
    def degenerate(self) -> np.ndarray:
        """(N,): with a side below 1 pixel; mmdet drops these."""
        return (self.boxes[:, 2:] < 1).any(1)

    @cached_property
    def outside(self) -> np.ndarray:
        """(N,): with no part inside the image; mmdet drops these."""
        low = np.maximum(self.boxes[:, :2], 0)
        high = np.minimum(self.boxes[:, :2] + self.boxes[:, 2:], self.sizes)
        return (high - low <= 0).any(1) & ~self.degenerate

    @cached_property
    def over_edge(self) -> np.ndarray:
        """(N,): with a part outside the image."""
        far = self.boxes[:, :2] + self.boxes[:, 2:] > self.sizes + TOLERANCE
        near = self.boxes[:, :2] < -TOLERANCE
        return (far | near).any(1) & ~self.outside & ~self.degenerate

    @cached_property
    def as_corners(self) -> bool:
        """Whether the boxes are most likely x1, y1, x2, y2.

        Almost all are inside their images if they are, and many reach beyond
        if they are x, y, width, height.
        """
        known = ~np.isnan(self.sizes[:, 0])
        boxes, sizes = self.boxes[known], self.sizes[known]
        if not len(boxes):
            return False
        beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + TOLERANCE).any(1)
        fits = (
            (boxes[:, 2:] > boxes[:, :2]).all(1)
            & (boxes[:, :2] >= -TOLERANCE).all(1)
            & (boxes[:, 2:] <= sizes + TOLERANCE).all(1)
        )
        return bool(fits.mean() > 0.99 and beyond.mean() >= SUSPICIOUS)

    @cached_property
    def as_fractions(self) -> bool:
        """Whether the boxes are fractions of the image's sides, as YOLO's."""
        known = self.sizes[~np.isnan(self.sizes[:, 0])]
        return bool((self.boxes <= 1).all() and (known > 1).any())


def check_annotations(content: dict[str, Any], split: Split) -> list[Finding]:
    """Makes all checks of an annotation file that need no images.

    Args:
        content: A parsed file, see :func:`~mmext.datasets.coco.read_coco`.
        split: The split.
    """
    entries = Entries(content)
    found = [
        *check_classes(content, split),
        *_check_ids(entries, split),
        *check_files(content, split),
    ]
    if content['annotations']:
        found += _check_boxes(entries, split)
        found += _check_areas(entries, split)
        found += _check_crowds(entries, split)
        if split.masks:
            found += check_masks(content, split)
    found += _check_empty(entries, split)
    return found


def _check_ids(entries: Entries, split: Split) -> Iterator[Finding]:
    for key in SECTIONS:
        counts = Counter(entry['id'] for entry in entries.content[key])
        twice = [i for i, n in counts.items() if n > 1]
        if twice:
            first = [e for e in entries.content[key] if e['id'] == twice[0]]
            equal = key == 'images' and all(e == first[0] for e in first)
            yield split.error(
                'ids',
                f'{len(twice)} of {len(counts)} ids occur more than once in '
                f'{key}; the first is {twice[0]}, {counts[twice[0]]} times',
                'Give each entry an id of its own.',
                count=len(twice),
                fixable=key == 'annotations' or equal,
            )
    for key, section in (
        ('image_id', 'images'),
        ('category_id', 'categories'),
    ):
        known = {entry['id'] for entry in entries.content[section]}
        orphans = [a for a in entries.annotations if a[key] not in known]
        if orphans:
            yield split.error(
                'unknown ids',
                f'{len(orphans)} of {len(entries.annotations)} annotations '
                f'have an unknown {key}: annotation {orphans[0]["id"]} has '
                f'{orphans[0][key]}, which "{section}" does not list',
                'mmdet leaves these out without a message. Add the '
                f'{section}, or remove the annotations.',
                count=len(orphans),
                fixable=True,
            )


def check_files(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    """Checks that the image entries name files of the split, each once."""
    images = content['images']
    names = [i['file_name'] for i in images]
    outside = [name for name in names if not split.holds(name)]
    if outside:
        yield split.error(
            'file names',
            f'{len(outside)} of {len(images)} file names lead out of the '
            f'image folder; the first is {outside[0]!r}',
            f'Names must be relative to {split.img_dir} and stay in '
            f'{split.root or split.img_dir}.',
            count=len(outside),
        )
    by_id = {i['id']: i['file_name'] for i in images}
    twice = [name for name, n in Counter(by_id.values()).items() if n > 1]
    if twice:
        yield split.warning(
            'file names',
            f'{len(twice)} files are listed under several image ids; the '
            f'first is {twice[0]}. An object that is annotated under one id '
            'is background under the other',
            'Put the annotations of a file under one id.',
            count=len(twice),
        )
    bad = [i for i in images if i['width'] <= 0 or i['height'] <= 0]
    if bad:
        yield split.error(
            'image sizes',
            f'{len(bad)} of {len(images)} images have no size: '
            f'{bad[0]["file_name"]} is {bad[0]["width"]} x '
            f'{bad[0]["height"]}',
            'Write the sizes of the files: tools/misc/check_data.py --fix DIR '
            'writes a copy with them.',
            count=len(bad),
            fixable=True,
        )


def _check_boxes(entries: Entries, split: Split) -> Iterator[Finding]:
    if entries.as_corners:
        first = int(np.argmax(entries.over_edge | entries.outside))
        yield split.error(
            'boxes as corners',
            'bbox seems to be [x1, y1, x2, y2]: read in that order, boxes '
            "are inside their images; in COCO's order [x, y, width, height], "
            f'{(entries.over_edge | entries.outside).sum()} of '
            f'{len(entries.boxes)} reach beyond ({_example(entries, first)})',
            'Write [x1, y1, x2 - x1, y2 - y1].',
            count=len(entries.boxes),
            fixable=True,
        )
        return
    if entries.as_fractions:
        yield split.error(
            'boxes as fractions',
            'all numbers of all boxes are at most 1 '
            f'({_example(entries, 0)}): fractions of the image, not pixels',
            'Write [x, y, width, height] in pixels. '
            'tools/dataset_converters/yolo2coco.py converts YOLO labels.',
            count=len(entries.boxes),
        )
        return
    for mask, check, text, remedy in (
        (
            entries.degenerate,
            'boxes degenerate',
            'have a side below 1 pixel; mmdet drops them',
            'Remove them or draw them again.',
        ),
        (
            entries.outside,
            'boxes outside',
            'are outside their image; mmdet drops them',
            'Remove them or draw them again.',
        ),
        (
            entries.over_edge,
            'boxes over the edge',
            'reach beyond their image',
            'Cut them at the edge.',
        ),
    ):
        if mask.any():
            yield split.warning(
                check,
                f'{mask.sum()} of {len(mask)} boxes {text} (the first: '
                f'{_example(entries, int(np.argmax(mask)))})',
                remedy,
                count=int(mask.sum()),
                fixable=True,
            )
    known = ~np.isnan(entries.sizes[:, 0])
    if known.any() and (entries.degenerate | entries.outside)[known].all():
        yield split.error(
            'boxes degenerate',
            'no box is left that mmdet would use (the first: '
            f'{_example(entries, int(np.argmax(known)))})',
            'bbox is [x, y, width, height] in pixels.',
            count=len(entries.boxes),
        )


def _example(entries: Entries, i: int) -> str:
    width, height = entries.sizes[i]
    box = ', '.join(f'{v:g}' for v in entries.boxes[i])
    text = f'annotation {entries.annotations[i]["id"]}, [{box}]'
    if np.isnan(width):
        return text
    return f'{text} in {width:g} x {height:g}'


def _check_areas(entries: Entries, split: Split) -> Iterator[Finding]:
    missing = [a for a in entries.annotations if 'area' not in a]
    if missing:
        yield split.error(
            'areas',
            f'{len(missing)} of {len(entries.annotations)} annotations have '
            f'no area (the first: id {missing[0]["id"]}); mmdet cannot load '
            'the file',
            "Add 'area': the mask's pixels, else width * height.",
            count=len(missing),
            fixable=True,
        )
    empty = [a for a in entries.annotations if a.get('area', 1) <= 0]
    if empty:
        yield split.warning(
            'areas',
            f'{len(empty)} of {len(entries.annotations)} annotations have '
            f'area {empty[0]["area"]} (the first: id {empty[0]["id"]}); mmdet '
            'drops them',
            "Write the mask's pixels, else width * height.",
            count=len(empty),
            fixable=True,
        )


def _check_crowds(entries: Entries, split: Split) -> Iterator[Finding]:
    names = {c['id']: c['name'] for c in entries.content['categories']}
    classes = split.classes or tuple(names.values())
    chosen = [
        a
        for a in entries.annotations
        if names.get(a['category_id']) in classes
    ]
    crowds = [a for a in chosen if a.get('iscrowd')]
    if crowds and len(crowds) == len(chosen):
        yield split.error(
            'crowds',
            f'all {len(crowds)} annotations are crowds (iscrowd=1): nothing '
            'is learned from them and nothing counts as found',
            'Set iscrowd to 0 for a box that holds one object.',
            count=len(crowds),
        )
    elif crowds:
        yield split.note(
            'crowds',
            f'{len(crowds)} of {len(chosen)} annotations are crowds: neither '
            'learned nor counted',
            count=len(crowds),
        )
    ignored = [a for a in chosen if a.get('ignore') and not a.get('iscrowd')]
    if ignored:
        yield split.warning(
            'crowds',
            f"{len(ignored)} annotations have 'ignore' without iscrowd=1: "
            'mmdet learns them as background',
            'Set iscrowd=1 to have them ignored in training and evaluation.',
            count=len(ignored),
        )


def _check_empty(entries: Entries, split: Split) -> Iterator[Finding]:
    filled = {a['image_id'] for a in entries.annotations}
    empty = [i for i in entries.images if i['id'] not in filled]
    if empty:
        if not split.training:
            effect = ''
        elif split.filter_empty:
            effect = '; training leaves them out (filter_empty_gt)'
        else:
            effect = '; they are learned as background'
        yield split.note(
            'empty images',
            f'{len(empty)} of {len(entries.images)} images have no '
            f'annotation (the first: {empty[0]["file_name"]}){effect}',
            count=len(empty),
        )
    if not split.training or not split.min_size:
        return
    small = [
        i
        for i in entries.images
        if min(i['width'], i['height']) < split.min_size
    ]
    if small:
        all_small = len(small) == len(entries.images)
        yield split.finding(
            ERROR if all_small else NOTE,
            'small images',
            f'{len(small)} of {len(entries.images)} images are smaller than '
            f'filter_cfg.min_size={split.min_size} and left out of training',
            'Lower filter_cfg.min_size.' if all_small else '',
            count=len(small),
        )
