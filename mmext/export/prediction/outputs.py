# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes detections as COCO, CSV and YOLO files, and into pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mmext.evaluation.report.table import Table
from mmext.export.detections import Detections
from mmext.utils.files import replacing, write_json
from mmext.utils.images import write_image

_COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080')


class Found(NamedTuple):
    """What was found in an image of some height and width."""

    name: str
    size: tuple[int, int]
    detections: Detections


def write_coco(
    images: Sequence[Found], classes: Sequence[str], out: Path
) -> Path:
    """Writes a COCO data set, which CVAT and others import, with scores."""
    ids = range(1, len(classes) + 1)
    content: dict[str, list[dict]] = {
        'images': [],
        'categories': [
            {'id': i, 'name': name}
            for i, name in zip(ids, classes, strict=True)
        ],
        'annotations': [],
    }
    annotations = content['annotations']
    for i, (name, (height, width), found) in enumerate(images, 1):
        content['images'].append(
            {'id': i, 'file_name': name, 'height': height, 'width': width}
        )
        for entry in found.coco(i, ids):
            _, _, w, h = entry['bbox']
            more = {'id': len(annotations) + 1, 'area': w * h, 'iscrowd': 0}
            annotations.append({'segmentation': [], **entry, **more})
    path = out / 'detections.json'
    write_json(path, content)
    return path


def write_csv(
    images: Sequence[Found], classes: Sequence[str], out: Path
) -> Path:
    """Writes one row a detection."""
    rows = [
        [name, classes[label], f'{score:.6g}', *(f'{x:.2f}' for x in box)]
        for name, _, found in images
        for label, score, box in found
    ]
    header = ['image', 'class', 'score', 'x1', 'y1', 'x2', 'y2']
    return _write(out / 'detections.csv', Table(header, rows).csv())


def write_yolo(
    images: Sequence[Found], classes: Sequence[str], out: Path
) -> Path:
    """Writes a text file an image: label, centre, size, score in shares."""
    folder = out / 'labels'
    for name, (height, width), found in images:
        text = ''
        for label, score, (x1, y1, x2, y2) in found:
            x, w = (x1 + x2) / 2 / width, (x2 - x1) / width
            y, h = (y1 + y2) / 2 / height, (y2 - y1) / height
            text += f'{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f} {score:.6f}\n'
        _write(folder / Path(name).with_suffix('.txt'), text)
    _write(folder / 'classes.txt', ''.join(f'{name}\n' for name in classes))
    return folder


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding='utf-8')
    return path


WRITERS: dict[str, Callable[[Sequence[Found], Sequence[str], Path], Path]] = {
    'coco': write_coco,
    'csv': write_csv,
    'yolo': write_yolo,
}


def draw(
    pixels: np.ndarray, found: Detections, classes: Sequence[str], path: Path
) -> None:
    """Writes an image (H, W, 3), BGR, with boxes, names and masks."""
    shown = pixels.copy()
    if found.masks is not None:
        for mask, label in zip(found.masks, found.labels, strict=True):
            colour = _COLOURS[label % len(_COLOURS)]
            blue_green_red = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
            shown[mask] = shown[mask] // 2 + np.uint8(blue_green_red) // 2
    image = Image.fromarray(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB))
    pen = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 1000))
    for label, score, box in found:
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle(box, outline=colour, width=width)
        text, place = f'{classes[label]} {score:.2f}', (box[0], box[1])
        size = 6 * width
        pen.rectangle(pen.textbbox(place, text, font_size=size), fill=colour)
        pen.text(place, text, fill='white', font_size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    write_image(path, pixels)
