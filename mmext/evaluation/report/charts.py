# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The charts of the HTML page: values for the macros of ``page.html``."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmext.evaluation.coco.diagnosis import MIN_SCORE
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions

#: Arguments of a macro; None if there is nothing to draw.
Chart = dict[str, Any] | None
_WIDTH = 360
_NAMES = 128  # width of the names of bars and whiskers
_LONGEST = 480  # pixels of an embedded image
_MOST_NAMES = 16  # in an image; more would cover it


@dataclass
class Axis:
    """Maps values from ``low`` to ``high`` to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __post_init__(self) -> None:
        if self.low == self.high:
            self.high += 1

    def at(self, value: float) -> float:
        """Returns the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Returns about five round values."""
        raw = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(raw))
        step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= raw)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [round(i * step, 10) for i in range(first, last + 1)]


def line_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Returns a line for each (name, points), without points of y nan."""
    finite = [
        (name, [(x, y) for x, y in points if math.isfinite(y)])
        for name, points in series
    ]
    everything = [point for _, points in finite for point in points]
    if not everything:
        return None
    xs, ys = zip(*everything, strict=True)
    low, high = y_range or (min(ys), max(ys))
    x_axis = Axis(min(xs), max(xs), 44, _WIDTH - 8)
    y_axis = Axis(low, high, 206, 8)
    lines = [
        (name, [(x_axis.at(x), y_axis.at(y)) for x, y in points])
        for name, points in finite
    ]
    labels = {'x_label': x_label, 'y_label': y_label}
    return {'x': x_axis, 'y': y_axis, 'lines': lines, **labels}


def forest(
    rows: Iterable[tuple[str, float, float, float]], label: str, side: int
) -> Chart:
    """Returns whiskers from (name, difference, low, high).

    Rows without a difference are left out.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return None
    ends = [v for _, *values in rows for v in values if math.isfinite(v)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * (high - low or 1)
    axis = Axis(low - pad, high + pad, _NAMES, _WIDTH - 10)
    return {'x': axis, 'label': label, 'side': side, 'rows': rows}


def bars(
    names: Sequence[str],
    sides: Sequence[tuple[str, Sequence[float]]],
    label: str,
) -> Chart:
    """Returns a group of bars for each name, one bar a (side, values)."""
    most = max((v for _, values in sides for v in values), default=0)
    axis = Axis(0, max(most, 0), _NAMES, _WIDTH - 44)
    return {'x': axis, 'names': names, 'sides': sides, 'label': label}


def image_folder(cfg: Mapping[str, Any] | None) -> Path | None:
    """Returns the folder of a config's test images, None if unknown."""
    loader = (cfg or {}).get('test_dataloader') or {}
    dataset = loader.get('dataset') or {}
    prefix = dataset.get('data_prefix') or {}
    if 'img' not in prefix:
        return None
    return Path(dataset.get('data_root') or '', prefix['img'])


def picture(
    truth: GroundTruth,
    image_id: int,
    preds: Mapping[str, Predictions],
    folder: Path | None,
) -> dict[str, Any]:
    """Returns an image with boxes; ``preds`` are by the style of the boxes."""
    record = next(r for r in truth.dataset['images'] if r['id'] == image_id)
    names = dict(zip(truth.category_ids.tolist(), truth.names, strict=True))
    boxes = [
        ('truth', names[a['category_id']], a['bbox'])
        for a in truth.dataset['annotations']
        if a['image_id'] == image_id
    ]
    objects = len(boxes)
    for style, run in preds.items():
        here = run.image_id == image_id
        found = run.select(here & (run.score >= MIN_SCORE))
        for box, category, score in zip(
            found.bounding_boxes().tolist(),
            found.category_id.tolist(),
            found.score.tolist(),
            strict=True,
        ):
            boxes.append((style, f'{names[category]} {score:.2f}', box))
    image, size = _embed(record, folder)
    if size is None and image_id in truth.sizes:
        size = truth.sizes[image_id][::-1]
    if size is None:  # large enough for all boxes
        size = tuple(max(b[i] + b[i + 2] for *_, b in boxes) for i in (0, 1))
    crowded = len(boxes) - objects > _MOST_NAMES
    return {
        'name': record.get('file_name', image_id),
        'image': image,
        'size': size,
        'boxes': boxes,
        'font': 0 if crowded else max(size) / 32,
    }


def _embed(
    record: Mapping[str, Any], folder: Path | None
) -> tuple[str | None, tuple[int, int] | None]:
    """The image as a data URL, and its width and height before resizing."""
    path = folder and folder / str(record.get('file_name', ''))
    if not path or not path.is_file():
        return None, None
    from PIL import Image

    with Image.open(path) as image:
        size = image.size
        small = image.convert('RGB')
        small.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    small.save(stream, 'JPEG', quality=70)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'data:image/jpeg;base64,{data}', size
