# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the demo from its arguments to its report, on a few images."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from coco_cases import json_writer, pycoco
from commands import run_tool
from drawn import figures, legend_labels, require_readable
from own_slots import own_slots
from rich.console import Console

from mmext.datasets.shapes.generate import CLASSES, write_shapes
from mmext.demo import picture, plan, run
from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.experiments.configs import planned_config, unplanned_differences
from mmext.experiments.design.timing import TrainingTime
from mmext.experiments.plan import read_plan
from mmext.experiments.reports.report import PlanReport

__all__ = ['figures', 'own_slots']  # fixtures


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMEXT_CACHE', str(path))
        yield path


@pytest.fixture(scope='module')
def demo(cache, own_slots, tmp_path_factory) -> tuple[Path, str, PlanReport]:
    work_dir = tmp_path_factory.mktemp('demo')
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=False)
    report = run.run_demo(work_dir, epochs=1, images=4, console=console)
    return work_dir, out.getvalue(), report


def test_it_ends_with_a_verdict_and_a_page(demo):
    work_dir, out, report = demo
    page = (work_dir / 'report' / 'report.html').read_text()
    for text in (out, page):
        assert 'StepNetResNet-18 against ResNet-18' in text
        assert 'These two checkpoints, on images like these: AP' in text
        assert 'The methods: not tested (one training each).' in text
    assert 'All trainings' in page
    assert [job.seed for job in report.records] == [0, 1]


def test_the_libraries_print_into_the_logs(demo):
    work_dir, out, _ = demo
    assert '100%' in out
    assert ' - mmengine - ' not in out
    for log in work_dir.glob('runs/*/*/job.log'):
        assert 'Epoch(train)' in log.read_text()


def test_the_picture_has_a_column_a_run(demo):
    pixels = cv2.imread(str(demo[0] / 'detections.png'))
    height, width = pixels.shape[:2]
    assert width > 3 * 256
    # One validation image: a strip three pictures wide.
    assert width / height > 2.5


def test_predictions_give_the_reported_ap(demo, cache):
    work_dir, _, report = demo
    (file,) = cache.glob('*/annotations/instances_val.json')
    truth = json.loads(file.read_text())
    for job, value in report.decision.values.items():
        folder = report.plan.folder_of(job, work_dir / 'runs')
        (found,) = folder.glob('predictions/*.bbox.json')
        expected = pycoco(truth, json.loads(found.read_text())).stats[0]
        assert value == pytest.approx(expected, abs=1e-10)


def test_a_finished_demo_is_shown_again(demo, monkeypatch):
    work_dir, _, _ = demo
    before = {p: p.stat().st_mtime_ns for p in work_dir.rglob('record.npz')}

    def measured(*_: object) -> None:
        raise AssertionError('planned again')

    monkeypatch.setattr(run, 'make_plan', measured)
    out = io.StringIO()
    run.run_demo(work_dir, epochs=1, images=4, console=Console(file=out))
    after = {p: p.stat().st_mtime_ns for p in work_dir.rglob('record.npz')}
    assert len(before) == 2
    assert before == after
    with pytest.raises(AssertionError, match='planned again'):
        run.run_demo(work_dir, epochs=2, images=4)


def test_both_detectors_get_the_same_data_and_budget(cache):
    found = plan.make_plan(images=8, epochs=2, seed=3)
    assert [side.seeds for side in found.sides] == [(3,), (4,)]
    configs = [planned_config(s.config, found.options) for s in found.sides]
    assert unplanned_differences(*configs) == []
    heads = [
        {k: v for k, v in cfg.model.items() if k != 'backbone'}
        for cfg in configs
    ]
    assert heads[0] == heads[1]
    for cfg in configs:
        assert cfg.param_scheduler[1].T_max == 2
        assert cfg.train_dataloader.dataset.num_train == 8
        assert cfg.test_dataloader.dataset.num_val == 2


def step_of(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Makes a training step take this long."""

    def timed(cfg: SimpleNamespace) -> TrainingTime:
        images = cfg.train_dataloader.dataset.get('indices', 320)
        steps = cfg.train_cfg.max_epochs * (images // 4)
        return TrainingTime(seconds, steps, 'CPU')

    monkeypatch.setattr(plan, 'time_training', timed)


@pytest.mark.parametrize(
    # 80 steps an epoch, two detectors; 90 s of 600 s are no training.
    ('seconds', 'epochs'),
    [(0.01, 9), (0.5, 6), (1.0, 3), (100.0, 1)],
)
def test_the_epochs_fit_into_the_time(cache, monkeypatch, seconds, epochs):
    step_of(monkeypatch, seconds)
    options = plan.make_plan(minutes=10).options
    assert options['train_cfg.max_epochs'] == epochs


@pytest.mark.parametrize('name', ['bccd', 'nuclei', 'coco_mini'])
def test_own_data(shared, monkeypatch, name):
    step_of(monkeypatch, 0.5)
    found = plan.make_plan(data=shared(f'data/{name}'), images=40)
    cfg = planned_config(found.sides[0].config, found.options, found.folder)
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert cfg.model.roi_head.bbox_head.num_classes == len(classes)
    # 510 s for steps of 0.5 s: 51 epochs of 10 steps, or fewer images.
    used = cfg.train_dataloader.dataset.indices
    assert used <= 40
    assert cfg.train_cfg.max_epochs == 510 // (2 * 0.5 * (used // 4))
    assert (
        cfg.train_cfg.max_epochs / cfg.default_hooks.checkpoint.interval <= 10
    )


def test_a_plan_can_be_read_again(cache, tmp_path):
    found = plan.make_plan(images=4, epochs=1)
    run.write_plan(tmp_path / 'plan.yaml', found)
    assert read_plan(tmp_path / 'plan.yaml').sha256 == found.sha256
    assert replace(found, alpha=0.1).sha256 != found.sha256


def test_runs_of_others_are_not_removed(tmp_path):
    (tmp_path / 'runs' / 'precious').mkdir(parents=True)
    with pytest.raises(UserError, match='no demo has made it'):
        run.run_demo(tmp_path, restart=True)
    assert (tmp_path / 'runs' / 'precious').is_dir()


@pytest.mark.parametrize(
    'wrong', [{'epochs': 0}, {'images': 0}, {'minutes': 0}]
)
def test_a_wrong_number(wrong):
    with pytest.raises(UserError, match='must be'):
        plan.make_plan(**wrong)


def test_a_wrong_folder_ends_with_the_message(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_tool('demo.py', '--data', 'nowhere', '--work-dir', 'w') == 2
    error = capfd.readouterr().err
    assert 'nowhere does not exist' in error
    assert 'Traceback' not in error
    assert list(tmp_path.iterdir()) == []


def test_a_drawn_box_lies_on_its_object(tmp_path):
    """The colour of the class is where the box is and nowhere else."""
    root = write_shapes(tmp_path / 'data', 1, 1)
    write_json = json_writer(root)
    name = 'annotations/instances_val.json'
    truth = json.loads((root / name).read_text())
    grey = np.full((192, 256, 3), 128, np.uint8)
    cv2.imwrite(str(root / 'val/000000.png'), grey)
    truth['annotations'] = truth['annotations'][:1]
    truth['annotations'][0].update(bbox=[64, 48, 128, 96], category_id=1)
    picture.draw_picture(
        tmp_path / 'p.png',
        read_ground_truth(write_json(name, truth)),
        root / 'val',
        {'none': write_json('none.json', [])},
    )
    pixels = cv2.imread(str(tmp_path / 'p.png'))[..., ::-1].astype(int)
    red = np.array([0xE6, 0x19, 0x4B])
    ys, xs = np.nonzero(np.abs(pixels - red).sum(-1) < 12)
    height, width = pixels.shape[:2]
    picture_width = width / 2
    # The legend is below the pictures and has the colour too.
    inside = ys < 0.75 * height
    assert xs[inside].max() < picture_width
    assert xs[inside].min() == pytest.approx(0.25 * picture_width, abs=8)
    assert xs[inside].max() == pytest.approx(0.75 * picture_width, abs=8)


@pytest.mark.parametrize('classes', [5, 30])
def test_labels_and_legend_of_the_picture(tmp_path, figures, classes):
    root = write_shapes(tmp_path / 'data', 1, 4)
    write_json = json_writer(root)
    name = 'annotations/instances_val.json'
    truth = json.loads((root / name).read_text())
    names = [f'class number {i}' for i in range(classes)]
    truth['categories'] = [
        {'id': i, 'name': name} for i, name in enumerate(names, 1)
    ]
    for i, annotation in enumerate(truth['annotations']):
        annotation['category_id'] = 1 + i % classes
    keys = ('image_id', 'category_id', 'bbox')
    found = [
        {key: a[key] for key in keys} | {'score': 0.9}
        for a in truth['annotations']
    ]
    runs = {
        f'run {i}   AP 30.0': write_json(f'{i}.json', found) for i in range(2)
    }
    picture.draw_picture(
        tmp_path / 'p.png',
        read_ground_truth(write_json(name, truth)),
        root / 'val',
        runs,
    )
    (figure,) = figures
    require_readable(figure)
    labels = legend_labels(figure)
    present = {1 + i % classes for i in range(len(truth['annotations']))}
    assert labels[: min(10, len(present))] == names[: min(10, len(present))]
    assert {'wrong (no such object)', 'missed'} <= set(labels)
    assert len(present) <= 10 or f'{len(present) - 10} more classes' in labels
    titles = [ax.get_title() for ax in figure.axes[:3]]
    assert titles == ['Ground truth', *runs]


def test_many_classes_have_many_colours():
    colours = picture._colours(dict.fromkeys(range(80)))
    assert len(set(colours.values())) == 80
    assert len(set(picture._colours(dict.fromkeys(CLASSES)).values())) == 5
