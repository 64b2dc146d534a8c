# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs that know some of the classes, or different ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from coco_cases import NAMES, Write, pycoco, random_detections, random_truth
from commands import run_tool

import mmext
from mmext.errors import UserError
from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.compare import compare
from mmext.evaluation.runs import Run
from mmext.evaluation.side_checks import check_logged

TRUTH = random_truth(3, images=20)
CATEGORIES = {c['id']: c['name'] for c in TRUTH['categories']}


@pytest.fixture
def gt(write: Write) -> Path:
    return write('gt.json', TRUTH)


def perfect(ids: set[int]) -> list[dict]:
    """Detections that find every object of some categories."""
    keys = ('image_id', 'category_id', 'bbox')
    return [
        {**{k: a[k] for k in keys}, 'score': 0.9}
        for a in TRUTH['annotations']
        if a['category_id'] in ids and not a['iscrowd']
    ]


def result_file(
    write: Write, name: str, found: list[dict], ids: set[int]
) -> Path:
    """A result file of a run that knows some categories."""
    known = {i: n for i, n in CATEGORIES.items() if i in ids}
    write(f'{name}.meta.json', {'categories': known})
    return write(f'{name}.bbox.json', found)


def test_ap_is_that_of_the_classes_that_were_tested(
    write: Write, gt: Path
) -> None:
    """Classes that a detector cannot predict do not count as AP 0."""
    file = result_file(write, 'run', perfect({1, 4}), {1, 4})
    assert mmext.evaluate(file, gt)['AP'] == pytest.approx(1)
    file.with_name('run.meta.json').unlink()
    assert mmext.evaluate(file, gt)['AP'] == pytest.approx(2 / 3)
    found = mmext.evaluate(file, gt, classes=['class1', 'class0'])
    assert found['AP'] == pytest.approx(1)


@pytest.mark.parametrize('ids', [{1}, {4, 7}, {1, 4, 7, 10}])
def test_equals_pycocotools_on_these_classes(
    write: Write, gt: Path, ids: set
) -> None:
    found = random_detections(8, TRUTH)
    file = result_file(write, 'run', found, ids)
    part = {
        **TRUTH,
        'categories': [c for c in TRUTH['categories'] if c['id'] in ids],
        'annotations': [
            a for a in TRUTH['annotations'] if a['category_id'] in ids
        ],
    }
    mine = [d for d in found if d['category_id'] in ids]
    expected = pycoco(part, mine).stats
    ours = mmext.evaluate(file, gt)
    np.testing.assert_allclose(
        [ours[name] for name in NAMES],
        np.where(expected == -1, np.nan, expected),
        atol=1e-12,
    )


def test_runs_of_different_classes_are_compared_on_the_common_ones(
    write: Write, gt: Path, tmp_path: Path
) -> None:
    a = result_file(write, 'a', perfect({1, 4}), {1, 4})
    b = result_file(write, 'b', perfect({4, 7}), {4, 7})
    report = compare([a, b], ann=gt, resamples=100)
    [comparison] = report.comparisons
    assert [c.name for c in comparison.classes] == ['class1']
    assert comparison.differences['AP'].value == 0
    assert comparison.baseline['AP'] == pytest.approx(1)
    [text] = [w for w in report.warnings if 'different classes' in w]
    assert 'on the common ones: class1' in text and 'class0' in text
    report.verify()
    # The page and the tables have these classes only.
    assert 'class0' not in report.tables()[0].text()
    report.write(tmp_path / 'report')
    # A regression: AP of b was 0, as if it knew class0.
    with pytest.raises(UserError, match='no class in common'):
        compare([a, b], ann=gt, classes=['class0'], resamples=100)


def test_runs_of_equal_classes(write: Write, gt: Path) -> None:
    files = [result_file(write, n, perfect({4, 7}), {4, 7}) for n in 'ab']
    report = compare(files, ann=gt, resamples=100)
    assert any('AP is that of class1, class2' in w for w in report.warnings)
    assert report.comparisons[0].baseline['AP'] == pytest.approx(1)


def test_a_run_that_may_not_know_a_class(write: Write, gt: Path) -> None:
    """Without a meta file, a class without detections is a warning."""
    files = [write(f'{n}.bbox.json', perfect({1, 7})) for n in 'ab']
    report = compare(files, ann=gt, resamples=100)
    texts = [w for w in report.warnings if 'no detection of class1' in w]
    assert len(texts) == 2 and '--classes' in texts[0]
    names = ['class0', 'class2']
    report = compare(files, ann=gt, classes=names, resamples=100)
    assert report.comparisons[0].baseline['AP'] == pytest.approx(1)
    assert not any('no detection of' in w for w in report.warnings)


def test_names_decide_and_not_ids_of_labels(write: Write, gt: Path) -> None:
    """A metric without ids numbers its classes from 0."""
    full = read_ground_truth(gt)
    path = write('a.bbox.json', perfect({7}))
    write('a.meta.json', {'categories': {'0': 'class2'}})
    truth, _ = choose_classes(full, [('a', path)])
    assert truth.names == ('class2',) and truth.category_ids.tolist() == [7]
    assert truth.sha256 == full.sha256 and len(truth.image_ids) == 20
    write('a.meta.json', {'categories': {'0': 'no such'}})
    assert choose_classes(full, [('a', path)]) == (full, [])


def test_error_types_and_confusion_matrix(
    write: Write,
    gt: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    file = result_file(write, 'run', perfect({1, 4}), {1, 4})
    for tool in ('error_types', 'confusion_matrix'):
        options = ('--ann', gt, '--out', tmp_path)
        assert run_tool(f'analysis_tools/{tool}.py', file, *options) == 0
        printed = ' '.join(capsys.readouterr().out.split())
        assert f'Left out of {gt}: class2, class3' in printed
    [row] = csv.DictReader((tmp_path / 'error_types.csv').open())
    assert float(row['missed']) == 0
    rows = list(csv.reader((tmp_path / 'confusion.csv').open()))
    assert rows[0] == ['object \\ predicted', 'class0', 'class1', 'background']


CONFIG = """
val_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(
    ann_file='{file}', metainfo=dict(classes={classes!r}))))
"""


@pytest.mark.parametrize(
    'classes, file, text',
    [
        (('cat', 'dog'), 'data/val.json', ''),
        (('cat',), 'val.json', 'the classes (cat, dog) and (cat)'),
        (('cat', 'dog'), 'test.json', 'the files val.json and test.json'),
    ],
)
def test_logged_values_of_other_data(
    tmp_path: Path, classes: tuple, file: str, text: str
) -> None:
    runs = []
    for i, (name, path) in enumerate(
        [(('cat', 'dog'), 'val.json'), (classes, file)]
    ):
        config = tmp_path / f'{i}.py'
        config.write_text(CONFIG.format(classes=name, file=path))
        runs.append(Run(str(i), tmp_path / str(i), config))
    found = check_logged(runs)
    assert len(found) == bool(text) and text in ''.join(found)
