# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Images with the boxes of several runs drawn over them, as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as mask_utils

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions

_LONGEST = 480  # pixels of an embedded image
_MOST_NAMES = 16


def image_folder(cfg: Config | None) -> Path | None:
    """Where a config's test images are, None where it does not say."""
    loader = (cfg or {}).get('test_dataloader') or {}
    dataset = loader.get('dataset') or {}
    prefix = dataset.get('data_prefix') or {}
    if 'img' not in prefix:
        return None
    return Path(dataset.get('data_root') or '', prefix['img'])


def picture(
    truth: GroundTruth,
    image_id: int,
    preds: Sequence[tuple[str, Predictions]],
    folder: Path | None,
    min_score: float = 0.3,
) -> str:
    """One image with ground truth (dashed) and each run's boxes.

    Args:
        truth: Ground truth.
        image_id: COCO id.
        preds: (style of the page, predictions).
        folder: Where the images are; a blank frame without it.
        min_score: Fainter detections are left out. Default: 0.3.
    """
    record = next(r for r in truth.dataset['images'] if r['id'] == image_id)
    names = dict(zip(truth.category_ids.tolist(), truth.names, strict=True))
    embedded, size = _embed(record, folder)
    if size is None and image_id in truth.sizes:
        size = truth.sizes[image_id][::-1]
    anns = [
        a for a in truth.dataset['annotations'] if a['image_id'] == image_id
    ]
    if size is None:
        ends = [
            (a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3])
            for a in anns
        ]
        size = (
            tuple(max(e[i] for e in ends) for i in (0, 1))
            if ends
            else (640, 480)
        )
    width, height = size
    shown = sum(
        int(((p.image_id == image_id) & (p.score >= min_score)).sum())
        for _, p in preds
    )
    # Names would cover a crowded image; there they are tooltips only.
    font = max(width, height) / 32 if shown <= _MOST_NAMES else 0
    parts = [f'<rect class="frame" width="{width}" height="{height}"/>']
    if embedded:
        parts.append(
            f'<image href="{embedded}" width="{width}" height="{height}"/>'
        )
    parts += [_box(a['bbox'], 'truth', names[a['category_id']]) for a in anns]
    for style, found in preds:
        rows = np.flatnonzero(
            (found.image_id == image_id) & (found.score >= min_score)
        )
        for r in rows:
            name = names[int(found.category_id[r])]
            box = (
                found.box[r].tolist()
                if found.mask is None
                else mask_utils.toBbox(found.mask[r]).tolist()
            )
            text = f'{name} {found.score[r]:.2f}'
            parts.append(_box(box, style, text, font))
    label = escape(str(record.get('file_name', image_id)))
    return (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _box(box: Sequence[float], style: str, text: str, font: float = 0) -> str:
    x, y, w, h = box
    shape = (
        f'<rect class="box {style}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" '
        f'height="{h:.1f}"><title>{escape(text)}</title></rect>'
    )
    if font:
        shape += (
            f'<text class="label {style}" x="{x:.1f}" '
            f'y="{max(y - 2, font):.1f}" font-size="{font:.1f}">'
            f'{escape(text)}</text>'
        )
    return shape


def _embed(
    record: dict, folder: Path | None
) -> tuple[str | None, tuple[int, int] | None]:
    """A data URL and the image's own width and height, where it is there."""
    path = folder and folder / str(record.get('file_name', ''))
    if not path or not path.is_file():
        return None, None
    with Image.open(path) as image:
        size = image.size
        small = image.convert('RGB')
        small.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    small.save(stream, 'JPEG', quality=70)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'data:image/jpeg;base64,{data}', size
