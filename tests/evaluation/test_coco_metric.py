# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests that FastCocoMetric returns what mmdet's CocoMetric returns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_cases import json_writer, random_detections, random_truth
from mmengine.registry import METRICS

import mmext.evaluation.coco.metric as module
from mmext.evaluation.coco.metric import (
    CocoMetric,
    FastCocoMetric,
    HotcocoEval,
)

Write = Callable[[str, object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return json_writer(tmp_path)


def samples(truth: dict, detections: list[dict]) -> list[dict]:
    """Outputs of a model as mmdet's metric gets them."""
    order = {c['id']: i for i, c in enumerate(truth['categories'])}
    found = []
    for image in truth['images']:
        mine = [d for d in detections if d['image_id'] == image['id']]
        xywh = np.array([d['bbox'] for d in mine]).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        found.append(
            {
                'img_id': image['id'],
                'ori_shape': (480, 640),
                'pred_instances': {
                    'bboxes': torch.tensor(boxes, dtype=torch.float32),
                    'scores': torch.tensor([d['score'] for d in mine]),
                    'labels': torch.tensor(
                        [order[d['category_id']] for d in mine],
                        dtype=torch.long,
                    ),
                },
            }
        )
    return found


def evaluate(metric: CocoMetric, truth: dict, detections: list) -> dict:
    names = tuple(c['name'] for c in truth['categories'])
    metric.dataset_meta = {'classes': names}
    data = samples(truth, detections)
    metric.process({}, data)
    return metric.evaluate(len(data))


@pytest.mark.parametrize('classwise', [False, True])
def test_equals_coco_metric(write: Write, classwise: bool) -> None:
    truth = random_truth(5)
    detections = random_detections(6, truth)
    path = str(write('gt.json', truth))
    reference = evaluate(
        CocoMetric(ann_file=path, classwise=classwise), truth, detections
    )
    metric = METRICS.build(
        {'type': 'FastCocoMetric', 'ann_file': path, 'classwise': classwise}
    )
    first = evaluate(metric, truth, detections)
    assert metric._trusted is True
    second = evaluate(metric, truth, detections)
    for found in (first, second):
        assert [*found] == [*reference]
        np.testing.assert_allclose([*found.values()], [*reference.values()])
    assert reference['coco/bbox_mAP'] > 0.05


def test_the_second_evaluation_is_hotcoco_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = random_truth(5)
    detections = random_detections(6, truth)
    metric = FastCocoMetric(ann_file=str(write('gt.json', truth)))
    evaluate(metric, truth, detections)
    used = []
    original = HotcocoEval.evaluate

    def evaluate_and_count(self: HotcocoEval) -> None:
        used.append(1)
        original(self)

    monkeypatch.setattr(HotcocoEval, 'evaluate', evaluate_and_count)
    monkeypatch.setattr(
        module.coco_metric, 'COCOeval', lambda *args: pytest.fail('slow')
    )
    assert evaluate(metric, truth, detections)['coco/bbox_mAP'] > 0
    assert used == [1]


def test_zeros_do_not_end_the_comparison(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained model finds nothing, and any engine gives 0."""
    truth = random_truth(5)
    detections = random_detections(6, truth)
    metric = FastCocoMetric(ann_file=str(write('gt.json', truth)))
    evaluate(metric, truth, [])
    far = [{**d, 'bbox': [5000.0, 5000.0, 9.0, 9.0]} for d in detections]
    assert evaluate(metric, truth, far)['coco/bbox_mAP'] == 0
    assert metric._trusted is None
    evaluate(metric, truth, detections)
    assert metric._trusted is True


def test_a_wrong_engine_is_not_used(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = random_truth(5)
    detections = random_detections(6, truth)
    path = str(write('gt.json', truth))

    def accumulate(self: HotcocoEval, p: object = None) -> None:
        original(self)
        self.eval['precision'] = self.eval['precision'] * 0.5

    original = HotcocoEval.accumulate
    monkeypatch.setattr(HotcocoEval, 'accumulate', accumulate)
    metric = FastCocoMetric(ann_file=path)
    found = evaluate(metric, truth, detections)
    assert metric._trusted is False
    assert found == evaluate(CocoMetric(ann_file=path), truth, detections)
