# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The pictures of the HTML page: where the files are, and their boxes."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.cells import cell_len

from mmext.evaluation.coco.diagnosis import MIN_SCORE
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.report.charts import short_name
from mmext.utils.files import stays_inside
from mmext.utils.images import read_pixels
from mmext.utils.text import some

_LONGEST = 640  # pixels of an embedded image
_MOST_LABELS = 16  # in a picture; more would cover it
_LETTER = 0.62  # width of a letter, as a share of the font size

Box = Sequence[float]  # x, y, width, height
Place = tuple[float, float]  # the left end of a base line


@dataclass(frozen=True)
class ImageFolder:
    """The folder of the test images, or why there is none."""

    path: Path | None
    problem: str = ''


def find_image_folder(
    truth: GroundTruth,
    configs: Sequence[Mapping[str, Any] | None],
    given: Path | None = None,
) -> ImageFolder:
    """Returns the folder that the file names of the images are relative to.

    It is ``given``; otherwise one that the configs name, or one beside the
    annotation file that holds every image. Two such folders may be of two
    splits, so that none is taken then.
    """
    names = [str(r.get('file_name', '')) for r in truth.dataset['images']]
    names = [name for name in names if name]

    def found(folder: Path) -> int:
        return sum(os.path.isfile(folder / name) for name in names)

    if given:
        if found(given):
            return ImageFolder(given)
        what = 'has none of them' if given.is_dir() else 'does not exist'
        why = f'{given} {what}'
    else:
        named = list(dict.fromkeys(_named_folders(configs)))
        for folder in named:
            if found(folder):
                return ImageFolder(folder)
        beside = dict.fromkeys(_folders_beside(truth.path))
        full = [path for path in beside if names and found(path) == len(names)]
        if len(full) == 1:
            return ImageFolder(full[0])
        why = f'no config names their folder, none is beside {truth.path}'
        if full:
            why = f'{some(full)} have the same file names'
        elif named:
            why = f'not in {some(named)} nor beside {truth.path}'
    return ImageFolder(
        None,
        f'No pictures of the test images ({some(names, 1)}): {why}. Boxes are '
        'drawn on empty frames. Give the folder that file names are relative '
        'to: --images FOLDER.',
    )


def _named_folders(
    configs: Sequence[Mapping[str, Any] | None],
) -> Iterator[Path]:
    """The folders of the data sets to test or validate on."""
    for cfg in configs:
        for key in ('test_dataloader', 'val_dataloader'):
            dataset = ((cfg or {}).get(key) or {}).get('dataset') or {}
            while dataset.get('dataset'):  # a wrapper
                dataset = dataset['dataset']
            prefix = (dataset.get('data_prefix') or {}).get('img')
            if prefix is not None:
                yield Path(dataset.get('data_root') or '', prefix)


def _folders_beside(annotations: Path) -> Iterator[Path]:
    """Where the images of an annotation file are in the usual layouts."""
    stem = annotations.name.split('.')[0]
    splits = dict.fromkeys(['', stem, *re.split(r'[_-]', stem)])
    for root in (annotations.parent, annotations.parent.parent):
        for folder in (root, root / 'images'):
            for split in splits:
                if (folder / split).is_dir():
                    yield folder / split


def picture(
    truth: GroundTruth,
    image_id: int,
    preds: Mapping[str, Predictions],
    folder: Path | None,
) -> dict[str, Any]:
    """Returns an image with boxes; ``preds`` are by the style of the boxes.

    ``boxes`` has (style, text, box, label), with the label's text and place,
    or None where there is no room: the complete text is a tooltip.
    """
    record = next(r for r in truth.dataset['images'] if r['id'] == image_id)
    names = truth.all_names
    objects = [
        ('truth', names[a['category_id']], a['bbox'])
        for a in truth.dataset['annotations']
        if a['image_id'] == image_id
    ]
    detected, labels = [], []
    for style, run in preds.items():
        here = run.image_id == image_id
        found = run.select(here & (run.score >= MIN_SCORE))
        for box, category, score in zip(
            found.bounding_boxes().tolist(),
            found.category_id.tolist(),
            found.score.tolist(),
            strict=True,
        ):
            name = names[category]
            detected.append((style, f'{name} {score:.2f}', box))
            labels.append((score, f'{short_name(name)} {score:.2f}', box))
    image, size = _embed(folder, str(record.get('file_name', '')))
    if size is None and image_id in truth.sizes:
        size = truth.sizes[image_id][::-1]
    if size is None:  # large enough for all boxes
        boxes = [box for *_, box in (*objects, *detected)]
        size = tuple(max(b[i] + b[i + 2] for b in boxes) for i in (0, 1))
    font = max(size) / 32
    places = place_labels(labels, size, font)
    return {
        'name': record.get('file_name', image_id),
        'image': image,
        'size': size,
        'boxes': [
            *((*box, None) for box in objects),
            *(
                (*box, place and (label[1], *place))
                for box, label, place in zip(
                    detected, labels, places, strict=True
                )
            ),
        ],
        'font': font,
    }


def place_labels(
    labels: Sequence[tuple[float, str, Box]],
    size: tuple[float, float],
    font: float,
    most: int = _MOST_LABELS,
) -> list[Place | None]:
    """Returns places of the labels (score, text, box) that do not overlap.

    The best scores come first; None if there is no room, or after the first
    ``most``. All lengths are in pixels of an image of the given size.
    """
    places: list[Place | None] = [None] * len(labels)
    taken: list[Box] = []
    for i in sorted(range(len(labels)), key=lambda i: -labels[i][0]):
        _, text, (x, y, w, h) = labels[i]
        width = _LETTER * font * cell_len(text)
        # On the box, in its corner, below it, on its right end.
        for left, base in (
            (x, y - 0.25 * font),
            (x, y + font),
            (x, y + h + font),
            (x + w - width, y - 0.25 * font),
        ):
            left = max(0, min(left, size[0] - width))
            base = max(font, min(base, size[1] - 0.25 * font))
            label = (left, base - font, left + width, base + 0.25 * font)
            if len(taken) < most and not any(
                label[0] < other[2]
                and other[0] < label[2]
                and label[1] < other[3]
                and other[1] < label[3]
                for other in taken
            ):
                places[i] = (left, base)
                taken.append(label)
                break
    return places


def _embed(
    folder: Path | None, name: str
) -> tuple[str | None, tuple[int, int] | None]:
    """The image as a data URL, and its width and height before resizing.

    It is decoded as for the training: with OpenCV, which applies EXIF's turns.
    """
    # The page is passed on. It must not show other files of this machine.
    if folder is None or not stays_inside(folder / name, folder):
        return None, None
    image = read_pixels(folder / name, cv2.IMREAD_COLOR)
    if image is None:
        return None, None
    height, width = image.shape[:2]
    share = min(1, _LONGEST / max(height, width))
    small = (max(1, round(share * width)), max(1, round(share * height)))
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 75])
    text = base64.b64encode(data.tobytes()).decode()
    return f'data:image/jpeg;base64,{text}', (width, height)
