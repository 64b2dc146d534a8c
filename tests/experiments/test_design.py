# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext plan`: seeds and power, noise, checks of configs and data."""

from __future__ import annotations

import csv
import json
import math
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_cases import random_detections
from commands import ROOT
from experiments import plan_of, record_of, records_of, write_runs
from json_files import edit_json
from records import make_record
from tiny_run import make_coco, write_config

from mmext.errors import UserError
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.power import (
    Noise,
    inflated_sd,
    power,
    smallest_gain,
)
from mmext.experiments.design.make import make_plan
from mmext.experiments.design.pilot import pilot_noise
from mmext.experiments.design.power_table import Design, in_percent, in_points
from mmext.experiments.design.timing import MEASURED, WARM_UP, time_training
from mmext.experiments.plan import Job, read_plan
from mmext.experiments.records.record import read_record, write_record
from mmext.experiments.test_data import TestData
from mmext.utils.config import load_config
from mmext.utils.files import sha256

IMAGES = 12
DEEPER = "model['backbone']['depth'] = 34"


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the configs ``a.py`` and ``b.py`` for it."""
    root = tmp_path_factory.mktemp('plan')
    make_coco(root / 'data', 3, IMAGES)
    write_config(root / 'a.py', root / 'data', epochs=4)
    write_config(root / 'b.py', root / 'data', epochs=4, more=DEEPER)
    return root


def plan(folder: Path, gain: float = 0.1, **options: object) -> Design:
    values = {'timing': False, **options}
    names = values.pop('configs', ['a.py', 'b.py'])
    baseline, *candidates = (folder / name for name in names)
    return make_plan(baseline, candidates, gain, **values)


def more(folder: Path, name: str, lines: str) -> str:
    write_config(folder / name, folder / 'data', epochs=4, more=lines)
    return name


def test_what_is_planned(folder: Path) -> None:
    found = plan(folder, 0.1, margin=0.007, first_seed=11)
    written = found.plan
    assert [side.name for side in written.sides] == ['ResNet-18', 'ResNet-34']
    assert [side.seeds for side in written.sides] == [(11, 12), (13, 14)]
    assert written.looks == (2,)
    assert (written.gain, written.margin) == (10, 0.7)
    assert written.data == {
        'sha256': sha256(folder / 'data' / 'val.json'),
        'images': IMAGES,
        'annotations': 'val.json',
        'groups': None,
    }
    assert written.seed_sd == {
        'value': 0.2,
        'source': 'assumed: anecdotes for COCO, a pilot replaces it',
    }
    assert written.image_se['value'] == pytest.approx(10 / IMAGES**0.5)
    assert written.claim == (
        'ResNet-34 has a higher AP than ResNet-18 on images like the test '
        'images'
    )
    assert 'seeds is that of COCO' in found.warnings[-1]


def test_the_fewest_seeds_with_the_power(folder: Path) -> None:
    options = {'seed_sd': 0.01, 'image_se': 0.004, 'scope': 'images'}
    found = plan(folder, 0.025, **options)
    noise = Noise(0.01, 0.004, IMAGES)
    (seeds,) = found.plan.looks
    assert seeds > 2
    assert power(0.025, seeds, noise) >= 0.8 > power(0.025, seeds - 1, noise)


def test_the_table_is_that_of_the_simulation(folder: Path) -> None:
    found = plan(folder, 0.03, seed_sd=0.015, image_se=0.008, looks=[3, 5])
    rows = list(csv.reader(found.tables()[0].csv().splitlines()))
    assert rows[0] == [
        'seeds',
        '6 images',
        '12 images',
        '24 images',
        '48 images',
        'gain at 80 %',
    ]
    assert [row[0] for row in rows[1:]] == [*'2345678', '3, 5']
    noise = Noise(0.015, 0.008, IMAGES)
    for row, seeds in zip(rows[1:], range(2, 9), strict=False):
        for cell, images in zip(row[1:5], (6, 12, 24, 48), strict=True):
            share = power(0.03, seeds, noise, images=images)
            assert cell == f'{math.floor(100 * share)} %'
        assert float(row[5]) == pytest.approx(
            100 * smallest_gain(seeds, noise), rel=0.1
        )
    levels = nominal_levels((3, 5))
    looks = {'levels': levels, 'looks': (3, 5)}
    share = power(0.03, 5, noise, **looks)
    assert rows[-1][2] == f'{math.floor(100 * share)} %'


def test_a_claim_about_the_data_set(folder: Path) -> None:
    found = plan(folder, 0.004, scope='data set')
    assert found.plan.looks == (6,)  # as the test needs for 2 SD
    assert len(found.tables()[0].header) == 3
    assert found.plan.claim.endswith('on these test images')
    assert 'Welch' in found.verdicts()[1][1][1]


def test_seeds_that_are_given(folder: Path) -> None:
    found = plan(folder, 0.03, seed_sd=0.02, image_se=0.01, seeds=3)
    assert found.plan.looks == (3,)
    smallest = found.simulation.smallest_gain((3,))
    assert smallest > 0.03
    assert any(
        re.match(r'A gain of 3 AP is shown with power \d+ %\.', w)
        for w in found.warnings
    )
    assert found.plan.power < 0.8  # as the report says it
    one = plan(folder, 0.03, seeds=1)
    assert one.plan.power is None
    assert 'says nothing about the methods' in ' '.join(one.warnings)
    said = str(one.verdicts())
    assert 'nothing is decided' in said and 'probability' not in said
    assert one.tables()[0].rows[-1][0] == '1'
    assert one.tables()[0].rows[-1][-1] == '-'
    assert 'plan' in one.html()


def test_looks(folder: Path) -> None:
    found = plan(folder, 0.03, looks=[3, 5, 8], seed_sd=0.01, image_se=0.004)
    assert found.plan.looks == (3, 5, 8)
    assert found.plan.sides[1].seeds == tuple(range(9, 17))
    rule = found.verdicts()[1][1][0]
    assert 'At 3 seeds a side, p < 0.00137 shows a difference.' in rule
    assert 'At 8 seeds a side, p < 0.0449 ' in rule


def test_several_candidates(folder: Path) -> None:
    deeper = "model['backbone'].update(depth=50)\n"
    deeper += "model['neck'].update(in_channels=[64, 128, 256, 512])"
    name = more(folder, 'd.py', deeper)
    both = plan(folder, 0.15, configs=['a.py', 'b.py', name])
    one = plan(folder, 0.15)
    assert [side.name for side in both.plan.sides] == [
        'ResNet-18',
        'ResNet-34',
        'ResNet-50',
    ]
    assert both.plan.claim.startswith('ResNet-34, ResNet-50 have a higher AP')
    seeds = (3,)
    assert both.simulation.power(seeds) < one.simulation.power(seeds)
    assert any('2 candidates (Holm)' in x for x in both.verdicts()[1][1])


@pytest.mark.parametrize(
    ('gain', 'options', 'problem', 'fix'),
    [
        (
            0.05,
            {},
            r'no number of seeds shows a gain of 5 AP on 12 images: that '
            r'takes at least 32 images',
            'More test images. A larger --gain',
        ),
        (
            0.05,
            {'seed_sd': 0.05, 'image_se': 0.001},
            r'no number of seeds up to 8 shows .*: it is \d\d % at 8',
            'More seeds: --max-seeds. More test images.',
        ),
        (
            0.05,
            {'seed_sd': 0.05, 'scope': 'data set', 'most': 4},
            r'no number of seeds up to 4 shows',
            r'More seeds: --max-seeds. A larger --gain \(13 with 4 seeds\).',
        ),
        (-0.1, {}, 'gain is -10', 'between 0 and 100'),
        (math.nan, {}, 'gain is nan', 'between 0 and 100'),
        (0.1, {'alpha': 0.7}, 'alpha is 0.7', 'between 0 and 0.5'),
        (0.1, {'power': 80}, 'power is 80', 'between 0 and 1'),
        (0.1, {'margin': 0.0}, 'margin is 0', 'between 0 and 100'),
        (0.1, {'seed_sd': 0.0}, 'seed-sd is 0', 'standard deviation'),
        (0.1, {'image_se': -0.1}, 'image_se is', 'value'),
        (0.1, {'most': 1}, 'max-seeds is 1', '2 to 50'),
        (0.1, {'seeds': 0}, 'the number of seeds is 0', '1 to 50'),
        (0.1, {'looks': [3, 99]}, 'the number of seeds is 99', '1 to 50'),
        (0.1, {'looks': [5, 3]}, r'looks is \(5, 3\)', 'increasing'),
        (0.1, {'first_seed': -1}, 'first-seed is -1', '0 to'),
        (0.1, {'names': ['a']}, '1 name for 2 configs', 'baseline'),
        (0.1, {'names': ['a', 'A ']}, 'two sides have the name a', 'own'),
        (0.1, {'task': 'segm'}, 'a.py: .* does not evaluate segm', 'bbox'),
        (0.1, {'task': 'mIoU'}, 'does not evaluate mIoU', 'evaluates bbox'),
        (0.1, {'ann': 'no.json'}, '--ann no.json: no such file', 'path'),
        (0.1, {'groups': 'video'}, 'no image of .* has this field', ''),
        (0.1, {'options': ['model.dept=5']}, 'dept', ''),
        (0.1, {'configs': ['a.py', 'gone.py']}, 'does not exist', ''),
        (0.1, {'configs': ['a.py', 'a.py']}, 'say the same', 'A candidate'),
        (
            0.1,
            {'configs': ['a.py', 'a.py'], 'names': ['x', 'y']},
            'say the same',
            'A candidate differs',
        ),
    ],
)
def test_what_cannot_be_planned(
    folder: Path, gain: float, options: dict, problem: str, fix: str
) -> None:
    with pytest.raises(UserError) as error:
        plan(folder, gain, **options)
    assert re.search(problem, error.value.problem)
    assert re.search(fix, error.value.fix)


def test_another_annotation_file(folder: Path) -> None:
    train, val = (folder / 'data' / f'{n}.json' for n in ('train', 'val'))
    assert plan(folder, ann=val).plan.data['sha256'] == sha256(val)
    with pytest.raises(UserError, match='is not what the configs test on'):
        plan(folder, ann=train)


def test_configs_that_test_on_other_data(folder: Path) -> None:
    other = folder / 'data' / 'other.json'
    content = json.loads((folder / 'data' / 'val.json').read_text())
    content['annotations'].pop()
    other.write_text(json.dumps(content))
    lines = f"{DEEPER}\ntest_dataloader['dataset']['ann_file'] = 'other.json'"
    lines += f"\ntest_evaluator['ann_file'] = {str(other)!r}"
    with pytest.raises(
        UserError, match='test on different data or classes: .*val.json'
    ):
        plan(folder, configs=['a.py', more(folder, 'other.py', lines)])


def test_configs_that_differ_in_more_than_the_model(folder: Path) -> None:
    name = more(folder, 'lr.py', f"{DEEPER}\ntrain_cfg['max_epochs'] = 8")
    with pytest.raises(UserError) as error:
        plan(folder, configs=['a.py', name])
    assert 'train_cfg.max_epochs: 4 and 8' in error.value.problem
    assert 'Are these part of the claim?' in error.value.fix
    found = plan(folder, configs=['a.py', name], allow_differences=True)
    (difference,) = found.plan.differences
    assert difference.endswith('lr.py: train_cfg.max_epochs: 4 and 8')
    assert difference in found.verdicts()[1][1][-1]


def test_a_config_that_does_not_build(folder: Path) -> None:
    name = more(folder, 'wrong.py', "model['backbone']['depth'] = 51")
    with pytest.raises(UserError, match=r'wrong\.py: .*51'):
        plan(folder, configs=['a.py', name])
    name = more(
        folder, 'neck.py', "model['neck']['in_channels'] = [16, 32, 64, 64]"
    )
    with pytest.raises(UserError, match=r'neck\.py: '):
        plan(folder, configs=['a.py', name])


def test_data_without_annotations(folder: Path, tmp_path: Path) -> None:
    make_coco(tmp_path / 'data', 3, 4)
    val = tmp_path / 'data' / 'val.json'
    edit_json(val, lambda content: content['annotations'].clear())
    for name, lines in (('a.py', ''), ('b.py', DEEPER)):
        write_config(tmp_path / name, tmp_path / 'data', more=lines)
    with pytest.raises(UserError, match='has no annotations'):
        plan(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    make_coco(tmp_path / 'data', 3, 4)
    one = "model['roi_head']['bbox_head']['num_classes'] = 1\n" + ''.join(
        f"{split}_dataloader['dataset']['metainfo'] = dict(classes=('disc',))"
        '\n'
        for split in ('train', 'val', 'test')
    )
    for name, lines in (('a.py', one), ('b.py', f'{one}\n{DEEPER}')):
        write_config(tmp_path / name, tmp_path / 'data', more=lines)
    found = plan(tmp_path, 0.3)
    assert 'one class, disc' in ' '.join(found.warnings)


def test_groups_of_images(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / 'groups.csv'
    table.write_text(''.join(f'{n},{n % 4}\n' for n in range(1, IMAGES + 1)))
    found = plan(folder, 0.4, groups=str(table))
    assert found.simulation.noise.images == 4
    assert found.plan.image_se['value'] == pytest.approx(5)
    header = [*found.tables()[0].header]
    assert header[1:5] == ['2 groups', '4 groups', '8 groups', '16 groups']
    assert found.plan.data['groups'] == str(table)


def test_options_are_in_the_plan(folder: Path, tmp_path: Path) -> None:
    options = ['train_cfg.max_epochs=2', 'test_pipeline.1.scale=(64,64)']
    found = plan(folder, options=options)
    assert found.plan.options == {
        'train_cfg.max_epochs': 2,
        'test_pipeline.1.scale': '(64, 64)',
    }
    written, page = found.write(tmp_path / 'plans' / 'x.yaml')
    assert read_plan(written) == found.plan
    text = page.read_text()
    assert text.count('<polyline') == 9  # 2, 3, 5, 8 seeds; 4 sizes; the plan
    assert 'http' not in text.replace('http://www.w3.org', '')


def test_a_plan_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    found = plan(folder)
    with pytest.raises(UserError, match=r'x\.txt is not a YAML file'):
        found.write(tmp_path / 'x.txt')
    (tmp_path / 'x.html').touch()
    with pytest.raises(UserError, match=r'x\.html would be overwritten'):
        found.write(tmp_path / 'x.yaml')
    assert not (tmp_path / 'x.yaml').exists()


def test_names_of_sides(folder: Path) -> None:
    head = more(folder, 'head.py', "model['rpn_head']['feat_channels'] = 32")
    found = plan(folder, configs=['a.py', head])
    assert [side.name for side in found.plan.sides] == ['a', 'head']
    found = plan(folder, names=['old', 'new'], claim='new is better')
    assert [side.name for side in found.plan.sides] == ['old', 'new']
    assert found.title == 'new is better'


def test_numbers() -> None:
    assert [*map(in_points, (0.00531, 0.053, 0.12, math.inf))] == [
        '0.53',
        '5.3',
        '12',
        '-',
    ]
    assert [*map(in_percent, (0.8, 0.7999, 0.999, 0))] == [
        '80 %',
        '79 %',
        '>99 %',
        '0 %',
    ]


def test_the_time_of_a_training(folder: Path) -> None:
    done = []
    found = time_training(load_config(folder / 'a.py'), done.append)
    assert found.steps == 8  # 4 epochs of 3 images in batches of 2
    assert found.step > 0
    assert found.seconds == found.step * 8
    assert found.device
    assert len(done) == WARM_UP + MEASURED
    before = {p.name for p in folder.iterdir()}
    timed = plan(folder, timing=True)
    assert {p.name for p in folder.iterdir()} == before
    assert timed.tables()[0].header[-1] == 'training'
    assert timed.times.keys() == {'ResNet-18', 'ResNet-34'}
    expected = sum(t.seconds for t in timed.times.values())
    assert expected > 0


def test_a_training_step_that_fails(folder: Path) -> None:
    lines = "train_dataloader['dataset']['data_prefix'] = dict(img='none')"
    cfg = load_config(folder / more(folder, 'lost.py', lines))
    with pytest.raises(UserError, match=r'lost\.py: a training step fails'):
        time_training(cfg)


PILOT = TestData('top1', 'a' * 64, 300, ('a', 'b', 'c'))


def pilot(folder: Path, seeds: int, candidates: int = 1) -> list[Path]:
    """Records of a pilot, with the config of each side."""
    planned = plan_of((seeds,), candidates)
    records = records_of(
        planned,
        {side.name: 0.6 for side in planned.sides},
        seed_sd=0.02,
    )
    records = {
        job: replace(record, config={'model': {'type': job.side}})
        for job, record in records.items()
    }
    write_runs(planned, records, folder)
    return sorted(folder.glob('*/*/record.npz'))


def test_noise_of_a_pilot(tmp_path: Path) -> None:
    paths = pilot(tmp_path, 5)
    found = pilot_noise(paths, PILOT)
    runs = [read_record(path).results for path in paths]
    tops = [float((run.predicted[:, 0] == run.label).mean()) for run in runs]
    sd = math.sqrt(np.mean([np.var(s, ddof=1) for s in (tops[:5], tops[5:])]))
    assert found.noise.seed_sd == pytest.approx(inflated_sd(sd, 8))
    assert found.noise.images == 300
    assert 0 < found.noise.image_se < 0.03
    assert found.seeds == f'pilot: 10 runs, inflated from {100 * sd:.2g}'
    assert found.images == 'pilot: 2 configs, 10 runs'
    one = pilot_noise(paths[:5], PILOT)
    assert math.isnan(one.noise.image_se)


def test_a_pilot_with_one_seed(tmp_path: Path) -> None:
    paths = pilot(tmp_path, 1)
    with pytest.raises(UserError, match='one training of each config') as e:
        pilot_noise(paths, PILOT)
    assert '--seed-sd' in e.value.fix
    found = pilot_noise(paths, PILOT, seeds=False)
    assert found.noise.image_se > 0


def test_a_pilot_that_does_not_fit(tmp_path: Path) -> None:
    paths = pilot(tmp_path, 2)
    with pytest.raises(UserError, match='tested on other data'):
        pilot_noise(paths, replace(PILOT, sha256='b' * 64))
    with pytest.raises(UserError, match='is a record of top1'):
        pilot_noise(paths, replace(PILOT, task='bbox'))
    with pytest.raises(UserError, match='knows the classes a, b, c'):
        pilot_noise(paths, replace(PILOT, classes=('a', 'b')))
    with pytest.raises(UserError, match='the same config and seed'):
        pilot_noise([paths[0], *paths], PILOT)
    right = np.arange(300) % 5 > 1
    for seeds, why in (
        ((-1, 1), 'have the same results'),
        ((1, 2), 'equal results in the pilot'),
    ):
        for path, seed in zip(paths, seeds, strict=False):
            run = record_of(plan_of((2,)), Job('base', 1), right)
            write_record(path, replace(run, seed=seed))
        with pytest.raises(UserError, match=why):
            pilot_noise(paths[:2], PILOT)
    again = record_of(plan_of((2,)), Job('base', 1), right)
    write_record(tmp_path / 'x.npz', replace(again, config={'model': {}}))
    write_record(
        tmp_path / 'y.npz',
        replace(
            record_of(plan_of((2,)), Job('base', 1), ~right),
            config={'model': {}},
        ),
    )
    with pytest.raises(UserError, match='the same config and seed, 1'):
        pilot_noise([tmp_path / 'x.npz', tmp_path / 'y.npz'], PILOT)


def test_the_plan_of_a_pilot(folder: Path, tmp_path: Path) -> None:
    val = folder / 'data' / 'val.json'
    paths = []
    for seed in (1, 2, 3):
        paths.append(tmp_path / f'{seed}.npz')
        record = make_record(
            seed=seed,
            data_sha256=sha256(val),
            images=tuple(map(str, range(1, 21))),
        )
        write_record(paths[-1], record)
    found = plan(folder, 0.5, pilot=paths)
    assert found.plan.seed_sd['source'].startswith('pilot: 3 runs, inflated')
    assert found.plan.seed_sd['value'] > 0
    assert found.plan.image_se['source'].startswith('assumed')
    given = plan(folder, 0.5, pilot=paths, seed_sd=0.01, image_se=0.02)
    assert given.plan.seed_sd == {'value': 1, 'source': 'given'}
    assert given.plan.image_se['source'] == 'given'


def test_a_pilot_of_work_folders(folder: Path, tmp_path: Path) -> None:
    val = folder / 'data' / 'val.json'
    truth = json.loads(val.read_text())
    paths = []
    for seed, kind in ((1, 'A'), (2, 'A'), (3, 'A'), (4, 'B')):
        paths.append(tmp_path / f'run_{seed}')
        tests = paths[-1] / 'predictions'
        tests.mkdir(parents=True)
        found = json.dumps(random_detections(seed, truth))
        (tests / 'epoch_4.bbox.json').write_text(found)
        meta = {'annotation_sha256': sha256(val), 'seed': seed}
        meta['categories'] = {c['id']: c['name'] for c in truth['categories']}
        (tests / 'epoch_4.meta.json').write_text(json.dumps(meta))
        (paths[-1] / 'a.py').write_text(f"model = dict(type='{kind}')\n")
    noise = plan(folder, 0.9, pilot=paths, seeds=3).plan
    assert noise.seed_sd['source'].startswith('pilot: 3 runs, inflated from')
    assert noise.image_se['source'] == 'pilot: 2 configs, 4 runs'
    meta['annotation_sha256'] = 'f' * 64
    (tests / 'epoch_4.meta.json').write_text(json.dumps(meta))
    with pytest.raises(UserError, match='run_4 was tested on other data'):
        plan(folder, 0.9, pilot=paths, seeds=3)
    with pytest.raises(UserError, match='does not exist'):
        plan(folder, 0.9, pilot=[tmp_path / 'gone'], seeds=3)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='holds no run'):
        plan(folder, 0.9, pilot=[tmp_path / 'empty'], seeds=3)


def test_the_tool(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        *('plan.py', '--baseline', str(folder / 'a.py')),
        *('--candidate', str(folder / 'b.py'), '--gain', '6'),
        *('--scope', 'data-set', '--seed-sd', '2', '--margin', '1'),
        *('--looks', '3,5', '--no-timing', '--names', 'x', 'y'),
    ]
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools' / 'plan.py'), run_name='__main__')
    out = capsys.readouterr().out
    assert 'true gain of 6 AP is shown with probability' in out
    assert 'next: git add plan.yaml && git commit, then' in out
    assert out.rstrip().endswith('mmext run plan.yaml')
    written = read_plan('plan.yaml')
    assert (written.gain, written.margin, written.looks) == (6, 1, (3, 5))
    assert written.seed_sd == {'value': 2, 'source': 'given'}
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools' / 'plan.py'), run_name='__main__')
    assert 'plan.yaml, plan.html would be overwritten' in (
        capsys.readouterr().err
    )
