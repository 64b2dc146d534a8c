# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A run goes on with another number of processes: 2, then 1, then 2."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path

import pytest
import torch
from forked import cpus, in_two_processes
from mmengine.hooks import Hook
from toy import Numbers, Scores, build_runner, loader

from mmext.engine.resume.interrupt import Interrupted
from mmext.engine.runner import ReliableRunner
from mmext.evaluation.runs import read_run


class Notes(Hook):
    """Notes the epoch and the images of each step; stops before one."""

    def __init__(self, stop: int | None) -> None:
        self.stop = stop
        self.seen: list[tuple[int, list[int]]] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        images = [s.img_id for s in data_batch['data_samples']]
        self.seen.append((runner.epoch, images))
        last = runner.rank == runner.world_size - 1
        if runner.iter + 1 == self.stop and last:
            os.kill(os.getpid(), signal.SIGTERM)


def one(
    folder: Path, epochs: int, stop: int | None = None, **more: object
) -> dict:
    """Resumes a run in this process; returns how it ended.

    Before the step ``stop``, the last process gets SIGTERM.
    """
    notes = Notes(stop)
    scores = [{'mAP': 0.1 * (1 + i)} for i in range(epochs)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runner = build_runner(
            folder,
            images=12,
            epochs=epochs,
            shuffle=True,
            resume=True,
            log_level='INFO',
            custom_hooks=[notes],
            default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
            val_dataloader=loader(Numbers(4)),
            val_cfg={'type': 'ValLoop'},
            val_evaluator=[Scores(scores)],
            **{'batch_size': 1, **more},
        )
        with contextlib.suppress(Interrupted):
            runner.train()
    return {
        'state': {
            k.removeprefix('module.'): v
            for k, v in runner.model.state_dict().items()
        },
        'seen': notes.seen,
        'epoch': runner.epoch,
        'iter': runner.iter,
        'max_iters': runner.max_iters,
        'text': ' '.join(printed.getvalue().split()),
    }


def two(folder: Path, epochs: int, stop: int | None = None) -> list[dict]:
    """Resumes a run in two processes; returns how each ended."""
    ends = in_two_processes(
        folder, lambda rank: one(folder, epochs, stop, launcher='pytorch')
    )
    assert ends[0]['state'].keys() == ends[1]['state'].keys()
    for name, value in ends[0]['state'].items():
        if 'running' not in name and 'tracked' not in name:
            assert torch.equal(value, ends[1]['state'][name]), name
    return ends


def images(ends: list[dict], epoch: int) -> list[int]:
    """Returns the images of an epoch, sorted."""
    return sorted(
        image
        for end in ends
        for number, batch in end['seen']
        if number == epoch
        for image in batch
    )


@cpus
def test_two_processes_then_one_then_two(tmp_path):
    ends = two(tmp_path, 3, 9)  # stopped in the second epoch of 6 steps
    assert images(ends, 0) == [*range(12)]
    done = ends[0]['iter'] + 1 - 6
    assert 0 < done < 6 and (tmp_path / f'iter_{6 + done}.pth').is_file()

    end = one(tmp_path, 2)
    assert (
        'Resuming with 1 process with batches of 1 (12 an epoch) instead of 2 '
        'processes with batches of 1 (6 an epoch): epoch 2 starts again'
    ) in end['text']
    assert [epoch for epoch, _ in end['seen']] == [1] * 12
    assert images([end], 1) == [*range(12)]
    assert (end['epoch'], end['iter'], end['max_iters']) == (2, 18, 18)

    ends = two(tmp_path, 3)
    text = 'batches of 1 (12 an epoch): epoch 3 is the next one'
    assert text in ends[0]['text']
    for end in ends:
        assert [epoch for epoch, _ in end['seen']] == [2] * 6
        assert (end['epoch'], end['iter'], end['max_iters']) == (3, 24, 24)
    assert images(ends, 2) == [*range(12)]

    # No step of the log, and no validation, is lost or there twice.
    run = read_run(tmp_path)
    assert [r['step'] for r in run.train_log] == [*range(1, 25)]
    assert [r['step'] for r in run.val_log] == [1, 2, 3]


@pytest.mark.parametrize('stop', [3, None])
def test_twice_the_batch(tmp_path, stop):
    """Within an epoch, and between two."""
    one(tmp_path, 3 if stop else 1, stop)
    end = one(tmp_path, 3, batch_size=2)
    first = 1 if stop is None else 0
    for epoch in range(first, 3):
        assert images([end], epoch) == [*range(12)]
    steps = 12 * first + 6 * (3 - first)
    assert end['iter'] == end['max_iters'] == steps
    assert 'Resuming with 1 process with batches of 2 (6 an' in end['text']


@cpus
def test_the_same_batches_in_another_number_of_processes(tmp_path):
    """As many batches, but the second process has no random state."""
    two(tmp_path, 2, 3)
    end = one(tmp_path, 2, batch_size=2)
    text = 'of 2 processes with batches of 1 (6 an epoch): epoch 1'
    assert text in end['text']
    assert images([end], 0) == images([end], 1) == [*range(12)]


def test_a_loop_that_counts_iterations_says_what_it_skips(tmp_path, capsys):
    def train(**more) -> ReliableRunner:
        data = loader(Numbers(12), more.pop('batch_size'))
        data['sampler'] = {'type': 'InfiniteSampler', 'seed': 0}
        hook = {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2}
        runner = build_runner(
            tmp_path,
            train_dataloader=data,
            default_hooks={'checkpoint': hook},
            **more,
        )
        runner.train()
        return runner

    def loop(iterations: int) -> dict:
        return {'type': 'IterBasedTrainLoop', 'max_iters': iterations}

    train(batch_size=2, train_cfg=loop(2))
    runner = train(batch_size=4, train_cfg=loop(4), resume=True)
    assert runner.iter == 4
    text = ' '.join(''.join(capsys.readouterr()).split())
    assert 'IterBasedTrainLoop counts batches: it skips the first 2' in text
