# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From boxes to a classification set: one crop an object.

The crops lie in one folder a class (``out/<class>/<annotation id>.png``), as
torchvision's ``ImageFolder`` and MMPretrain's ``CustomDataset`` read them: a
way to pre-train a backbone on the very objects a detector is to find.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
from rich.progress import track

from mmext.errors import UserError


def write_crops(
    ann_file: str | Path,
    img_dir: str | Path,
    out: str | Path,
    margin: float = 0.1,
    min_size: int = 8,
) -> dict[str, int]:
    """Cuts every object out of a COCO-format data set.

    Args:
        ann_file: COCO JSON with ``images``, ``annotations`` and
            ``categories``. Crowds are left out.
        img_dir: Folder that ``file_name`` is relative to.
        out: Folder to make; appears whole or not at all.
        margin: Context on each side, a fraction of the box's side.
        min_size: Objects with a shorter side in pixels are left out.

    Returns:
        Crops written of each class.

    Raises:
        UserError: If ``ann_file`` is not COCO, an image cannot be read,
            ``out`` exists, or two classes would share a folder.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f'{out} exists already.', 'Name a new folder.')
    try:
        coco = json.loads(Path(ann_file).read_text())
        names = {c['id']: str(c['name']) for c in coco['categories']}
        files = {i['id']: i['file_name'] for i in coco['images']}
        boxes: dict[int, list[dict]] = {i: [] for i in files}
        for ann in coco['annotations']:
            if ann['category_id'] not in names:
                raise LookupError(f'no category {ann["category_id"]!r}')
            if not ann.get('iscrowd') and min(ann['bbox'][2:]) >= min_size:
                boxes[ann['image_id']].append(ann)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f'{ann_file} is not a COCO annotation file: {error!r}',
            'It needs images, annotations and categories.',
        ) from error
    counts = dict.fromkeys(names.values(), 0)
    folders: dict[str, str] = {}
    for name in counts:
        if (other := folders.setdefault(_folder(name), name)) != name:
            raise UserError(
                f'Classes {other!r} and {name!r} of {ann_file} would share '
                f'the folder {_folder(name)}.',
                'Rename one of them in the annotation file.',
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f'{out.name}.', dir=out.parent))
    try:
        for name in counts:
            (part / _folder(name)).mkdir()
        for image_id, anns in track(boxes.items(), 'Cropping'):
            path = Path(img_dir, files[image_id])
            image = cv2.imread(str(path))
            if image is None:
                raise UserError(
                    f'{path} of {ann_file} cannot be read.',
                    'Check the image folder.',
                )
            for ann in anns:
                name = names[ann['category_id']]
                crop = _crop(image, ann['bbox'], margin)
                file = _folder(str(ann['id']).zfill(6))
                target = part / _folder(name) / f'{file}.png'
                if crop.size and cv2.imwrite(str(target), crop):
                    counts[name] += 1
        os.rename(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return counts


def _folder(name: str) -> str:
    """A name cannot lead out of the folder, nor be the folder itself."""
    return (
        ''.join(c if c.isalnum() or c in ' -_' else '_' for c in name) or '_'
    )


def _crop(image, box: list[float], margin: float):
    x, y, w, h = box
    left, top = int(x - margin * w), int(y - margin * h)
    right, bottom = int(x + w * (1 + margin)), int(y + h * (1 + margin))
    return image[max(top, 0) : bottom, max(left, 0) : right]
