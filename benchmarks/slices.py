# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in one large picture, as it is and in slices.

    python benchmarks/slices.py CONFIG CHECKPOINT [--slice 640 480]

The picture is a mosaic of the images that the config tests on, up to
4,000x3,000 pixels. AP is of the mosaic with its annotations; the time is that
of one run. The table is written to benchmarks/results/slices.md, and the
picture with boxes to the folder of --out.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
from export_table import ROOT
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import mmext
from mmext.errors import command
from mmext.evaluation.report.table import Table
from mmext.export.average_precision import config_images
from mmext.export.detections import Detections
from mmext.export.prediction.outputs import draw
from mmext.export.prediction.views import detect_in_views, find_views
from mmext.utils.config import load_config

OUT = ROOT / 'benchmarks' / 'results' / 'slices.md'
LARGEST = 4000, 3000


def mosaic(config: str) -> tuple[np.ndarray, dict]:
    """Returns images of equal size side by side, and their COCO content."""
    found = config_images(load_config(config), 'test', 10**6)
    images = [cv2.imread(str(path)) for path in found.paths]
    height, width = images[0].shape[:2]
    columns = LARGEST[0] // width
    rows = min(LARGEST[1] // height, len(images) // columns)
    picture = np.zeros((rows * height, columns * width, 3), np.uint8)
    content = {**found.content, 'annotations': []}
    entries = content['images'][: rows * columns]
    for n, entry in enumerate(entries):
        y, x = n // columns * height, n % columns * width
        picture[y : y + height, x : x + width] = images[n]
        for old in found.content['annotations']:
            if old['image_id'] == entry['id']:
                left, top, *size = old['bbox']
                box = [left + x, top + y, *size]
                content['annotations'].append(
                    {**old, 'image_id': 1, 'bbox': box, 'segmentation': []}
                )
    height, width = picture.shape[:2]
    content['images'] = [
        {'id': 1, 'file_name': 'mosaic.jpg', 'height': height, 'width': width}
    ]
    return picture, content


def average_precision(ann: Path, file: Path) -> tuple[float, float]:
    """Returns AP and AP50 in percent, of any number of detections."""
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(ann))
        done = COCOeval(truth, truth.loadRes(str(file)), 'bbox')
        done.params.maxDets = [1, 10, 10**5]
        done.evaluate()
        done.accumulate()
    precision = done.eval['precision'][..., 0, 2]
    return 100 * precision.mean(), 100 * precision[0].mean()


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--slice', nargs=2, type=int, default=(640, 480))
    parser.add_argument('--out', type=Path, default=Path('work_dirs/slices'))
    args = parser.parse_args()
    picture, content = mosaic(args.config)
    size = picture.shape[:2]
    objects = len(content['annotations'])
    detector = mmext.Detector(args.checkpoint, args.config)
    known = {c['name']: c['id'] for c in content['categories']}
    ids = [known[name] for name in detector.classes]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ann = Path(folder, 'mosaic.json')
        ann.write_text(json.dumps(content))
        for name, piece in (('whole', None), ('slices', tuple(args.slice))):
            views = find_views(size, piece)
            start = time.perf_counter()
            (found,) = detect_in_views(detector, [picture], [views], 0.05)
            seconds = time.perf_counter() - start
            file = Path(folder, f'{name}.json')
            file.write_text(json.dumps(found.coco(1, ids)))
            every, at_half = average_precision(ann, file)
            rows.append(
                [
                    name,
                    str(len(views)),
                    f'{len(found):,}',
                    f'{every:.1f}',
                    f'{at_half:.1f}',
                    f'{seconds:.0f} s',
                ]
            )
            path = args.out / f'{name}.jpg'
            good = found.scores >= 0.5
            parts = found.boxes[good], found.scores[good], found.labels[good]
            draw(picture, Detections(*parts), detector.classes, path)
    header = ['how', 'views', 'detections', 'AP', 'AP50', 'time']
    page = (
        f'`python benchmarks/slices.py {args.config}`: a mosaic of '
        f'{size[1]}x{size[0]} pixels with {objects:,} objects, which the '
        f'config resizes; slices of {"x".join(map(str, args.slice))}.\n\n'
        f'{Table(header, rows).markdown()}\n'
    )
    print(page)
    OUT.write_text(page, 'utf-8')


if __name__ == '__main__':
    main()
