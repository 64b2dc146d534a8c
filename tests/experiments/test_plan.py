# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Plans: written, read, and edited by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import plan_of

from mmext.errors import UserError
from mmext.experiments.plan import Job, read_plan, slug, write_plan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'plan.yaml'
    write_plan(path, plan_of((3, 5)))
    return path


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_plan_is_read_as_it_was_written(path: Path) -> None:
    plan = plan_of((3, 5))
    assert read_plan(path) == plan
    assert read_plan(path).sha256 == plan.sha256


def test_what_people_see(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith('# Commit this file before training.')
    for line in (
        'version: 1',
        'task: top1',
        'metric: top-1',
        'looks: [3, 5]',
        'margin: null',
        '- name: base',
        '  seeds: [1, 2, 3, 4, 5]',
        'differences: []',
    ):
        assert line in lines


def test_comments_and_the_order_of_keys_change_nothing(path: Path) -> None:
    before = read_plan(path).sha256
    text = path.read_text()
    path.write_text(f'# mine\n{text}\n')
    assert read_plan(path).sha256 == before
    edit(path, lambda plan: plan.update(claim=plan.pop('claim')))
    assert read_plan(path).sha256 == before
    edit(path, lambda plan: plan.update(gain=2.5))
    assert read_plan(path).sha256 != before


def test_options_keep_their_types(tmp_path: Path) -> None:
    options = {'a.b': [1, 2.5, None], 'c': '(640, 640)', 'd': True}
    plan = replace(plan_of(), options=options, differences=('lr: 1 and 2',))
    write_plan(tmp_path / 'plan.yaml', plan)
    assert read_plan(tmp_path / 'plan.yaml') == plan


def test_sides_are_interleaved_and_have_folders() -> None:
    plan = plan_of((2,))
    jobs = [*plan.jobs()]
    assert jobs[:3] == [Job('base', 1), Job('cand 1', 3), Job('base', 2)]
    assert plan.folder_of(jobs[1], 'w') == Path('w/cand-1/seed_3')
    assert slug('../../etc') == 'etc'
    assert slug('..') == 'side'


def side(number: int, **values: Any) -> Callable[[dict], object]:
    return lambda plan: plan['sides'][number].update(values)


def key(**values: Any) -> Callable[[dict], object]:
    return lambda plan: plan.update(values)


@pytest.mark.parametrize(
    ('change', 'problem', 'fix'),
    [
        (key(gian=1), "no key 'gian'", "Did you mean 'gain'?"),
        (key(version=2), 'version is 2; this mmext reads version 1', 'new'),
        (lambda p: p.pop('version'), 'version is None', 'new plan'),
        (lambda p: p.pop('alpha'), 'has no alpha', 'mmext plan'),
        (lambda p: p.pop('sides'), 'is no plan', 'mmext plan'),
        (key(sides=None), 'sides is None', 'list'),
        (key(sides=['a.py']), "side 1 is 'a.py'", 'A side has name'),
        (lambda p: p['sides'].pop(), 'it has 1 sides', 'candidate'),
        (lambda p: p['sides'][0].pop('sha256'), 'side 1 is', 'sha256'),
        (side(1, name='base'), 'two sides have the name base', 'own'),
        (side(1, name='Base '), 'two sides have the name base', 'own'),
        (side(1, name=''), "name of side 2 is ''", 'text'),
        (side(1, seeds=[1, 7, 8, 9, 10]), 'seed 1 is listed twice', 'own'),
        (side(1, seeds=[6, 6, 8, 9, 10]), 'seed 6 is listed twice', 'own'),
        (side(1, seeds=[6, 7, 8]), 'cand 1 has 3 seeds', 'as many seeds'),
        (side(1, seeds=[-6, 7, 8, 9, 10]), 'of cand 1 is -6', '0 to'),
        (side(1, seeds=['a', 7, 8, 9, 10]), "of cand 1 is 'a'", 'whole'),
        (side(1, seeds=6), 'seeds of cand 1 is 6', 'list'),
        (key(looks=[5, 3]), 'looks is (5, 3)', 'increasing'),
        (key(looks=[3, 3, 5]), 'looks is (3, 3, 5)', 'increasing'),
        (key(looks=[]), 'looks is ()', 'increasing'),
        (key(looks=5), 'looks is 5', 'list'),
        (key(looks=[0, 5]), 'looks is (0, 5)', 'increasing'),
        (key(looks=[1, 5]), 'one seed a side decides nothing', '2 or more'),
        (key(task='boxes'), "task is 'boxes'", 'bbox, segm, mIoU, top1'),
        (key(scope='world'), "scope is 'world'", 'images, data set'),
        (key(checkpoint='best'), "checkpoint is 'best'", 'last'),
        (key(metric='AP'), "metric is 'AP'", 'That of top1 is top-1'),
        (key(gain=0), 'gain is 0', 'between 0 and 100'),
        (key(gain='half'), "gain is 'half'", 'between 0 and 100'),
        (key(gain=float('nan')), 'gain is nan', 'between 0 and 100'),
        (key(margin=-1), 'margin is -1', 'between 0 and 100'),
        (key(alpha=0.5), 'alpha is 0.5', 'between 0 and 0.5'),
        (key(power=80), 'power is 80', 'between 0 and 1'),
        (key(retries=True), 'retries is True', '0 to 10'),
        (key(claim=5), 'claim is 5', 'text'),
        (key(folder=5), 'folder is 5', 'text'),
        (key(differences=[5]), 'differences.0 is 5', 'text'),
        (key(options=['a=1']), "options is ['a=1']", 'keys with'),
        (key(seed_sd=0.2), 'seed_sd is 0.2', 'keys with'),
        (key(seed_sd={'value': 'x'}), "seed_sd is {'value': 'x'}", 'source'),
        (key(image_se={}), 'image_se is {}', 'source'),
        (key(data={}), 'data.sha256 is None', 'sha256'),
        (lambda p: p['data'].update(images=0), 'data.images is 0', 'sha256'),
        (lambda p: p['data'].update(groups=5), 'data.groups is 5', 'groups'),
    ],
)
def test_edits_that_do_not_fit(
    path: Path, change: Callable[[dict], object], problem: str, fix: str
) -> None:
    edit(path, change)
    with pytest.raises(UserError) as error:
        read_plan(path)
    assert str(path) in error.value.problem
    assert problem in error.value.problem
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('', 'is no plan'),
        ('- 1', 'is no plan'),
        ('sides: [', 'is not YAML'),
        ('a: &a [*a]', 'nested too deeply'),
        ('\0\1', 'is not YAML'),
    ],
)
def test_files_that_are_no_plan(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / 'plan.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=problem):
        read_plan(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='plan .* cannot be read') as error:
        read_plan(tmp_path / 'plan.yaml')
    assert 'mmext plan' in error.value.fix


def test_a_value_that_json_does_not_have(path: Path) -> None:
    path.write_text(path.read_text().replace('{}', '{a: 2030-01-01}'))
    with pytest.raises(UserError, match='neither text nor a number'):
        read_plan(path)
