# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the demo from its arguments to its table, on a few images."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_cases import json_writer, pycoco
from commands import run_tool
from drawn import figures, legend_labels, require_readable
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console

from mmext.datasets.shapes.generate import CLASSES, write_shapes
from mmext.demo import picture, plan, run
from mmext.demo.progress import DemoProgress, seconds_left
from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.compare import compare
from mmext.evaluation.runs import read_run

__all__ = ['figures']  # a fixture


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMEXT_CACHE', str(path))
        yield path


@pytest.fixture(scope='module')
def demo(cache, tmp_path_factory) -> tuple[Path, str, list]:
    """The demo, interrupted in the second model and then run again."""
    work_dir = tmp_path_factory.mktemp('demo')
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=False)
    build = run.build_runner
    built = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    def build_interrupted(cfg: Config) -> Runner:
        built.append(cfg.work_dir)
        runner = build(cfg)
        if len(built) == 2:
            runner.train = interrupt
        return runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'build_runner', build_interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.run_demo(work_dir, epochs=1, images=4, console=console)
        runs = run.run_demo(work_dir, epochs=1, images=4, console=console)
    assert [Path(b).name for b in built] == [plan.NAMES[i] for i in (0, 1, 1)]
    return work_dir, out.getvalue(), runs


def test_the_table_compares_both_backbones(demo):
    work_dir, out, runs = demo
    header, rule, first, second = (
        (work_dir / 'table.md').read_text().split('\n')[2:6]
    )
    columns = [cell.strip() for cell in header.split('|')[1:-1]]
    metrics = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'delta']
    costs = ['params', 'FLOPs', 'train time']
    assert columns == ['backbone', *metrics, *costs]
    assert set(rule) <= set('|-: ')
    assert first.startswith('| ResNet-18 ')
    assert second.startswith('| StepNetResNet-18 ')
    assert 'ResNet-18' in out
    for one in runs:
        assert 0 <= one.metrics['bbox']['AP'] <= 1
        assert one.step == 1
        assert one.seed == 0
        assert one.train_seconds > 0


def test_the_end_is_a_verdict_about_two_checkpoints(demo):
    work_dir, out, runs = demo
    for text in (out, (work_dir / 'table.md').read_text()):
        assert 'StepNetResNet-18 against ResNet-18' in text
        assert 'These two checkpoints, on images like these: AP' in text
        assert 'The methods: not tested (one training each).' in text
    assert f'mmext compare {runs[0].path} {runs[1].path}' in out


def test_the_demo_is_compared_without_an_annotation_file(demo):
    _, _, runs = demo
    report = compare([r.path for r in runs], resamples=100, cost=False)
    assert report.truth.path.name == 'instances_val.json'
    found = report.comparisons[0].baseline['AP'][0]
    assert found == pytest.approx(runs[0].metrics['bbox']['AP'], abs=1e-3)


def test_progress_reached_the_screen_and_logs_did_not(demo):
    work_dir, out, _ = demo
    assert '100%  StepNetResNet-18: AP' in out
    assert 'ResNet-18: finished before' in out
    assert 'The same command resumes' in out
    assert ' - mmengine - ' not in out
    assert ' - mmengine - ' in (work_dir / 'demo.log').read_text()


def test_each_run_logs_into_its_own_folder(demo):
    work_dir, _, _ = demo
    for name in plan.NAMES:
        logged = read_run(work_dir / name)
        assert [r['step'] for r in logged.train_log] == [1]
        assert [r['step'] for r in logged.val_log] == [1]


def test_the_picture_has_a_column_a_run(demo):
    pixels = cv2.imread(str(demo[0] / 'detections.png'))
    height, width = pixels.shape[:2]
    assert width > 3 * 256
    # One validation image: a strip three pictures wide.
    assert width / height > 2.5


def test_predictions_give_the_logged_ap(demo, cache):
    work_dir, _, runs = demo
    (root,) = cache.glob('shapes-v*4+1*')
    truth = json.loads((root / 'annotations/instances_val.json').read_text())
    for one in runs:
        found = (one.path / 'predictions/val.bbox.json').read_text()
        expected = pycoco(truth, json.loads(found)).stats[0]
        assert one.metrics['bbox']['AP'] == pytest.approx(expected, abs=1e-3)


def test_other_settings_start_from_the_beginning(cache, tmp_path):
    (cfg,) = plan.make_plan(tmp_path, epochs=1, images=4).configs[:1]
    run._prepare_work_dir(cfg, restart=False)
    old = Path(cfg.work_dir, 'epoch_1.pth')
    old.touch()
    run._prepare_work_dir(cfg, restart=False)
    assert old.exists()
    run._prepare_work_dir(cfg, restart=True)
    assert not old.exists()
    old.touch()
    (cfg,) = plan.make_plan(tmp_path, epochs=2, images=4).configs[:1]
    run._prepare_work_dir(cfg, restart=False)
    assert not old.exists()


def test_both_models_get_the_same_data_budget_and_seed(cache, tmp_path):
    first, second = plan.make_plan(tmp_path, images=8, seed=3).configs
    for key in (
        'train_dataloader',
        'val_dataloader',
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'randomness',
    ):
        assert first[key] == second[key], key
    assert first.randomness.seed == 3
    heads = [
        {k: v for k, v in cfg.model.items() if k != 'backbone'}
        for cfg in (first, second)
    ]
    assert heads[0] == heads[1]


@pytest.mark.parametrize('name', ['bccd', 'nuclei', 'coco_mini'])
def test_own_data_takes_as_many_iterations(shared, tmp_path, name):
    default = Config.fromfile(plan.CONFIGS / f'{plan.NAMES[0]}.py')
    budget = (
        default.train_cfg.max_epochs
        * default.train_dataloader.dataset.num_train
        / default.train_dataloader.batch_size
    )
    planned = plan.make_plan(tmp_path, data=shared(f'data/{name}'))
    for cfg in planned.configs:
        iterations, _, _ = plan.work_units(cfg, planned.data)
        epochs = cfg.train_cfg.max_epochs
        assert epochs * iterations == pytest.approx(budget, rel=0.15)
        assert cfg.param_scheduler[1].T_max == epochs
        assert epochs / cfg.default_hooks.checkpoint.interval <= 10
        classes = cfg.train_dataloader.dataset.metainfo.classes
        assert cfg.model.roi_head.bbox_head.num_classes == len(classes)


def test_own_data_of_any_size_fits_the_budget(tmp_path, monkeypatch):
    root = write_shapes(tmp_path / 'data', 6, 2)
    cfg = plan.make_plan(tmp_path, data=root, images=5, epochs=2).configs[0]
    assert cfg.train_dataloader.dataset.indices == 5
    assert cfg.train_cfg.max_epochs == 2


@pytest.mark.parametrize('wrong', [{'epochs': 0}, {'images': 0}])
def test_a_wrong_number(tmp_path, wrong):
    with pytest.raises(UserError, match='must be 1 or more'):
        plan.make_plan(tmp_path, **wrong)


def test_a_wrong_folder_ends_with_the_message(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_tool('demo.py', '--data', 'nowhere', '--work-dir', 'w') == 2
    error = capfd.readouterr().err
    assert 'nowhere does not exist' in error
    assert 'Traceback' not in error
    assert list(tmp_path.iterdir()) == []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize('terminal', [True, False])
def test_time_left_follows_from_the_speed(terminal):
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=150)
    with DemoProgress(['one', 'two'], [100, 300], console, clock) as bars:
        bars.start(0)
        clock.now = 50.0
        bars.update(0, 50, 'half')
        # 50 of 400 in 50 seconds.
        assert seconds_left(bars.overall) == pytest.approx(350)
        assert seconds_left(bars.runs[0]) == pytest.approx(50)
        clock.now = 100.0
        bars.update(0, 100, 'done')
        # An earlier session did two thirds, which took no time of this one.
        bars.start(1, 200)
        clock.now = 150.0
        bars.update(1, 250, 'more')
        assert seconds_left(bars.runs[1]) == pytest.approx(50)
        assert seconds_left(bars.overall) == pytest.approx(50)
    text = out.getvalue()
    assert '5 min 50 s left' in text
    assert '50 s left' in text


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
