# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Signals to one or both processes stop both at the same step."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import in_two_processes
from mmengine.hooks import Hook
from same_end import assert_same, assert_same_end
from test_exact_resume import Noisy, run, validated
from tiny_run import make_coco, write_config
from torch.utils.data import DataLoader
from toy import Numbers

from mmext.checkpoints.files import defect
from mmext.checkpoints.read import load
from mmext.engine.resume.interrupt import (
    Agreement,
    Interrupted,
    shield_workers,
)

ROOT = Path(__file__).resolve().parents[3]
ranks = pytest.mark.skipif(
    torch.cuda.is_available(), reason='forked processes are for CPUs'
)


class Signals(Hook):
    """Sends this process a signal before a step or a validation batch."""

    def __init__(self, step: int | None, batch: int | None = None) -> None:
        self.step, self.batch = step, batch

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.batch is None and runner.iter + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.step and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


def train(folder: Path, *steps: tuple, **more) -> list[tuple[str, int]]:
    """Returns the saved checkpoint and the last iteration of each rank.

    Args:
        folder: The work dir.
        steps: Arguments of :class:`Signals` for each rank. Default: none.
        more: Arguments of the runner.
    """
    folder.mkdir(exist_ok=True)
    seen: list[int] = []

    class Count(Hook):
        def after_train_iter(self, runner, *args, **kwargs) -> None:
            seen.append(runner.iter + 1)

    def work(rank: int) -> tuple[str, int]:
        hooks = [Count(), *([Signals(*steps[rank])] if steps else [])]
        saved = ''
        try:
            run(folder, *hooks, launcher='pytorch', images=24, **more)
        except Interrupted as stop:
            saved = Path(str(stop)).name
        return saved, seen[-1] if seen else 0

    return in_two_processes(folder, work)


@ranks
def test_agreement(tmp_path):
    """Process 1 says yes from its third question on.

    Both processes get the answer at the next question.
    """

    def ask(rank: int) -> list[bool]:
        dist.init_process_group('gloo')
        agreement = Agreement()
        answers = [agreement.any(rank == 1 and i >= 2) for i in range(5)]
        answers.append(Agreement().any(rank == 0, at_once=True))
        answers.append(Agreement().any(False, at_once=True))
        return answers

    late = [False, False, False, True, True]
    assert in_two_processes(tmp_path, ask) == [[*late, True, False]] * 2


def test_agreement_of_one_process():
    agreement = Agreement()
    assert agreement.any(True) and not agreement.any(False)


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('ranks') / 'whole'
    assert train(folder, **validated()) == [('', 18)] * 2
    return folder / 'epoch_3.pth'


NEVER = (None,)


@ranks
@pytest.mark.parametrize(
    ('steps', 'name'),
    [
        # After a signal in a step, all stop after the next step.
        (((8,), NEVER), 'iter_9.pth'),
        ((NEVER, (8,)), 'iter_9.pth'),
        (((8,), (9,)), 'iter_9.pth'),
        (((10,), (8,)), 'iter_9.pth'),
        # The next step would be the last of the epoch.
        ((NEVER, (11,)), 'epoch_2.pth'),
        ((NEVER, (12,)), 'epoch_2.pth'),
    ],
)
def test_all_stop_at_one_step(whole, tmp_path, steps, name):
    cut = tmp_path / 'cut'
    steps_done = 9 if 'iter' in name else 12
    assert train(cut, *steps, **validated()) == [(name, steps_done)] * 2
    assert defect(cut / name) is None
    assert not list(cut.glob('*.tmp'))
    train(cut, resume=True, **validated())
    assert_same_end(whole, cut / 'epoch_3.pth')


@ranks
def test_a_checkpoint_within_an_epoch_knows_all_processes(tmp_path):
    often = {
        'checkpoint': {
            'type': 'CheckpointHook',
            'by_epoch': False,
            'interval': 1,
        }
    }
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    train(whole, default_hooks=often)
    ends = train(cut, NEVER, (8,), default_hooks=often)
    assert ends == [('iter_9.pth', 9)] * 2
    train(cut, resume=True, default_hooks=often)
    name = 'iter_18.pth'
    assert_same_end(whole / name, cut / name)
    # A checkpoint that was written without a signal.
    killed = tmp_path / 'killed'
    killed.mkdir()
    (whole / 'iter_8.pth').rename(killed / 'iter_8.pth')
    train(killed, resume=True, default_hooks=often)
    assert_same_end(whole / name, killed / name)


def group_signal(number: int) -> None:
    """Sends a signal to this process and its children, as a cluster does."""
    ids = [child.pid for child in multiprocessing.active_children()]
    command = ['kill', f'-{number}', *map(str, (*ids, os.getpid()))]
    subprocess.run(['sh', '-c', ' '.join(command)], check=True)


class GroupSignal(Hook):
    """Sends the signal in a step or in the validation of epoch 2."""

    def __init__(self, number: int, place: str) -> None:
        self.number, self.place = number, place

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.place == 'training' and runner.iter == 6:
            self.send()

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if (self.place, runner.epoch, batch_idx) == ('validation', 2, 0):
            self.send()

    def send(self) -> None:
        workers = multiprocessing.active_children()
        assert workers
        group_signal(self.number)
        workers[0].join(0.3)  # enough time for the worker to die
        assert workers[0].is_alive()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('place', ['training', 'validation'])
def test_workers_ignore_a_signal_to_all_processes(tmp_path, number, place):
    settings = validated()
    # The workers still have batches to load when the signal comes.
    rare = {'checkpoint': {'type': 'CheckpointHook', 'interval': 3}}
    settings['val_dataloader'] |= {
        'batch_size': 1,
        'num_workers': 1,
        'prefetch_factor': 1,
        'dataset': Numbers(8),
    }
    settings['train_dataloader'] = {
        **settings['val_dataloader'],
        'batch_size': 2,
        'dataset': Noisy(12),
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
    }
    name = 'iter_7.pth' if place == 'training' else 'iter_12.pth'
    with pytest.raises(Interrupted, match=name):
        run(
            tmp_path,
            GroupSignal(number, place),
            default_hooks=rare,
            **settings,
        )
    assert defect(tmp_path / name) is None


def test_the_loader_still_ends_its_workers():
    """A loader ends them if its iterator is not used up."""
    loader = DataLoader(Numbers(8), num_workers=1, collate_fn=list)
    shield_workers(loader)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGINT)
    worker.join(0.2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(5)
    assert worker.exitcode == 0


@ranks
@pytest.mark.parametrize('batch', [0, 2])
def test_unequal_numbers_of_validation_images(whole, tmp_path, batch):
    """Rank 0 validates three images, rank 1 two."""
    unequal = validated()
    unequal['val_dataloader'] |= {
        'batch_size': 1,
        'dataset': Numbers(5),
        'sampler': {
            'type': 'DefaultSampler',
            'shuffle': False,
            'round_up': False,
        },
    }
    cut = tmp_path / 'cut'
    steps, name = (NEVER, (12, 0)), 'epoch_2.pth'
    if batch:  # no agreement after a batch that only one process has
        steps, name = ((12, 2), NEVER), 'iter_12.pth'
    assert train(cut, *steps, **unequal) == [(name, 12)] * 2
    train(cut, resume=True, **unequal)
    assert_same_end(whole, cut / 'epoch_3.pth')


def launch(folder: Path, *options: str, **stops: int) -> tuple[int, str]:
    """Runs tools/dist_train.sh with two processes in a new session."""
    hooks = [{'type': 'Stops', **stops}] if stops else []
    imports = {'imports': ['mmext', 'rank_states']}
    config = write_config(
        folder / 'tiny.py',
        folder / 'coco',
        epochs=3,
        more=f'custom_imports = {imports}\ncustom_hooks = {hooks}\n'
        'train_dataloader.update(batch_size=1, num_workers=1)\n'
        'val_dataloader.update(num_workers=1)',
    )
    done = subprocess.run(
        [ROOT / 'tools/dist_train.sh', config, '2', *options],
        env={
            **os.environ,
            'PYTHONPATH': f'{ROOT}:{ROOT}/tests/helpers',
            'PYTHON': sys.executable,
            'CUDA_VISIBLE_DEVICES': '-1',
            'OMP_NUM_THREADS': '1',
        },
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_launcher_or_one_of_its_processes_is_stopped(tmp_path):
    """torchrun forwards the signal to the processes and their workers."""
    make_coco(tmp_path / 'coco', train=8)
    status, printed = launch(tmp_path, '--work-dir', 'whole')
    assert status == 0, printed[-3000:]
    # Each process has four steps in an epoch: in the second epoch.
    cut = ('--work-dir', 'cut')
    status, printed = launch(tmp_path, *cut, before=5)
    assert status == 128 + signal.SIGTERM, printed[-3000:]
    (message,) = re.findall(r'error.*?: interrupted .*\n.*\n', printed)
    saved = re.search(r'--resume continues from (\S+\.pth)', message)[1]
    # The other process may be one step behind when the signal comes.
    assert Path(saved).name in [f'iter_{n}.pth' for n in (6, 7)], message
    assert defect(tmp_path / saved) is None
    assert not list((tmp_path / 'cut').glob('*.tmp'))
    assert 'Traceback' not in printed, printed[-3000:]
    assert printed.endswith(message)

    status, printed = launch(tmp_path, *cut, '--resume', validating=2)
    assert status == 2, printed[-3000:]
    assert f'Resuming from {saved}' in printed
    assert printed.count('--resume continues from') == 1
    assert 'Traceback' not in printed, printed[-3000:]
    assert 'epoch_2.pth' in printed.splitlines()[-1]

    status, printed = launch(tmp_path, *cut, '--resume')
    assert status == 0, printed[-3000:]
    one, other = (
        load(tmp_path / f'{n}/epoch_3.pth') for n in ('whole', 'cut')
    )
    for part in ('state_dict', 'optimizer'):
        assert_same(one[part], other[part], part)
