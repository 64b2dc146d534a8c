# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the entries in a COCO annotation file.

The level of a finding follows what mmdet does. It is an error if mmdet
crashes, learns something wrong or loses many entries; a warning if mmdet drops
or cuts a box; a note if mmdet leaves something out on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmext.checks.boxes import Boxes, check_areas, check_boxes
from mmext.checks.classes import check_classes, of_classes
from mmext.checks.findings import (
    ERROR,
    NOTE,
    SUSPICIOUS,
    WARNING,
    Finding,
    Split,
)
from mmext.checks.masks import check_masks
from mmext.datasets.coco import (
    REFERENCES,
    SECTIONS,
    float_ids,
    repeated,
)
from mmext.utils.text import some


def check_annotations(content: dict[str, Any], split: Split) -> list[Finding]:
    """Makes all checks of an annotation file that need no images."""
    found = [
        *check_encoding(split),
        *check_classes(content, split),
        *_check_ids(content, split),
        *check_files(content, split),
    ]
    if content['annotations']:
        boxes = Boxes(content)
        found += check_boxes(boxes, split)
        found += check_areas(content['annotations'], split)
        found += _check_crowds(content, split)
        found += _check_repeated(content, split)
        if split.masks:
            found += check_masks(content, split, boxes.frames)
    return [*found, *_check_empty(content, split)]


def check_encoding(split: Split) -> Iterator[Finding]:
    """Checks that the file begins as pycocotools, and so mmdet, needs it."""
    if has_bom(split.ann_file):
        yield split.error(
            'encoding',
            f'{split.ann_file} begins with a byte order mark (BOM), which '
            'mmdet cannot read',
            'Save it as UTF-8 without BOM.',
            fixable=True,
        )


def has_bom(file: Path) -> bool:
    """Returns whether a file begins with the byte order mark of UTF-8."""
    with open(file, 'rb') as opened:
        return opened.read(3) == b'\xef\xbb\xbf'


def _check_repeated(
    content: dict[str, Any], split: Split
) -> Iterator[Finding]:
    again = repeated(content, split.masks)
    if again:
        effect = (
            'they count twice in the loss'
            if split.training
            else 'at most half of such a pair can be found, so AP is too low'
        )
        yield split.warning(
            'objects twice',
            f'{len(again)} of {len(content["annotations"])} annotations '
            'repeat another one of the same image, class and box (ids '
            f'{some(a["id"] for a in again)}); {effect}',
            'Keep one of each.',
            count=len(again),
            fixable=True,
        )


def _check_ids(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    for section in SECTIONS:
        counts = Counter(entry['id'] for entry in content[section])
        twice = [i for i, n in counts.items() if n > 1]
        if twice:
            same_id = [e for e in content[section] if e['id'] == twice[0]]
            equal = all(entry == same_id[0] for entry in same_id)
            yield split.error(
                'ids',
                f'{len(twice)} of {len(counts)} ids occur more than once in '
                f'{section}: {some(twice)}',
                'Give each entry an id of its own.',
                count=len(twice),
                fixable=section == 'annotations'
                or (section == 'images' and equal),
            )
        floats = [e for e in content[section] if float_ids(e)]
        if floats:
            name = float_ids(floats[0])[0]
            yield split.warning(
                'ids',
                f'{len(floats)} of {len(content[section])} {section} have ids '
                f'that are decimal numbers: {name} is {floats[0][name]}',
                'Write them as integers.',
                count=len(floats),
                fixable=True,
            )
    annotations = content['annotations']
    if any(a['id'] == 0 for a in annotations):
        yield id_zero(split)
    for key, section in REFERENCES.items():
        if orphans := find_orphans(content, key):
            yield split.error(
                'unknown ids',
                f'{len(orphans)} of {len(annotations)} annotations have an '
                f'unknown {key}: annotation {orphans[0]["id"]} has '
                f'{orphans[0][key]}. "{section}" does not list '
                + some(dict.fromkeys(a[key] for a in orphans)),
                'mmdet leaves these out without a message. Add the '
                f'{section}, or remove the annotations.',
                count=len(orphans),
                fixable=not are_many(orphans, content),
            )


def find_orphans(content: dict[str, Any], key: str) -> list[dict]:
    """Returns the annotations whose ``key`` refers to no entry."""
    known = {entry['id'] for entry in content[REFERENCES[key]]}
    return [a for a in content['annotations'] if a[key] not in known]


def are_many(orphans: list[dict], content: dict[str, Any]) -> bool:
    """Returns whether the others may refer to a wrong entry.

    Ids that are counted from 0 in one list and from 1 in the other match in
    part.
    """
    return len(orphans) >= SUSPICIOUS * len(content['annotations'])


def id_zero(split: Split) -> Finding:
    """Returns the finding of an annotation with id 0."""
    effect = (
        '; pycocotools, and so mmdet, counts its object as missed even if it '
        'is found, so AP is too low'
    )
    return split.finding(
        NOTE if split.training else WARNING,
        'annotation id 0',
        f'an annotation of {split.ann_file} has id 0'
        + ('' if split.training else effect),
        'Number annotations from 1.',
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
            f'image folder: {some(map(repr, outside), 3)}',
            f'Names must be relative to {split.img_dir} and stay in '
            f'{split.root or split.img_dir}.',
            count=len(outside),
        )
    by_id = {i['id']: i['file_name'] for i in images}
    twice = [name for name, n in Counter(by_id.values()).items() if n > 1]
    if twice:
        yield split.warning(
            'file names',
            f'{len(twice)} files are listed under several image ids: '
            f'{some(twice)}. An object that is annotated under one id is '
            'background under the other',
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
            'Write the sizes of the files.',
            count=len(bad),
            fixable=True,
        )


def _check_crowds(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    chosen = of_classes(content, split)
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


def _check_empty(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    images = content['images']
    filled = {a['image_id'] for a in content['annotations']}
    empty = [i for i in images if i['id'] not in filled]
    if empty:
        effect = ''
        if split.filter_empty:
            effect = '; training leaves them out (filter_empty_gt)'
        elif split.training:
            effect = '; they are learned as background'
        yield split.note(
            'empty images',
            f'{len(empty)} of {len(images)} images have no annotation: '
            f'{some((i["file_name"] for i in empty), 3)}{effect}',
            count=len(empty),
        )
    least = split.min_size
    small = [i for i in images if min(i['width'], i['height']) < least]
    if small and least:
        all_small = len(small) == len(images)
        yield split.finding(
            ERROR if all_small else NOTE,
            'small images',
            f'{len(small)} of {len(images)} images are smaller than '
            f'filter_cfg.min_size={least} and left out of training',
            'Lower filter_cfg.min_size.' if all_small else '',
            count=len(small),
        )
