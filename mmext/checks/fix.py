# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mends annotations where there is only one way to, into new files.

Boxes are written in COCO's order, cut at the edge, and dropped where nothing
is left; entries that point nowhere and images that cannot be read go; sizes
are taken from the files, areas from the masks; repeated annotation ids are
renumbered; validation gets the training data's order of categories.
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from mmext.checks.annotations import Entries
from mmext.checks.data import Report
from mmext.checks.findings import Split
from mmext.checks.images import image_paths, size_problem
from mmext.errors import UserError
from mmext.utils.files import write_json


def write_fixed(report: Report, out: Path) -> dict[Path, Counter]:
    """Writes a mended copy of every annotation file that needs one.

    Args:
        report: Of :func:`~mmext.checks.data.check_data`.
        out: Folder to write to; made where it is missing.

    Returns:
        Files written, and how often each thing was done.

    Raises:
        UserError: A file of that name is there already.
    """
    first = next((s for s in report.splits if s.training), report.splits[0])
    names = [c['name'] for c in report.contents[first.name]['categories']]
    mended = {}
    for split in report.splits:
        content, done = mend(report, split)
        if {c['name'] for c in content['categories']} == set(names):
            by_name = {c['name']: c for c in content['categories']}
            ordered = [by_name[name] for name in names]
            if ordered != content['categories']:
                content['categories'] = ordered
                done['categories put in the order of the training data'] = 1
        if done:
            name = split.ann_file.name
            if out / name in mended:
                name = f'{split.ann_file.parent.name}_{name}'
            mended[out / name] = content, done
    for file in mended:
        if file.exists():
            raise UserError(
                f'{file} exists already', 'Name a new folder for --fix.'
            )
    out.mkdir(parents=True, exist_ok=True)
    for file, (content, _) in mended.items():
        write_json(file, content)
    return {file: done for file, (_, done) in mended.items()}


def mend(report: Report, split: Split) -> tuple[dict, Counter]:
    """A mended copy of one split's annotations, and what was done."""
    content = copy.deepcopy(report.contents[split.name])
    done: Counter = Counter()
    _mend_images(content, report, split, done)
    _drop_lost(content, done)
    _renumber(content, done)
    _mend_boxes(content, done)
    _mend_areas(content, done)
    return content, +done


def _mend_images(
    content: dict, report: Report, split: Split, done: Counter
) -> None:
    facts = report.facts
    gone = {p for p, fact in facts.items() if fact.problem} | report.missing
    paths = {i['file_name']: p for p, i in image_paths(content, split).items()}
    if gone >= set(paths.values()):
        return  # the folder is wrong, not the file
    seen: dict[int, dict] = {}
    kept = []
    for image in content['images']:
        path = paths.get(image['file_name'])
        if path in gone:
            done['images removed that are missing or unreadable'] += 1
            continue
        if image == seen.get(image['id']):
            done['repeated image entries removed'] += 1
            continue
        seen[image['id']] = image
        kept.append(image)
    content['images'] = kept
    entries = Entries(content)
    for image in kept:
        fact = facts.get(paths.get(image['file_name']))
        if fact is None:
            continue
        size = fact.size(split.turned)
        problem = size_problem(fact, image, split.turned)
        if problem in ('none', 'exchanged') and _fit(
            entries, image['id'], size
        ):
            image['width'], image['height'] = size
            done['image sizes taken from the files'] += 1


def _fit(entries: Entries, image_id: int, size: tuple[int, int]) -> bool:
    mine = [a['image_id'] == image_id for a in entries.annotations]
    boxes = entries.boxes[mine]
    return bool((boxes[:, :2] + boxes[:, 2:] <= np.add(size, 1)).all())


def _drop_lost(content: dict, done: Counter) -> None:
    images = {i['id'] for i in content['images']}
    categories = {c['id'] for c in content['categories']}
    kept = [
        a
        for a in content['annotations']
        if a['image_id'] in images and a['category_id'] in categories
    ]
    done['annotations removed of images or categories not listed'] += len(
        content['annotations']
    ) - len(kept)
    content['annotations'] = kept


def _renumber(content: dict, done: Counter) -> None:
    free = max((a['id'] for a in content['annotations']), default=0)
    seen = set()
    for annotation in content['annotations']:
        if annotation['id'] in seen:
            free += 1
            annotation['id'] = free
            done['annotation ids made unique'] += 1
        seen.add(annotation['id'])


def _mend_boxes(content: dict, done: Counter) -> None:
    entries = Entries(content)
    if entries.as_fractions:
        return
    if entries.as_corners:
        for annotation in entries.annotations:
            x1, y1, x2, y2 = annotation['bbox']
            annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            done['boxes turned from corners to x, y, width, height'] += 1
        entries = Entries(content)
    if (entries.degenerate | entries.outside).all():
        return  # it is not a few boxes that are wrong
    kept = []
    for i, annotation in enumerate(entries.annotations):
        if entries.degenerate[i] or entries.outside[i]:
            done['boxes removed that have no area in their image'] += 1
            continue
        if entries.over_edge[i]:
            x, y, w, h = annotation['bbox']
            width, height = entries.sizes[i].tolist()
            left, top = max(x, 0), max(y, 0)
            annotation['bbox'] = [
                left,
                top,
                min(x + w, width) - left,
                min(y + h, height) - top,
            ]
            if not annotation.get('segmentation'):
                annotation.pop('area', None)
            done['boxes cut at the edge of their image'] += 1
        kept.append(annotation)
    content['annotations'] = kept


def _mend_areas(content: dict, done: Counter) -> None:
    images = {image['id']: image for image in content['images']}
    for annotation in content['annotations']:
        if annotation.get('area', 0) <= 0:
            image = images[annotation['image_id']]
            annotation['area'] = _area(annotation, image)
            done['areas computed'] += 1


def _area(annotation: dict, image: dict) -> float:
    mask = annotation.get('segmentation')
    if isinstance(mask, list):
        mask = [p for p in mask if len(p) >= 6 and len(p) % 2 == 0]
    if mask and isinstance(mask, list):
        coded = rle.frPyObjects(mask, image['height'], image['width'])
        return float(rle.area(rle.merge(coded)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])
