# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A step that is not finite stops the run or is skipped."""

from __future__ import annotations

import copy
import math
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import cpus, in_two_processes
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS, init_default_scope
from tiny_run import MASK_RCNN, write_config
from torch import nn
from toy import Numbers, Toy, build_runner

from mmext.engine.guards.numerical_guard import (
    SCALER_SKIPS,
    NumericalGuardHook,
)
from mmext.engine.guards.replay import load_step, non_finite_terms, replay
from mmext.engine.runner import ReliableRunner
from mmext.errors import UserError
from mmext.utils.random_state import random_state, set_random_state


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


assert_equal = partial(
    torch.testing.assert_close, rtol=0, atol=0, equal_nan=True
)


def assert_finite(model: nn.Module) -> None:
    assert all(v.isfinite().all() for v in weights(model).values())


def message_of(runner: ReliableRunner) -> str:
    """Returns the message that stops the run."""
    with pytest.raises(UserError) as caught:
        runner.train()
    return str(caught.value)


class Before(Hook):
    """Keeps the weights before each step."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.seen.append(weights(runner.model))


@pytest.mark.parametrize(
    'optim',
    [{}, {'clip_grad': {'max_norm': 1}}, {'type': 'CPUAmpOptimWrapper'}],
    ids=['plain', 'clipped', 'amp'],
)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_the_first_bad_batch_stops_the_run(tmp_path, optim, value):
    wrapper = {'optimizer': {'type': 'AdamW', 'lr': 0.01}, **optim}
    before = Before()
    runner = build_runner(
        tmp_path, bad={5: value}, optim_wrapper=wrapper, custom_hooks=[before]
    )
    message = message_of(runner)
    assert 'the loss of iteration 3 (epoch 1, process 0)' in message
    assert 'loss_cls = nan, loss_box = nan' in message
    assert 'acc' not in message
    # The image itself is not finite.
    assert 'first in the forward pass: data_preprocessor (' in message
    assert 'images: 4 4.png; 5 5.png' in message
    assert 'learning rate: 0.01' in message
    # The step was not taken, and the statistics of the norm are unchanged.
    assert len(before.seen) == 3
    assert_equal(weights(runner.model), before.seen[-1])
    assert_finite(runner.model)
    file = tmp_path / 'nonfinite_iter_3.pth'
    assert str(file) in message and 'mmext replay-step' in message
    saved = load_step(file)
    assert_equal(saved['state_dict'], before.seen[-1])
    inputs = saved['batches'][0]['data']['inputs']
    assert_equal(inputs, [*Numbers(8, {5: value}).images[4:6]])
    assert not list(tmp_path.glob('*.tmp'))


class TwoSteps(Toy):
    """Two optimizers with one forward pass each."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        logged = {}
        for name in ('body', 'head'):
            losses = self(**data, mode='loss')
            loss, logged = self.parse_losses(losses)
            optim_wrapper[name].update_params(loss)
        return logged


def two_optimizers(model: Toy, **more) -> OptimWrapperDict:
    body = [*model.conv.parameters(), *model.bn.parameters()]
    parts = {'body': body, 'head': model.head.parameters()}
    return OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.SGD(part, lr=0.01), **more)
            for name, part in parts.items()
        }
    )


@pytest.mark.parametrize('more', [{}, {'clip_grad': {'max_norm': 1}}])
def test_several_optimizers_are_checked(tmp_path, more):
    model, before = TwoSteps(), Before()
    runner = build_runner(
        tmp_path,
        model,
        bad={5: math.nan},
        optim_wrapper=two_optimizers(model, **more),
        custom_hooks=[before],
    )
    message = message_of(runner)
    assert 'the loss of iteration 3 (epoch 1, process 0)' in message
    assert 'images: 4 4.png; 5 5.png' in message
    assert len(before.seen) == 3
    assert_equal(weights(model), before.seen[-1])
    assert not torch.equal(
        before.seen[1]['conv.weight'], before.seen[0]['conv.weight']
    )
    saved = load_step(tmp_path / 'nonfinite_iter_3.pth')
    assert_equal(saved['state_dict'], before.seen[-1])


def test_several_optimizers_skip(tmp_path):
    model = TwoSteps()
    runner = build_runner(
        tmp_path,
        model,
        bad={5: math.nan},
        optim_wrapper=two_optimizers(model),
        custom_hooks=[NumericalGuardHook(max_skips=1)],
    )
    runner.train()
    assert runner.iter == 4
    assert_finite(model)


class BadGradient(Toy):
    """A finite loss with an infinite gradient: a square root at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Identity()

    def change(self, losses, images):
        if 4 in images:
            zero = self.late(0 * self.head.weight)
            losses['loss_cls'] = losses['loss_cls'] + zero.sqrt().sum()


def test_a_gradient_that_is_not_finite(tmp_path):
    message = message_of(build_runner(tmp_path, BadGradient()))
    assert 'the gradient of iteration 3' in message
    assert 'the gradient of the output of late (Identity)' in message
    assert 'loss terms' not in message


def test_weights_that_were_broken_before(tmp_path):
    model = Toy()
    nn.init.constant_(model.head.bias, math.inf)
    message = message_of(build_runner(tmp_path, model))
    assert 'already not finite before the step: head.bias' in message
    assert 'first in the forward pass: head (Linear)' in message


def test_a_constant_infinite_loss_stops_the_run(tmp_path):
    """Its gradient is finite."""

    class Constant(Toy):
        def change(self, losses, images):
            losses['loss_box'] = [x + math.inf for x in losses['loss_box']]

    message = message_of(build_runner(tmp_path, Constant()))
    assert 'loss terms: loss_box = inf' in message


def test_a_bad_step_can_be_skipped(tmp_path):
    """The run ends with the weights of a run without that step."""

    class Skip(OptimWrapper):
        """Skips the third step."""

        def step(self, **kwargs) -> None:
            if self.inner_count != 3:
                super().step(**kwargs)

    guard = {'type': 'NumericalGuardHook', 'max_skips': 1}
    momentum = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}
    runner = build_runner(
        tmp_path / 'bad',
        bad={5: math.nan},
        optim_wrapper={'optimizer': momentum},
        custom_hooks=[guard],
    )
    runner.train()
    assert_finite(runner.model)
    got = weights(runner.model)
    model = Toy()
    other = build_runner(
        tmp_path / 'good',
        model,
        optim_wrapper=Skip(torch.optim.SGD(model.parameters(), 0.1, 0.9)),
    )
    torch.manual_seed(0)
    other.model.load_state_dict(Toy().state_dict())
    other.train()
    want = weights(other.model)
    for key in ('conv.weight', 'head.weight', 'bn.weight'):
        torch.testing.assert_close(got[key], want[key])
    assert (tmp_path / 'bad' / 'nonfinite_iter_3.pth').exists()
    runner = build_runner(
        tmp_path / 'two', bad={4: math.nan, 6: math.nan}, custom_hooks=[guard]
    )
    assert 'iteration 4' in message_of(runner)


def test_accumulated_gradients(tmp_path):
    """The message names the images of the batch that is not finite."""
    before = Before()
    wrapper = {'optimizer': {'type': 'SGD', 'lr': 0.1}}
    runner = build_runner(
        tmp_path,
        bad={5: math.nan},
        optim_wrapper={**wrapper, 'accumulative_counts': 4},
        custom_hooks=[before],
    )
    assert 'images: 4 4.png; 5 5.png' in message_of(runner)
    assert_equal(weights(runner.model), before.seen[0])
    saved = load_step(tmp_path / 'nonfinite_iter_4.pth')
    assert len(saved['batches']) == 4


class Scaler:
    """A stand-in for GradScaler that skips given steps."""

    def __init__(self, skips: list[int]) -> None:
        self.skips, self.count = skips, 0

    def step(self, optimizer) -> None:
        self.count += 1
        if self.count not in self.skips:
            optimizer.step()


class ScaledWrapper(OptimWrapper):
    def __init__(self, optimizer, skips) -> None:
        super().__init__(optimizer)
        self.loss_scaler = Scaler(skips)

    def step(self, **kwargs) -> None:
        self.loss_scaler.step(self.optimizer)


def scaled(tmp_path: Path, skips, **more):
    model = Toy()
    wrapper = ScaledWrapper(torch.optim.SGD(model.parameters(), 0.1), skips)
    return build_runner(tmp_path, model, optim_wrapper=wrapper, **more)


def test_steps_that_a_scaler_skips_are_normal(tmp_path):
    scaled(tmp_path / 'a', [1, 2, 4]).train()
    assert not list(tmp_path.glob('*/nonfinite*'))
    # The loss is not scaled and must be finite.
    with pytest.raises(UserError, match='iteration 3.*\n.*loss_cls = nan'):
        scaled(tmp_path / 'b', [3], bad={5: math.nan}).train()
    # No scale makes the gradient finite.
    skips = list(range(1, 99))
    images = 2 * SCALER_SKIPS + 8
    with pytest.raises(UserError, match=f'iteration {SCALER_SKIPS + 1} '):
        scaled(tmp_path / 'c', skips, images=images).train()


def test_a_real_scaler(tmp_path):
    """Gradients overflow until PyTorch's GradScaler has found a scale."""
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), 1e-7)
    wrapper = OptimWrapper(optimizer)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**120)
    wrapper.loss_scaler = scaler
    wrapper.scale_loss = lambda loss: scaler.scale(1e6 * loss)

    def step(**kwargs) -> None:
        scaler.step(optimizer)
        scaler.update()

    wrapper.step = step
    start = weights(model)
    runner = build_runner(tmp_path, model, images=60, optim_wrapper=wrapper)
    runner.train()
    assert scaler.get_scale() < 2.0**120
    assert not torch.equal(start['head.weight'], model.head.weight)


@MODELS.register_module()
class NoisyToy(Toy):
    """Draws random numbers that a replay must draw again."""

    def __init__(self) -> None:
        super().__init__(noise=1.0)

    def change(self, losses, images):
        if 6 in images:
            self.drawn = float(torch.rand(()))
            losses['loss_cls'] = losses['loss_cls'] + math.inf * self.drawn


def test_a_replay_draws_the_same(tmp_path, monkeypatch, capsys):
    model = NoisyToy()
    message_of(build_runner(tmp_path, model))
    first, file = model.drawn, tmp_path / 'nonfinite_iter_4.pth'
    again = NoisyToy()
    monkeypatch.setattr(
        'mmext.engine.guards.replay.build_from_config', lambda cfg: again
    )
    torch.rand(9)
    (found,) = replay(Config({'model': {}}), load_step(file))
    assert again.drawn == first
    assert found.losses == {'loss_cls': math.inf}
    torch.save({'state_dict': {}}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='not a saved step'):
        load_step(tmp_path / 'a.pth')


def test_the_guard_does_not_change_the_weights(tmp_path):
    ends = []
    start = Toy(noise=0.5)
    for name in ('with', 'without'):
        runner = build_runner(
            tmp_path / name, copy.deepcopy(start), epochs=2, shuffle=True
        )
        (guard,) = [
            h for h in runner.hooks if isinstance(h, NumericalGuardHook)
        ]
        if name == 'without':
            runner.hooks.remove(guard)
        runner.train()
        ends.append(weights(runner.model))
    assert_equal(*ends)


def test_terms():
    inf = torch.tensor(math.inf)
    one = torch.tensor(1.0)
    assert non_finite_terms({'loss': inf, 'loss_a': inf, 'acc': inf}) == {
        'loss_a': math.inf
    }
    assert non_finite_terms({'loss': inf, 'loss_a': [one]}) == {
        'loss': math.inf
    }
    assert non_finite_terms({'loss': one}) == {}


@cpus
def test_all_processes_stop_together(tmp_path):
    """Only one process loads the image, and both name it."""

    class Constant(Toy):
        def change(self, losses, images):
            if 5 in images:
                losses['loss_cls'] = losses['loss_cls'] + math.inf

    def work(rank: int) -> tuple[str, int]:
        more = {'launcher': 'pytorch', 'batch_size': 1}
        runner = build_runner(tmp_path, Constant(), images=16, **more)
        return message_of(runner), runner.iter

    for message, iteration in in_two_processes(tmp_path, work):
        assert iteration == 2
        assert 'iteration 3 (epoch 1, process 1)' in message
        assert 'loss_cls = inf' in message
        assert 'images: 5 5.png' in message
    assert [p.name for p in tmp_path.glob('nonfinite*')] == [
        'nonfinite_iter_3_rank_1.pth'
    ]


@pytest.mark.parametrize('polygons', [True, False])
def test_a_batch_of_a_detector_is_saved_and_read(data, tmp_path, polygons):
    """Boxes and masks are read with ``weights_only``."""
    cfg = Config.fromfile(
        write_config(tmp_path / 'tiny.py', data, base=MASK_RCNN)
    )
    cfg.train_dataloader.dataset.pipeline[1].poly2mask = not polygons
    cfg.train_dataloader.persistent_workers = False
    init_default_scope('mmdet')
    loader = ReliableRunner.build_dataloader(cfg.train_dataloader)
    batch = next(iter(loader))
    step = {'data': batch, 'random_state': random_state()}
    torch.save({'state_dict': {}, 'batches': [step]}, tmp_path / 'a.pth')
    (read,) = load_step(tmp_path / 'a.pth')['batches']
    assert_equal(read['data']['inputs'], batch['inputs'])
    for one, other in zip(
        read['data']['data_samples'], batch['data_samples'], strict=True
    ):
        assert one.metainfo == other.metainfo
        assert {*one.keys()} == {*other.keys()}
        mine, theirs = one.gt_instances, other.gt_instances
        assert torch.equal(mine.bboxes.tensor, theirs.bboxes.tensor)
        assert torch.equal(mine.labels, theirs.labels)
        assert (mine.masks.to_ndarray() == theirs.masks.to_ndarray()).all()
    drawn = []
    for state in (step['random_state'], read['random_state']):
        set_random_state(state)
        drawn.append(
            (random.random(), np.random.rand(), float(torch.rand(())))
        )
    assert drawn[0] == drawn[1]
