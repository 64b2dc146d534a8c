# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests which inputs of a comparison raise errors, and which do not."""

import copy
import gzip
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_cases import (
    Write,
    pycoco,
    random_detections,
    random_truth,
    read_pair,
)

import mmext
import mmext.evaluation.coco.result_file as result_file
from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import accumulate_weighted, summarize
from mmext.evaluation.coco.ground_truth import GroundTruth, read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.coco.verify import verify
from mmext.evaluation.compare import compare
from mmext.evaluation.sides import (
    Side,
    find_ground_truth,
    make_side,
    name_apart,
    predicted_iou_type,
    read_source,
)

TRUTH = random_truth(0)
FOUND = random_detections(1, TRUTH)
RLE = {'size': [480, 640], 'counts': 'PP\\9'}  # an empty mask


@pytest.fixture
def gt(write: Write) -> GroundTruth:
    return read_ground_truth(write('gt.json', TRUTH))


@pytest.fixture
def path(write: Write) -> Path:
    """A result file."""
    return write('r50.bbox.json', FOUND)


@pytest.fixture
def truth() -> dict:
    """A copy that a test may change."""
    return copy.deepcopy(TRUTH)


def read(write: Write, found: object) -> Predictions:
    return read_pair(write, TRUTH, found)[1]


def ap(write: Write, found: list, truth: dict = TRUTH) -> float:
    matches = match(*read_pair(write, truth, found))
    ones = np.ones((1, matches.num_images), int)
    return float(summarize(accumulate_weighted(matches, ones))['AP'][0])


@pytest.mark.parametrize(
    'values, message',
    [
        ({'score': None}, 'record 5 is not a bbox detection'),
        ({'bbox': [0, 0, math.nan, 5]}, 'record 5 has bbox'),
        ({'bbox': [0, 0, 1e200, 1e200]}, 'record 5 has bbox'),
        ({'bbox': [0, 0, 5]}, 'record 5 is not a bbox detection'),
        ({'category_id': 2}, 'record 5 has category_id 2'),
        ({'image_id': 7.5}, r'record 5 has image_id 7\.5'),
        ({'image_id': 'seven'}, "image_id 'seven' is not a number"),
        ({'image_id': [7]}, 'record 5 is not a bbox detection'),
        ({'category_id': {}}, 'record 5 is not a bbox detection'),
    ],
)
def test_bad_records(write: Write, values: dict, message: str) -> None:
    """tests/bad_inputs/bad_predictions.py has more of them."""
    changed = [*FOUND[:5], {**FOUND[5], **values}, *FOUND[6:]]
    with pytest.raises(UserError, match=message):
        read(write, changed)


@pytest.mark.parametrize('key', ['score', 'category_id', 'bbox', 'image_id'])
def test_only_one_record_has_a_value(write: Write, key: str) -> None:
    """NumPy would give a single value to all records."""
    others = [{k: v for k, v in r.items() if k != key} for r in FOUND[1:]]
    with pytest.raises(UserError, match='record 1 is not a bbox detection'):
        read(write, [FOUND[0], *others])


def test_truncated(gt: GroundTruth, path: Path) -> None:
    text = path.read_text()
    for end in (len(text) - 1, len(text) // 2, 1):
        path.write_text(text[:end])
        with pytest.raises(UserError, match='truncated'):
            read_predictions(path, gt)
    for content in (b'', b'\x89PNG\r\n\xff\xfe'):
        path.write_bytes(content)
        with pytest.raises(UserError, match='not a COCO result file'):
            read_predictions(path, gt)


def test_joined_files(gt: GroundTruth, path: Path) -> None:
    """A regression: what followed the first list was skipped in silence."""
    text = path.read_text()
    path.write_text(f'{text}\n')
    assert len(read_predictions(path, gt)) == len(FOUND)
    path.write_text(f'{text}\n{text}')
    with pytest.raises(UserError, match='follows the end of the list'):
        read_predictions(path, gt)


@pytest.mark.parametrize(
    'content, says',
    [
        (b' \n', 'it is empty'),
        (gzip.compress(b'[]', mtime=0), 'it is compressed'),
        (b'PK\x03\x04\0"mAP"\xff', 'it is not a text file'),
        (b'{"annotations": [{"score": 1}]}', 'has a list as "annotations"'),
        (b'{"annotations": [{"id": 1}]}', 'a COCO annotation file'),
        (b'{"image_id": 1}\n{"image_id": 1}', "begins with '{'"),
    ],
)
def test_what_a_file_is_instead(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_source(path)


def test_a_missing_file(gt: GroundTruth, path: Path) -> None:
    with pytest.raises(UserError, match='nowhere.json'):
        mmext.evaluate(path.with_name('nowhere.json'), gt.path)


def test_masks_among_boxes_are_refused(gt: GroundTruth, path: Path) -> None:
    with pytest.raises(UserError, match='one IoU type'):
        read_predictions(path, gt, 'segm')


@pytest.mark.parametrize(
    'mask',
    [
        {'size': [480, 640], 'counts': 'no such code!'},
        {'size': [480, 640], 'counts': 5},
        {'size': [5, 5], 'counts': 'ol0'},
        [[1, 2]],
    ],
)
def test_invalid_masks(write: Write, mask: object) -> None:
    with pytest.raises(UserError, match='record 0 has no mask'):
        read(write, [{**FOUND[0], 'segmentation': mask}])


def test_the_side_file(write: Write, gt: GroundTruth, path: Path) -> None:
    write('r50.meta.json', [1])
    with pytest.raises(UserError, match=r'r50.meta.json is a list'):
        read_predictions(path, gt)
    write('r50.meta.json', {'annotation_sha256': 64 * 'a'})
    with pytest.raises(UserError, match='made for another ground truth'):
        read_predictions(path, gt)
    digest = hashlib.sha256(gt.path.read_bytes()).hexdigest()
    write('r50.meta.json', {'annotation_sha256': digest, 'seed': 3})
    assert len(read_predictions(path, gt)) == len(FOUND)
    assert read_meta(path)['seed'] == 3


def test_blocks_of_any_size_read_the_same(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(write, FOUND)
    for size in (1000, 997, 333):
        monkeypatch.setattr(result_file, '_BLOCK', size)
        parts = read(write, FOUND)
        np.testing.assert_array_equal(parts.score, expected.score)
        np.testing.assert_array_equal(parts.box, expected.box)


def test_too_big_for_the_machine(
    gt: GroundTruth, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with path.open('r+b') as stream:
        stream.truncate(10_000_000_000)  # a hole, no disk space
    free = {'SC_AVPHYS_PAGES': 1_000_000, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(result_file.os, 'sysconf', free.__getitem__)
    with pytest.raises(UserError, match=r'10.0 GB and this machine 4.1 GB'):
        read_predictions(path, gt)


def test_empty_predictions_are_zero(write: Write) -> None:
    assert ap(write, []) == 0.0
    assert 'no detection at all' in read(write, []).warnings[0]


def test_copies_are_false_positives_with_a_warning(write: Write) -> None:
    twice = [d for d in FOUND for _ in range(2)]
    assert ap(write, twice) < ap(write, FOUND)
    warning = read(write, twice).warnings[0]
    assert f'{len(FOUND)} detections are exact copies' in warning


def test_one_image_one_class(write: Write) -> None:
    box = {'image_id': 7, 'category_id': 4, 'bbox': [10, 10, 50, 50]}
    truth = {
        'images': TRUTH['images'][:1],
        'annotations': [{**box, 'id': 1, 'area': 2500.0, 'iscrowd': 0}],
        'categories': [{'id': 4, 'name': 'only'}],
    }
    found = [{**box, 'score': 0.5}]
    assert ap(write, found, truth) == pytest.approx(1.0)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'images': None}, "no list 'images'"),
        ({'annotations': [{'id': 'x'}]}, r'annotations\[0\] has id'),
        ({'images': [], 'annotations': []}, "'images' is empty"),
        ({'categories': [], 'annotations': []}, "'categories' is empty"),
    ],
)
def test_ground_truth_that_is_not_coco(
    write: Write, truth: dict, change: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_ground_truth(write('gt.json', {**truth, **change}))
    del truth['annotations']
    with pytest.raises(UserError, match="no list 'annotations'"):
        read_ground_truth(write('gt.json', truth))


@pytest.mark.parametrize(
    'change, message',
    [
        ({'image_id': 1}, 'which "images" does not list'),
        ({'category_id': 99}, 'which "categories" does not list'),
        ({'bbox': [0, 0, -1, 2]}, 'has bbox'),
        ({'bbox': ['0', 0, 1, 2]}, 'has bbox'),
        ({'bbox': [0, 0, None, 2]}, 'has bbox'),
        ({'bbox': [0, 0, [1], 2]}, 'has bbox'),
        ({'image_id': [7]}, 'which "images" does not list'),
        ({'category_id': {}}, 'which "categories" does not list'),
        ({'area': math.nan}, 'has area nan'),
        ({'iscrowd': '0'}, "has iscrowd '0'"),
        ({'iscrowd': None}, 'has iscrowd None'),
        ({'id': 2}, 'occurs twice'),
        ({'id': True}, 'has id True'),
        ({'id': 2**53 + 1}, 'whole number up to 2.53'),
    ],
)
def test_bad_annotations(
    write: Write, truth: dict, change: dict, message: str
) -> None:
    truth['annotations'][0].update(change)
    with pytest.raises(UserError, match=message):
        read_ground_truth(write('gt.json', truth))


@pytest.mark.parametrize(
    'image, category',
    [
        (lambda i: -i, lambda i: i),
        (lambda i: i, lambda i: 1 - i),
        (lambda i: 2**53 - i, lambda i: 2**40 + i),
        (lambda i: i, float),
    ],
)
def test_ids_may_be_any_integers(
    write: Write, truth: dict, image: Callable, category: Callable
) -> None:
    found = copy.deepcopy(FOUND)
    for record in (*truth['annotations'], *found):
        record['image_id'] = image(record['image_id'])
        record['category_id'] = category(record['category_id'])
    for record in truth['images']:
        record['id'] = image(record['id'])
    for record in truth['categories']:
        record['id'] = int(category(record['id']))
    assert ap(write, found, truth) == pytest.approx(ap(write, FOUND))


def test_unused_fields_are_not_checked(write: Write, truth: dict) -> None:
    for ann in truth['annotations']:
        ann.update(segmentation='none', ignore='x', id=ann['id'] - 1)
        if not ann['iscrowd']:
            del ann['iscrowd']
    for image in truth['images']:
        image.update(file_name=7, width='640', height=-5)
    for category in truth['categories']:
        category['name'] = 5
    assert ap(write, FOUND, truth) == ap(write, FOUND)


def test_a_warning_for_annotation_0(write: Write, truth: dict) -> None:
    """pycocotools counts the object of id 0 as missed; mmext does not."""
    for ann in truth['annotations']:
        ann['id'] -= 1
    assert pycoco(truth, FOUND).stats[0] < ap(write, FOUND) - 1e-4
    gt = read_ground_truth(write('gt.json', truth))
    run = write('a.bbox.json', FOUND)
    report = compare([run, run], ann=gt.path, resamples=100)
    assert 'annotation of id 0' in report.warnings[0]
    values = report.comparisons[0].baseline
    metrics = {m: float(v[0]) for m, v in values.items()}
    verify(gt, report.sides[0].predictions[0], metrics)


def test_a_warning_for_objects_that_are_listed_twice(
    write: Write, truth: dict
) -> None:
    """A detector that finds every object once then has half the recall."""
    last = max(a['id'] for a in truth['annotations'])
    copies = [
        {**a, 'id': last + i} for i, a in enumerate(truth['annotations'], 1)
    ]
    truth['annotations'] += copies
    run = write('a.bbox.json', FOUND)
    report = compare([run, run], ann=write('gt.json', truth), resamples=100)
    assert f'lists {len(copies)} objects twice' in report.warnings[0]
    assert f'annotation {last + 1} is the first' in report.warnings[0]


def mask(ann: dict) -> list:
    x, y, w, h = ann['bbox']
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.mark.parametrize('bad', [None, [], [[]], [[1, 2, 3, 4]], 'x', {}])
def test_objects_need_masks(write: Write, truth: dict, bad: object) -> None:
    """hotcoco would use the box of an object without a mask."""
    for ann in truth['annotations']:
        ann['segmentation'] = mask(ann)
    found = [{**d, 'segmentation': mask(d)} for d in FOUND]
    assert ap(write, found, truth) > 0.1
    truth['annotations'][3]['segmentation'] = bad
    with pytest.raises(UserError, match=r'annotations\[3\] .* has no mask'):
        ap(write, found, truth)
    truth['annotations'][3]['segmentation'] = [[0, 0, 5, 0, 5, 5]]
    for image in truth['images']:
        del image['width']
    found = [{**d, 'segmentation': RLE} for d in FOUND]
    with pytest.raises(UserError, match='height and width'):
        ap(write, found, truth)


def test_a_file_of_boxes_and_masks(write: Write, gt: GroundTruth) -> None:
    both = [{**d, 'segmentation': RLE} for d in FOUND]
    source = read_source(write('both.json', both))
    assert [*source.predictions] == ['bbox', 'segm']
    named = read_source(write('mmdet.segm.json', both))
    assert [*named.predictions] == ['segm']
    assert read_predictions(source.path, gt, 'bbox').mask is None


def test_find_ground_truth(write: Write, gt: GroundTruth) -> None:
    a = read_source(write('a/predictions/x.bbox.json', FOUND))
    b = read_source(write('b/predictions/y.bbox.json', FOUND))
    sides = [make_side([a]), make_side([b])]
    assert predicted_iou_type(sides) == 'bbox'
    unknown = 'ground truth of the predictions is not known'
    with pytest.raises(UserError, match=unknown):
        find_ground_truth(sides, 'bbox')
    meta = {'annotation_file': str(gt.path), 'annotation_sha256': 'one'}
    write('a/predictions/x.meta.json', meta)
    assert find_ground_truth(sides, 'bbox').path == gt.path
    write('b/predictions/y.meta.json', {**meta, 'annotation_sha256': 'two'})
    with pytest.raises(UserError, match='different ground truths'):
        find_ground_truth(sides, 'bbox')


def test_sides_have_different_names(write: Write) -> None:
    sources = [write(f'{n}.bbox.json', FOUND) for n in ('a/x', 'b/x', 'y')]
    sides = [Side('Net', (read_source(s),)) for s in sources]
    names = [side.name for side in name_apart(sides)]
    expected = [f'Net ({sources[0]})', f'Net ({sources[1]})', 'Net (y.bbox)']
    assert names == expected
    assert name_apart(sides[:1])[0].name == 'Net'
    twice = [side.name for side in name_apart([sides[0], sides[0]])]
    assert len({*twice}) == 2


def test_mixed_iou_types_are_refused(write: Write) -> None:
    a = read_source(write('a.bbox.json', FOUND))
    masks = [{'segmentation': {}, 'image_id': 7}]
    b = read_source(write('b.segm.json', masks))
    with pytest.raises(UserError, match='no predictions of a common IoU type'):
        predicted_iou_type([make_side([a]), make_side([b])])
