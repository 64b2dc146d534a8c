# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes detections as COCO, CSV and YOLO files, and into pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mmext.evaluation.report.table import Table
from mmext.export.detections import Detections
from mmext.utils.files import replacing, write_json
from mmext.utils.images import write_image

_COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080')


@dataclass
class Found:
    """The detections of many images.

    Args:
        classes: The name of each label.
        names: The relative name of each image.
        sizes: Height and width of each image.
        detections: Those of each image.
    """

    classes: Sequence[str]
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.detections))

    def add(self, name: str, size: tuple[int, int], found: Detections) -> None:
        """Adds an image."""
        self.names.append(name)
        self.sizes.append(size)
        self.detections.append(found)


def write_coco(found: Found, out: Path) -> Path:
    """Writes a COCO data set, which CVAT and others import, with scores."""
    ids = range(1, len(found.classes) + 1)
    images, annotations = [], []
    for i, (name, size, detections) in enumerate(
        zip(found.names, found.sizes, found.detections, strict=True), 1
    ):
        height, width = size
        images.append(
            {'id': i, 'file_name': name, 'height': height, 'width': width}
        )
        for entry in detections.coco(i, ids):
            _, _, w, h = entry['bbox']
            number = len(annotations) + 1
            more = {'id': number, 'area': w * h, 'iscrowd': 0}
            annotations.append({'segmentation': [], **entry, **more})
    categories = [
        {'id': i, 'name': name}
        for i, name in zip(ids, found.classes, strict=True)
    ]
    path = out / 'detections.json'
    write_json(
        path,
        {
            'images': images,
            'categories': categories,
            'annotations': annotations,
        },
    )
    return path


def write_csv(found: Found, out: Path) -> Path:
    """Writes one row a detection."""
    rows = [
        [
            name,
            found.classes[label],
            f'{score:.6g}',
            *(f'{x:.2f}' for x in box),
        ]
        for name, detections in zip(found.names, found.detections, strict=True)
        for label, score, box in zip(
            detections.labels, detections.scores, detections.boxes, strict=True
        )
    ]
    header = ['image', 'class', 'score', 'x1', 'y1', 'x2', 'y2']
    path = out / 'detections.csv'
    with replacing(path) as part:
        part.write_text(Table(header, rows).csv(), encoding='utf-8')
    return path


def write_yolo(found: Found, out: Path) -> Path:
    """Writes a text file an image: label, centre, size, score in shares."""
    folder = out / 'labels'
    for name, size, detections in zip(
        found.names, found.sizes, found.detections, strict=True
    ):
        scale = np.tile(np.array(size[::-1], float), 2)
        lines = []
        for label, score, box in zip(
            detections.labels, detections.scores, detections.boxes, strict=True
        ):
            x1, y1, x2, y2 = box / scale
            values = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, score
            lines.append(f'{label} ' + ' '.join(f'{v:.6f}' for v in values))
        path = folder / Path(name).with_suffix('.txt')
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(''.join(f'{line}\n' for line in lines))
    path = folder / 'classes.txt'
    with replacing(path) as part:
        text = ''.join(f'{name}\n' for name in found.classes)
        part.write_text(text, encoding='utf-8')
    return folder


WRITERS: dict[str, Callable[[Found, Path], Path]] = {
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
    width = max(2, round(max(image.size) / 500))
    for label, score, box in zip(
        found.labels, found.scores, found.boxes.tolist(), strict=True
    ):
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle(box, outline=colour, width=width)
        text, place = f'{classes[label]} {score:.2f}', (box[0], box[1])
        size = 6 * width
        pen.rectangle(pen.textbbox(place, text, font_size=size), fill=colour)
        pen.text(place, text, fill='white', font_size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    write_image(path, pixels)
