# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the reading of work folders, and the table of logged metrics."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from trained import write_log

from mmext.errors import UserError
from mmext.evaluation.cost.complexity import count_complexity
from mmext.evaluation.report.tables import logged_table
from mmext.evaluation.runs import describe_backbone, read_run
from mmext.evaluation.sides import read_source
from mmext.evaluation.tested import Complexity, cost_of
from mmext.utils.text import duration

CONFIG = """
model = dict(type='FasterRCNN', backbone=dict(type='ResNet', depth={depth}))
randomness = dict(seed=7)
"""


def val(step: int, ap: float) -> dict:
    record = {f'coco/bbox_mAP{s}': ap for s in ('', '_50', '_75', '_m', '_l')}
    return {**record, 'coco/bbox_mAP_s': -1.0, 'step': step}


def write_run(folder: Path, *sessions: list[dict], depth: int = 50) -> Path:
    write_log(folder, *sessions)
    (folder / 'cfg.py').write_text(CONFIG.format(depth=depth))
    return folder


def train(step: int, time: float = 1.0) -> dict:
    return {'lr': 0.1, 'loss': 1.0 / step, 'time': time, 'step': step}


def test_reads_metrics_time_seed_and_backbone(tmp_path: Path) -> None:
    records = [train(50, 0.2), val(1, 0.3), train(100, 0.4), val(2, 0.25)]
    run = read_run(write_run(tmp_path / 'r50', records))
    assert run.metrics['bbox']['AP'] == 0.25
    assert math.isnan(run.metrics['bbox']['APs'])
    assert run.step == 2
    assert run.train_seconds == pytest.approx(50 * 0.2 + 50 * 0.4)
    assert run.seed == 7
    assert run.backbone == 'ResNet-50'
    best = read_run(tmp_path / 'r50', which='best')
    assert (best.metrics['bbox']['AP'], best.step) == (0.3, 1)


def test_the_config_of_a_folder_is_not_executed(tmp_path: Path) -> None:
    """It may be someone else's."""
    run = tmp_path / 'run'
    write_run(run, [val(1, 0.3)])
    code = "import os\nos.system('touch {0}/a')\nx = open('{0}/b', 'w')\n"
    text = (run / 'cfg.py').read_text()
    more = "val_dataloader = dict(dataset=dict(ann_file='v.json', x=[-1.5]))"
    (run / 'cfg.py').write_text(code.format(tmp_path) + text + more)
    found = read_run(run)
    assert found.names == {
        'detector': 'Faster R-CNN', 'backbone': 'ResNet-50'
    }  # fmt: skip
    dataset = {'ann_file': 'v.json', 'x': [-1.5]}
    assert found.config['val_dataloader'] == {'dataset': dataset}
    assert 'x' not in found.config
    assert sorted(p.name for p in tmp_path.iterdir()) == ['run']


@pytest.mark.parametrize(
    'text',
    [
        'model = ' + '[' * 9000,
        'model = dict(' * 500,
        'model = 5',
        "model = dict(type='A')",
        'model = dict(backbone=[1], type=2)',
        'model = dict(**{"a": 1})',
        'model = dict(a=__import__("os").system("touch a"))',
        '\0',
        'model = (',
    ],
)
def test_a_config_of_another_kind_gives_no_name(
    tmp_path: Path, text: str
) -> None:
    write_run(tmp_path, [val(1, 0.3)])
    (tmp_path / 'cfg.py').write_text(text)
    assert read_run(tmp_path).backbone == '?'


def test_names_and_cost_are_those_of_the_test(tmp_path: Path) -> None:
    write_run(tmp_path, [val(1, 0.3)])
    cost = {'params': 2_000_000, 'flops': 10**9, 'shape': [96, 128]}
    model = {'detector': 'RetinaNet', 'backbone': 'StarNet-s1', **cost}
    folder = tmp_path / 'predictions'
    folder.mkdir()
    result = folder / 'epoch_1.bbox.json'
    result.write_text('[]')
    meta = folder / 'epoch_1.meta.json'
    meta.write_text(json.dumps({'model': model}))
    for run in (read_run(tmp_path), read_source(result)):
        assert run.backbone == 'StarNet-s1'
        assert cost_of(run.model) == Complexity(
            2_000_000, 10**9, (96, 128), {}
        )
    # A single result file needs no config at all.
    (tmp_path / 'cfg.py').unlink()
    assert read_source(result).names['detector'] == 'RetinaNet'
    for odd in ([1], {'backbone': 3, 'params': 'x'}, {'params': 1.5}):
        meta.write_text(json.dumps({'model': odd}))
        run = read_source(result)
        assert (run.backbone, cost_of(run.model)) == ('?', None)


@pytest.mark.parametrize(
    'old, new, expected',
    [
        (
            [train(50), train(100), val(1, 0.1), train(150)],
            [train(150, 2.0), train(200, 2.0), val(2, 0.2)],
            ([50, 100, 150, 200], [1, 2], 100 * 1.0 + 100 * 2.0, 0.2),
        ),
        (
            [train(50), train(100), val(1, 0.3), train(150)],
            [val(1, 0.3), train(150), train(200), val(2, 0.4)],
            ([50, 100, 150, 200], [1, 2], 200 * 1.0, 0.4),
        ),
        (
            [train(50), val(1, 0.3), train(100), val(2, 0.5)],
            [train(50), val(1, 0.1)],
            ([50], [1], 50 * 1.0, 0.1),
        ),
    ],
    ids=['resumed', 'resumed, validates first', 'a shorter new run'],
)
def test_two_runs_in_a_folder(
    tmp_path: Path, old: list, new: list, expected: tuple
) -> None:
    steps, epochs, seconds, ap = expected
    run = read_run(write_run(tmp_path / 'run', old, new))
    assert [r['step'] for r in run.train_log] == steps
    assert [r['step'] for r in run.val_log] == epochs
    assert run.train_seconds == pytest.approx(seconds)
    assert (run.metrics['bbox']['AP'], run.step) == (ap, epochs[-1])


def test_a_truncated_last_line_is_skipped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / 'run', [train(50), val(1, 0.1)])
    log = next(folder.glob('*/vis_data/scalars.json'))
    log.write_text(log.read_text() + '{"coco/bbox_mAP": 0.')
    assert read_run(folder).metrics['bbox']['AP'] == 0.1


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        read_run(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='holds no run'):
        read_run(tmp_path)
    file = tmp_path / 'metrics.json'
    file.write_text('{}')
    with pytest.raises(UserError, match='is a file'):
        read_run(file)


def test_describe_backbone() -> None:
    resnet = {'type': 'mmdet.ResNet', 'depth': 18}
    assert describe_backbone(resnet) == 'ResNet-18'
    assert describe_backbone({'type': 'StarNet', 'arch': 's1'}) == 'StarNet-s1'
    plugin = {'cfg': {'type': 'SELayer'}, 'position': 'after_conv3'}
    cfg = {'type': 'ResNet', 'depth': 50, 'plugins': [plugin]}
    assert describe_backbone(cfg) == 'ResNet-50 + SELayer'


def test_table_of_segmentation(tmp_path: Path) -> None:
    """A regression: 'the runs have no metrics', which they had."""
    runs = [
        read_run(
            write_run(
                tmp_path / str(depth),
                [train(10, 1.0), {'mIoU': miou, 'aAcc': 91.5, 'step': 1}],
                depth=depth,
            )
        )
        for depth, miou in ((50, 71.25), (101, 73.5))
    ]
    table = logged_table(runs)
    assert table.header == ['backbone', 'mIoU', 'aAcc', 'train time']
    assert table.rows[1] == ['ResNet-101', '73.50', '91.50', '10 s']


def test_table(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / 'a', [train(3600), val(1, 0.374)]))
    b = read_run(
        write_run(tmp_path / 'b', [train(10), val(1, 0.394)], depth=101)
    )
    cost = Complexity(41_750_000, 206_330_000_000, (800, 1280), {'relu': 3})
    table = logged_table([a, b], costs=[cost, None])
    assert table.header[0] == 'backbone' and table.header[-1] == 'train time'
    first = ['ResNet-50', '37.4', '37.4', '37.4', '-', '37.4', '37.4', '-']
    assert table.rows[0][:8] == first
    assert table.rows[0][8:] == ['41.75 M', '206.33 G', '1 h 00 min']
    assert table.rows[1][7:] == ['+2.0', '-', '-', '10 s']
    assert 'Not counted in FLOPs: relu.' in table.text()
    assert '| 37.4 |' in table.markdown()
    assert table.csv().splitlines()[0].startswith('backbone,AP,AP50')
    assert r'\toprule' in table.latex()


def test_runs_without_a_metric_in_common(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / 'a', [val(1, 0.3)]))
    b = read_run(write_run(tmp_path / 'b', [train(10)]))
    with pytest.raises(UserError, match='no metrics of a common IoU type'):
        logged_table([a, b], costs=[None, None])


@pytest.mark.parametrize(
    'seconds, text',
    [(None, '-'), (59.4, '59 s'), (200, '3 min 20 s'), (3725, '1 h 02 min')],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


class _Toy(nn.Module):
    """A model of known cost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)
        self.weight = nn.Parameter(torch.zeros(8, 8, 1, 1))

    def forward(
        self, image: torch.Tensor, samples: list, mode: str
    ) -> torch.Tensor:
        x = self.conv(image).relu()
        offset = torch.zeros(1, 2, *x.shape[2:])
        x = torchvision.ops.deform_conv2d(x, offset, self.weight)
        return self.fc(x.mean((2, 3)))


def test_complexity_by_hand() -> None:
    cost = count_complexity(_Toy(), (16, 20))
    assert cost.params == (8 * 27 + 8) + (8 * 4 + 4) + 64
    assert cost.flops == 16 * 20 * 8 * 27 + 8 * 4
    assert {'relu', 'torchvision.deform_conv2d'} <= set(cost.uncounted)
    assert not {'view', 't', 'zeros'} & set(cost.uncounted)


def test_complexity_of_a_model_that_fails() -> None:
    cost = count_complexity(nn.Linear(2, 2), (16, 20))
    assert cost.flops is None and 'Linear.forward()' in cost.note
