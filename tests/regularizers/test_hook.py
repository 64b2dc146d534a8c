# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The orthogonality hook in MMEngine's runner."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from forked import in_two_processes
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint
from toy import build_runner
from trained import records

from mmext.errors import UserError
from mmext.regularizers import OrthogonalityHook, SelfOrthogonality

SOM = {'type': 'SelfOrthogonality', 'max_samples': 64}
SOFT = {'type': 'SoftOrthogonality'}


class Net(BaseModel):
    """Two convolutions and a linear layer; checkpointed on demand."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(6, 5)
        self.reentrant = reentrant

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.stem(inputs)

        def body(x):
            return self.act(self.conv(x))

        if self.reentrant is None:
            x = body(x)
        else:
            x = checkpoint(body, x, use_reentrant=self.reentrant)
        x = self.fc(self.depthwise(x).mean((2, 3)))
        if mode == 'loss':
            return {'loss_cls': x.square().mean(), 'acc': x.detach().mean()}
        return x


def fake_runner(model, epoch=0, iter=0) -> SimpleNamespace:
    """The attributes of a runner that the hook reads."""
    return SimpleNamespace(model=model, epoch=epoch, iter=iter)


def batch(seed: int = 0, images: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 8, 6, generator=generator)


def net(**kwargs) -> Net:
    torch.manual_seed(0)
    return Net(**kwargs)


def step(hook, model, data, epoch=0, iter=0) -> dict:
    """One training step without update: losses; gradients stay."""
    runner = fake_runner(model, epoch, iter)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    losses = model(data, mode='loss')
    total, _ = BaseModel.parse_losses(model, losses)
    total.backward()
    hook.after_train_iter(runner, 0)
    return losses


def grads(model) -> dict[str, torch.Tensor]:
    return {
        n: p.grad.clone()
        for n, p in model.named_parameters()
        if p.grad is not None
    }


def hooks_of(model) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks)
        for m in model.modules()
    )


def assert_same_grads(one, two, **tol) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], msg=name, **tol)


@pytest.mark.parametrize('regularizer', [SOM, SOFT])
def test_the_term_is_the_regularizer_of_the_layers(regularizer):
    model, data = net(), batch()
    hook = OrthogonalityHook(regularizer, ['conv', 'fc'], weight=0.3)
    losses = step(hook, model, data)
    if regularizer is SOFT:
        expected = sum(hook.regularizer(m) for m in [model.conv, model.fc])
    else:  # the *pre-activation* output, though ReLU then works in place
        term = SelfOrthogonality(max_samples=64)
        y = model.conv(model.stem(data))
        z = model.fc(model.depthwise(y.relu()).mean((2, 3)))
        expected = term(model.conv, term.sample(model.conv, y, 0)) + term(
            model.fc, z
        )
    torch.testing.assert_close(losses['loss_orth'], 0.3 * expected)
    assert list(losses) == ['loss_cls', 'acc', 'loss_orth']


def test_no_hook_stays_on_the_model_between_steps():
    model = net()
    before = model.state_dict().keys()
    hook = OrthogonalityHook(SOM, 'conv')
    runner = fake_runner(model)
    hook.before_train(runner)
    assert hooks_of(model) == 0
    hook.before_train_iter(runner, 0)
    assert hooks_of(model) > 0
    out = model(batch(), mode='tensor')  # no loss, so no term
    assert isinstance(out, torch.Tensor)
    assert not hook._samples
    hook.after_train_iter(runner, 0)
    assert hooks_of(model) == 0
    assert model.state_dict().keys() == before


@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('regularizer', [SOM, SOFT])
def test_gradient_checkpointing_changes_nothing(reentrant, regularizer):
    plain, saved = net(), net(reentrant=reentrant)
    for iter in range(2):  # gradients accumulate over both
        losses = [
            step(
                OrthogonalityHook(regularizer, 'stem|conv|fc', weight=0.5),
                model,
                batch(iter),
                iter=iter,
            )
            for model in (plain, saved)
        ]
        torch.testing.assert_close(*losses)
    assert_same_grads(grads(plain), grads(saved))


def test_a_layer_called_twice_counts_once():
    model = net()
    hook = OrthogonalityHook(SOM, 'conv')
    one = step(hook, model, batch())['loss_orth']
    forward = model.forward

    def twice(inputs, data_samples=None, mode='tensor'):
        model.conv(model.stem(inputs))
        return forward(inputs, data_samples, mode)

    model.forward = twice
    two = step(hook, model, batch())['loss_orth']
    torch.testing.assert_close(one, two)


def test_frozen_and_depthwise_layers_are_left_out():
    model = net()
    model.stem.requires_grad_(False)
    hook = OrthogonalityHook(SOFT, '.*')
    hook.before_train(fake_runner(model))
    assert list(hook.layers) == ['conv', 'unused', 'fc']
    hook = OrthogonalityHook(SOM, 'stem|depthwise')
    with pytest.raises(UserError, match='frozen or have one filter'):
        hook.before_train(fake_runner(model))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layers': 'con'}, r'matches none of the 5.*\n.*Near: conv'),
        ({'layers': 'con[v'}, 'not a regular expression'),
        ({'layers': 'unused'}, "'unused' did not run"),
        ({'layers': 'conv', 'loss_name': 'orth'}, 'does not contain'),
        ({'layers': 'conv', 'loss_name': 'loss_cls'}, 'already have'),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UserError, match=message):
        step(OrthogonalityHook(SOM, **options), net(), batch())


def test_a_weight_term_does_not_need_the_layer_to_run():
    losses = step(OrthogonalityHook(SOFT, 'unused'), net(), batch())
    assert losses['loss_orth'] > 0


def test_schedule():
    model = net()
    hook = OrthogonalityHook(
        SOFT, 'conv', schedule=[(4, 0), (1, 1e-1), (2, 1e-3)]
    )
    values = [
        float(step(hook, model, batch(), epoch=e)['loss_orth'].detach())
        for e in range(5)
    ]
    assert values[0] == 0 == values[4]
    assert values[1] == pytest.approx(100 * values[2])
    assert values[2] == values[3] > 0
    by_iter = OrthogonalityHook(
        SOFT, 'conv', schedule=[(0, 1), (7, 0)], by_epoch=False
    )
    assert step(by_iter, model, batch(), iter=6)['loss_orth'] > 0
    assert step(by_iter, model, batch(), iter=7)['loss_orth'] == 0


def test_computed_in_float32_under_autocast():
    model, data = net(), batch()
    full = step(OrthogonalityHook(SOM, 'conv|fc'), model, data)
    with torch.autocast('cpu', torch.bfloat16):
        half = step(OrthogonalityHook(SOM, 'conv|fc'), model, data)
    assert half['loss_orth'].dtype == torch.float32
    torch.testing.assert_close(
        full['loss_orth'], half['loss_orth'], rtol=0.03, atol=0
    )
    huge = copy.deepcopy(model).half()
    huge.conv.weight.data.fill_(6e4)
    value = step(OrthogonalityHook(SOM, 'conv'), huge, data.half())
    assert torch.isfinite(value['loss_orth'])


def test_from_a_config_with_ema_logged_and_absent_from_the_checkpoint(
    tmp_path,
):
    hook = {
        'type': 'OrthogonalityHook',
        'regularizer': SOM,
        'layers': ['conv', 'head'],
        'weight': 0.1,
    }
    hooks = {'with': [hook, {'type': 'EMAHook'}], 'without': []}
    runners = {}
    for name in hooks:
        runners[name] = build_runner(
            tmp_path / name,
            images=10,
            custom_hooks=hooks[name],
            default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        )
        runners[name].train()
    model, plain = (runner.model for runner in runners.values())
    assert any(isinstance(h, EMAHook) for h in runners['with'].hooks)
    lines = records(tmp_path / 'with')
    assert len(lines) == 5
    for line in lines:
        assert line['loss'] == pytest.approx(
            line['loss_cls'] + line['loss_box'] + line['loss_orth'], rel=1e-5
        )
    saved = torch.load(tmp_path / 'with' / 'epoch_1.pth', weights_only=False)
    assert saved['state_dict'].keys() == plain.state_dict().keys()
    assert hooks_of(model) == 0
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_gradient_accumulation_divides_the_term_too():
    def accumulated(counts):
        model = net()
        wrapper = OptimWrapper(
            torch.optim.SGD(model.parameters(), lr=0.0),
            accumulative_counts=counts,
        )
        wrapper.initialize_count_status(model, 0, counts)
        hook = OrthogonalityHook(SOFT, 'conv')
        runner = fake_runner(model)
        hook.before_train(runner)
        kept = {}
        zero = wrapper.zero_grad
        wrapper.zero_grad = lambda **kw: (kept.update(grads(model)), zero())
        for _ in range(counts):
            hook.before_train_iter(runner, 0)
            model.train_step({'inputs': batch()}, wrapper)
            hook.after_train_iter(runner, 0)
        return kept

    assert_same_grads(accumulated(1), accumulated(3))


def test_two_processes_average_and_do_not_double_count(tmp_path):
    hooks = {
        'som': OrthogonalityHook(SOM, 'conv|fc', weight=0.5),
        'soft': OrthogonalityHook(SOFT, 'conv|fc', weight=0.5),
    }

    def work(rank: int) -> dict[str, dict[str, torch.Tensor]]:
        torch.distributed.init_process_group('gloo')
        found = {}
        for name, hook in hooks.items():
            model = net()
            model.unused = nn.Identity()
            step(hook, MMDistributedDataParallel(model), batch(rank))
            found[name] = grads(model)
        torch.distributed.destroy_process_group()
        return found

    both = in_two_processes(tmp_path, work)
    for name, hook in hooks.items():
        parts = []
        for rank in range(2):
            model = net()
            step(hook, model, batch(rank))
            parts.append(grads(model))
        mean = {n: (parts[0][n] + parts[1][n]) / 2 for n in parts[0]}
        for found in both:
            assert_same_grads(found[name], mean, rtol=1e-4, atol=1e-6)


def test_a_detectors_backbone_checkpointed_as_mmdet_does_it():
    """mmdet's with_cp, whichever form of checkpoint it takes."""

    class Detector(BaseModel):
        def __init__(self, with_cp):
            super().__init__()
            resnet = {'type': 'mmdet.ResNet', 'depth': 18, 'base_channels': 8}
            self.backbone = MODELS.build({**resnet, 'with_cp': with_cp})

        def forward(self, inputs, data_samples=None, mode='tensor'):
            levels = self.backbone(inputs)
            return {'loss_list': [x.square().mean() for x in levels]}

    found = []
    data = nn.functional.interpolate(batch(), (64, 96))
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = Detector(with_cp).train()
        calls = []
        model.backbone.layer4[0].conv1.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        hook = OrthogonalityHook(SOM, 'backbone.layer[34].*conv[12]')
        losses = step(hook, model, data)
        assert losses['loss_orth'] > 0
        _, logged = model.parse_losses(losses)
        assert {'loss', 'loss_list', 'loss_orth'} <= logged.keys()
        found.append(grads(model))
        assert len(calls) == 1 + with_cp  # again in the backward pass
    assert len(hook.layers) == 8
    assert_same_grads(*found)


def test_srip_draws_the_same_vectors_in_a_resumed_step():
    """They depend on the step, not on how many were drawn before."""
    cfg = {'type': 'SRIP'}
    undisturbed = OrthogonalityHook(cfg, 'conv')
    values = [
        float(step(undisturbed, net(), batch(), iter=i)['loss_orth'])
        for i in range(3)
    ]
    assert len(set(values)) == 3
    resumed = OrthogonalityHook(cfg, 'conv')
    again = step(resumed, net(), batch(), iter=2)['loss_orth']
    assert float(again) == values[2]
