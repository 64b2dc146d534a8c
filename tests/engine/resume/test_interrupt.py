# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Signals to one or both processes stop both at the same step."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist
from commands import ROOT, run_command
from forked import cpus, in_two_processes
from mmengine.hooks import Hook
from same_end import assert_same, assert_same_end
from test_exact_resume import VALIDATED, Kill, Noisy, run, saving
from tiny_run import make_coco, write_config
from torch.utils.data import DataLoader
from toy import Numbers, loader

from mmext.checkpoints.files import defect
from mmext.checkpoints.load import load
from mmext.engine.resume.interrupt import (
    Agreement,
    Interrupted,
    shield_workers,
)

Stop = partial(Kill, number=signal.SIGTERM)


def train(folder: Path, *stops: Kill, **more) -> list[tuple[str, int]]:
    """Returns the saved checkpoint and the last iteration of each rank.

    Args:
        folder: The work dir.
        stops: A hook for each rank. Default: none.
        more: Arguments of the runner.
    """
    folder.mkdir(exist_ok=True)
    seen: list[int] = []

    class Count(Hook):
        def after_train_iter(self, runner, *args, **kwargs) -> None:
            seen.append(runner.iter + 1)

    def work(rank: int) -> tuple[str, int]:
        saved = ''
        try:
            run(
                folder,
                Count(),
                *stops[rank : rank + 1],
                launcher='pytorch',
                images=24,
                **more,
            )
        except Interrupted as stop:
            saved = Path(str(stop)).name
        return saved, seen[-1] if seen else 0

    return in_two_processes(folder, work)


@cpus
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
    assert train(folder, **VALIDATED) == [('', 18)] * 2
    return folder / 'epoch_3.pth'


@cpus
@pytest.mark.parametrize(
    'first, second, name',
    [
        # After a signal in a step, all stop after the next step.
        (8, None, 'iter_9.pth'),
        (None, 8, 'iter_9.pth'),
        (8, 9, 'iter_9.pth'),
        (10, 8, 'iter_9.pth'),
        # The next step would be the last of the epoch.
        (None, 11, 'epoch_2.pth'),
        (None, 12, 'epoch_2.pth'),
    ],
)
def test_all_stop_at_one_step(whole, tmp_path, first, second, name):
    cut = tmp_path / 'cut'
    steps_done = 9 if 'iter' in name else 12
    ends = train(cut, Stop(first), Stop(second), **VALIDATED)
    assert ends == [(name, steps_done)] * 2
    assert defect(cut / name) is None
    assert not list(cut.glob('*.tmp'))
    train(cut, resume=True, **VALIDATED)
    assert_same_end(whole, cut / 'epoch_3.pth')


@cpus
def test_a_checkpoint_within_an_epoch_knows_all_processes(tmp_path):
    often = saving(by_epoch=False, interval=1)
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    train(whole, **often)
    assert train(cut, Stop(), Stop(8), **often) == [('iter_9.pth', 9)] * 2
    train(cut, resume=True, **often)
    name = 'iter_18.pth'
    assert_same_end(whole / name, cut / name)
    # A checkpoint that was written without a signal.
    killed = tmp_path / 'killed'
    killed.mkdir()
    (whole / 'iter_8.pth').rename(killed / 'iter_8.pth')
    train(killed, resume=True, **often)
    assert_same_end(whole / name, killed / name)


class GroupSignal(Kill):
    """Sends a signal to this process and its children, as a cluster does."""

    def stop(self) -> None:
        workers = multiprocessing.active_children()
        assert workers
        ids = [str(process.pid) for process in workers]
        command = ['kill', f'-{self.number}', *ids, str(os.getpid())]
        subprocess.run(['sh', '-c', ' '.join(command)], check=True)
        workers[0].join(0.3)  # enough time for the worker to die
        assert workers[0].is_alive()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    'place, name',
    [({'step': 7}, 'iter_7.pth'), ({'epoch': 2}, 'iter_12.pth')],
    ids=['training', 'validation'],
)
def test_workers_ignore_a_signal_to_all_processes(
    tmp_path, number, place, name
):
    # The workers still have batches to load when the signal comes.
    slow = {'num_workers': 1, 'prefetch_factor': 1}
    settings = {
        **VALIDATED,
        **saving(interval=3),
        'val_dataloader': {**loader(Numbers(8), batch_size=1), **slow},
        'train_dataloader': {**loader(Noisy(12), shuffle=True), **slow},
    }
    with pytest.raises(Interrupted, match=name):
        run(tmp_path, GroupSignal(number=number, **place), **settings)
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


@cpus
@pytest.mark.parametrize('batch', [0, 2])
def test_unequal_numbers_of_validation_images(whole, tmp_path, batch):
    """Rank 0 validates three images, rank 1 two."""
    images = loader(Numbers(5), batch_size=1)
    images['sampler']['round_up'] = False
    unequal = {**VALIDATED, 'val_dataloader': images}
    cut = tmp_path / 'cut'
    stops, name = (Stop(), Stop(epoch=2)), 'epoch_2.pth'
    if batch:  # no agreement after a batch that only one process has
        stops, name = (Stop(epoch=2, batch=2), Stop()), 'iter_12.pth'
    assert train(cut, *stops, **unequal) == [(name, 12)] * 2
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
    done = run_command(
        ROOT / 'tools/dist_train.sh',
        config,
        2,
        *options,
        cwd=folder,
        stderr=subprocess.STDOUT,
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
    assert printed.count('The same command continues from') == 1
    assert 'Traceback' not in printed, printed[-3000:]
    assert 'epoch_2.pth' in printed.splitlines()[-1]

    status, printed = launch(tmp_path, *cut, '--resume')
    assert status == 0, printed[-3000:]
    one, other = (
        load(tmp_path / f'{n}/epoch_3.pth') for n in ('whole', 'cut')
    )
    for part in ('state_dict', 'optimizer'):
        assert_same(one[part], other[part], part)
