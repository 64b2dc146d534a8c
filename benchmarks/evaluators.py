# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares evaluators of COCO AP on data of COCO val2017's size.

    python benchmarks/evaluators.py [--images 5000] [--masks]

Boxes, or with ``--masks`` the same boxes as run-length encodings.

faster-coco-eval is included if it is installed; no extra of mmext installs
it: pip install faster-coco-eval
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from compare_speed import make_detections, make_truth, timed

from mmext.evaluation.coco.accumulate import (
    METRICS,
    accumulate_weighted,
    summarize,
)
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions


def run_pycocotools(gt: Path, dt: Path, kind: str) -> np.ndarray:
    """The twelve metrics of the reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _reference(COCO, COCOeval, gt, dt, kind)


def run_faster(gt: Path, dt: Path, kind: str) -> np.ndarray:
    """The twelve metrics of faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _reference(COCO, COCOeval_faster, gt, dt, kind)


def run_hotcoco(gt: Path, dt: Path, kind: str) -> np.ndarray:
    """The twelve metrics of hotcoco."""
    from hotcoco import COCO, COCOeval

    return _reference(COCO, COCOeval, gt, dt, kind)


def run_mmext(gt: Path, dt: Path, kind: str) -> np.ndarray:
    """The twelve metrics of mmext, with all that resampling needs."""
    truth = read_ground_truth(gt)
    matches = match(truth, read_predictions(dt, truth, kind))
    ones = np.ones((1, matches.num_images), int)
    found = summarize(accumulate_weighted(matches, ones, exact=True))
    return np.array([found[m][0] for m in METRICS])


def add_masks(records: list[dict]) -> None:
    """Adds the box of each record as the mask of an image of 640x480."""
    from pycocotools import mask

    for record in records:
        (code,) = mask.frPyObjects(np.array([record['bbox']]), 480, 640)
        record['segmentation'] = {**code, 'counts': code['counts'].decode()}


def _reference(
    coco: type, evaluator: type, gt: Path, dt: Path, kind: str
) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco(str(gt))
        found = evaluator(truth, truth.loadRes(str(dt)), kind)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return np.asarray(found.stats, float)[:12]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--detections', type=int, default=96, help='an image')
    parser.add_argument('--masks', action='store_true')
    args = parser.parse_args()
    kind = 'segm' if args.masks else 'bbox'
    engines = {'hotcoco': run_hotcoco, 'mmext': run_mmext}
    if importlib.util.find_spec('faster_coco_eval'):
        engines['faster-coco-eval'] = run_faster
    engines['pycocotools'] = run_pycocotools
    with tempfile.TemporaryDirectory() as folder:
        gt, dt = Path(folder, 'gt.json'), Path(folder, f'dt.{kind}.json')
        truth = make_truth(args.images)
        found = make_detections(truth, args.detections, 1)
        if args.masks:
            add_masks(truth['annotations'])
            add_masks(found)
            for record in found:  # areas are those of the masks
                del record['bbox']
        gt.write_text(json.dumps(truth))
        dt.write_text(json.dumps(found))
        del truth, found
        results = {
            name: timed(
                f'{name}, reading included', lambda r=run: r(gt, dt, kind)
            )
            for name, run in engines.items()
        }
    reference = results['pycocotools'][0]
    for name, (values, _, _) in results.items():
        gap = np.nanmax(
            abs(np.where(reference < 0, np.nan, reference) - values)
        )
        print(f'{name}: largest difference to pycocotools {gap:.1e}')


if __name__ == '__main__':
    main()
