# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Records: equal to the predictions digit for digit, checked when read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_cases import random_detections, random_truth
from records import bomb, damage, make_matches, make_record, parts

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.image_results import write_image_results
from mmext.evaluation.semantic import Areas
from mmext.evaluation.statistics.comparison import compare_resampled
from mmext.evaluation.statistics.resampling import ImageBootstrap
from mmext.evaluation.top1 import Labels
from mmext.experiments import test_data as data
from mmext.experiments.records.record import read_record, write_record
from mmext.experiments.records.recording import record_run, without_folders

KNOWN = {'side': 'StepNet', 'seed': 4, 'config_sha256': 'c' * 64}


def test_data_of(truth: Path, task: str = 'bbox') -> data.TestData:
    found = read_ground_truth(truth)
    count = len(found.image_ids)
    return data.TestData(task, found.sha256, count, found.names, str(truth))


test_data_of.__test__ = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The work folder of a run that was trained and tested."""
    truth = random_truth(3, images=30)
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    work = tmp_path / 'work'
    (work / 'predictions').mkdir(parents=True)
    found = random_detections(4, truth)
    stem = work / 'predictions' / 'epoch_2'
    stem.with_suffix('.bbox.json').write_text(json.dumps(found))
    categories = {c['id']: c['name'] for c in truth['categories']}
    meta = {
        'annotation_file': str(tmp_path / 'gt.json'),
        'categories': categories,
        'checkpoint': str(work / 'epoch_2.pth'),
        'checkpoint_sha256': 'e' * 64,
        'seed': 4,
        'test': {'tta': False, 'scale': [[128, 96]]},
        'versions': {'torch': '2.0'},
        'metrics': {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_s': float('nan')},
        'model': {
            'detector': 'Faster R-CNN',
            'backbone': 'ResNet-18',
            'params': 5,
            'flops': 7,
        },
    }
    stem.with_suffix('.meta.json').write_text(json.dumps(meta))
    log = work / '20260102_030405' / 'vis_data'
    log.mkdir(parents=True)
    lines = [
        {'loss': 9 / n, 'lr': 0.1, 'time': 0.5, 'step': n}
        for n in range(1, 1301)
    ]
    lines[7]['loss'] = float('nan')
    lines.append({'coco/bbox_mAP': 0.25, 'step': 2})
    (log / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    (work / 'tiny.py').write_text(
        f"data_root = '{tmp_path}/'\n"
        f"load_from = '{tmp_path}/a b/c.pth'\n"
        "test_dataloader = dict(dataset=dict(type='CocoDataset'))\n"
    )
    return work


def test_a_record_gives_what_the_predictions_give(
    folder: Path, tmp_path: Path
) -> None:
    truth = read_ground_truth(tmp_path / 'gt.json')
    path = folder / 'predictions/epoch_2.bbox.json'
    matches = match(truth, read_predictions(path, truth))
    run = record_run(
        folder, task='bbox', data=test_data_of(truth.path), **KNOWN
    )
    write_record(tmp_path / 'record.npz', run)
    found = read_record(tmp_path / 'record.npz')
    for one, other in zip(matches.classes, found.results.classes, strict=True):
        for key in ('image', 'rank', 'hit', 'ignored'):
            expected = getattr(one, key)
            assert getattr(other, key).dtype == expected.dtype
            np.testing.assert_array_equal(getattr(other, key), expected)
    bootstrap = ImageBootstrap(30, 100)
    base = bootstrap.evaluate(make_matches(3, images=30))
    base = replace(base, names=truth.names)
    here, there = (
        bootstrap.evaluate(results) for results in (matches, found.results)
    )
    assert here.metrics.keys() == there.metrics.keys()
    for name, values in here.metrics.items():
        np.testing.assert_array_equal(there.metrics[name], values)
    np.testing.assert_array_equal(there.classes, here.classes)
    # Intervals, p-values and the table of classes, all digits.
    texts = [repr(compare_resampled([here], [x])) for x in (here, there)]
    assert texts[0] == texts[1] and 'nan' in texts[0]


def test_what_is_recorded_of_a_run(folder: Path, tmp_path: Path) -> None:
    tested = test_data_of(tmp_path / 'gt.json')
    run = record_run(folder, task='bbox', data=tested, **KNOWN)
    write_record(tmp_path / 'record.npz', run)
    found = read_record(tmp_path / 'record.npz')
    assert (found.side, found.seed, found.task) == ('StepNet', 4, 'bbox')
    assert found.images[:2] == ('7', '17') and len(found.images) == 30
    assert found.detector == 'Faster R-CNN' and found.data_name == 'gt'
    assert (found.params, found.flops) == (5, 7)
    assert found.checkpoint == 'epoch_2.pth'
    assert found.config_name == 'tiny.py'
    assert found.train_seconds == 650
    assert found.metrics == {'coco/bbox_mAP': 0.25}
    assert found.versions == {'torch': '2.0'}
    assert found.test['scale'] == [[128, 96]]
    assert found.started.startswith('2026-01-0')
    assert found.finished > found.started
    assert found.hardware['device'] and found.hardware['cores'] >= 1
    loss = found.curves['loss']
    assert len(loss) <= 500 and loss[-1] == [1300, 9 / 1300]
    assert found.curves['validation'] == [[2, 25.0]]
    assert found.config['data_root'] == tmp_path.name
    assert found.config['load_from'] == 'c.pth'
    text, _ = parts(tmp_path / 'record.npz')
    assert str(tmp_path) not in json.dumps(text)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        ('/home/me/data/val.json', 'val.json'),
        ('/home/me/my data/val.json', 'val.json'),
        ('file:///home/me/a.pth', 'a.pth'),
        ('~/a.pth', 'a.pth'),
        ('~me/x/a.pth', 'a.pth'),
        ('data/coco/val.json', 'data/coco/val.json'),
        ('../x/val.json', '../x/val.json'),
        ('https://host/a/b.pth', 'https://host/a/b.pth'),
        ('s3://bucket/a/b.json', 's3://bucket/a/b.json'),
        ('torchvision://resnet50', 'torchvision://resnet50'),
        ('--ann=/home/me/a.json', '--ann=a.json'),
        ("read('/home/me/a.json')", "read('a.json')"),
        ('pred / label', 'pred / label'),
        ((1, 2.5, float('inf'), None, True), [1, 2.5, 'inf', None, True]),
        ({1: {'/a/b': '/a/b'}}, {'1': {'b': 'b'}}),
    ],
)
def test_no_folder_of_the_machine_is_stored(
    value: object, expected: object
) -> None:
    assert without_folders(value) == expected


def other_results() -> dict[str, Areas | Labels]:
    rng = np.random.default_rng(0)
    label = rng.integers(1, 99_999, (20, 3))
    pixels = np.stack([label - 1, label, label], 2)
    predicted = rng.integers(-1, 3, (20, 1))
    return {
        'mIoU': Areas(('a', 'b', 'c'), pixels),
        'top1': Labels(('a', 'b', 'c'), rng.integers(0, 3, 20), predicted),
    }


@pytest.mark.parametrize('task', ['mIoU', 'top1'])
def test_other_tasks(tmp_path: Path, task: str) -> None:
    results = other_results()[task]
    folder = tmp_path / 'work' / 'predictions'
    folder.mkdir(parents=True)
    names = [f'{i // 4}/{i}.png' for i in range(20)]
    write_image_results(folder / f'iter_9.{task}.npz', results, names)
    (folder / 'iter_9.meta.json').write_text('{"checkpoint": "/a/iter_9.pth"}')
    log = tmp_path / 'work/20260102_030405/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    key = 'mIoU' if task == 'mIoU' else 'accuracy/top1'
    log.write_text(json.dumps({key: 41.5, 'step': 3}))
    tested = data.TestData(task, 'd' * 64, 20, results.names)
    run = record_run(
        folder.parent, task=task, data=tested, groups='^(.+)/', **KNOWN
    )
    assert run.checkpoint == 'iter_9.pth'
    assert run.curves['validation'] == [(3, 41.5)]
    write_record(tmp_path / 'r.npz', run)
    found = read_record(tmp_path / 'r.npz')
    assert found.images == tuple(names)
    np.testing.assert_array_equal(found.groups, np.arange(20) // 4)
    weights = ImageBootstrap(20, 50).weights
    for one, other in zip(
        results.weighted(weights), found.results.weighted(weights), strict=True
    ):
        assert repr(one) == repr(other)
    tested = replace(tested, images=19)
    with pytest.raises(UserError, match='20 images, and the test data have 1'):
        record_run(folder.parent, task=task, data=tested, **KNOWN)
    with pytest.raises(UserError, match=f'no bbox results .it has: {task}'):
        record_run(folder.parent, task='bbox', data=tested, **KNOWN)


def test_nothing_but_the_scores_is_lost(tmp_path: Path) -> None:
    record = make_record(groups=np.arange(20) // 2, baseline=True)
    write_record(tmp_path / 'a.npz', record)
    found = read_record(tmp_path / 'a.npz')
    np.testing.assert_array_equal(found.groups, record.groups)
    assert all(np.isnan(c.score).all() for c in found.results.classes)
    write_record(tmp_path / 'b.npz', found)
    first, second = (tmp_path / f'{x}.npz' for x in 'ab')
    assert parts(first)[0] == parts(second)[0]
    assert found.baseline and found.plan_sha256 is None


def one_detection_less(description: dict, arrays: dict) -> None:
    arrays['hit'] = arrays['hit'][:, 1:]


def too_many_in_an_image(description: dict, arrays: dict) -> None:
    for key in ('image', 'hit', 'ignored'):
        arrays[key] = np.concatenate([arrays[key] * 0] * 3, -1)
    arrays['detections'] = arrays['detections'] * 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d, a: a.pop('hit'), "no array 'hit'"),
        (one_detection_less, 'hit has shape 1 x 79, and not 1 x 80'),
        (lambda d, a: a.update(image=a['image'] + 1), 'out of range'),
        (lambda d, a: a.update(cell=a['cell'][::-1]), 'out of range'),
        (too_many_in_an_image, 'out of range'),
        (lambda d, a: a.update(detections=a['detections'] + 1), 'of range'),
        (lambda d, a: a.update(groups=np.arange(3)), 'groups has shape 3'),
        (lambda d, a: d.update(images=['1']), 'out of range'),
        (lambda d, a: d.update(images=[1]), 'images is no list of texts'),
        (lambda d, a: d.update(classes=[]), 'out of range'),
        (lambda d, a: d.update(areas=['small']), "areas are .'small'."),
        (lambda d, a: d.pop('seed'), 'seed is None, and not an integer'),
        (lambda d, a: d.update(task='mAP'), "task is 'mAP', and not bbox"),
        (lambda d, a: d.update(task='mIoU'), "no array 'pixels'"),
        (lambda d, a: d.update(metrics={'AP': 'x'}), 'metrics is'),
        (lambda d, a: d.update(curves={'loss': [[1]]}), 'curves is'),
        (lambda d, a: d.update(started='2026-01-01'), 'a time with its zone'),
        (lambda d, a: d.update(commit=5), 'commit is 5, and not a text'),
        (lambda d, a: d.update(format='mmext-plan'), 'is no record'),
        (
            lambda d, a: d.update(version=2),
            'version 2; this mmext reads version 1',
        ),
    ],
)
def test_parts_that_do_not_fit(
    tmp_path: Path, change: Callable, message: str
) -> None:
    path = damage(tmp_path / 'a.npz', change)
    with pytest.raises(UserError, match=message):
        read_record(path)


def test_changed_after_it_was_written(tmp_path: Path) -> None:
    for change in (
        lambda d, a: d.update(seed=2),
        lambda d, a: a.update(hit=a['hit'] ^ 1023),
    ):
        path = damage(tmp_path / 'a.npz', change, sealed=False)
        with pytest.raises(UserError, match='its checksum is wrong'):
            read_record(path)
    path = damage(
        tmp_path / 'a.npz',
        lambda d, a: d.update(train_seconds=float('nan')),
        sealed=False,
    )
    with pytest.raises(UserError, match='is NaN or infinite'):
        read_record(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / 'a.npz'
    path.write_text('<html>404')
    with pytest.raises(UserError, match='is no record'):
        read_record(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(UserError, match='float64 and not integers'):
        read_record(path)
    np.savez(path, description=np.array([{}], object))
    with pytest.raises(UserError, match='object and not integers'):
        read_record(path)
    np.savez(path, a=np.zeros(3, int))
    with pytest.raises(UserError, match='is no record'):
        read_record(path)
    with pytest.raises(UserError, match='cannot be read'):
        read_record(tmp_path / 'nowhere.npz')
    with pytest.raises(UserError, match='would take 2147483648 bytes'):
        read_record(bomb(path))


def test_damaged_files_end_in_a_message(tmp_path: Path) -> None:
    """Truncated anywhere, or with any byte changed."""
    path = tmp_path / 'a.npz'
    write_record(path, make_record())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 200).tolist():
        path.write_bytes(whole[:place])
        with pytest.raises(UserError):
            read_record(path)
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:  # a byte of a date changes nothing
            found = read_record(path)
        except UserError:
            refused += 1
        else:
            assert found.seed == 1
    assert refused > 100
