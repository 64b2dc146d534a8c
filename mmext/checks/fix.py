# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Corrects annotations that can be corrected in one way only.

docs/data.md lists what is corrected.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmext.checks.annotations import are_many, find_orphans, has_bom
from mmext.checks.boxes import Boxes
from mmext.checks.classes import unused_root
from mmext.checks.findings import Split
from mmext.checks.images import (
    image_paths,
    respelled,
    size_problem,
    usable,
)
from mmext.checks.report import DataReport
from mmext.datasets.coco import (
    REFERENCES,
    SECTIONS,
    float_ids,
    make_ids_integers,
    repeated,
)
from mmext.datasets.masks import is_polygon, mask_problem
from mmext.errors import UserError
from mmext.utils.files import write_json


def fixed_files(splits: Sequence[Split], out: Path) -> dict[str, Path]:
    """Returns new files for the corrected copies, by split name.

    They have the places in ``out`` that the originals have in the data folder.
    """
    files: dict[str, Path] = {}
    for split in splits:
        root = split.root or split.ann_file.parent
        name = Path('annotations', split.ann_file.name)
        if split.ann_file.is_relative_to(root):
            name = split.ann_file.relative_to(root)
        if out / name in files.values():
            name = name.with_name(f'{split.ann_file.parent.name}_{name.name}')
        files[split.name] = out / name
        if files[split.name].exists():
            raise UserError(
                f'{files[split.name]} exists already',
                'Give --fix a new folder.',
            )
    return files


def write_fixed(
    report: DataReport, files: Mapping[str, Path], out: Path
) -> dict[Path, dict[str, int]]:
    """Writes corrected copies; returns what was done in each, how often.

    If a file needs a correction, those of the other splits are written too,
    and links to the images, so that the folder can be used as it is.
    """
    if not report.splits:
        return {}
    contents = copy.deepcopy(report.contents)
    done: dict[str, Counter] = {s.name: Counter() for s in report.splits}
    for split in report.splits:
        content, mine = contents[split.name], done[split.name]
        mine['byte order mark removed'] = int(has_bom(split.ann_file))
        _fix_ids(content, mine)
        orphans = [find_orphans(content, key) for key in REFERENCES]
        wrong = any(o and are_many(o, content) for o in orphans)
        if root := unused_root(content, *contents.values()):
            content['categories'].remove(root)
            mine["Roboflow's root category removed"] = 1
        _fix_names(content, report, split, mine)
        _fix_images(content, report, split, mine)
        if not wrong:
            _drop_orphans(content, mine)
        _renumber(content, mine)
        _fix_boxes(content, mine)
        _drop_repeated(content, split, mine)
        if split.masks:
            _fix_masks(content, mine)
        _fix_areas(content, mine)
    first = next((s for s in report.splits if s.training), report.splits[0])
    names = [c['name'] for c in contents[first.name]['categories']]
    for split in report.splits:
        _order_categories(contents[split.name], names, done[split.name])
    if not any(map(any, (mine.values() for mine in done.values()))):
        return {}
    written = {}
    for split in report.splits:
        file = files[split.name]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, contents[split.name])
        written[file] = dict(+done[split.name])  # without zeros
    # After the files, which must not be written through a link.
    for split in sorted(report.splits, key=lambda s: len(s.img_dir.parts)):
        _link_images(split, contents[split.name], out)
    return written


def _link_images(split: Split, content: dict[str, Any], out: Path) -> None:
    """Links the images in ``out`` as they are in the data folder."""
    root = split.root or split.img_dir
    if not split.img_dir.is_relative_to(root):
        return
    place = out / split.img_dir.relative_to(root)
    places = {place: split.img_dir}
    if place.is_dir() and not place.is_symlink():
        names = (Path(i['file_name']).parts[0] for i in content['images'])
        places = {place / n: split.img_dir / n for n in dict.fromkeys(names)}
    # Windows allows links to administrators only.
    with contextlib.suppress(OSError):
        for link, target in places.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not os.path.lexists(link):
                link.symlink_to(target.absolute(), target.is_dir())


def _fix_ids(content: dict[str, Any], done: Counter) -> None:
    for section in SECTIONS:
        for entry in content[section]:
            done['entries whose ids became integers'] += bool(float_ids(entry))
            make_ids_integers(entry)


def _order_categories(
    content: dict[str, Any], names: list[str], done: Counter
) -> None:
    """Gives categories the order of the labels, and their ids too.

    mmdet takes labels in the order of the file, and COCO's evaluation takes
    categories in the order of their ids.
    """
    by_name = {c['name']: c for c in content['categories']}
    if by_name.keys() == set(names):
        ordered = [by_name[name] for name in names]
        if ordered != content['categories']:
            content['categories'] = ordered
            done['categories put in the order of the training data'] = 1
    ids = [c['id'] for c in content['categories']]
    if ids == sorted(ids) or len({*ids}) < len(ids):
        return
    new = {old: i for i, old in enumerate(ids, 1)}
    for category in content['categories']:
        category['id'] = new[category['id']]
    for annotation in content['annotations']:
        annotation['category_id'] = new[annotation['category_id']]
    done['category ids numbered in the order of the labels'] = len(ids)


def _fix_names(
    content: dict[str, Any], report: DataReport, split: Split, done: Counter
) -> None:
    paths = image_paths(content, split)
    missing = [p for p in paths if p in report.missing]
    for path, spelling in respelled(missing, paths, split).items():
        old = paths[path]['file_name']
        for image in content['images']:
            if image['file_name'] == old:
                image['file_name'] = spelling.name
        done['file names written as on disk'] += 1


def _fix_images(
    content: dict[str, Any], report: DataReport, split: Split, done: Counter
) -> None:
    facts = report.facts
    unusable = {p for p, fact in facts.items() if not usable(fact, split)}
    unusable |= report.missing
    paths = {i['file_name']: p for p, i in image_paths(content, split).items()}
    if unusable >= set(paths.values()):
        return  # the folder is wrong, not the annotation file
    seen: dict[int, dict] = {}
    kept = []
    for image in content['images']:
        if paths.get(image['file_name']) in unusable:
            done['images removed that are missing or unreadable'] += 1
        elif image == seen.get(image['id']):
            done['repeated image entries removed'] += 1
        else:
            seen[image['id']] = image
            kept.append(image)
    content['images'] = kept
    boxes = Boxes(content).boxes
    ends = boxes[:, :2] + boxes[:, 2:]
    owners = np.array([a['image_id'] for a in content['annotations']])
    for image in kept:
        fact = facts.get(paths.get(image['file_name']))
        if fact is None:
            continue
        size = fact.size(split.turned)
        wrong = size_problem(fact, image, split.turned)
        fits = (ends[owners == image['id']] <= np.add(size, 1)).all()
        if wrong in ('none', 'exchanged') and fits:
            image['width'], image['height'] = size
            done['image sizes taken from the files'] += 1


def _drop_orphans(content: dict[str, Any], done: Counter) -> None:
    for key in REFERENCES:
        orphans = {id(a) for a in find_orphans(content, key)}
        content['annotations'] = [
            a for a in content['annotations'] if id(a) not in orphans
        ]
        what = 'annotations removed of images or categories not listed'
        done[what] += len(orphans)


def _renumber(content: dict[str, Any], done: Counter) -> None:
    last = max((a['id'] for a in content['annotations']), default=0)
    seen = set()
    for annotation in content['annotations']:
        if annotation['id'] in seen or annotation['id'] == 0:
            last += 1
            zero = annotation['id'] == 0
            kind = 'numbered from 1' if zero else 'made unique'
            annotation['id'] = last
            done[f'annotation ids {kind}'] += 1
        seen.add(annotation['id'])


def _fix_boxes(content: dict[str, Any], done: Counter) -> None:
    annotations = content['annotations']
    boxes = Boxes(content)
    if boxes.as_fractions:
        return
    if boxes.as_corners:
        for annotation in annotations:
            x1, y1, x2, y2 = annotation['bbox']
            annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            done['boxes turned from corners to x, y, width, height'] += 1
        boxes = Boxes(content)
    if boxes.unusable.all():
        return  # more is wrong than a few boxes
    unusable = int(boxes.unusable.sum())
    done['boxes removed that have no area in their image'] = unusable
    for i in np.flatnonzero(boxes.over_edge):
        annotation = annotations[i]
        x, y, w, h = annotation['bbox']
        width, height = boxes.sizes[i].tolist()
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + w, width), min(y + h, height)
        annotation['bbox'] = [left, top, right - left, bottom - top]
        if not annotation.get('segmentation'):
            annotation.pop('area', None)
        done['boxes cut at the edge of their image'] += 1
    content['annotations'] = list(compress(annotations, ~boxes.unusable))


def _drop_repeated(
    content: dict[str, Any], split: Split, done: Counter
) -> None:
    again = {id(a) for a in repeated(content, split.masks)}
    done['repeated objects removed'] = len(again)
    content['annotations'] = [
        a for a in content['annotations'] if id(a) not in again
    ]


def _fix_masks(content: dict[str, Any], done: Counter) -> None:
    """Removes polygons that cannot be drawn, and objects without other."""
    kept = []
    for annotation in content['annotations']:
        mask = annotation.get('segmentation')
        if mask and isinstance(mask, list):
            if not all(isinstance(polygon, list) for polygon in mask):
                kept.append(annotation)  # check_masks reports it
                continue
            polygons = list(filter(is_polygon, mask))
            done['polygons of fewer than 3 points removed'] += len(mask) - len(
                polygons
            )
            if not polygons:
                done['objects removed that had no other polygon'] += 1
                continue
            annotation['segmentation'] = polygons
        kept.append(annotation)
    content['annotations'] = kept


def _fix_areas(content: dict[str, Any], done: Counter) -> None:
    images = {image['id']: image for image in content['images']}
    for annotation in content['annotations']:
        image = images.get(annotation['image_id'])
        if image and annotation.get('area', 0) <= 0:
            annotation['area'] = _area(annotation, image)
            done['areas computed'] += 1


def _area(annotation: dict[str, Any], image: dict[str, Any]) -> float:
    mask = annotation.get('segmentation')
    polygons = list(filter(is_polygon, mask)) if isinstance(mask, list) else []
    size = image['height'], image['width']
    if polygons and min(size) > 0 and not mask_problem(polygons, size):
        coded = rle.frPyObjects(polygons, *size)
        return float(rle.area(rle.merge(coded)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])
