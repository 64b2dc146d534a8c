# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Boxes of other formats, and result files of other trainers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_cases import Write, random_detections, random_truth
from pycocotools import mask as mask_utils

import mmext
from mmext.errors import UserError
from mmext.evaluation.coco.formats import COCO, Format, formats_of, read_names
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.sides import read_source

TRUTH = random_truth(4, images=20)
for n, picture in enumerate(TRUTH['images']):
    picture['file_name'] = f'img_{n}.jpg'
STEMS = {i['id']: i['file_name'][:-4] for i in TRUTH['images']}
FOUND = random_detections(5, TRUTH, noise=0.05)


def read(
    write: Write,
    found: object,
    file_format: Format = COCO,
    truth: dict = TRUTH,
) -> Predictions:
    gt = read_ground_truth(write('gt.json', truth))
    return read_predictions(
        write('dt.json', found), gt, file_format=file_format
    )


BOXES: dict[str, Callable[..., list[float]]] = {
    'x1, y1, x2, y2': lambda x, y, w, h: [x, y, x + w, y + h],
    'centre x, centre y': lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    'y1, x1, y2, x2': lambda x, y, w, h: [y, x, y + h, x + w],
    'y, x, height, width': lambda x, y, w, h: [y, x, h, w],
    'fractions': lambda x, y, w, h: [x / 640, y / 480, w / 640, h / 480],
}


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('kind', BOXES)
def test_boxes_of_another_format(write: Write, kind: str, seed: int) -> None:
    truth = random_truth(seed, images=20)
    found = [
        {**d, 'bbox': BOXES[kind](*d['bbox'])}
        for d in random_detections(seed, truth, noise=0.1)
    ]
    with pytest.raises(UserError, match=kind) as error:
        read(write, found, truth=truth)
    assert '[x, y, width, height] in pixels' in error.value.fix


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('noise', [0.05, 0.5, 2.0])
def test_boxes_of_a_poor_detector(
    write: Write, noise: float, seed: int
) -> None:
    """Boxes beside their objects are no boxes of another format."""
    truth = random_truth(seed, images=20)
    read(write, random_detections(seed, truth, noise), truth=truth)


def test_the_edges_show_corners_of_a_poor_detector(write: Write) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 400, (200, 2))
    high = low + rng.uniform(5, 60, (200, 2))
    boxes = np.concatenate([low, high], 1) * 0.9
    found = [
        {'image_id': 7, 'category_id': 1, 'bbox': box, 'score': 0.5}
        for box in boxes.tolist()
    ]
    [text] = [w for w in read(write, found).warnings if 'reach beyond' in w]
    assert '[x1, y1, x2, y2]' in text


def test_boxes_that_leave_the_image_are_no_warning(write: Write) -> None:
    found = [{**d, 'bbox': [600, 10, 200, 50]} for d in FOUND]
    assert not any('reach' in w for w in read(write, found).warnings)


def test_categories_in_another_order(write: Write) -> None:
    turned = {1: 4, 4: 7, 7: 1, 10: 10}
    found = [{**d, 'category_id': turned[d['category_id']]} for d in FOUND]
    [text] = [w for w in read(write, found).warnings if 'numbered' in w]
    assert 'class1 (4) on class0 (1)' in text
    assert not any('numbered' in w for w in read(write, FOUND).warnings)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('kind', ['images', 'scale', 'categories'])
def test_what_covers_no_object_is_a_warning(
    write: Write, kind: str, iou_type: str
) -> None:
    """A regression: AP 0 in silence, and of masks with other categories."""
    ids = [i['id'] for i in TRUTH['images']]
    other_image = dict(zip(ids, ids[::-1], strict=True))
    turned = {1: 4, 4: 7, 7: 1, 10: 10}

    def changed(d: dict) -> dict:
        x, y, w, h = d['bbox']
        if kind == 'images':
            return {**d, 'image_id': other_image[d['image_id']]}
        if kind == 'categories':
            return {**d, 'category_id': turned[d['category_id']]}
        return {**d, 'bbox': [x / 2, y / 2, w / 2, h / 2]}

    says = 'numbered' if kind == 'categories' else 'detections cover'
    for change, expected in ((changed, True), (dict, False)):
        found = [change(d) for d in FOUND]
        if iou_type == 'segm':
            for d in found:
                box = np.array([np.maximum(d.pop('bbox'), 1)])
                d['segmentation'] = mask_utils.frPyObjects(box, 480, 640)[0]
                d['segmentation']['counts'] = d['segmentation'][
                    'counts'
                ].decode()
        warnings = read(write, found).warnings
        assert any(says in w for w in warnings) == expected, warnings


def test_evaluate_warns(write: Write) -> None:
    """A regression: only ``compare`` printed what is unusual."""
    truth = copy.deepcopy(TRUTH)
    for category in truth['categories']:
        if category['name'] == 'class1':
            category['name'] = 'class0'
    found = [d for d in FOUND if d['category_id'] != 7]
    with pytest.warns(UserWarning) as caught:
        mmext.evaluate(write('dt.json', found), write('gt.json', truth))
    texts = [str(warning.message) for warning in caught]
    assert any('several categories of the name class0' in t for t in texts)
    assert any('no detection of class2' in t for t in texts)


def test_a_detector_that_knows_one_class(write: Write) -> None:
    found = [{**d, 'category_id': 10} for d in FOUND]
    assert not any('numbered' in w for w in read(write, found).warnings)


# --- other trainers


def ultralytics(start: int, file_name: bool) -> list[dict]:
    """What ``pred_to_json`` writes: once from 0, now from 1."""
    order = [c['id'] for c in TRUTH['categories']]
    found = [
        {
            'image_id': STEMS[d['image_id']],
            'category_id': order.index(d['category_id']) + start,
            'bbox': [round(v, 3) for v in d['bbox']],
            'score': round(d['score'], 5),
        }
        for d in FOUND
    ]
    for record in found:
        if file_name:
            record['file_name'] = record['image_id'] + '.jpg'
    return found


def same(found: Predictions) -> None:
    assert found.image_id.tolist() == [d['image_id'] for d in FOUND]
    assert found.category_id.tolist() == [d['category_id'] for d in FOUND]
    boxes = [d['bbox'] for d in FOUND]
    np.testing.assert_allclose(found.box, boxes, atol=2e-3)


@pytest.mark.parametrize('start', [0, 1])
@pytest.mark.parametrize('file_name', [True, False])
def test_ultralytics(write: Write, start: int, file_name: bool) -> None:
    records = ultralytics(start, file_name)
    found = read(write, records, Format('ultralytics', str(start)))
    same(found)
    assert f'numbers from {start}' in found.warnings[0]
    with pytest.raises(UserError, match="image_id 'img_0' is not a number"):
        read(write, records)


def test_ultralytics_writes_numbers_for_decimal_stems(write: Write) -> None:
    """The stem 000000000139 becomes 139, which need not be the id."""
    images = [
        {**image, 'file_name': f'val/{n:012}.jpg'}
        for n, image in enumerate(TRUTH['images'], 100)
    ]
    number = {image['id']: n for n, image in enumerate(images, 100)}
    records = [{**d, 'image_id': number[d['image_id']]} for d in FOUND]
    truth = {**TRUTH, 'images': images}
    same(read(write, records, Format('ultralytics', 'ids'), truth))


def test_the_numbering_that_fits_alone_is_taken(write: Write) -> None:
    """Category 0 is no id, and there are too few for numbers from 1."""
    same(read(write, ultralytics(0, True), Format('ultralytics')))


def test_names_in_the_order_of_the_numbers(
    write: Write, tmp_path: Path
) -> None:
    """The order of a data.yaml need not be that of the ids."""
    names = ['class3', 'class1', 'class0', 'class2']
    number = {c['id']: names.index(c['name']) for c in TRUTH['categories']}
    records = [{**d, 'category_id': number[d['category_id']]} for d in FOUND]
    (tmp_path / 'data.yaml').write_text(
        'path: .\nnames:\n'
        + ''.join(f'  {i}: {name}\n' for i, name in enumerate(names))
    )
    (tmp_path / 'classes.txt').write_text('\n'.join(names) + '\n')
    for given in (
        f'0:{tmp_path}/data.yaml',
        f'0:{tmp_path}/classes.txt',
        '0:' + ','.join(names),
    ):
        found = read(write, records, Format('detectron2', given))
        same(found)
        assert not found.warnings
    more = ','.join([*names, 'a class that is not detected'])
    same(read(write, records, Format('detectron2', f'0:{more}')))
    with pytest.raises(UserError, match="'dog' is not a category"):
        read(write, records, Format('detectron2', '0:class3,class1,dog,x'))
    with pytest.raises(UserError, match='number 2, and there are 2'):
        read(write, records, Format('detectron2', '0:class3,class1'))


@pytest.mark.parametrize('text', ['train: images', 'names: 5', 'names: ['])
def test_a_yaml_file_without_names(tmp_path: Path, text: str) -> None:
    """A regression: ValueError and YAMLError."""
    file = tmp_path / 'data.yaml'
    file.write_text(text)
    with pytest.raises(UserError, match='no list of names|is not YAML'):
        read_names(str(file))


def test_detectron2(write: Write) -> None:
    """``coco_instances_results.json`` has ids, or names of images."""
    records = [{**d, 'image_id': STEMS[d['image_id']]} for d in FOUND]
    same(read(write, FOUND, Format('detectron2', 'ids')))
    same(read(write, records, Format('detectron2', 'ids')))


def by_image() -> dict[int, dict]:
    """What models of torchvision return, and DETR's postprocessors."""
    found: dict[int, dict] = {}
    for d in FOUND:
        one = found.setdefault(
            d['image_id'], {'boxes': [], 'labels': [], 'scores': []}
        )
        one['boxes'].append(BOXES['x1, y1, x2, y2'](*d['bbox']))
        one['labels'].append(d['category_id'])
        one['scores'].append(d['score'])
    return found


@pytest.mark.parametrize('name', ['torchvision', 'rf-detr'])
def test_outputs_of_models(write: Write, name: str) -> None:
    found = by_image()
    rows = [{'image_id': i, **values} for i, values in found.items()]
    gt = write('gt.json', TRUTH)
    expected = mmext.evaluate(write('dt.json', FOUND), gt)
    for content in (found, rows):
        path = write('out.json', content)
        ours = mmext.evaluate(path, gt, file_format=name, categories='ids')
        assert ours == pytest.approx(expected, nan_ok=True)
        source = read_source(path, file_format=Format(name, 'ids'))
        assert [*source.predictions] == ['bbox']


@pytest.mark.parametrize('step', [1, 3])
def test_rows_of_supervision(write: Write, step: int) -> None:
    """RF-DETR's ``predict`` returns its Detections.

    A regression: ids of names were taken for numbers from 0 or 1 if they
    could be such numbers.
    """
    ids = {i: 1 + (i - 1) // 3 * step for i in (1, 4, 7, 10)}
    truth = copy.deepcopy(TRUTH)
    for category in truth['categories']:
        category['id'] = ids[category['id']]
    for annotation in truth['annotations']:
        annotation['category_id'] = ids[annotation['category_id']]
    detections = [d for d in FOUND if d['category_id'] != 10]
    rows = []
    for d in detections:
        corners = map(str, BOXES['x1, y1, x2, y2'](*d['bbox']))
        row = {
            'class_id': d['category_id'],
            'class_name': f'class{(d["category_id"] - 1) // 3}',
            'confidence': d['score'],
            'file_name': STEMS[d['image_id']] + '.jpg',
        }
        names = ('x_min', 'y_min', 'x_max', 'y_max')
        rows.append({**row, **dict(zip(names, corners, strict=True))})
    found = read(write, rows, Format('rf-detr'), truth)
    expected = [ids[d['category_id']] for d in detections]
    assert found.category_id.tolist() == expected
    np.testing.assert_allclose(found.box, [d['bbox'] for d in detections])


def test_a_name_of_several_images(write: Write) -> None:
    images = [
        {**image, 'file_name': f'{n % 2}/img.jpg'}
        for n, image in enumerate(TRUTH['images'])
    ]
    records = [{**r, 'file_name': 'img'} for r in ultralytics(0, True)]
    truth = {**TRUTH, 'images': images}
    with pytest.raises(UserError, match='is the name of several images'):
        read(write, records, Format('ultralytics', '0'), truth)


def test_the_folders_of_another_machine(write: Write) -> None:
    """Names are equal from their ends; folders tell images apart."""
    names = [f'{"ab"[n % 2]}/{n // 2}.jpg' for n in range(len(STEMS))]
    images = [
        {**image, 'file_name': name}
        for image, name in zip(TRUTH['images'], names, strict=True)
    ]
    written = {
        image['id']: 'C:\\data\\' + image['file_name'].replace('/', '\\')
        for image in images
    }
    records = [{**d, 'file_name': written[d['image_id']]} for d in FOUND]
    truth = {**TRUTH, 'images': images}
    same(read(write, records, Format('ultralytics', 'ids'), truth))


def test_no_detections_of_that_format(write: Write) -> None:
    for record in ({'image_id': 7, 'box': []}, {'category_id': 1}):
        with pytest.raises(UserError, match='record 0 is not a detection of'):
            read(write, [record], Format('rf-detr'))
    with pytest.raises(UserError, match='not an object of image'):
        read(write, {'class_map': {'bbox': []}}, Format('rf-detr'))


def test_which_format_a_file_has(write: Write) -> None:
    files, options = ['a.json', 'b.json'], ['ultralytics', 'b.json=rf-detr']
    assert formats_of(files, options, ['b.json=0']) == {
        'a.json': Format('ultralytics'),
        'b.json': Format('rf-detr', '0'),
    }
    assert formats_of(files, (), ()) == dict.fromkeys(files, COCO)
    with pytest.raises(
        UserError, match=r'runs/c\.json, which is not compared'
    ):
        formats_of(files, (), ['runs/c.json=0'])
    # What tools/test.py wrote is COCO's format.
    file = write('run.bbox.json', FOUND)
    write('run.meta.json', {'seed': 1})
    assert read_source(file, file_format=Format('rf-detr')).file_format == COCO


def test_a_byte_order_mark_is_skipped(write: Write) -> None:
    file = write('a.json', FOUND)
    file.write_text('\ufeff' + json.dumps(FOUND), encoding='utf-8')
    assert mmext.evaluate(file, write('gt.json', TRUTH))['AP'] > 0
