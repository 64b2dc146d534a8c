# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests that FastCocoMetric returns what mmdet's CocoMetric returns."""

import numpy as np
import pytest
import torch
from coco_cases import Write, random_detections, random_truth
from mmengine.registry import METRICS

import mmext.evaluation.coco.metric as module
from mmext.evaluation.coco.metric import (
    CocoMetric,
    FastCocoMetric,
    HotcocoEval,
)

TRUTH = random_truth(5)
DETECTIONS = random_detections(6, TRUTH)


@pytest.fixture
def path(write: Write) -> str:
    """The annotation file."""
    return str(write('gt.json', TRUTH))


def samples(detections: list[dict]) -> list[dict]:
    """Outputs of a model as mmdet's metric gets them."""
    order = {c['id']: i for i, c in enumerate(TRUTH['categories'])}
    found = []
    for image in TRUTH['images']:
        mine = [d for d in detections if d['image_id'] == image['id']]
        labels = [order[d['category_id']] for d in mine]
        xywh = np.array([d['bbox'] for d in mine]).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        found.append(
            {
                'img_id': image['id'],
                'ori_shape': (480, 640),
                'pred_instances': {
                    'bboxes': torch.tensor(boxes, dtype=torch.float32),
                    'scores': torch.tensor([d['score'] for d in mine]),
                    'labels': torch.tensor(labels, dtype=torch.long),
                },
            }
        )
    return found


def evaluate(metric: CocoMetric, detections: list = DETECTIONS) -> dict:
    names = tuple(c['name'] for c in TRUTH['categories'])
    metric.dataset_meta = {'classes': names}
    data = samples(detections)
    metric.process({}, data)
    return metric.evaluate(len(data))


@pytest.mark.parametrize('classwise', [False, True])
def test_equals_coco_metric(path: str, classwise: bool) -> None:
    reference = evaluate(CocoMetric(ann_file=path, classwise=classwise))
    metric = METRICS.build(
        {'type': 'FastCocoMetric', 'ann_file': path, 'classwise': classwise}
    )
    first = evaluate(metric)
    assert metric._trusted is True
    second = evaluate(metric)
    for found in (first, second):
        assert [*found] == [*reference]
        np.testing.assert_allclose([*found.values()], [*reference.values()])
    assert reference['coco/bbox_mAP'] > 0.05


def test_the_second_evaluation_is_hotcoco_alone(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = FastCocoMetric(ann_file=path)
    evaluate(metric)
    used = []
    original = HotcocoEval.evaluate

    def evaluate_and_count(self: HotcocoEval) -> None:
        used.append(1)
        original(self)

    monkeypatch.setattr(HotcocoEval, 'evaluate', evaluate_and_count)
    monkeypatch.setattr(
        module.coco_metric, 'COCOeval', lambda *args: pytest.fail('slow')
    )
    assert evaluate(metric)['coco/bbox_mAP'] > 0
    assert used == [1]


def test_zeros_do_not_end_the_comparison(path: str) -> None:
    """An untrained model finds nothing, and any engine gives 0."""
    metric = FastCocoMetric(ann_file=path)
    evaluate(metric, [])
    far = [{**d, 'bbox': [5000.0, 5000.0, 9.0, 9.0]} for d in DETECTIONS]
    assert evaluate(metric, far)['coco/bbox_mAP'] == 0
    assert metric._trusted is None
    evaluate(metric)
    assert metric._trusted is True


def test_a_wrong_engine_is_not_used(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    def accumulate(self: HotcocoEval, p: object = None) -> None:
        original(self)
        self.eval['precision'] = self.eval['precision'] * 0.5

    original = HotcocoEval.accumulate
    monkeypatch.setattr(HotcocoEval, 'accumulate', accumulate)
    metric = FastCocoMetric(ann_file=path)
    found = evaluate(metric)
    assert metric._trusted is False
    assert found == evaluate(CocoMetric(ann_file=path))
