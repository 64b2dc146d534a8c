# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Images with the boxes of several runs, for the HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions

_LONGEST = 480  # pixels of an embedded image
_MOST_NAMES = 16


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
    min_score: float = 0.3,
) -> dict[str, Any]:
    """Returns an image with boxes, for the macro of ``page.html``.

    Args:
        truth: Ground truth, whose boxes have the style ``truth``.
        image_id: COCO id.
        preds: Style of the boxes -> predictions.
        folder: Folder of the images; without it the frame is empty.
        min_score: Detections with lower scores are left out. Default: 0.3.
    """
    record = next(r for r in truth.dataset['images'] if r['id'] == image_id)
    names = dict(zip(truth.category_ids.tolist(), truth.names, strict=True))
    boxes = [
        ('truth', names[a['category_id']], a['bbox'])
        for a in truth.dataset['annotations']
        if a['image_id'] == image_id
    ]
    objects = len(boxes)
    for style, run in preds.items():
        found = run.select(
            (run.image_id == image_id) & (run.score >= min_score)
        )
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
    # Names would cover an image with many detections.
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
