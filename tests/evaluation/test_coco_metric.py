# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests that FastCocoMetric returns what mmdet's CocoMetric returns."""

import pickle

import numpy as np
import pytest
import torch
from coco_cases import Write, pycoco, random_detections, random_truth
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


def samples(detections: list[dict], truth: dict) -> list[dict]:
    """Outputs of a model as mmdet's metric gets them."""
    order = {c['id']: i for i, c in enumerate(truth['categories'])}
    found = []
    for image in truth['images']:
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


def evaluate(
    metric: CocoMetric, detections: list = DETECTIONS, truth: dict = TRUTH
) -> dict:
    names = tuple(c['name'] for c in truth['categories'])
    metric.dataset_meta = {'classes': names}
    data = samples(detections, truth)
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
    far = [{**d, 'bbox': [5000.0, 5000.0, 9.0, 9.0]} for d in DETECTIONS]
    assert evaluate(metric, far)['coco/bbox_mAP'] == 0
    assert metric._trusted is None
    evaluate(metric)
    assert metric._trusted is True


@pytest.mark.parametrize('kind', [CocoMetric, FastCocoMetric])
def test_nothing_found_is_an_ap_of_0(path: str, kind: type) -> None:
    """A regression: no value at all, so that logs repeated the last one."""
    metric = kind(ann_file=path, classwise=True)
    full = evaluate(metric)
    empty = evaluate(metric, [])
    assert [*empty] == [*full] and full['coco/bbox_mAP'] > 0.05
    for name, value in empty.items():
        # -1 and NaN: of sizes and classes without an object.
        assert value == 0 or value == full[name] or np.isnan(value), name
    assert empty['coco/bbox_mAP'] == 0
    assert getattr(metric, '_trusted', None) is not False


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


@pytest.mark.parametrize('kind', ['mmdet.CocoMetric', 'FastCocoMetric'])
def test_ap_of_classes_has_their_names(write: Write, kind: str) -> None:
    """Whatever the order of the categories in the file."""
    unsorted = [TRUTH['categories'][i] for i in (2, 0, 3, 1)]
    found = []
    for truth in (TRUTH, {**TRUTH, 'categories': unsorted}):
        path = str(write(f'{len(found)}.json', truth))
        metric = METRICS.build(
            {'type': kind, 'ann_file': path, 'classwise': True}
        )
        found.append(evaluate(metric, truth=truth))
        again = evaluate(metric, truth=truth)
        assert again == pytest.approx(found[-1], nan_ok=True)
    assert found[1] == pytest.approx(found[0], nan_ok=True)
    # By pycocotools, one class at a time.
    for category in TRUTH['categories'][:3]:
        anns, mine = (
            [r for r in records if r['category_id'] == category['id']]
            for records in (TRUTH['annotations'], DETECTIONS)
        )
        part = {**TRUTH, 'categories': [category], 'annotations': anns}
        expected = pycoco(part, mine).stats[0]
        name = f'coco/{category["name"]}_precision'
        assert found[1][name] == pytest.approx(expected, abs=6e-4)


def test_a_pool_can_evaluate_in_the_order_of_labels() -> None:
    """COCOevalMP is sent to processes, so that it must have its name."""
    evaluator = module.coco_metric.COCOevalMP
    assert pickle.loads(pickle.dumps(evaluator)) is evaluator
    module.correct(module.coco_metric)
    assert module.coco_metric.COCOevalMP is evaluator


def test_an_annotation_of_id_0_counts(write: Write) -> None:
    """pycocotools counts its object as missed even if it is found."""
    anns = [{**a, 'id': a['id'] - 1} for a in TRUTH['annotations']]
    perfect = [{**a, 'score': 0.9} for a in anns if not a['iscrowd']]
    path = str(write('gt.json', {**TRUTH, 'annotations': anns}))
    fast = FastCocoMetric(ann_file=path)
    assert evaluate(fast, perfect)['coco/bbox_mAP'] == 1
    assert fast._trusted is True
    slow = CocoMetric(ann_file=path)
    assert evaluate(slow, perfect)['coco/bbox_mAP'] < 1
