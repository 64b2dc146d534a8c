# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be wrong in the entries of a COCO annotation file.

Severity follows what mmdet does with an entry: what crashes, is learnt
wrongly or is lost in numbers is an error; a box that mmdet drops or cuts is a
warning; what it leaves out on purpose is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from mmext.checks.classes import check_classes
from mmext.checks.findings import ERROR, NOTE, WARNING, Finding, Split
from mmext.checks.masks import check_masks

TOLERANCE = 1.0  # pixels: converters round differently
SUSPICIOUS = (
    0.2  # part of the boxes beyond the image from which xyxy is likely
)


class Entries:
    """The numbers of an annotation file, as arrays.

    Args:
        content: Of an annotation file, see
            :func:`~mmext.checks.findings.read_coco`.
    """

    def __init__(self, content: dict) -> None:
        self.content = content
        self.images: list[dict] = content['images']
        self.annotations: list[dict] = content['annotations']

    @cached_property
    def by_id(self) -> dict[int, dict]:
        """Image entries by id; of a repeated id the last, as pycocotools."""
        return {image['id']: image for image in self.images}

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4): x, y, width, height in pixels."""
        boxes = [a['bbox'] for a in self.annotations]
        return np.array(boxes, np.float64).reshape(-1, 4)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2): width and height of each annotation's image, or NaN."""
        none = {'width': np.nan, 'height': np.nan}
        found = (self.by_id.get(a['image_id'], none) for a in self.annotations)
        return np.array(
            [(i['width'], i['height']) for i in found], np.float64
        ).reshape(-1, 2)

    @cached_property
    def degenerate(self) -> np.ndarray:
        """(N,): narrower or lower than a pixel; mmdet drops these."""
        return (self.boxes[:, 2:] < 1).any(1)

    @cached_property
    def outside(self) -> np.ndarray:
        """(N,): has an area, none of it in the image; mmdet drops these."""
        low = np.maximum(self.boxes[:, :2], 0)
        high = np.minimum(self.boxes[:, :2] + self.boxes[:, 2:], self.sizes)
        return (high - low <= 0).any(1) & ~self.degenerate

    @cached_property
    def over_edge(self) -> np.ndarray:
        """(N,): part of it beyond the image."""
        far = self.boxes[:, :2] + self.boxes[:, 2:] > self.sizes + TOLERANCE
        near = self.boxes[:, :2] < -TOLERANCE
        return (far | near).any(1) & ~self.outside & ~self.degenerate

    @cached_property
    def as_corners(self) -> bool:
        """Whether the boxes are x1, y1, x2, y2 by all that can be seen.

        Read so, (almost) all lie in their images; read as x, y, width, height
        many reach beyond.
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
        """Whether the boxes are parts of the image's sides, as YOLO's."""
        many = self.sizes[~np.isnan(self.sizes[:, 0])]
        return bool((self.boxes <= 1).all() and (many > 1).any())


def check_annotations(content: dict, split: Split) -> list[Finding]:
    """Everything that the file alone can tell, without its images.

    Args:
        content: Of the split's annotation file, see
            :func:`~mmext.checks.findings.read_coco`.
        split: What it is used for.
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
    for key in ('images', 'categories', 'annotations'):
        counts = Counter(entry['id'] for entry in entries.content[key])
        twice = [i for i, n in counts.items() if n > 1]
        if twice:
            entries_of_first = [
                e for e in entries.content[key] if e['id'] == twice[0]
            ]
            same = key == 'images' and all(
                e == entries_of_first[0] for e in entries_of_first
            )
            yield split.finding(
                ERROR,
                'ids',
                f'{len(twice)} of {len(counts)} ids occur more than once in '
                f'{key}; the first is {twice[0]}, {counts[twice[0]]} times',
                'Give each entry an id of its own.',
                count=len(twice),
                mended=key == 'annotations' or same,
            )
    for key, known in (
        ('image_id', set(entries.by_id)),
        ('category_id', {c['id'] for c in entries.content['categories']}),
    ):
        lost = [a for a in entries.annotations if a[key] not in known]
        if lost:
            kind = 'images' if key == 'image_id' else 'categories'
            article = 'an' if key == 'image_id' else 'a'
            yield split.finding(
                ERROR,
                'unknown ids',
                f'{len(lost)} of {len(entries.annotations)} annotations have '
                f'{article} {key} that is none of the {kind}: annotation '
                f'{lost[0]["id"]} has {lost[0][key]}',
                f'mmdet leaves these out without a word. Add the {kind}, or '
                'remove the annotations.',
                count=len(lost),
                mended=True,
            )


def check_files(content: dict, split: Split) -> Iterator[Finding]:
    """Whether the image entries name files of the split, each once."""
    leaving = [
        i['file_name']
        for i in content['images']
        if not split.holds(i['file_name'])
    ]
    if leaving:
        yield split.finding(
            ERROR,
            'file names',
            f'{len(leaving)} of {len(content["images"])} file names lead '
            'out of the image folder; the '
            f'first is {leaving[0]!r}',
            f'Names are relative to {split.img_dir} and stay in '
            f'{split.root or split.img_dir}.',
            count=len(leaving),
        )
    counts = Counter(
        i['file_name']
        for i in {i['id']: i for i in content['images']}.values()
    )
    if twice := [name for name, n in counts.items() if n > 1]:
        yield split.finding(
            WARNING,
            'file names',
            f'{len(twice)} files are listed under several image ids; the '
            f'first is {twice[0]}. What is annotated under one id is '
            'background under the other',
            'Put the annotations of a file under one id.',
            count=len(twice),
        )
    bad = [i for i in content['images'] if i['width'] <= 0 or i['height'] <= 0]
    if bad:
        yield split.finding(
            ERROR,
            'image sizes',
            f'{len(bad)} of {len(content["images"])} images have no size: '
            f'{bad[0]["file_name"]} is {bad[0]["width"]} x '
            f'{bad[0]["height"]}',
            'Write the sizes of the files: tools/misc/check_data.py --fix DIR '
            'writes a copy that has them.',
            count=len(bad),
            mended=True,
        )


def _check_boxes(entries: Entries, split: Split) -> Iterator[Finding]:
    if entries.as_corners:
        first = int(np.argmax(entries.over_edge | entries.outside))
        yield split.finding(
            ERROR,
            'boxes as corners',
            'bbox seems to be [x1, y1, x2, y2]: read so, they lie in '
            "their images; as [x, y, width, height], COCO's order, "
            f'{(entries.over_edge | entries.outside).sum()} of '
            f'{len(entries.boxes)} reach beyond ({_example(entries, first)})',
            'Write [x1, y1, x2 - x1, y2 - y1].',
            count=len(entries.boxes),
            mended=True,
        )
        return
    if entries.as_fractions:
        yield split.finding(
            ERROR,
            'boxes as fractions',
            'all numbers of all boxes are at most 1 '
            f'({_example(entries, 0)}): fractions of the image, not pixels',
            'Write [x, y, width, height] in pixels. YOLO labels are '
            'converted by tools/dataset_converters/yolo2coco.py.',
            count=len(entries.boxes),
        )
        return
    for mask, check, text, remedy in (
        (
            entries.degenerate,
            'boxes degenerate',
            'have a side below 1 pixel; mmdet drops them',
            'Remove or redraw them.',
        ),
        (
            entries.outside,
            'boxes outside',
            'lie outside their image; mmdet drops them',
            'Remove or redraw them.',
        ),
        (
            entries.over_edge,
            'boxes over the edge',
            'reach beyond their image',
            'Cut them at the edge.',
        ),
    ):
        if mask.any():
            yield split.finding(
                WARNING,
                check,
                f'{mask.sum()} of {len(mask)} boxes {text} (the first: '
                f'{_example(entries, int(np.argmax(mask)))})',
                remedy,
                count=int(mask.sum()),
                mended=True,
            )
    known = ~np.isnan(entries.sizes[:, 0])
    if known.any() and (entries.degenerate | entries.outside)[known].all():
        yield split.finding(
            ERROR,
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
        yield split.finding(
            ERROR,
            'areas',
            f'{len(missing)} of {len(entries.annotations)} annotations have '
            f'no area (the first: id '
            f'{missing[0]["id"]}); mmdet cannot load the file',
            "Add 'area': the mask's pixels, else width * height.",
            count=len(missing),
            mended=True,
        )
    empty = [a for a in entries.annotations if a.get('area', 1) <= 0]
    if empty:
        yield split.finding(
            WARNING,
            'areas',
            f'{len(empty)} of {len(entries.annotations)} annotations have '
            f'area {empty[0]["area"]} (the '
            f'first: id {empty[0]["id"]}); mmdet drops them',
            "Write the mask's pixels, else width * height.",
            count=len(empty),
            mended=True,
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
        yield split.finding(
            ERROR,
            'crowds',
            f'all {len(crowds)} annotations are crowds (iscrowd=1): nothing '
            'is learnt from them and nothing counts as found',
            'Set iscrowd to 0 where the box holds one object.',
            count=len(crowds),
        )
    elif crowds:
        yield split.finding(
            NOTE,
            'crowds',
            f'{len(crowds)} of {len(chosen)} annotations are crowds: neither '
            'learnt nor counted',
            count=len(crowds),
        )
    ignored = [a for a in chosen if a.get('ignore') and not a.get('iscrowd')]
    if ignored:
        yield split.finding(
            WARNING,
            'crowds',
            f"{len(ignored)} annotations have 'ignore' without iscrowd=1: "
            'mmdet learns such places as background',
            'Set iscrowd=1 to have them ignored in training and evaluation.',
            count=len(ignored),
        )


def _check_empty(entries: Entries, split: Split) -> Iterator[Finding]:
    filled = {a['image_id'] for a in entries.annotations}
    empty = [i for i in entries.images if i['id'] not in filled]
    if empty:
        does = (
            'training leaves them out (filter_empty_gt)'
            if split.filter_empty
            else 'they are learnt as background'
        )
        yield split.finding(
            NOTE,
            'empty images',
            f'{len(empty)} of {len(entries.images)} images have no '
            f'annotation (the first: {empty[0]["file_name"]})'
            + (f'; {does}' if split.training else ''),
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
        everything = len(small) == len(entries.images)
        yield split.finding(
            ERROR if everything else NOTE,
            'small images',
            f'{len(small)} of {len(entries.images)} images are smaller than '
            f'filter_cfg.min_size={split.min_size} and left out of training',
            'Lower filter_cfg.min_size.' if everything else '',
            count=len(small),
        )
