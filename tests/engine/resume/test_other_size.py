# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A run goes on with another number of processes: 2, then 1, then 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import ROOT, TWO_PROCESSES, run_command
from resume_ranks import main
from toy import Numbers, build_runner, loader

from mmext.engine.runner import ReliableRunner
from mmext.evaluation.runs import read_run

SCRIPT = ROOT / 'tests/helpers/resume_ranks.py'


def pair(*arguments: object) -> tuple[str, list[dict]]:
    """Runs two processes; returns what they print, and how they ended."""
    done = run_command(*TWO_PROCESSES, SCRIPT, *arguments, check=True)
    folder = Path(arguments[0])
    ends = [torch.load(folder / f'rank_{rank}.pth') for rank in (0, 1)]
    assert ends[0]['state'].keys() == ends[1]['state'].keys()
    for name, value in ends[0]['state'].items():
        if 'running' not in name and 'tracked' not in name:
            assert torch.equal(value, ends[1]['state'][name]), name
    return done.stdout, ends


def images(ends: list[dict], epoch: int) -> list[int]:
    """Returns the images of an epoch, sorted."""
    return sorted(
        image
        for end in ends
        for number, batch in end['seen']
        if number == epoch
        for image in batch
    )


def test_two_processes_then_one_then_two(tmp_path, capsys):
    _, ends = pair(tmp_path, 3, 9)  # stopped in the second epoch of 6 steps
    assert images(ends, 0) == [*range(12)]
    done = ends[0]['iter'] + 1 - 6
    assert 0 < done < 6 and (tmp_path / f'iter_{6 + done}.pth').is_file()

    main(tmp_path, 2)
    printed = capsys.readouterr()
    text = ' '.join((printed.out + printed.err).split())
    assert (
        'Resuming with 1 process with batches of 1 (12 an epoch) instead of 2 '
        'processes with batches of 1 (6 an epoch): epoch 2 starts again'
    ) in text
    one = torch.load(tmp_path / 'rank_0.pth')
    assert [epoch for epoch, _ in one['seen']] == [1] * 12
    assert images([one], 1) == [*range(12)]
    assert (one['epoch'], one['iter'], one['max_iters']) == (2, 18, 18)

    text, ends = pair(tmp_path, 3)
    assert 'batches of 1 (12 an epoch): epoch 3 is the next one' in text
    for end in ends:
        assert [epoch for epoch, _ in end['seen']] == [2] * 6
        assert (end['epoch'], end['iter'], end['max_iters']) == (3, 24, 24)
    assert images(ends, 2) == [*range(12)]

    # No step of the log, and no validation, is lost or there twice.
    run = read_run(tmp_path)
    assert [r['step'] for r in run.train_log] == [*range(1, 25)]
    assert [r['step'] for r in run.val_log] == [1, 2, 3]


@pytest.mark.parametrize('stop', [3, None])
def test_twice_the_batch(tmp_path, capsys, stop):
    """Within an epoch, and between two."""
    main(tmp_path, 3 if stop else 1, stop)
    main(tmp_path, 3, batch_size=2)
    end = torch.load(tmp_path / 'rank_0.pth')
    first = 1 if stop is None else 0
    for epoch in range(first, 3):
        assert images([end], epoch) == [*range(12)]
    steps = 12 * first + 6 * (3 - first)
    assert end['iter'] == end['max_iters'] == steps
    text = ' '.join(''.join(capsys.readouterr()).split())
    assert 'Resuming with 1 process with batches of 2 (6 an epoch)' in text


def test_the_same_batches_in_another_number_of_processes(tmp_path, capsys):
    """As many batches, but the second process has no random state."""
    pair(tmp_path, 2, 3)
    main(tmp_path, 2, batch_size=2)
    text = ' '.join(''.join(capsys.readouterr()).split())
    assert 'of 2 processes with batches of 1 (6 an epoch): epoch 1' in text
    end = torch.load(tmp_path / 'rank_0.pth')
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
