# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the fast engine against pycocotools and published numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_cases import (
    NAMES,
    Write,
    assert_stats,
    pycoco,
    random_detections,
    random_truth,
    read_pair,
)
from pycocotools import mask

import mmext
from mmext.errors import UserError
from mmext.evaluation.coco import accumulate as resample
from mmext.evaluation.coco import matching
from mmext.evaluation.coco.accumulate import (
    IOU_METRICS,
    METRICS,
    Cube,
    _cumulate,
    _RecallThresholds,
    accumulate_weighted,
    summarize,
    summarize_classes,
)
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import (
    AREAS,
    RECALL_THRESHOLDS,
    Matches,
    match,
    match_pairs,
)
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.statistics.resampling import ImageBootstrap

Shared = Callable[[str], Path]


@pytest.fixture
def matches(write: Write) -> Matches:
    truth = random_truth(4)
    return run(write, truth, random_detections(54, truth))


def run(write: Write, truth: dict, detections: list[dict]) -> Matches:
    return match(*read_pair(write, truth, detections))


def once(matches: Matches) -> Cube:
    ones = np.ones((1, matches.num_images), int)
    return accumulate_weighted(matches, ones, threads=1, exact=True)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_published_numbers(shared: Shared, iou_type: str) -> None:
    folder = shared('eval_oracles/coco_val2014_fake100')
    expected = json.loads((folder / 'expected.json').read_text())[iou_type]
    gt = read_ground_truth(folder / 'instances_val2014_100.json')
    name = f'instances_val2014_fake{iou_type}100_results.json'
    preds = read_predictions(folder / name, gt)
    assert preds.iou_type == iou_type
    found = summarize(once(match(gt, preds)))
    assert [*found] == [*NAMES]
    for name in NAMES:
        published = expected['published_full_precision'][name]
        assert found[name][0] == pytest.approx(published, abs=1e-14)
        assert f'{found[name][0]:.3f}' == (
            f'{expected["published_3_decimals"][name]:.3f}'
        )


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_each_match_is_that_of_pycocotools(
    write: Write, iou_type: str
) -> None:
    """Equal IoUs, equal scores, crowds and all area ranges included."""
    truth = random_truth(9, images=40, classes=3)
    anns = truth['annotations']
    anns += [{**a, 'id': a['id'] + 1000} for a in anns[::3]]
    for ann in anns[::5]:
        ann['iscrowd'] = 1
    found = random_detections(2, truth, ties=True)
    found += found[::4]
    for record in (*anns, *found):
        record['bbox'] = [float(max(round(v), 1)) for v in record['bbox']]
        if iou_type == 'segm':
            (code,) = mask.frPyObjects(np.array([record['bbox']]), 480, 640)
            text = code['counts'].decode()
            record['segmentation'] = {**code, 'counts': text}
    if iou_type == 'segm':
        # As mmdet does: pycocotools would take areas from the boxes.
        for record in found:
            record.pop('bbox', None)
    expected = pycoco(truth, found, iou_type)
    matches = run(write, truth, found)
    images = sorted(image['id'] for image in truth['images'])
    ids = [category['id'] for category in truth['categories']]
    bits = 1 << np.arange(10)
    seen = 0
    for cell in filter(None, expected.evalImgs):
        ours = matches.classes[ids.index(cell['category_id'])]
        rows = np.flatnonzero(ours.image == images.index(cell['image_id']))
        rows = rows[np.argsort(ours.rank[rows])]
        a = list(AREAS.values()).index(tuple(cell['aRng']))
        matched = cell['dtMatches'].astype(bool)
        ignored = cell['dtIgnore'].astype(bool)
        assert ours.score[rows].tolist() == cell['dtScores']
        assert ours.hit[a, rows].tolist() == (
            (bits @ (matched & ~ignored)).tolist()
        )
        assert ours.ignored[a, rows].tolist() == (bits @ ignored).tolist()
        seen += len(rows)
    assert seen > 1000


def test_match_pairs(write: Write) -> None:
    """Box 1 has the higher score, box 2 another class, box 3 IoU 0.4."""

    def record(category: int, box: list[int], score: float = 1) -> dict:
        return {
            'id': box[0] + 1,
            'image_id': 1,
            'category_id': category,
            'bbox': box,
            'area': box[2] * box[3],
            'score': score,
        }

    truth = {
        'images': [{'id': 1}],
        'annotations': [
            record(1, [0, 0, 10, 10]),
            record(1, [20, 0, 10, 10]),
            record(1, [5, 5, 0, 0]),
        ],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
    }
    boxes = [
        record(1, [0, 0, 10, 9], 0.6),
        record(1, [0, 0, 10, 10], 0.9),
        record(2, [20, 0, 10, 10], 0.8),
        record(1, [20, 0, 10, 4], 0.7),
        record(1, [20, 0, 10, 5], 0.5),
        record(1, [5, 5, 0, 0], 0.5),  # a point has IoU 0 with itself
    ]
    gt, preds = read_pair(write, truth, boxes)
    assert sorted(match_pairs(gt, preds)) == [(1, 0), (4, 1)]
    none = preds.select(np.zeros(len(preds), bool))
    assert match_pairs(gt, none) == []


@pytest.mark.parametrize('seed', range(6))
def test_equals_pycocotools(write: Write, seed: int) -> None:
    truth = random_truth(seed, classes=3 + seed % 3)
    detections = random_detections(seed + 100, truth, ties=seed % 2 == 1)
    expected = pycoco(truth, detections)
    gt, preds = read_pair(write, truth, detections)
    cube = once(match(gt, preds))
    found = summarize(cube, (*NAMES, *IOU_METRICS))
    assert_stats(found, expected)
    values = mmext.evaluate(preds.path, gt.path)
    assert tuple(values) == METRICS
    assert_stats({name: [v] for name, v in values.items()}, expected)
    precision = expected.eval['precision'][:, :, :, 0, 2]
    precision = np.where(precision < 0, np.nan, precision)
    np.testing.assert_allclose(
        summarize_classes(cube)[0], precision.mean((0, 1)), atol=1e-12
    )
    assert np.isnan(summarize_classes(cube)[0][-1])  # no object of it
    np.testing.assert_allclose(
        [found[n][0] for n in IOU_METRICS],
        np.nanmean(precision, axis=(1, 2)),
        atol=1e-12,
    )


def duplicated(
    truth: dict, detections: list[dict], counts: np.ndarray
) -> tuple[dict, list[dict]]:
    """The data set that contains every image as often as it was drawn."""
    images, anns, found = [], [], []
    for image, count in zip(truth['images'], counts, strict=True):
        for copy in range(count):
            key = 1000 * image['id'] + copy
            images.append({**image, 'id': key})
            for copies, records in (
                (anns, truth['annotations']),
                (found, detections),
            ):
                copies += [
                    {**record, 'image_id': key}
                    for record in records
                    if record['image_id'] == image['id']
                ]
    anns = [{**ann, 'id': number} for number, ann in enumerate(anns, 1)]
    return {**truth, 'images': images, 'annotations': anns}, found


def check_resamples(
    write: Write, truth: dict, detections: list[dict], weights: np.ndarray
) -> Matches:
    """Compares resamples with data sets of duplicated images."""
    matches = run(write, truth, detections)
    doubles = [duplicated(truth, detections, counts) for counts in weights]
    expected = [pycoco(*double) for double in doubles]
    for exact, tolerance in ((True, 1e-12), (False, 2e-6)):
        found = summarize(accumulate_weighted(matches, weights, exact=exact))
        for i, evaluator in enumerate(expected):
            assert_stats(found, evaluator, i, tolerance)
    return matches


@pytest.mark.parametrize('seed', range(3))
def test_an_image_drawn_twice_counts_twice(write: Write, seed: int) -> None:
    truth = random_truth(seed)
    detections = random_detections(seed + 50, truth)
    weights = np.random.default_rng(seed).multinomial(12, [1 / 12] * 12, 3)
    check_resamples(write, truth, detections, weights)


def test_many_hits_and_crowds(write: Write) -> None:
    """A regression: rows were out of order with 64 hits and a crowd."""
    truth = random_truth(3, images=60, classes=2)
    for ann in truth['annotations'][::4]:
        ann['iscrowd'] = 1
    detections = random_detections(5, truth)
    weights = np.random.default_rng(0).multinomial(60, [1 / 60] * 60, 5)
    weights[0] = 1
    matches = check_resamples(write, truth, detections, weights)
    assert (matches.classes[0].hit[0] & 1).sum() > 100


def test_wrong_resamples_raise(
    matches: Matches, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageBootstrap(matches.num_images, 20).evaluate(matches)

    def unwritten(operation: np.ufunc, x: np.ndarray) -> np.ndarray:
        _cumulate(operation, x)
        if operation is np.maximum and x.dtype == np.float32:
            x[0] = np.nan
        return x

    monkeypatch.setattr(resample, '_cumulate', unwritten)
    with pytest.raises(UserError, match='nan instead of 0'):
        ImageBootstrap(matches.num_images, 20).evaluate(matches)


def test_many_objects(matches: Matches) -> None:
    """Numbers that float32 does not hold; AP depends on ratios only."""
    weights = ImageBootstrap(matches.num_images, 20).weights
    few = accumulate_weighted(matches, weights)
    many = accumulate_weighted(matches, 40_001 * weights)
    np.testing.assert_allclose(few.ap, many.ap, rtol=5e-7)
    np.testing.assert_allclose(few.ar, many.ar, rtol=5e-7)


def test_einsum_gets_no_empty_rows(
    matches: Matches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy 2.2 returned nan for rows of width 0 in one of 600 runs."""
    real, widths = np.einsum, []

    def einsum(spec: str, *operands: np.ndarray) -> np.ndarray:
        widths.extend(len(x) for x in operands)
        return real(spec, *operands)

    monkeypatch.setattr(np, 'einsum', einsum)
    ones = np.ones((1, matches.num_images), int)
    accumulate_weighted(matches, ones, threads=1)
    assert min(widths) == 1


def test_laws_of_weights(matches: Matches) -> None:
    n = matches.num_images
    subset = np.arange(n) % 2
    cube = accumulate_weighted(
        matches, np.stack([np.ones(n), np.full(n, 3), subset, 5 * subset])
    )
    for values in summarize(cube).values():
        np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
        np.testing.assert_allclose(values[2], values[3], rtol=1e-6)
    assert summarize(cube)['AP'][0] != summarize(cube)['AP'][2]
    nothing = accumulate_weighted(matches, np.zeros((1, n), int))
    assert np.isnan(nothing.ap).all()


def test_more_than_a_hundred_detections_of_a_class(write: Write) -> None:
    truth = random_truth(3, images=2, classes=2)
    detections = []
    for seed in range(60):
        detections += random_detections(seed, truth)
    found = summarize(once(run(write, truth, detections)))
    assert_stats(found, pycoco(truth, detections))


def test_masks_equal_pycocotools(write: Write, shared: Shared) -> None:
    path = shared('data/coco_mini/annotations')
    truth = json.loads(next(path.glob('*.json')).read_text())
    sizes = {i['id']: (i['height'], i['width']) for i in truth['images']}
    rng = np.random.default_rng(0)
    polygons, encoded = [], []
    for ann in truth['annotations']:
        if ann['iscrowd']:
            continue
        keys = ('image_id', 'category_id')
        record = {key: ann[key] for key in keys}
        polygon = [
            (np.array(p) + rng.normal(0, 3, len(p)).round(2)).tolist()
            for p in ann['segmentation']
        ]
        record['score'] = float(rng.random())
        size = sizes[ann['image_id']]
        rle = mask.merge(mask.frPyObjects(polygon, *size))
        rle['counts'] = rle['counts'].decode()
        polygons.append({**record, 'segmentation': polygon})
        encoded.append({**record, 'segmentation': rle})
    expected = pycoco(truth, encoded, 'segm')
    for form in (polygons, encoded):
        assert_stats(summarize(once(run(write, truth, form))), expected)


@pytest.mark.parametrize('length', [1, 2, 7, 64, 150])
@pytest.mark.parametrize('width', [1, 3, 16, 40])
def test_cumulate(length: int, width: int) -> None:
    x = np.random.default_rng(length).random((length, width))
    for operation in (np.add, np.maximum):
        for step in (1, -1):
            expected = operation.accumulate(x[::step])[::step]
            found = x.copy()
            _cumulate(operation, found[::step])
            np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_recall_thresholds(dtype: type) -> None:
    """7 of 20 do not reach 0.35000000000000003, as in pycocotools."""
    objects = np.array([*range(700), 5_000, 10_000, 16_383])
    hits = np.arange(16_384)
    for part in np.array_split(objects, 40):
        found = np.minimum(hits[: part.max() + 1, None], part)
        recall = found / np.maximum(part, 1)
        expected = np.searchsorted(RECALL_THRESHOLDS, recall, 'right') - 1
        thresholds = _RecallThresholds(part, np.dtype(dtype))
        reached = thresholds.reached(found.astype(dtype))
        np.testing.assert_array_equal(reached, expected)


@pytest.mark.parametrize('most', [1, 200, 70_000])
def test_the_order_of_detections_is_that_of_lexsort(most: int) -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 5, 5000) / 5  # many are equal
    image, category = rng.integers(0, most, (2, 5000))
    expected = np.lexsort((-score, image, category))
    found = matching._order(-score, image, category)
    np.testing.assert_array_equal(found, expected)
    assert len(matching._order(score[:0], image[:0])) == 0
