# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Cuts the objects of a detection data set out for classification.

The crops are in one folder a class (``out/<class>/<annotation id>.png``), as
torchvision's ``ImageFolder`` and MMPretrain's ``CustomDataset`` read them, so
that a backbone can be pre-trained on the objects that it will detect.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
from rich.progress import track

from mmext.datasets.coco import read_coco, require_references
from mmext.errors import UserError
from mmext.utils.files import stays_inside
from mmext.utils.images import read_pixels, write_image


def write_crops(
    ann_file: str | Path,
    img_dir: str | Path,
    out: str | Path,
    margin: float = 0.1,
    min_size: int = 8,
) -> dict[str, int]:
    """Writes one image for every object that is not a crowd.

    ``out`` is a new folder, written completely or not at all; ``margin`` is
    the context on each side, as a fraction of the box's side. Objects with a
    side below ``min_size`` pixels are left out. Returns class name -> number
    of crops.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f'{out} exists already.', 'Name a new folder.')
    coco = read_coco(ann_file)
    require_references(coco, ann_file)
    names = {c['id']: c['name'] for c in coco['categories']}
    objects = defaultdict(list)
    for ann in coco['annotations']:
        if not ann.get('iscrowd') and min(ann['bbox'][2:]) >= min_size:
            objects[ann['image_id']].append(ann)
    folders: dict[str, str] = {}
    for name in names.values():
        if (other := folders.setdefault(_folder(name), name)) != name:
            raise UserError(
                f'Classes {other!r} and {name!r} of {ann_file} would have '
                f'the same folder {_folder(name)}.',
                'Rename one of them in the annotation file.',
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(names.values(), 0)
    with tempfile.TemporaryDirectory(
        prefix=f'{out.name}.', dir=out.parent
    ) as temporary:
        part = Path(temporary, 'crops')
        for folder in folders:
            (part / folder).mkdir(parents=True)
        for record in track(coco['images'], 'Cropping'):
            path = Path(img_dir, record['file_name'])
            inside = stays_inside(path, img_dir)
            image = read_pixels(path, cv2.IMREAD_COLOR) if inside else None
            if image is None:
                raise UserError(
                    f'{path} of {ann_file} cannot be read.',
                    'Check the image folder.',
                )
            for ann in objects[record['id']]:
                name = names[ann['category_id']]
                x, y, w, h = ann['bbox']
                left, top = int(x - margin * w), int(y - margin * h)
                right = int(x + w * (1 + margin))
                bottom = int(y + h * (1 + margin))
                crop = image[max(top, 0) : bottom, max(left, 0) : right]
                target = part / _folder(name) / f'{ann["id"]:06d}.png'
                if crop.size:
                    write_image(target, crop)
                    counts[name] += 1
        part.rename(out)
    return counts


def _folder(name: str) -> str:
    """Returns a name that cannot lead out of the output folder."""
    return ''.join(c if c.isalnum() or c in ' -_' else '_' for c in name)
