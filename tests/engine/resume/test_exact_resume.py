# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A resumed run ends with the state of an undisturbed run."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import Runner
from same_end import assert_same_end
from toy import Numbers, Toy, build_runner, loader

from mmext.checkpoints.files import defect, newest_complete
from mmext.checkpoints.load import load
from mmext.engine.resume.interrupt import Interrupted, InterruptHook
from mmext.engine.runner import ReliableRunner
from mmext.utils.files import stamp

ADAM = {'optimizer': {'type': 'AdamW', 'lr': 0.01}}
DECAY = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 7},
    {'type': 'MultiStepLR', 'milestones': [1, 2]},
]
SCORES = [{'mAP': score} for score in (0.1, 0.5, 0.3, 0.2, 0.1, 0.6)]
VALIDATED = {
    'val_dataloader': loader(Numbers(2)),
    'val_evaluator': {'type': 'Scores', 'given': SCORES},
    'val_cfg': {'type': 'ValLoop'},
}
EARLY = {
    'type': 'EarlyStoppingHook',
    'monitor': 'mAP',
    'patience': 2,
    'min_delta': 0.01,
}
START = Toy(noise=0.5)


def saving(**options: Any) -> dict[str, Any]:
    """Returns the settings of a run with options of its CheckpointHook."""
    hook = {'type': 'CheckpointHook', **options}
    return {'default_hooks': {'checkpoint': hook}}


def accumulated(batches: int) -> dict[str, Any]:
    return {'optim_wrapper': {**ADAM, 'accumulative_counts': batches}}


class Kill(Hook):
    """Sends a signal in a step, or in the validation of an epoch."""

    def __init__(
        self,
        step: int | None = None,
        number: int = signal.SIGINT,
        epoch: int | None = None,
        batch: int = 0,
    ) -> None:
        self.step, self.number = step, number
        self.validation = (epoch, batch)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.step:
            self.stop()

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if (runner.epoch, batch_idx) == self.validation:
            self.stop()

    def stop(self) -> None:
        os.kill(os.getpid(), self.number)


class KilledError(Exception):
    """Ends a training like SIGKILL."""


class Break(Kill):
    """Ends the training like a process that is killed."""

    def stop(self) -> None:
        raise KilledError


def run(folder: Path, *hooks: Hook | dict, **more: Any) -> ReliableRunner:
    settings = {
        'model': START,
        'optim_wrapper': ADAM,
        'param_scheduler': DECAY,
        'images': 12,
        'epochs': 3,
        'shuffle': True,
        **more,
    }
    runner = build_runner(
        folder,
        custom_hooks=[{'type': 'EMAHook'}, *hooks],
        **copy.deepcopy(settings),  # MMEngine changes them
    )
    runner.train()
    return runner


def check_resume(
    folder: Path,
    stop: Kill,
    saved: str,
    *hooks: dict,
    end: str = 'epoch_3.pth',
    **more: Any,
) -> tuple[ReliableRunner, ReliableRunner]:
    """Compares a run that is stopped and resumed with one that is not.

    ``saved`` is the newest checkpoint when the run has stopped, and ``end``
    the one that must be equal. Returns the runners of both runs.
    """
    cut = folder / 'cut'
    whole = run(folder / 'whole', *hooks, **more)
    with pytest.raises((Interrupted, KilledError)):
        run(cut, *hooks, stop, **more)
    assert newest_complete(cut)[0].name == saved
    resumed = run(cut, *hooks, resume=True, **more)
    assert_same_end(folder / 'whole' / end, cut / end)
    return whole, resumed


def aps(runner: ReliableRunner) -> list[float]:
    """Returns the scores of all validations, also those before resuming."""
    return [*runner.message_hub.get_scalar('val/mAP').data[0]]


def early_stopping(runner: ReliableRunner) -> tuple[int, float]:
    """Returns the epochs without a better score, and the best score."""
    (hook,) = [h for h in runner.hooks if isinstance(h, EarlyStoppingHook)]
    return hook.wait_count, hook.best_score


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


class Noisy(Numbers):
    """Images with random augmentation."""

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return {**item, 'inputs': item['inputs'] + torch.rand(())}


@pytest.mark.parametrize(
    'stop, saved, more',
    [
        # The random numbers of a worker depend on its earlier batches.
        (
            Kill(4),
            'iter_4.pth',
            {'train_dataloader': loader(Noisy(12), 2, 1, shuffle=True)},
        ),
        # A step of the optimizer is finished first.
        (Kill(7), 'iter_9.pth', accumulated(3)),
        # An epoch has six batches, so it ends within a step of four.
        (Break(7), 'epoch_1.pth', accumulated(4)),
        (Kill(epoch=2), 'epoch_2.pth', VALIDATED),
        # The epoch has no checkpoint, so its validation is finished first.
        (Kill(epoch=2), 'iter_12.pth', {**VALIDATED, **saving(interval=3)}),
    ],
    ids=['worker', 'step', 'gradients', 'validation', 'rare'],
)
def test_a_resumed_run_ends_with_the_same_state(tmp_path, stop, saved, more):
    check_resume(tmp_path, stop, saved, **more)
    if more == accumulated(4):
        content = load(tmp_path / 'cut' / saved)['mmext_resume']
        assert len(content['gradients']) == len([*START.parameters()])


def test_a_second_signal_stops_at_once(monkeypatch):
    hook = InterruptHook()
    hook._rank, hook._logger = 1, None
    hook._ask(signal.SIGINT, None)
    hook._ask(signal.SIGINT, None)  # torchrun repeats it
    monkeypatch.setattr('mmext.engine.resume.interrupt.REPEATED', -1)
    with pytest.raises(KeyboardInterrupt):
        hook._ask(signal.SIGINT, None)


@pytest.mark.parametrize('step', [9, 12])
def test_a_checkpoint_every_few_iterations(tmp_path, step):
    """A checkpoint after the last batch of an epoch belongs to that epoch."""
    ends = check_resume(
        tmp_path,
        Break(step + 1),
        f'iter_{step}.pth',
        end='iter_18.pth',
        **saving(by_epoch=False, interval=3),
        **VALIDATED,
    )
    assert [aps(runner) for runner in ends] == [[0.1, 0.5, 0.3]] * 2


def test_a_run_without_a_seed_sees_each_image_once(tmp_path):
    """The resumed run uses the seed of the checkpoint."""

    class Noted(Numbers):
        seen: list[int] = []

        def __getitem__(self, index: int) -> dict:
            self.seen.append(index)
            return super().__getitem__(index)

    more = {
        'train_dataloader': loader(Noted(12), shuffle=True),
        'randomness': {'seed': None},
        'epochs': 1,
    }
    with pytest.raises(Interrupted, match='iter_4'):
        run(tmp_path, Kill(4), **more)
    begun, Noted.seen = Noted.seen, []
    run(tmp_path, resume=True, **more)
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
    assert runner.epoch == 3
    # Six of the first epoch, then three in each: the log repeats no step.
    assert runner.iter == runner.max_iters == 12


@pytest.mark.parametrize('epoch', [1, None], ids=['between', 'within'])
def test_other_data_start_the_epoch_again(tmp_path, capsys, epoch):
    """As many batches of other images: none of them may be skipped."""

    def data(folder: Path, text: str) -> Numbers:
        folder.mkdir()
        numbers = Numbers(12)
        numbers.ann_file = str(folder / 'train.json')
        Path(numbers.ann_file).write_text(text)
        return numbers

    def resume(name: str, dataset: Numbers) -> tuple[ReliableRunner, str]:
        cut = tmp_path / name
        shutil.copytree(tmp_path / 'cut', cut)
        capsys.readouterr()
        images = loader(dataset, shuffle=True)
        runner = run(cut, resume=True, train_dataloader=images)
        return runner, capsys.readouterr().out

    first = loader(data(tmp_path / 'a', 'a'), shuffle=True)
    if epoch:
        run(tmp_path / 'cut', epochs=1, train_dataloader=first)
    else:
        with pytest.raises(Interrupted):
            run(tmp_path / 'cut', Kill(8), train_dataloader=first)
    # The same files in another folder are the same data.
    runner, log = resume('moved', data(tmp_path / 'b', 'a'))
    assert 'training images' not in log and 'from its first' not in log
    assert runner.iter == 18
    runner, log = resume('changed', data(tmp_path / 'c', 'b'))
    assert 'with other annotations of the training images' in log
    assert runner.iter == 18  # the steps of the epoch are repeated
    more = data(tmp_path / 'd', 'a')
    more.images = Numbers(11).images  # six batches too
    runner, log = resume('removed', more)
    assert '11 training images instead of 12' in log
    assert f'epoch 2 {"is the next one" if epoch else "starts again"}' in log


def test_a_copied_run_changes_nothing_of_the_original(tmp_path):
    """A regression: it removed the best checkpoint of the original."""
    best = {**saving(save_best='mAP', max_keep_ckpts=2), **VALIDATED}
    run(tmp_path / 'run', epochs=1, **best)
    before = {p: stamp(p) for p in (tmp_path / 'run').rglob('*')}
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    runner = run(tmp_path / 'copy', resume=True, **best)
    assert runner.epoch == 3
    assert {p: stamp(p) for p in (tmp_path / 'run').rglob('*')} == before
    # Its own best checkpoint was replaced.
    names = [p.name for p in (tmp_path / 'copy').glob('best_*')]
    assert names == ['best_mAP_epoch_2.pth']
    saved = load(tmp_path / 'copy' / 'epoch_3.pth')
    info = saved['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(tmp_path / 'copy' / names[0])


def test_checkpoints_in_the_folder_of_the_config(tmp_path):
    """MMEngine adds the name of the work dir to ``out_dir``."""
    out = saving(out_dir=str(tmp_path / 'out'))
    run(tmp_path / 'work', epochs=1, **out)
    saved = tmp_path / 'out' / 'work' / 'epoch_1.pth'
    assert saved.is_file() and not list((tmp_path / 'work').glob('*.pth'))
    runner = run(tmp_path / 'work', resume=True, epochs=2, **out)
    assert runner._load_from == str(saved)


@pytest.mark.parametrize('cls', [Runner, ReliableRunner])
@pytest.mark.parametrize(
    'best', ['{}/mine', '{}/mine/best_a.pth', '..', '.', '', '{}/best_/..', 5]
)
def test_a_checkpoint_removes_nothing_outside(tmp_path, best, cls):
    """A regression: it named the file, or folder, that was removed."""
    mine = tmp_path / 'mine'
    mine.mkdir()
    for name in ('best_a.pth', 'epoch_1.pth'):
        (mine / name).write_text('mine')
    work = tmp_path / 'work'
    settings = {**saving(save_best='mAP', max_keep_ckpts=2), **VALIDATED}
    run(work, epochs=1, **settings)
    path = work / 'epoch_1.pth'
    content = load(path)
    info = content['message_hub']['runtime_info']
    info['best_ckpt'] = best.format(tmp_path) if best != 5 else best
    info['last_ckpt'] = f'{mine}/epoch_1.pth'
    info['keep_ckpt_ids'] = ['x', '/../../mine/epoch_1', True, 7, 8, 1]
    torch.save(content, path)
    if cls is Runner:  # as MMDetection's own tools build it
        settings['custom_hooks'] = [{'type': 'EMAHook'}]
        settings['param_scheduler'] = DECAY
        runner = build_runner(
            work, START, images=12, epochs=2, optim_wrapper=ADAM, cls=Runner,
            resume=True, load_from=str(path), **copy.deepcopy(settings),
        )  # fmt: skip
        runner.train()
    else:
        runner = run(work, resume=True, epochs=2, **settings)
    assert runner.epoch == 2
    assert sorted(p.name for p in mine.iterdir()) == [
        'best_a.pth', 'epoch_1.pth',
    ]  # fmt: skip
    info = runner.message_hub.runtime_info
    assert info['best_ckpt'] == str(work / 'best_mAP_epoch_2.pth')
    assert info['last_ckpt'] == str(work / 'epoch_2.pth')
    assert info['keep_ckpt_ids'] == [1, 2]


@pytest.mark.parametrize('linked', ['last_checkpoint', 'epoch_2.pth.tmp'])
def test_no_link_leads_a_write_out_of_the_work_dir(tmp_path, linked):
    run(tmp_path / 'work', epochs=1)
    other = tmp_path / 'other'
    other.write_text('mine')
    link = tmp_path / 'work' / linked
    link.unlink(missing_ok=True)
    link.symlink_to(other)
    run(tmp_path / 'work', resume=True, epochs=2)
    assert other.read_text() == 'mine'
    assert newest_complete(tmp_path / 'work')[0].name == 'epoch_2.pth'


def test_early_stopping_keeps_its_count(tmp_path):
    """Scores 0.1, 0.5, 0.3, 0.2: two epochs without a better one."""
    more = {'epochs': 6, **VALIDATED}
    name = 'epoch_4.pth'
    ends = check_resume(
        tmp_path, Kill(20), 'iter_20.pth', EARLY, end=name, **more
    )
    assert [runner.epoch for runner in ends] == [4, 4]
    assert early_stopping(ends[1]) == (2, 0.5)
    # From the epoch before, the validation is repeated once.
    cut = tmp_path / 'cut'
    for file in (*cut.glob('iter_*.pth'), cut / name):
        file.unlink()
    resumed = run(cut, EARLY, resume=True, **more)
    assert resumed.epoch == 4
    assert early_stopping(resumed) == (2, 0.5)


def test_an_epoch_is_validated_and_counted_once(tmp_path):
    """The run is stopped in the validation of an epoch without checkpoint."""
    _, resumed = check_resume(
        tmp_path,
        Kill(epoch=2),
        'iter_12.pth',
        EARLY,
        epochs=6,
        **saving(interval=3),
        **VALIDATED,
    )
    assert resumed.epoch == 4
    assert early_stopping(resumed) == (2, 0.5)
    assert aps(resumed) == [0.1, 0.5, 0.3, 0.2]


def test_a_best_checkpoint_is_not_validated_again(tmp_path):
    """CheckpointHook writes it again after the validation."""
    plateau = {
        'type': 'ReduceOnPlateauLR',
        'monitor': 'mAP',
        'rule': 'greater',
        'patience': 0,
        'threshold': 0.0,
        'end': 3,
    }
    never = {**EARLY, 'patience': 9}
    more = {'param_scheduler': [plateau], **saving(save_best='mAP')}
    whole = run(tmp_path / 'whole', never, **more, **VALIDATED)
    run(tmp_path / 'cut', never, epochs=2, **more, **VALIDATED)
    resumed = run(tmp_path / 'cut', never, resume=True, **more, **VALIDATED)
    assert aps(resumed) == aps(whole) == [0.1, 0.5, 0.3]
    name = 'epoch_3.pth'
    assert_same_end(tmp_path / 'whole' / name, tmp_path / 'cut' / name)
