# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two processes over gloo equal one process with the complete batch."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from commands import ROOT, TWO_PROCESSES, run_command
from tiny_run import write_config

from mmext.engine.distributed import (
    check_launcher,
    is_first_process,
    reported_once,
)
from mmext.errors import UserError


@pytest.fixture(scope='module')
def runs(tmp_path_factory, data) -> dict:
    """The results of one process and of each of two processes."""
    folder = tmp_path_factory.mktemp('ddp')
    config = write_config(
        folder / 'tiny.py',
        data,
        more=f'val_evaluator.update(outfile_prefix={str(folder / "val")!r})',
    )
    worker = ROOT / 'tests/helpers/ddp_worker.py'
    # Two processes first: one process then validates what they trained.
    for launcher in (TWO_PROCESSES, (sys.executable,)):
        run_command(*launcher, worker, config, folder, cwd=folder, check=True)
    found = {
        name: torch.load(folder / f'{name}.pth')
        for name in ('1_0', '2_0', '2_1')
    }
    found['folder'] = folder
    return found


@pytest.mark.parametrize('name', ['named', 'torch', 'mmcv', 'bf16'])
def test_sync_bn_uses_the_complete_batch(runs, name):
    key = f'sync_bn_{name}'
    close = {'rtol': 1e-2, 'atol': 1e-3} if name == 'bf16' else {}
    one, rank0, rank1 = (runs[n][key] for n in ('1_0', '2_0', '2_1'))
    both = torch.cat([rank0['result'], rank1['result']])
    torch.testing.assert_close(both, one['result'], **close)
    assert rank0['state'].keys() == one['state'].keys()
    for name, value in one['state'].items():
        torch.testing.assert_close(
            rank0['state'][name], value, msg=name, **close
        )
        assert torch.equal(rank0['state'][name], rank1['state'][name])
    # Without synchronisation the results differ: the halves are different.
    assert one['state']['norm.running_var'].sub(1).abs().min() > 1e-3
    for name, value in one['gradients'].items():
        torch.testing.assert_close(
            rank0['gradients'][name],
            value,
            msg=name,
            **(close or {'rtol': 1e-4, 'atol': 1e-6}),
        )


def test_gradients_of_two_halves_equal_those_of_the_batch(runs):
    one, rank0, rank1 = (runs[n]['gradients'] for n in ('1_0', '2_0', '2_1'))
    assert one.keys() == rank0.keys() and len(one) > 60
    for name, value in one.items():
        assert torch.equal(rank0[name], rank1[name])
        scale = value.abs().max()
        assert scale > 0, name
        assert (rank0[name] - value).abs().max() < 1e-3 * scale, name
    halves = [runs[n]['loss'] for n in ('2_0', '2_1')]
    assert halves[0] != pytest.approx(halves[1], rel=1e-6)
    assert sum(halves) / 2 == pytest.approx(runs['1_0']['loss'], rel=1e-5)


def test_trained_parameters_are_equal_on_both_ranks(runs):
    rank0, rank1 = (runs[n]['trained'] for n in ('2_0', '2_1'))
    before = runs['2_0']['initial']
    moved = 0
    for name, value in rank0.items():
        # Validation uses the running statistics of every rank.
        assert torch.equal(value, rank1[name]), name
        moved += not torch.equal(value, before[name])
    assert moved > 60


def test_every_image_is_validated_once(runs):
    # The sampler pads five images to six; the last one must be removed.
    results, alone = (
        json.loads((runs['folder'] / f'{name}.bbox.json').read_text())
        for name in ('val', 'alone')
    )
    seen = {(r['image_id'], r['score'], *r['bbox']) for r in results}
    assert len(seen) == len(results)
    assert {r['image_id'] for r in results} == {1, 2, 3, 4, 5}

    def sort(rows: list[dict]) -> list[tuple]:
        return sorted(
            (r['image_id'], r['category_id'], r['score'], *r['bbox'])
            for r in rows
        )

    assert len(alone) == len(results)
    for mine, other in zip(sort(results), sort(alone), strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-3)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    environ = {
        'RANK': '6',
        'LOCAL_RANK': '2',
        'WORLD_SIZE': '8',
        'MASTER_ADDR': 'a',
        'MASTER_PORT': '1',
    }
    with pytest.raises(UserError, match='process 2 .* has no GPU: 2 visible'):
        check_launcher('pytorch', environ)
    check_launcher('pytorch', environ | {'LOCAL_RANK': '1'})
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    check_launcher('pytorch', environ)


def test_no_process_writes_before_the_first_has_checked(tmp_path, data):
    config = write_config(tmp_path / 'tiny.py', data)
    work = tmp_path / 'work'
    done = run_command(
        *(*TWO_PROCESSES, ROOT / 'tools/train.py', config, '--work-dir', work),
        *('--launcher', 'pytorch', '--cfg-options'),
        'model.roi_head.bbox_head.num_classes=3',
    )
    assert '2 classes (square, disc), but roi_head.bbox_head' in done.stderr
    assert done.returncode and not work.exists()


def test_first_process_of_each_launcher():
    assert is_first_process('none', {'RANK': '1'})
    assert not is_first_process('pytorch', {'RANK': '1'})
    assert not is_first_process('slurm', {'SLURM_PROCID': '3', 'RANK': '0'})
    assert is_first_process('mpi', {'OMPI_COMM_WORLD_RANK': '0'})


def test_an_error_of_all_processes_is_reported_once(monkeypatch):
    problem = 'config gone.py does not exist'
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(SystemExit) as end, reported_once('pytorch'):
        raise UserError(problem)
    assert end.value.code == 0  # else the first process could be ended
    for rank, launcher in (('0', 'pytorch'), ('1', 'none')):
        monkeypatch.setenv('LOCAL_RANK', rank)
        with pytest.raises(UserError, match=problem), reported_once(launcher):
            raise UserError(problem)
