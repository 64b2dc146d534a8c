# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The curves of a run and the table that ends its log."""

from __future__ import annotations

import csv

import cv2
import pytest
from drawn import figures, legend_labels, require_readable
from toy import Numbers, Scores, build_runner, loader
from trained import records

from mmext.engine.curves_hook import summary
from mmext.evaluation.runs import Run, read_run

__all__ = ['figures']  # a fixture


def test_curves_are_drawn_for_every_run(with_val_loss):
    curves = with_val_loss / 'curves'
    (table,) = curves.glob('*.csv')
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    logged = [r for r in records(with_val_loss) if 'loss' in r]
    drawn = [float(r['value']) for r in rows if r['key'] == 'loss']
    assert drawn == [r['loss'] for r in logged] and len(drawn) == 4
    names = {p.name for p in curves.glob('*.png')}
    keys = ('loss', 'lr', 'val_loss', 'coco_bbox_mAP')
    assert names == {f'{key}.png' for key in keys}
    for name in names:
        assert cv2.imread(str(curves / name)).std() > 1


def test_the_log_ends_with_a_table_and_the_best_epoch(with_val_loss):
    log = next(with_val_loss.glob('*/*.log')).read_text()
    table = log[log.rindex('Best: epoch') :]
    validated = [r for r in records(with_val_loss) if 'coco/bbox_mAP' in r]
    best = max(validated, key=lambda r: r['coco/bbox_mAP'])
    assert table.startswith(f'Best: epoch {best["step"]}\n')
    row = next(x for x in table.split('\n') if ' *' in x).split('|')
    assert row[0].split()[0] == str(best['step'])
    assert float(row[1]) == pytest.approx(
        100 * best['coco/bbox_mAP'], abs=0.051
    )
    assert float(row[4]) == pytest.approx(best['val_loss'], abs=1e-4)
    assert 'save_best kept' in table and 'best_val_loss_epoch_' in table


GIVEN = [
    {'aAcc': 1.0, 'mIoU': 40.0},
    {'aAcc': 3.0, 'mIoU': 70.0},
    {'aAcc': 2.0, 'mIoU': 60.5},
]


def train(tmp_path, given, epochs):
    runner = build_runner(
        tmp_path / 'work',
        epochs=epochs,
        log_level='INFO',
        val_dataloader=loader(Numbers(2)),
        val_cfg={'type': 'ValLoop'},
        val_evaluator=[Scores(given, prefix='script')],
    )
    runner.train()
    return runner


def test_a_single_validation_is_drawn(tmp_path, figures):
    """A regression: no picture, as a line needs two points."""
    train(tmp_path, GIVEN, epochs=1)
    written = {p.name for p in (tmp_path / 'work/curves').glob('*.png')}
    assert {'script_aAcc.png', 'script_mIoU.png'} <= written
    for figure in figures:
        require_readable(figure)
        assert legend_labels(figure) == ['work']
        (ax,) = figure.axes
        assert ax.get_xlabel() in ('epoch', 'iteration') and ax.get_ylabel()
        assert ax.lines[0].get_marker() != 'None'


def test_metrics_of_classification_and_segmentation(tmp_path):
    runner = train(tmp_path, GIVEN, epochs=3)
    names = {p.name for p in (tmp_path / 'work/curves').glob('*.png')}
    assert {'script_aAcc.png', 'script_mIoU.png'} <= names
    lines = summary(runner, read_run(tmp_path / 'work')).split('\n')
    assert lines[0] == 'Best: epoch 2'
    rows = [[cell.strip() for cell in line.split('|')] for line in lines]
    assert rows[1] == ['epoch', 'script/mIoU', 'script/aAcc']
    assert rows[4:6] == [['2 *', '70', '3'], ['3', '60.5', '2']]


def test_a_metric_that_was_not_measured_is_not_repeated(tmp_path):
    """A regression: the log, the curves and the table had the value before."""
    given = [{'mIoU': 40.0, 'aAcc': 1.0}, {'aAcc': 3.0}, {'aAcc': 2.0}]
    runner = train(tmp_path, given, epochs=3)
    logged = [r for r in records(tmp_path / 'work') if 'script/aAcc' in r]
    assert [r.get('script/mIoU') for r in logged] == [40.0, None, None]
    with next((tmp_path / 'work/curves').glob('*.csv')).open() as stream:
        rows = [r for r in csv.DictReader(stream) if 'mIoU' in r['key']]
    assert [float(r['value']) for r in rows] == [40.0]
    lines = summary(runner, read_run(tmp_path / 'work')).split('\n')
    rows = [[cell.strip() for cell in line.split('|')] for line in lines]
    assert rows[3:6] == [['1 *', '40', '1'], ['2', '', '3'], ['3', '', '2']]


def test_no_validation_is_the_best_if_none_has_an_ap(tmp_path):
    """COCO's AP is -1, so nan, if the images have no objects."""
    runner = train(tmp_path, GIVEN, epochs=1)
    log = ({'step': 1, 'coco/bbox_mAP': -1.0, 'coco/bbox_mAP_50': -1.0},)
    lines = summary(runner, Run('run', tmp_path, val_log=log)).split('\n')
    assert lines[0] == 'No epoch has a value of AP'
    assert [cell.strip() for cell in lines[3].split('|')] == [
        '1',
        '',
        '',
    ]
