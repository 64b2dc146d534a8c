# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs that know some of the classes, or different ones."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_cases import (
    NAMES,
    json_writer,
    pycoco,
    random_detections,
    random_truth,
)

import mmext
from mmext.errors import UserError
from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.compare import compare
from mmext.evaluation.runs import Run
from mmext.evaluation.side_checks import check_logged
from mmext.evaluation.sides import read_detections

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[[str, object], Path]
TRUTH = random_truth(3, images=20)
CATEGORIES = {c['id']: c['name'] for c in TRUTH['categories']}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    write = json_writer(tmp_path)
    write('gt.json', TRUTH)
    return write


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
    write: Write, tmp_path: Path
) -> None:
    """Classes that a detector cannot predict do not count as AP 0."""
    file = result_file(write, 'run', perfect({1, 4}), {1, 4})
    gt = tmp_path / 'gt.json'
    assert mmext.evaluate(file, gt)['AP'] == pytest.approx(1)
    (tmp_path / 'run.meta.json').unlink()
    part = mmext.evaluate(file, gt)['AP']
    assert part == pytest.approx(2 / 3)
    found = mmext.evaluate(file, gt, classes=['class1', 'class0'])
    assert found['AP'] == pytest.approx(1)


@pytest.mark.parametrize('ids', [{1}, {4, 7}, {1, 4, 7, 10}])
def test_equals_pycocotools_on_these_classes(write: Write, ids: set) -> None:
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
    ours = mmext.evaluate(file, file.with_name('gt.json'))
    np.testing.assert_allclose(
        [ours[name] for name in NAMES],
        np.where(expected == -1, np.nan, expected),
        atol=1e-12,
    )


def test_runs_of_different_classes_are_compared_on_the_common_ones(
    write: Write, tmp_path: Path
) -> None:
    a = result_file(write, 'a', perfect({1, 4}), {1, 4})
    b = result_file(write, 'b', perfect({4, 7}), {4, 7})
    report = compare([a, b], ann=tmp_path / 'gt.json', resamples=100)
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


def test_runs_of_equal_classes(write: Write, tmp_path: Path) -> None:
    files = [
        result_file(write, name, perfect({4, 7}), {4, 7})
        for name in ('a', 'b')
    ]
    report = compare(files, ann=tmp_path / 'gt.json', resamples=100)
    assert any('AP is that of class1, class2' in w for w in report.warnings)
    assert report.comparisons[0].baseline['AP'] == pytest.approx(1)


def test_runs_without_a_common_class(write: Write, tmp_path: Path) -> None:
    a = result_file(write, 'a', perfect({1}), {1})
    b = result_file(write, 'b', perfect({4}), {4})
    with pytest.raises(UserError, match='no class in common: a.bbox: class0'):
        compare([a, b], ann=tmp_path / 'gt.json', resamples=100)


def test_a_run_that_may_not_know_a_class(write: Write, tmp_path: Path) -> None:
    """Without a meta file, a class without detections is a warning."""
    files = [write(f'{n}.bbox.json', perfect({1, 7})) for n in ('a', 'b')]
    gt = tmp_path / 'gt.json'
    report = compare(files, ann=gt, resamples=100)
    texts = [w for w in report.warnings if 'no detection of class1' in w]
    assert len(texts) == 2 and '--classes' in texts[0]
    report = compare(
        files, ann=gt, classes=['class0', 'class2'], resamples=100
    )
    assert report.comparisons[0].baseline['AP'] == pytest.approx(1)
    assert not any('no detection of' in w for w in report.warnings)


def test_names_decide_and_not_ids_of_labels(
    write: Write, tmp_path: Path
) -> None:
    """A metric without ids numbers its classes from 0."""
    gt = read_ground_truth(tmp_path / 'gt.json')
    path = result_file(write, 'a', perfect({7}), set())
    write('a.meta.json', {'categories': {'0': 'class2'}})
    truth, _ = choose_classes(gt, [('a', path)])
    assert truth.names == ('class2',) and truth.category_ids.tolist() == [7]
    assert truth.sha256 == gt.sha256 and len(truth.image_ids) == 20
    write('a.meta.json', {'categories': {'0': 'no such'}})
    assert choose_classes(gt, [('a', path)]) == (gt, [])


def test_an_unknown_class(write: Write, tmp_path: Path) -> None:
    file = write('a.bbox.json', perfect({1}))
    with pytest.raises(UserError, match="'clas1' is not a category") as e:
        mmext.evaluate(file, tmp_path / 'gt.json', classes=['clas1'])
    assert "Did you mean 'class1'?" in e.value.fix


def test_error_types_and_confusion_matrix(
    write: Write, tmp_path: Path
) -> None:
    found = perfect({1, 4})
    file = result_file(write, 'run', found, {1, 4})
    truth, [(_, preds)], warnings = read_detections(
        [file], tmp_path / 'gt.json'
    )
    assert truth.names == ('class0', 'class1') and len(warnings) == 1
    assert len(preds) == len(found)
    for tool in ('error_types', 'confusion_matrix'):
        arguments = [file, '--ann', 'gt.json', '--out', 'out']
        done = subprocess.run(
            [sys.executable, ROOT / f'tools/analysis_tools/{tool}.py']
            + list(map(str, arguments)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert 'Left out of gt.json: class2, class3' in done.stdout
    [row] = csv.DictReader((tmp_path / 'out/error_types.csv').open())
    assert float(row['missed']) == 0
    rows = list(csv.reader((tmp_path / 'out/confusion.csv').open()))
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
