# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The AP50 that each kind of error costs (TIDE, Bolya et al., ECCV 2020).

The cost of a kind is AP50 with all errors of that kind corrected, minus AP50.
"""

from __future__ import annotations

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import make_evaluator
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


def error_types(truth: GroundTruth, preds: Predictions) -> dict[str, float]:
    """Returns the AP50 lost to each kind of error, from 0 to 1."""
    if not len(preds):
        anns = truth.dataset['annotations']
        objects = any(not a.get('iscrowd') for a in anns)
        return {**dict.fromkeys(KINDS.values(), 0.0), 'missed': float(objects)}
    evaluator = make_evaluator(truth, preds)
    evaluator.evaluate()
    delta = evaluator.tide_errors()['delta_ap']
    return {name: float(delta[kind]) for kind, name in KINDS.items()}
