# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext.evaluate`` against pycocotools and published numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_cases import json_writer, pycoco, random_detections, random_truth

import mmext
from mmext.evaluation.coco.accumulate import METRICS


@pytest.mark.parametrize('seed', range(4))
def test_equals_pycocotools(tmp_path: Path, seed: int) -> None:
    truth = random_truth(seed)
    detections = random_detections(seed, truth)
    write = json_writer(tmp_path)
    found = mmext.evaluate(
        write('dets.bbox.json', detections), write('truth.json', truth)
    )
    expected = pycoco(truth, detections).stats
    # pycocotools writes -1 where there is no object.
    expected = np.where(expected == -1, np.nan, expected)
    assert tuple(found) == METRICS
    np.testing.assert_allclose([*found.values()], expected, atol=1e-12)


def test_a_missing_file(tmp_path: Path) -> None:
    ann = json_writer(tmp_path)('truth.json', random_truth(0))
    with pytest.raises(mmext.UserError, match='nowhere.json'):
        mmext.evaluate(tmp_path / 'nowhere.json', ann)
