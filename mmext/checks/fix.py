# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Corrects annotations that can be corrected in one way only.

docs/data.md lists what is corrected.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmext.checks.annotations import Boxes
from mmext.checks.findings import Split
from mmext.checks.images import image_paths, size_problem
from mmext.checks.masks import is_polygon
from mmext.checks.report import DataReport
from mmext.datasets.coco import REFERENCES
from mmext.errors import UserError
from mmext.utils.files import write_json


def fixed_files(splits: Sequence[Split], out: Path) -> dict[str, Path]:
    """Returns new files for the corrected copies, by split name."""
    files: dict[str, Path] = {}
    for split in splits:
        name = split.ann_file.name
        if out / name in files.values():
            name = f'{split.ann_file.parent.name}_{name}'
        files[split.name] = out / name
        if files[split.name].exists():
            raise UserError(
                f'{files[split.name]} exists already',
                'Give --fix a new folder.',
            )
    return files


def write_fixed(
    report: DataReport, files: Mapping[str, Path]
) -> dict[Path, dict[str, int]]:
    """Writes corrected copies; returns what was done in each, how often."""
    first = next((s for s in report.splits if s.training), report.splits[0])
    names = [c['name'] for c in report.contents[first.name]['categories']]
    written = {}
    for split in report.splits:
        content = copy.deepcopy(report.contents[split.name])
        done: Counter = Counter()
        _fix_images(content, report, split, done)
        _drop_orphans(content, done)
        _renumber(content, done)
        _fix_boxes(content, done)
        _fix_areas(content, done)
        by_name = {c['name']: c for c in content['categories']}
        if by_name.keys() == set(names):
            ordered = [by_name[name] for name in names]
            if ordered != content['categories']:
                content['categories'] = ordered
                done['categories put in the order of the training data'] = 1
        if done := +done:  # without zeros
            file = files[split.name]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, content)
            written[file] = dict(done)
    return written


def _fix_images(
    content: dict[str, Any], report: DataReport, split: Split, done: Counter
) -> None:
    facts = report.facts
    unusable = {p for p, fact in facts.items() if fact.problem}
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
    total = len(content['annotations'])
    for key, section in REFERENCES.items():
        known = {entry['id'] for entry in content[section]}
        content['annotations'] = [
            a for a in content['annotations'] if a[key] in known
        ]
    orphans = total - len(content['annotations'])
    done['annotations removed of images or categories not listed'] = orphans


def _renumber(content: dict[str, Any], done: Counter) -> None:
    last = max((a['id'] for a in content['annotations']), default=0)
    seen = set()
    for annotation in content['annotations']:
        if annotation['id'] in seen:
            last += 1
            annotation['id'] = last
            done['annotation ids made unique'] += 1
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


def _fix_areas(content: dict[str, Any], done: Counter) -> None:
    images = {image['id']: image for image in content['images']}
    for annotation in content['annotations']:
        if annotation.get('area', 0) <= 0:
            image = images[annotation['image_id']]
            annotation['area'] = _area(annotation, image)
            done['areas computed'] += 1


def _area(annotation: dict[str, Any], image: dict[str, Any]) -> float:
    mask = annotation.get('segmentation')
    polygons = list(filter(is_polygon, mask)) if isinstance(mask, list) else []
    if polygons:
        coded = rle.frPyObjects(polygons, image['height'], image['width'])
        return float(rle.area(rle.merge(coded)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])
