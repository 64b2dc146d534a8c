# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What kind of error costs how much AP (TIDE, Bolya et al., ECCV 2020).

For each kind, AP50 with errors of that kind mended, less AP50: wrong class,
bad localisation, both, a second box on one object, background, a missed
object.
"""

from __future__ import annotations

import hotcoco
import numpy as np

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import load_detections
from mmext.evaluation.coco.predictions import Predictions

#: TIDE's names and ours.
KINDS = {
    'Cls': 'class',
    'Loc': 'location',
    'Both': 'class and location',
    'Dupe': 'duplicate',
    'Bkg': 'background',
    'Miss': 'missed',
}


def evaluator(truth: GroundTruth, preds: Predictions) -> hotcoco.COCOeval:
    """hotcoco's evaluator on all detections, not run yet."""
    coco = hotcoco.COCO(truth.numbered(preds.iou_type))
    rows = np.arange(len(preds))
    dets = load_detections(coco, truth, preds, rows)
    return hotcoco.COCOeval(coco, dets, preds.iou_type)


def error_types(truth: GroundTruth, preds: Predictions) -> dict[str, float]:
    """AP50 lost to each kind of error, in 0..1."""
    if not len(preds):
        anns = truth.dataset['annotations']
        objects = any(not a.get('iscrowd') for a in anns)
        return {**dict.fromkeys(KINDS.values(), 0.0), 'missed': float(objects)}
    found = evaluator(truth, preds)
    found.evaluate()
    delta = found.tide_errors()['delta_ap']
    return {name: float(delta[kind]) for kind, name in KINDS.items()}
