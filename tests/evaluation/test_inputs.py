# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a comparison refuses, by name, and what it accepts."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_cases import json_writer, random_detections, random_truth

import mmext.evaluation.predictions as predictions_module
from mmext.errors import UserError
from mmext.evaluation.ground_truth import read_ground_truth
from mmext.evaluation.inputs import (
    common_iou_type,
    find_ground_truth,
    make_side,
    read_source,
)
from mmext.evaluation.matching import match
from mmext.evaluation.predictions import read_predictions
from mmext.evaluation.resample import accumulate_weighted
from mmext.evaluation.summary import summarize

Write = Callable[[str, object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return json_writer(tmp_path)


TRUTH = random_truth(0)
FOUND = random_detections(1, TRUTH)


def read(write: Write, found: object, truth: dict = TRUTH):
    gt = read_ground_truth(write('gt.json', truth))
    return read_predictions(write('dt.json', found), gt)


def ap(write: Write, found: list, truth: dict = TRUTH) -> float:
    gt = read_ground_truth(write('gt.json', truth))
    matches = match(gt, read_predictions(write('dt.json', found), gt))
    ones = np.ones((1, matches.num_images), int)
    return float(summarize(accumulate_weighted(matches, ones))['AP'][0])


def changed(**values: object) -> list[dict]:
    return [*FOUND[:5], {**FOUND[5], **values}, *FOUND[6:]]


@pytest.mark.parametrize(
    'values, message',
    [
        ({'score': math.nan}, 'record 5 has score nan'),
        ({'score': math.inf}, 'record 5 has score inf'),
        ({'score': None}, 'record 5 is no bbox detection'),
        ({'bbox': [0, 0, math.nan, 5]}, 'record 5 has bbox'),
        ({'bbox': [0, 0, -3, 5]}, 'record 5 has bbox'),
        ({'bbox': [0, 0, 5]}, 'record 5 is no bbox detection'),
        ({'image_id': 8}, 'record 5 has image_id 8'),
        ({'category_id': 2}, 'record 5 has category_id 2'),
        ({'image_id': 'seven'}, 'record 5 is no bbox detection'),
        ({'image_id': [7]}, 'record 5 is no bbox detection'),
        ({'category_id': {}}, 'record 5 is no bbox detection'),
    ],
)
def test_bad_records(write: Write, values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write, changed(**values))


def test_the_nearest_category_is_named(write: Write) -> None:
    with pytest.raises(UserError, match='the nearest is 1'):
        read(write, changed(category_id=0))


def test_metrics_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match='holds metrics'):
        read(write, {'coco/bbox_mAP': 0.37, 'coco/bbox_mAP_50': 0.5})


def test_annotations_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match='annotation file, not detections'):
        read(write, TRUTH)


def test_other_images_are_refused(write: Write) -> None:
    other = [{**d, 'image_id': d['image_id'] + 5000} for d in FOUND]
    with pytest.raises(UserError, match='predicts other images'):
        read(write, other)


def test_cut_off(write: Write) -> None:
    gt = read_ground_truth(write('gt.json', TRUTH))
    path = write('dt.json', FOUND)
    text = path.read_text()
    for end in (len(text) - 1, len(text) // 2, 1):
        path.write_text(text[:end])
        with pytest.raises(UserError, match='cut off'):
            read_predictions(path, gt)
    path.write_text('')
    with pytest.raises(UserError, match='not a COCO result file'):
        read_predictions(path, gt)


def test_masks_among_boxes_are_refused(write: Write) -> None:
    gt = read_ground_truth(write('gt.json', TRUTH))
    path = write('dt.json', FOUND)
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
def test_masks_that_cannot_be_read(write: Write, mask: object) -> None:
    with pytest.raises(UserError, match='record 0 has no mask'):
        read(write, [{**FOUND[0], 'segmentation': mask}])


def test_files_that_are_no_text(write: Write) -> None:
    gt = read_ground_truth(write('gt.json', TRUTH))
    path = write('dt.json', FOUND)
    path.write_bytes(b'\x89PNG\r\n\xff\xfe')
    with pytest.raises(UserError, match='not a COCO result file'):
        read_predictions(path, gt)
    path = write('r50.bbox.json', FOUND)
    write('r50.meta.json', [1])
    with pytest.raises(UserError, match=r'r50.meta.json is a list'):
        read_predictions(path, gt)


def test_another_ground_truth_is_refused(write: Write) -> None:
    gt = read_ground_truth(write('gt.json', TRUTH))
    path = write('r50.bbox.json', FOUND)
    write('r50.meta.json', {'annotation_sha256': 64 * 'a'})
    with pytest.raises(UserError, match='made for another ground truth'):
        read_predictions(path, gt)
    digest = hashlib.sha256((gt.path).read_bytes()).hexdigest()
    write('r50.meta.json', {'annotation_sha256': digest, 'seed': 3})
    assert read_predictions(path, gt).meta['seed'] == 3


def test_pieces_of_any_size_read_the_same(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(write, FOUND)
    for size in (1000, 997, 333):
        monkeypatch.setattr(predictions_module, '_PIECE', size)
        parts = read(write, FOUND)
        np.testing.assert_array_equal(parts.score, whole.score)
        np.testing.assert_array_equal(parts.box, whole.box)


def test_too_big_for_the_machine(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    gt = read_ground_truth(write('gt.json', TRUTH))
    path = write('dt.json', FOUND)
    with path.open('r+b') as stream:
        stream.truncate(10_000_000_000)  # a hole, no disk space
    free = {'SC_AVPHYS_PAGES': 1_000_000, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(predictions_module.os, 'sysconf', free.__getitem__)
    with pytest.raises(UserError, match=r'10.0 GB and this machine 4.1 GB'):
        read_predictions(path, gt)


def test_empty_predictions_are_zero(write: Write) -> None:
    assert ap(write, []) == 0.0
    assert 'no detection at all' in read(write, []).warnings[0]


def test_copies_count_as_false_positives_and_are_told(write: Write) -> None:
    twice = [d for d in FOUND for _ in range(2)]
    assert ap(write, twice) < ap(write, FOUND)
    assert (
        f'{len(FOUND)} detections are exact copies'
        in (read(write, twice).warnings[0])
    )


def test_one_image_one_class(write: Write) -> None:
    truth = {
        'images': TRUTH['images'][:1],
        'annotations': [
            {
                'id': 1,
                'image_id': 7,
                'category_id': 4,
                'bbox': [10, 10, 50, 50],
                'area': 2500.0,
                'iscrowd': 0,
            }
        ],
        'categories': [{'id': 4, 'name': 'only'}],
    }
    found = [
        {
            'image_id': 7,
            'category_id': 4,
            'bbox': [10, 10, 50, 50],
            'score': 0.5,
        }
    ]
    assert ap(write, found, truth) == pytest.approx(1.0)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'images': None}, "no list 'images'"),
        ({'annotations': [{'id': 'x'}]}, r'annotations\[0\] has id'),
    ],
)
def test_ground_truth_that_is_not_coco(
    write: Write, change: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_ground_truth(write('gt.json', {**TRUTH, **change}))


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
        ({'id': 2}, 'occurs twice'),
    ],
)
def test_bad_annotations(write: Write, change: dict, message: str) -> None:
    anns = [{**TRUTH['annotations'][0], **change}, *TRUTH['annotations'][1:]]
    with pytest.raises(UserError, match=message):
        read_ground_truth(write('gt.json', {**TRUTH, 'annotations': anns}))


def test_ground_truth_from_the_side_file(write: Write) -> None:
    gt = write('gt.json', TRUTH)
    a = read_source(write('a/predictions/x.bbox.json', FOUND))
    b = read_source(write('b/predictions/y.bbox.json', FOUND))
    sides = [make_side([a]), make_side([b])]
    assert common_iou_type(sides) == 'bbox'
    with pytest.raises(UserError, match='nothing says which ground truth'):
        find_ground_truth(sides, 'bbox')
    meta = {'annotation_file': str(gt), 'annotation_sha256': 'one'}
    write('a/predictions/x.meta.json', meta)
    assert find_ground_truth(sides, 'bbox').path == gt
    write('b/predictions/y.meta.json', {**meta, 'annotation_sha256': 'two'})
    with pytest.raises(UserError, match='different ground truths'):
        find_ground_truth(sides, 'bbox')


def test_a_metrics_file_is_named_at_once(write: Write) -> None:
    with pytest.raises(UserError, match='holds metrics'):
        read_source(write('metrics.json', {'coco/bbox_mAP': 0.4}))


def test_mixed_iou_types_are_refused(write: Write) -> None:
    a = read_source(write('a.bbox.json', FOUND))
    b = read_source(
        write('b.segm.json', [{'segmentation': {}, 'image_id': 7}])
    )
    with pytest.raises(UserError, match='no kind of predictions in common'):
        common_iou_type([make_side([a]), make_side([b])])
