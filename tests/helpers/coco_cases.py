# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Small random COCO data sets, and their results with pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmext.evaluation.coco.ground_truth import GroundTruth, read_ground_truth
from mmext.evaluation.coco.predictions import Predictions, read_predictions

Write = Callable[[str, object], Path]
AP_NAMES = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
NAMES = (*AP_NAMES, 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')


def random_truth(seed: int, images: int = 12, classes: int = 4) -> dict:
    """Returns objects of all sizes, crowds, and a class without objects."""
    rng = np.random.default_rng(seed)
    anns = []
    for i in range(images):
        for _ in range(rng.poisson(4)):
            size = np.exp(rng.normal(3.8, 1.0, 2)).clip(3, 300)
            box = [*rng.uniform(0, 300, 2), *size]
            anns.append(
                {
                    'id': len(anns) + 1,
                    'image_id': 10 * i + 7,
                    'category_id': int(3 * rng.integers(classes - 1) + 1),
                    'bbox': [float(round(v, 2)) for v in box],
                    'area': float(0.7 * size[0] * size[1]),
                    'iscrowd': int(rng.random() < 0.05),
                }
            )
    return {
        'images': [
            {'id': 10 * i + 7, 'width': 640, 'height': 480, 'file_name': 'x'}
            for i in range(images)
        ],
        'annotations': anns,
        'categories': [
            {'id': 3 * c + 1, 'name': f'class{c}'} for c in range(classes)
        ],
    }


def random_detections(
    seed: int, truth: dict, noise: float = 0.15, ties: bool = False
) -> list[dict]:
    """Returns inexact and duplicate boxes, wrong classes and clutter."""
    rng = np.random.default_rng(seed)
    ids = [c['id'] for c in truth['categories']]
    found = []

    def add(image: int, category: int, box: list, score: float) -> None:
        found.append(
            {
                'image_id': image,
                'category_id': category,
                'bbox': [float(v) for v in box],
                'score': round(float(score), 1) if ties else float(score),
            }
        )

    for ann in truth['annotations']:
        for _ in range(rng.integers(0, 3)):
            jitter = rng.normal(0, noise * rng.random(), 4)
            x, y, w, h = ann['bbox']
            box = [x + w * jitter[0], y + h * jitter[1]]
            box += [w * np.exp(jitter[2]), h * np.exp(jitter[3])]
            same = rng.random() < 0.85
            category = ann['category_id'] if same else int(rng.choice(ids))
            add(ann['image_id'], category, box, rng.beta(4, 2))
    for image in truth['images']:
        for _ in range(rng.poisson(5)):
            size = np.exp(rng.normal(3.8, 1.0, 2))
            category = int(rng.choice(ids))
            box = [*rng.uniform(0, 300, 2), *size]
            add(image['id'], category, box, rng.beta(2, 4))
    return found


def pycoco(
    truth: dict, detections: list[dict], iou_type: str = 'bbox'
) -> COCOeval:
    """Returns the evaluator of pycocotools after ``summarize``."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        dt = gt.loadRes(copy.deepcopy(detections))
        evaluator = COCOeval(gt, dt, iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def assert_stats(
    found: dict, expected: COCOeval, run: int = 0, atol: float = 1e-12
) -> None:
    """Compares the metrics of a run or resample with pycocotools."""
    stats = np.where(expected.stats < 0, np.nan, expected.stats)
    np.testing.assert_allclose(
        [found[name][run] for name in NAMES], stats, atol=atol
    )


def read_pair(
    write: Write, truth: dict, detections: object
) -> tuple[GroundTruth, Predictions]:
    """Writes and reads an annotation file and a result file."""
    gt = read_ground_truth(write('gt.json', truth))
    return gt, read_predictions(write('dt.json', detections), gt)


def json_writer(folder: Path) -> Write:
    """Returns a function that writes JSON and returns the path."""

    def write_json(name: str, data: object) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        return path

    return write_json
