# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests that FastCocoMetric returns what mmdet's CocoMetric returns."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_cases import (
    json_writer,
    pycoco,
    random_detections,
    random_truth,
)
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


def unsorted(truth: dict) -> dict:
    """The same ground truth with categories that are not sorted by id."""
    order = (2, 0, 3, 1)
    return {**truth, 'categories': [truth['categories'][i] for i in order]}


@pytest.mark.parametrize('kind', ['mmdet.CocoMetric', 'FastCocoMetric'])
def test_ap_of_classes_has_their_names(write: Write, kind: str) -> None:
    """Whatever the order of the categories in the file."""
    truth = random_truth(5)
    detections = random_detections(6, truth)
    found = []
    for i, content in enumerate((truth, unsorted(truth))):
        path = str(write(f'{i}.json', content))
        metric = METRICS.build(
            {'type': kind, 'ann_file': path, 'classwise': True}
        )
        found.append(evaluate(metric, content, detections))
        again = evaluate(metric, content, detections)
        assert again == pytest.approx(found[-1], nan_ok=True)
    assert found[1] == pytest.approx(found[0], nan_ok=True)
    # By pycocotools, one class at a time.
    for category in truth['categories'][:3]:
        part = {**truth, 'categories': [category]}
        part['annotations'] = [
            a
            for a in truth['annotations']
            if a['category_id'] == category['id']
        ]
        mine = [d for d in detections if d['category_id'] == category['id']]
        expected = pycoco(part, mine).stats[0]
        name = f'coco/{category["name"]}_precision'
        assert found[1][name] == pytest.approx(expected, abs=6e-4)


def test_a_pool_can_evaluate_in_the_order_of_labels() -> None:
    """COCOevalMP is sent to processes, so that it must have its name."""
    evaluator = module.coco_metric.COCOevalMP
    assert pickle.loads(pickle.dumps(evaluator)) is evaluator
    module.keep_class_order(module.coco_metric)
    assert module.coco_metric.COCOevalMP is evaluator


def test_an_annotation_of_id_0_counts(write: Write) -> None:
    """pycocotools counts its object as missed even if it is found."""
    truth = random_truth(5)
    keys = ('image_id', 'category_id', 'bbox')
    perfect = [
        {**{k: a[k] for k in keys}, 'score': 0.9}
        for a in truth['annotations']
        if not a['iscrowd']
    ]
    for annotation in truth['annotations']:
        annotation['id'] -= 1
    path = str(write('gt.json', truth))
    fast = FastCocoMetric(ann_file=path)
    assert evaluate(fast, truth, perfect)['coco/bbox_mAP'] == 1
    assert fast._trusted is True
    slow = CocoMetric(ann_file=path)
    assert evaluate(slow, truth, perfect)['coco/bbox_mAP'] < 1
