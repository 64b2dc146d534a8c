# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which of several tests is compared, and how the runs were tested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from coco_cases import Write, random_detections, random_truth

from mmext.evaluation.compare import compare
from mmext.evaluation.report.report import Report
from mmext.evaluation.runs import read_run
from mmext.evaluation.sides import read_source

TRUTH = random_truth(2, images=20)
SETTINGS = {'scale': [[1333, 800]], 'score_thr': 0.05, 'max_per_img': 100}


def add_test(
    write: Write, run: str, name: str, age: int, seed: int = 1, **test: object
) -> Path:
    """Writes the files of a test, ``age`` seconds ago."""
    meta: dict = {'checkpoint': f'work/{name.removesuffix("-tta")}.pth'}
    if test:
        meta['test'] = {**SETTINGS, **test}
    path = f'{run}/predictions/{name}'
    file = write(f'{path}.bbox.json', random_detections(seed, TRUTH))
    write(f'{path}.meta.json', meta)
    os.utime(file, (1e9 - age, 1e9 - age))
    return file


def compared(write: Write, tmp_path: Path) -> Report:
    runs, gt = [tmp_path / 'a', tmp_path / 'b'], write('gt.json', TRUTH)
    return compare(runs, ann=gt, resamples=100, cost=False)


def test_the_checkpoint_is_named(write: Write, tmp_path: Path) -> None:
    """Two checkpoints were tested in one work dir."""
    add_test(write, 'a', 'epoch_12', 0, 3)
    old = add_test(write, 'b', 'epoch_12', 60, 4)
    add_test(write, 'b', 'epoch_1', 0, 5)
    report = compared(write, tmp_path)
    [table] = [t for t in report.tables() if t.title == 'What was tested']
    assert [row[1] for row in table.rows] == ['epoch_12.pth', 'epoch_1.pth']
    [text] = [w for w in report.warnings if 'several tests' in w]
    assert 'Compared is epoch_1.bbox.json (b)' in text and str(old) in text
    assert 'epoch_1.pth' in report.markdown()
    # A file that is given is what was meant.
    assert read_source(old).other_tests == ()


def test_one_test_is_no_warning(write: Write, tmp_path: Path) -> None:
    for run, seed in (('a', 3), ('b', 4)):
        add_test(write, run, 'epoch_12', 0, seed, tta=False)
        # A second metric of the same test has the same checkpoint.
        add_test(write, run, 'epoch_12-1', 0, seed, tta=False)
        meta = tmp_path / run / 'predictions/epoch_12-1.meta.json'
        meta.write_text(meta.read_text().replace('12-1', '12'))
    report = compared(write, tmp_path)
    assert not any('test' in w for w in report.warnings)


def test_a_plain_test_is_taken_before_one_with_tta(
    write: Write, tmp_path: Path
) -> None:
    plain = add_test(write, 'a', 'epoch_12', 60, tta=False)
    tta = add_test(write, 'a', 'epoch_12-tta', 0, tta=True)
    run = read_run(tmp_path / 'a')
    assert run.predictions == {'bbox': plain} and run.other_tests == (tta,)
    plain.unlink()
    assert read_run(tmp_path / 'a').predictions == {'bbox': tta}


def test_masks_of_an_older_test(write: Write, tmp_path: Path) -> None:
    """A regression: 'Compared is a.segm.json, and not a.segm.json'."""
    truth = {**TRUTH, 'annotations': []}
    gt = write('gt.json', truth)
    for run in 'ab':
        old = write(f'{run}/predictions/epoch_1.segm.json', [])
        os.utime(old, (1e9 - 60, 1e9 - 60))
        add_test(write, run, 'epoch_2', 0)
    runs = [tmp_path / 'a', tmp_path / 'b']
    report = compare(runs, ann=gt, iou_type='segm', resamples=100, cost=False)
    assert not any('several tests' in w for w in report.warnings)


@pytest.mark.parametrize(
    'setting, text',
    [
        ({'scale': [[640, 640]]}, 'scale is 1333x800 (a); 640x640 (b)'),
        ({'tta': True}, 'TTA is no (a); yes (b)'),
        ({'score_thr': 0.3}, 'score threshold is 0.05 (a); 0.3 (b)'),
        ({'max_per_img': 300}, 'max detections is 100 (a); 300 (b)'),
    ],
)
def test_settings_that_differ(
    write: Write, tmp_path: Path, setting: dict, text: str
) -> None:
    add_test(write, 'a', 'epoch_12', 0, 3, tta=False)
    add_test(write, 'b', 'epoch_12', 0, 4, **{'tta': False, **setting})
    [found] = [w for w in compared(write, tmp_path).warnings if 'diff' in w]
    assert text in found


def test_settings_that_are_not_known(write: Write, tmp_path: Path) -> None:
    """As in files of others, and those of earlier versions."""
    add_test(write, 'a', 'epoch_12', 0, 3, tta=False)
    add_test(write, 'b', 'epoch_12', 0, 4)
    report = compared(write, tmp_path)
    assert not any('differ' in w for w in report.warnings)
    [table] = [t for t in report.tables() if t.title == 'What was tested']
    assert table.rows[0][-1] == '100' and table.rows[1][-1] == '?'


def test_scores_show_different_thresholds(write: Write) -> None:
    found = random_detections(3, TRUTH)
    high = [d for d in found if d['score'] >= 0.3]
    assert len(high) >= 100
    files = [write('a.bbox.json', found), write('b.bbox.json', high)]
    report = compare(files, ann=write('gt.json', TRUTH), resamples=100)
    [text] = [w for w in report.warnings if 'lowest score' in w]
    assert 'b.bbox.json (b.bbox) is 0.3' in text
