# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A real plan with tiny detectors: interrupted, it ends as undisturbed."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_python, run_tool
from experiments import plan_of
from forked import cpus, in_two_processes
from json_files import edit_json
from own_slots import own_slots
from tiny_run import make_coco, write_config

from mmext.errors import UserError
from mmext.experiments.configs import config_sha256, planned_config
from mmext.experiments.plan import Job, Plan, write_plan
from mmext.experiments.records.packing import pack
from mmext.experiments.records.record import Record, read_record
from mmext.experiments.runs.job import job_name, run_job
from mmext.experiments.state import LOG, RECORD, State, read_state
from mmext.experiments.test_data import test_data as describe_data

__all__ = ['own_slots']  # a fixture

HOOK = """
custom_imports = dict(
    imports=['mmext', 'crash_once'], allow_failed_imports=False)
custom_hooks = [dict(type='CrashOnce')]
"""
#: What two runs of the same training do not share, or is compared otherwise.
TIMES = {'started', 'finished', 'train_seconds', 'checkpoint_sha256'}
TIMES |= {'results', 'curves'}


def with_configs(plan: Plan, *configs: Path) -> Plan:
    """Returns a plan with other configs of its sides."""
    pairs = zip(plan.sides, configs, strict=True)
    return replace(
        plan,
        sides=tuple(
            replace(side, config=str(path), sha256=config_sha256(path))
            for side, path in pairs
        ),
    )


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a plan, and the records of the undisturbed plan."""
    root = tmp_path_factory.mktemp('plan')
    make_coco(root / 'data')
    config = write_config(root / 'a.py', root / 'data', 2, more=HOOK)
    shutil.copy(config, root / 'b.py')
    with (root / 'b.py').open('a') as file:
        file.write('del randomness\n')  # as in configs of mmseg
    data = describe_data(planned_config(config, {}), 'bbox')
    plan = plan_of(
        (2,),
        task='bbox',
        data={'sha256': data.sha256, 'images': 5, 'groups': None},
    )
    plan = with_configs(plan, config, root / 'b.py')
    write_plan(root / 'plan.yaml', plan)
    torch.set_num_threads(1)
    for job in plan.jobs():
        run_job(root / 'plan.yaml', job_name(job), root / 'undisturbed')
    return root


@pytest.fixture
def plan(world: Path) -> Plan:
    from mmext.experiments.plan import read_plan

    return read_plan(world / 'plan.yaml')


def same(one: Record, other: Record) -> None:
    """Asserts that two records have the same numbers."""
    arrays = [pack(record.results) for record in (one, other)]
    np.testing.assert_equal(*arrays)
    for name in one.curves.keys() - {'time', 'data_time'}:
        assert one.curves[name] == other.curves[name]
    for field in fields(Record):
        if field.name not in TIMES:
            values = (getattr(r, field.name) for r in (one, other))
            assert next(values) == next(values), field.name


def test_an_undisturbed_plan(world, plan):
    records = []
    for job in plan.jobs():
        folder = plan.folder_of(job, world / 'undisturbed')
        state = read_state(folder)
        assert (state.status, state.share, state.failures) == ('done', 1, 0)
        assert 'Epoch(test)' in (folder / LOG).read_text()
        records.append(read_record(folder / RECORD))
    assert [(r.side, r.seed) for r in records] == [*plan.jobs()]
    assert [r.baseline for r in records] == [True, False, True, False]
    for record in records:
        assert record.plan_sha256 == plan.sha256
        assert record.data_sha256 == plan.data['sha256']
        assert record.checkpoint == 'epoch_2.pth'
        assert len(record.curves['loss']) == 4
    losses = {record.curves['loss'][0][1] for record in records}
    assert len(losses) == 4  # each seed trains another model


def test_cut_off_runs_end_as_undisturbed(world, plan, monkeypatch, capfd):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    undisturbed, folder = world / 'undisturbed', world / 'disturbed'
    shutil.copytree(undisturbed, folder, dirs_exist_ok=True)
    crashes = {Job('base', 2): 'kill', Job('cand 1', 3): 'fail'}
    for job, what in crashes.items():
        shutil.rmtree(plan.folder_of(job, folder))
        run = plan.folder_of(job, folder)
        State(plan.sha256).write(run)
        (run / 'crash').write_text(what)
    done = run_python(
        *('-m', 'mmext.cli', 'run', world / 'plan.yaml'),
        *('--work-dir', folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'base, seed 2: failed: killed by SIGKILL' in done.stdout
    assert 'RuntimeError: a GPU has fallen off the bus' in done.stdout
    assert '_mAP' not in done.stdout
    for job in plan.jobs():
        one, other = (
            read_record(plan.folder_of(job, parent) / RECORD)
            for parent in (undisturbed, folder)
        )
        same(one, other)
    for job in crashes:
        log = (plan.folder_of(job, folder) / LOG).read_text()
        assert 'Resuming from' in log
    # Nothing is left to do, and nothing is done.
    before = (plan.folder_of(Job('base', 1), folder) / RECORD).stat()
    assert run_tool('run.py', world / 'plan.yaml', '--work-dir', folder) == 0
    after = (plan.folder_of(Job('base', 1), folder) / RECORD).stat()
    assert before.st_mtime_ns == after.st_mtime_ns


@pytest.mark.parametrize(
    'what, status, failures',
    [('nan', 'diverged', 1), ('interrupt', 'interrupted', 0)],
)
def test_how_a_run_ends(world, plan, tmp_path, what, status, failures):
    job = Job('cand 1', 4)
    folder = plan.folder_of(job, tmp_path)
    State(plan.sha256).write(folder)
    (folder / 'crash').write_text(what)
    with pytest.raises(UserError):
        run_job(world / 'plan.yaml', job_name(job), tmp_path)
    state = read_state(folder)
    assert (state.status, state.failures) == (status, failures)
    log = (folder / LOG).read_text()
    assert 'error: ' in log
    if status == 'diverged':
        assert 'is not finite' in state.error
        return
    assert 'The same command continues from' in log
    run_job(world / 'plan.yaml', job_name(job), tmp_path)
    reference = plan.folder_of(job, world / 'undisturbed')
    same(read_record(reference / RECORD), read_record(folder / RECORD))


def test_a_trained_run_without_checkpoints_trains_again(world, plan, tmp_path):
    job = Job('base', 1)
    folder = plan.folder_of(job, tmp_path)
    State(plan.sha256, status='done', trained=True).write(folder)
    run_job(world / 'plan.yaml', 'base/1', tmp_path)
    undisturbed = plan.folder_of(job, world / 'undisturbed')
    same(read_record(folder / RECORD), read_record(undisturbed / RECORD))


@cpus
def test_two_processes(world, plan, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')  # as under torchrun
    in_two_processes(
        tmp_path, lambda rank: run_job(world / 'plan.yaml', 'base/1', tmp_path)
    )
    folder = plan.folder_of(Job('base', 1), tmp_path)
    assert read_state(folder).status == 'done'
    record = read_record(folder / RECORD)
    assert len(record.curves['loss']) == 2  # batches of two processes


def test_what_is_refused(world, plan, tmp_path):
    def refused(path: Path = world / 'plan.yaml', name: str = 'base/1') -> str:
        with pytest.raises(UserError) as error:
            run_job(path, name, tmp_path / 'work')
        assert not (tmp_path / 'work').exists()
        return str(error.value)

    assert "Did you mean 'cand 1/3'?" in refused(name='cand/3')
    own = tmp_path / 'plan.yaml'
    other = write_config(tmp_path / 'a.py', world / 'data', 3, more=HOOK)
    sides = tuple(replace(side, config=str(other)) for side in plan.sides)
    write_plan(own, replace(plan, sides=sides))
    assert 'is not the config of the plan' in refused(own)
    shutil.copytree(world / 'data', tmp_path / 'data')
    write_config(other, tmp_path / 'data', 2, more=HOOK)
    edit_json(tmp_path / 'data' / 'val.json', lambda x: x['images'].reverse())
    write_plan(own, with_configs(plan, other, other))
    text = refused(own)
    assert 'has other test data than the plan' in text
    assert plan.data['sha256'][:12] in text


def test_the_record_of_another_run(world, plan, tmp_path):
    folder = plan.folder_of(Job('base', 1), tmp_path)
    folder.mkdir(parents=True)
    other = plan.folder_of(Job('cand 1', 3), world / 'undisturbed')
    shutil.copy(other / RECORD, folder)
    with pytest.raises(UserError, match='is the record of cand 1/3, and not'):
        run_job(world / 'plan.yaml', 'base/1', tmp_path)
