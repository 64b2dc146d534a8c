# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A resumed run ends with the state of an undisturbed run."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.registry import METRICS
from same_end import assert_same_end
from toy import Numbers, Toy, build_runner, loader

from mmext.checkpoints.files import defect, newest_complete
from mmext.checkpoints.read import load
from mmext.engine.resume.interrupt import Interrupted, InterruptHook

ADAM = {'optimizer': {'type': 'AdamW', 'lr': 0.01}}
DECAY = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 7},
    {'type': 'MultiStepLR', 'milestones': [1, 2]},
]


class Kill(Hook):
    """Sends a signal in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), self.number)


class KillInValidation(Kill):
    """Sends a signal while epoch ``step`` is validated."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        pass

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.epoch == self.step:
            os.kill(os.getpid(), self.number)


@METRICS.register_module(force=True)
class Scores(BaseMetric):
    """Given scores for the epochs."""

    given = (0.1, 0.5, 0.3, 0.2, 0.1, 0.6)

    def __init__(self) -> None:
        super().__init__()
        self.hook = None

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict[str, float]:
        from mmengine.logging import MessageHub

        epoch = MessageHub.get_current_instance().get_info('epoch')
        return {'mAP': self.given[epoch]}


def validated() -> dict:
    return {
        'val_dataloader': loader(Numbers(2)),
        'val_evaluator': {'type': 'Scores'},
        'val_cfg': {'type': 'ValLoop'},
    }


START = Toy(noise=0.5)


def run(folder: Path, *hooks: Hook, **more) -> object:
    settings = {
        'optim_wrapper': ADAM,
        'param_scheduler': copy.deepcopy(DECAY),
        'images': 12,
        'epochs': 3,
        'shuffle': True,
        'custom_hooks': [{'type': 'EMAHook'}, *hooks],
    }
    runner = build_runner(folder, copy.deepcopy(START), **{**settings, **more})
    runner.train()
    return runner


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('whole')
    run(folder)
    return folder / 'epoch_3.pth'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('step', [1, 6, 9])
def test_an_interrupted_run_ends_with_the_same_state(
    whole, tmp_path, step, number
):
    before = signal.getsignal(signal.SIGINT)
    name = 'epoch_1.pth' if step == 6 else f'iter_{step}.pth'
    # A file of an earlier run in the same folder.
    (tmp_path / name).write_bytes(b'old')
    with pytest.raises(Interrupted, match=name):
        run(tmp_path, Kill(step, number))
    assert signal.getsignal(signal.SIGINT) is before
    assert defect(tmp_path / name) is None
    assert not list(tmp_path.glob('*.tmp'))
    torch.rand(5)
    run(tmp_path, resume=True)
    assert_same_end(whole, tmp_path / 'epoch_3.pth')


def test_with_a_worker(tmp_path):
    """The random numbers of a worker depend on its earlier batches."""

    def more() -> dict:
        noisy = loader(Noisy(12), num_workers=1, shuffle=True)
        return {'train_dataloader': noisy, 'epochs': 2}

    run(tmp_path / 'whole', **more())
    with pytest.raises(Interrupted):
        run(tmp_path / 'cut', Kill(4), **more())
    run(tmp_path / 'cut', resume=True, **more())
    name = 'epoch_2.pth'
    assert_same_end(tmp_path / 'whole' / name, tmp_path / 'cut' / name)


class Noisy(Numbers):
    """Images with random augmentation."""

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return {**item, 'inputs': item['inputs'] + torch.rand(())}


def test_a_step_of_the_optimizer_is_finished_first(tmp_path):
    optim = {**ADAM, 'accumulative_counts': 3}
    run(tmp_path / 'whole', optim_wrapper=optim)
    with pytest.raises(Interrupted, match=r'iter_9\.pth'):
        run(tmp_path / 'cut', Kill(7), optim_wrapper=optim)
    run(tmp_path / 'cut', optim_wrapper=optim, resume=True)
    name = 'epoch_3.pth'
    assert_same_end(tmp_path / 'whole' / name, tmp_path / 'cut' / name)


def test_interrupted_while_it_validates(tmp_path):
    run(tmp_path / 'whole', **validated())
    cut = tmp_path / 'cut'
    with pytest.raises(Interrupted, match=r'epoch_2\.pth'):
        run(cut, KillInValidation(2), **validated())
    run(cut, resume=True, **validated())
    name = 'epoch_3.pth'
    assert_same_end(tmp_path / 'whole' / name, cut / name)
    # If the epoch has no checkpoint, its validation is finished first.
    rare = {'checkpoint': {'type': 'CheckpointHook', 'interval': 3}}
    sparse = tmp_path / 'sparse'
    with pytest.raises(Interrupted, match=r'iter_12\.pth'):
        run(sparse, KillInValidation(2), default_hooks=rare, **validated())
    run(sparse, resume=True, default_hooks=rare, **validated())
    assert_same_end(tmp_path / 'whole' / name, sparse / name)


def test_a_second_signal_stops_at_once(monkeypatch):
    hook = InterruptHook()
    hook._rank, hook._logger = 1, None
    hook._ask(signal.SIGINT, None)
    hook._ask(signal.SIGINT, None)  # torchrun repeats it
    monkeypatch.setattr('mmext.engine.resume.interrupt.REPEATED', -1)
    with pytest.raises(KeyboardInterrupt):
        hook._ask(signal.SIGINT, None)


def test_a_checkpoint_every_few_iterations(tmp_path):
    """A checkpoint after the last batch of an epoch belongs to that epoch."""
    often = {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 3}
    more = {'default_hooks': {'checkpoint': often}, **validated()}
    whole = run(tmp_path / 'whole', **more)
    for step in (9, 12):
        cut = tmp_path / f'{step}'
        with pytest.raises(KilledError):
            run(cut, Break(step + 1), **more)
        assert newest_complete(cut)[0].name == f'iter_{step}.pth'
        resumed = run(cut, resume=True, **more)
        assert aps(resumed) == aps(whole) == [0.1, 0.5, 0.3]
        name = 'iter_18.pth'
        assert_same_end(tmp_path / 'whole' / name, cut / name)


def test_gradients_of_a_step_that_is_not_due_are_kept(tmp_path):
    """An epoch has six batches, a step four: the epoch ends within a step."""
    optim = {**ADAM, 'accumulative_counts': 4}
    run(tmp_path / 'whole', optim_wrapper=optim)
    cut = tmp_path / 'cut'
    with pytest.raises(KilledError):
        run(cut, Break(7), optim_wrapper=optim)
    kept = load(cut / 'epoch_1.pth')['mmext_resume']['gradients']
    assert len(kept) == len([*START.parameters()])
    run(cut, optim_wrapper=optim, resume=True)
    name = 'epoch_3.pth'
    assert_same_end(tmp_path / 'whole' / name, cut / name)


class KilledError(Exception):
    """Ends a training like SIGKILL."""


class Break(Kill):
    """Ends the training like a process that is killed."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.step:
            raise KilledError


def test_a_run_without_a_seed_sees_each_image_once(tmp_path):
    """The resumed run uses the seed of the checkpoint."""

    class Noted(Numbers):
        seen: list[int] = []

        def __getitem__(self, index: int) -> dict:
            self.seen.append(index)
            return super().__getitem__(index)

    def more() -> dict:
        noted = loader(Noted(12), shuffle=True)
        seed = {'seed': None}
        return {'train_dataloader': noted, 'randomness': seed, 'epochs': 1}

    with pytest.raises(Interrupted, match='iter_4'):
        run(tmp_path, Kill(4), **more())
    begun, Noted.seen = Noted.seen, []
    run(tmp_path, resume=True, **more())
    assert Noted.seen[:8] == begun
    assert sorted(Noted.seen) == [*range(12)]


def test_a_second_signal_while_it_writes(tmp_path, monkeypatch):
    def stopped(self, content: bytes, filepath: str) -> None:
        Path(filepath).write_bytes(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalBackend, 'put', stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Kill(2))
    assert not list(tmp_path.glob('*.pth*'))


def test_a_runner_that_was_stopped_trains_again(tmp_path):
    kill = Kill(2)
    runner = build_runner(tmp_path, epochs=2, custom_hooks=[kill])
    with pytest.raises(Interrupted):
        runner.train()
    kill.step = None
    try:
        runner.train()
    except Interrupted:  # would end pytest
        pytest.fail('stopped again without a signal')
    assert runner.epoch == 2


def test_another_batch_size_starts_the_epoch_again(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, Kill(8))
    runner = run(tmp_path, resume=True, batch_size=4)
    assert runner.iter == 9 and runner.epoch == 3


def early(patience: int = 2) -> EarlyStoppingHook:
    return EarlyStoppingHook('mAP', patience=patience, min_delta=0.01)


def test_early_stopping_keeps_its_count(tmp_path):
    """Scores 0.1, 0.5, 0.3, 0.2: two epochs without a better one."""
    whole = run(tmp_path / 'whole', early(), epochs=6, **validated())
    assert whole.epoch == 4
    cut = tmp_path / 'cut'
    with pytest.raises(Interrupted, match='iter_20'):
        run(cut, early(), Kill(20), epochs=6, **validated())
    resumed = early()
    assert run(cut, resumed, epochs=6, resume=True, **validated()).epoch == 4
    assert (resumed.wait_count, resumed.best_score) == (2, 0.5)
    name = 'epoch_4.pth'
    assert_same_end(tmp_path / 'whole' / name, cut / name)
    # From the epoch before, the validation is repeated once.
    for file in (*cut.glob('iter_*.pth'), cut / name):
        file.unlink()
    resumed = early()
    assert run(cut, resumed, epochs=6, resume=True, **validated()).epoch == 4
    assert (resumed.wait_count, resumed.best_score) == (2, 0.5)


def test_an_epoch_is_validated_and_counted_once(tmp_path):
    """The run is stopped in the validation of an epoch without checkpoint."""
    rare = {'checkpoint': {'type': 'CheckpointHook', 'interval': 3}}
    cut = tmp_path / 'cut'
    with pytest.raises(Interrupted, match='iter_12'):
        run(
            cut,
            early(),
            KillInValidation(2),
            epochs=6,
            default_hooks=rare,
            **validated(),
        )
    resumed = early()
    end = run(
        cut, resumed, epochs=6, resume=True, default_hooks=rare, **validated()
    )
    assert end.epoch == 4
    assert (resumed.wait_count, resumed.best_score) == (2, 0.5)
    assert aps(end) == [0.1, 0.5, 0.3, 0.2]


def aps(runner) -> list[float]:
    """Returns the scores of all validations, also those before resuming."""
    return [*runner.message_hub.get_scalar('val/mAP').data[0]]


def test_a_best_checkpoint_is_not_validated_again(tmp_path):
    """CheckpointHook writes it again after the validation."""
    best = {'checkpoint': {'type': 'CheckpointHook', 'save_best': 'mAP'}}
    plateau = [
        {
            'type': 'ReduceOnPlateauLR',
            'monitor': 'mAP',
            'rule': 'greater',
            'patience': 0,
            'threshold': 0.0,
            'end': 3,
        }
    ]
    more = {'default_hooks': best, 'param_scheduler': plateau}

    def train(folder: Path, **also) -> object:
        settings = {**copy.deepcopy(more), **validated(), **also}
        return run(folder, early(9), **settings)

    whole = train(tmp_path / 'whole')
    train(tmp_path / 'cut', epochs=2)
    resumed = train(tmp_path / 'cut', resume=True)
    assert aps(resumed) == aps(whole) == [0.1, 0.5, 0.3]
    name = 'epoch_3.pth'
    assert_same_end(tmp_path / 'whole' / name, tmp_path / 'cut' / name)
