# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The orthogonality hook in MMEngine's runner."""

from __future__ import annotations

import copy
import json
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

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


def step(hook, model, data, wrap=None, epoch=0, iter=0) -> dict:
    """One training step without update: losses; gradients stay."""
    runner = fake_runner(model, epoch, iter)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    losses = (wrap or model)(data, mode='loss')
    total = sum(v for k, v in losses.items() if 'loss' in k)
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


class Ten(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return {'inputs': batch(i, 1)[0]}


def train(tmp_path, hooks, accumulate=1, model=None, epochs=1) -> Runner:
    torch.manual_seed(0)
    runner = Runner(
        model=model or net(),
        work_dir=str(tmp_path),
        train_dataloader={
            'dataset': Ten(),
            'batch_size': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={
            'optimizer': {'type': 'SGD', 'lr': 0.01},
            'accumulative_counts': accumulate,
        },
        custom_hooks=hooks,
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        # Same name and second: MMEngine would share one visualizer.
        experiment_name=f'orthogonality-{tmp_path.name}',
        log_level='ERROR',
    )
    runner.train()
    return runner


HOOK = {
    'type': 'OrthogonalityHook',
    'regularizer': SOM,
    'layers': ['conv', 'fc'],
    'weight': 0.1,
}


def test_from_a_config_with_ema_logged_and_absent_from_the_checkpoint(
    tmp_path,
):
    runner = train(tmp_path / 'with', [HOOK, {'type': 'EMAHook'}])
    plain = train(tmp_path / 'without', [])
    assert any(isinstance(h, EMAHook) for h in runner.hooks)
    log = next((tmp_path / 'with').glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 5
    for line in lines:
        assert line['loss'] == pytest.approx(
            line['loss_cls'] + line['loss_orth'], rel=1e-5
        )
    saved = torch.load(tmp_path / 'with' / 'epoch_1.pth', weights_only=False)[
        'state_dict'
    ]
    assert saved.keys() == plain.model.state_dict().keys()
    assert hooks_of(runner.model) == 0
    assert any(
        not torch.equal(a, b)
        for a, b in zip(
            runner.model.parameters(), plain.model.parameters(), strict=True
        )
    )


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


def _worker(rank: int, path: str) -> None:
    from mmengine.model import MMDistributedDataParallel

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{path}/store', rank=rank, world_size=2
    )
    for name, regularizer in [('som', SOM), ('soft', SOFT)]:
        model = net()
        model.unused = nn.Identity()
        wrap = MMDistributedDataParallel(model)
        hook = OrthogonalityHook(regularizer, 'conv|fc', weight=0.5)
        runner = fake_runner(wrap)
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        losses = wrap(batch(rank), mode='loss')
        (losses['loss_cls'] + losses['loss_orth']).backward()
        hook.after_train_iter(runner, 0)
        torch.save(grads(model), os.path.join(path, f'{name}{rank}.pt'))
    torch.distributed.destroy_process_group()


def test_two_processes_average_and_do_not_double_count(tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path),), nprocs=2)
    for name, regularizer in [('som', SOM), ('soft', SOFT)]:
        parts = []
        for rank in range(2):
            model = net()
            hook = OrthogonalityHook(regularizer, 'conv|fc', weight=0.5)
            step(hook, model, batch(rank))
            parts.append(grads(model))
        mean = {n: (parts[0][n] + parts[1][n]) / 2 for n in parts[0]}
        for rank in range(2):
            both = torch.load(tmp_path / f'{name}{rank}.pt')
            assert_same_grads(both, mean, rtol=1e-4, atol=1e-6)


def test_a_detectors_backbone_checkpointed_as_mmdet_does_it():
    """mmdet's with_cp, whichever form of checkpoint it takes."""
    from mmengine.registry import MODELS, init_default_scope

    class Detector(BaseModel):
        def __init__(self, with_cp):
            super().__init__()
            init_default_scope('mmdet')
            torch.manual_seed(0)
            self.backbone = MODELS.build(
                {
                    'type': 'ResNet',
                    'depth': 18,
                    'base_channels': 8,
                    'with_cp': with_cp,
                }
            )

        def forward(self, inputs, data_samples=None, mode='tensor'):
            levels = self.backbone(inputs)
            return {'loss_list': [x.square().mean() for x in levels]}

    found = []
    data = torch.nn.functional.interpolate(batch(), (64, 96))
    for with_cp in (False, True):
        model = Detector(with_cp).train()
        calls = []
        model.backbone.layer4[0].conv1.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        hook = OrthogonalityHook(SOM, 'backbone.layer[34].*conv[12]')
        runner = fake_runner(model)
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        losses = model(data, mode='loss')
        assert losses['loss_orth'] > 0
        total, logged = model.parse_losses(losses)
        assert {'loss', 'loss_list', 'loss_orth'} <= logged.keys()
        total.backward()
        hook.after_train_iter(runner, 0)
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
