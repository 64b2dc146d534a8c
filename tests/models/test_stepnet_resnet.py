# Licensed under the Apache License, Version 2.0. See LICENSE.
"""StepNet's ResNet against mmdet's, and against its own plain form."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.checks.backbone.properties import check_checkpointing
from mmext.errors import UserError
from mmext.models import PluginResNet, StepNetResNet
from mmext.models.backbones import stepnet_resnet
from mmext.models.layers import scaled_batch_norm

TINY = {'depth': 50, 'base_channels': 16, 'stem_channels': 8}
SMALL = {**TINY, 'depth': 18}
DCN = {
    'dcn': {'type': 'DCN', 'deform_groups': 1, 'fallback_on_stride': False},
    'stage_with_dcn': (False, True, True, True),
}
SE = [{'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}]
GN = {'type': 'GN', 'num_groups': 4, 'requires_grad': True}


def plain(**kwargs) -> nn.Module:
    kind = 'mmdet.ResNeXt' if kwargs.get('groups') else 'mmdet.ResNet'
    return MODELS.build({'type': kind, **kwargs})


def shake(model: nn.Module) -> nn.Module:
    """Random statistics, norms and steps, of the size of trained ones."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith('running_mean'):
            value.normal_(0, 0.3, generator=generator)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith('fc2.weight'):
            value.normal_(0, 1, generator=generator)
        elif value.dim() == 1 and name.endswith('weight'):
            value.uniform_(0.3, 0.7, generator=generator)
        elif value.dim() == 1:
            value.normal_(0, 0.1, generator=generator)
        elif value.dim() == 4:
            scale = (2 / value[0].numel()) ** 0.5
            value.normal_(0, scale, generator=generator)
    return model


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def is_step(name: str) -> bool:
    return '.step.' in name


@pytest.mark.parametrize('mode', ['eval', 'norm_eval', 'train'])
@pytest.mark.parametrize(
    'extra',
    [
        {},
        {'depth': 18},
        {'depth': 34},
        {'style': 'caffe'},
        {'deep_stem': True, 'avg_down': True},
        {'groups': 4, 'base_width': 4},
        {'plugins': SE},
        {'norm_cfg': GN},
        {'dilations': (1, 1, 1, 2), 'strides': (1, 2, 2, 1)},
        DCN,
    ],
    ids=str,
)
def test_starts_as_the_plain_resnet(extra: dict, mode: str, x: Tensor) -> None:
    cfg = {**TINY, **extra, 'norm_eval': mode == 'norm_eval'}
    theirs = shake(plain(**copy.deepcopy(cfg)))
    ours = StepNetResNet(**copy.deepcopy(cfg))
    missing, unexpected = ours.load_state_dict(
        theirs.state_dict(), strict=False
    )
    assert not unexpected
    assert missing
    assert all(map(is_step, missing))
    for model in (theirs, ours):
        model.train(mode != 'eval')
    for mine, host in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, host)


@pytest.mark.parametrize('start', ['identity', 'paper'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('layout', ['contiguous_format', 'channels_last'])
@pytest.mark.parametrize('norm_eval', [True, False])
def test_the_fused_step_is_the_plain_formula(
    norm_eval: bool,
    layout: str,
    batch: int,
    depth: int,
    start: str,
    x: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pooling before the norm and scaling by it, or x + step * f."""
    model = StepNetResNet(
        **{**TINY, 'depth': depth},
        norm_eval=norm_eval,
        step_cfg={'start': start},
    )
    shake(model).double().train()
    state = copy.deepcopy(model.state_dict())
    x = x[:batch].double()
    x = x.contiguous(memory_format=getattr(torch, layout))

    def run() -> list[Tensor]:
        model.load_state_dict(state)
        model.zero_grad()
        outs = model(x)
        sum(o.square().mean() for o in outs).backward()
        grads = [p.grad.clone() for p in model.parameters()]
        return [*outs, *grads, *(b.clone() for b in model.buffers())]

    monkeypatch.setattr(scaled_batch_norm, 'WORTHWHILE', 0)
    can_scale, scaled = stepnet_resnet.can_scale, []
    monkeypatch.setattr(
        stepnet_resnet,
        'can_scale',
        lambda *args: scaled.append(can_scale(*args)) or scaled[-1],
    )
    fused = run()
    assert scaled and all(scaled)
    monkeypatch.setattr(stepnet_resnet, 'can_scale', lambda norm, x: False)
    for a, b in zip(fused, run(), strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()


def test_a_block_is_the_paper_s_equation(x: Tensor) -> None:
    model = shake(StepNetResNet(**TINY)).double().eval()
    block = model.layer2[0]
    state = torch.rand(2, 64, 12, 10, dtype=torch.float64)
    y = block.conv2(block.bn1(block.conv1(state)).relu())
    f = block.bn3(block.conv3(block.bn2(y).relu()))
    shortcut = block.downsample(state)
    first, second = block.step.parameters()
    coarse = shortcut + f
    pooled = torch.cat([shortcut, coarse], 1).mean((2, 3))
    step = 2 * ((pooled @ first.T).relu() @ second.T).sigmoid()
    assert step.std() > 0.01
    expected = (shortcut + f * step[..., None, None]).relu()
    torch.testing.assert_close(block(state), expected)


@pytest.mark.parametrize('part', ['conv3', 'bn3'])
def test_outputs_changed_by_hooks_are_used(part: str, x: Tensor) -> None:
    model = shake(StepNetResNet(**TINY)).double().eval()
    block = model.layer2[1]
    state = torch.rand(2, 128, 24, 20, dtype=torch.float64)
    plain = block(state)
    layer = getattr(block, part)
    hook = layer.register_forward_hook(lambda module, args, out: 2 * out)
    hooked = block(state)
    assert not torch.allclose(hooked, plain)
    hook.remove()
    with torch.no_grad():  # the same with other weights
        for parameter in layer.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(hooked, block(state))


@pytest.mark.parametrize(('depth', 'added'), [(50, 3.77), (101, 7.11)])
def test_added_parameters(depth: int, added: float) -> None:
    with torch.device('meta'):
        extra = count(StepNetResNet(depth)) - count(plain(depth=depth))
    assert round(extra / 1e6, 2) == added


def test_checkpointed_equals_plain(x: Tensor) -> None:
    plain, lean = (
        StepNetResNet(**TINY, norm_eval=True, with_cp=with_cp)
        for with_cp in (False, True)
    )
    found = check_checkpointing(plain, lean, x)
    assert found.ok, found


@pytest.mark.parametrize('out_indices', [(0,), (0, 2), (3,)])
def test_no_parameter_goes_unused(out_indices: tuple, x: Tensor) -> None:
    model = StepNetResNet(**TINY, out_indices=out_indices, norm_eval=False)
    assert model.out_channels == tuple(64 * 2**i for i in out_indices)
    assert [o.shape[1] for o in model(x)] == list(model.out_channels)
    shake(model)
    sum(o.square().mean() for o in model(x)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'{name} is unused'
        assert parameter.grad.isfinite().all(), name


def test_odd_sizes_half_precision_and_tracing() -> None:
    model = shake(StepNetResNet(**TINY)).eval()
    image = torch.rand(1, 3, 45, 71)
    outs = model(image)
    sizes = [tuple(o.shape[2:]) for o in outs]
    assert sizes == [(12, 18), (6, 9), (3, 5), (2, 3)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low = model(image)
    for a, b in zip(outs, low, strict=True):
        assert (a - b).norm() < 0.05 * a.norm()
    traced = torch.jit.trace(model, torch.rand(1, 3, 32, 32))
    for a, b in zip(traced(image), outs, strict=True):
        torch.testing.assert_close(a, b)


def test_adaptors_only_where_asked(x: Tensor) -> None:
    model = StepNetResNet(
        **TINY,
        stage_with_step=(True, False, True, True),
        step_blocks=[[0], [1], [], [0, 2]],
    )
    found = {n for n in model.new_layers() if n.endswith('.step')}
    assert found == {'layer1.0.step', 'layer4.0.step', 'layer4.2.step'}
    none = StepNetResNet(**TINY, stage_with_step=(False,) * 4)
    assert set(none.state_dict()) == set(plain(**TINY).state_dict())


@pytest.mark.parametrize('mode', [True, False])
def test_no_images(mode: bool) -> None:
    model = StepNetResNet(**TINY).train(mode)
    assert [len(level) for level in model(torch.rand(0, 3, 64, 64))] == [0] * 4


def test_frozen_stages_do_not_freeze_adaptors(x: Tensor) -> None:
    model = StepNetResNet(**TINY, frozen_stages=1, norm_eval=True)
    model.train()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(('conv1.', 'bn1.', 'layer1.'))
        assert parameter.requires_grad == (is_step(name) or not frozen), name
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not module.training, name
    for i in range(3):  # four hidden units may all start dead
        model.layer1[i].step.branches[0].fc1.weight.data.abs_()
    sum(o.square().mean() for o in model(x)).backward()
    for i in range(3):
        grad = model.layer1[i].step.branches[0].fc2.weight.grad
        assert grad.abs().max() > 0


def test_norms_of_adaptors_follow_train(x: Tensor) -> None:
    cfg = {'norm_cfg': {'type': 'BN1d'}}
    model = StepNetResNet(
        **TINY, frozen_stages=4, norm_eval=True, step_cfg=cfg
    )
    model.train()
    for block in model.layer1:
        assert block.step.branches[0].norm.training
        assert not block.bn3.training


def pretrained(path: Path, **more: Any) -> dict[str, Any]:
    return {'type': 'Pretrained', 'checkpoint': str(path), **more}


def checkpoint(path: Path, prefix: str = '', **cfg) -> Path:
    model = shake(plain(**{**TINY, **cfg}))
    state = {f'{prefix}{k}': v for k, v in model.state_dict().items()}
    if prefix:
        state = {'state_dict': {**state, 'head.fc.weight': torch.zeros(1)}}
    else:
        state['fc.weight'] = torch.zeros(10, 512)
    torch.save(state, path)
    return path


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_loads_every_resnet_weight_and_logs_the_new_ones(
    prefix: str, tmp_path: Path, logged: list[str], x: Tensor
) -> None:
    path = checkpoint(tmp_path / 'r50.pth', prefix)
    more = {'prefix': prefix} if prefix else {}
    model = StepNetResNet(**TINY, init_cfg=pretrained(path, **more))
    model.init_weights()
    report = [line for line in logged if 'new, not in it' in line]
    assert len(report) == 1
    assert f'loaded 318 of 318 backbone tensors from {path}' in report[0]
    new = sum('.step.' in name for name in model.state_dict())
    assert f'; {new} new, not in it: layer#.#.step.' in report[0]
    assert report[0].count('step.') == 1
    theirs = shake(plain(**TINY))
    theirs.eval()  # returns None
    for a, b in zip(model.eval()(x), theirs(x), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_with_adaptors_fills_them(
    tmp_path: Path, logged: list[str]
) -> None:
    trained = shake(StepNetResNet(**TINY))
    path = tmp_path / 'stepnet.pth'
    torch.save({'state_dict': trained.state_dict()}, path)
    model = StepNetResNet(**TINY, init_cfg=pretrained(path))
    model.init_weights()
    state = trained.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not any('new' in line for line in logged)


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        ({'depth': 101}, 'missing: 255: layer3.6'),
        ({'depth': 18}, 'of another shape: [0-9]+: layer1.0.conv1.weight is'),
        ({'deep_stem': True}, 'missing: [0-9]+: stem.0.weight'),
        ({'base_channels': 8}, 'of another shape: .*layer1.0.conv1.weight is'),
        ({'norm_cfg': GN}, 'unknown to it: 257: bn1.weight'),
    ],
    ids=str,
)
def test_another_architecture_is_an_error_and_loads_nothing(
    extra: dict, message: str, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / 'r50.pth')
    model = StepNetResNet(**{**TINY, **extra}, init_cfg=pretrained(path))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=message) as error:
        model.init_weights()
    assert 'r50.pth' in error.value.problem
    assert 'torchvision://resnet' in error.value.fix
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_allowed_missing_tensors_must_not_be_frozen(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / 'r50.pth')
    state = torch.load(path)
    del state['layer4.2.conv3.weight']
    torch.save(state, path)
    init_cfg = pretrained(path, allow_missing=['layer4.2.conv3'])
    with pytest.raises(UserError, match='1 tensors are not in.*norm_eval'):
        PluginResNet(**TINY, init_cfg=init_cfg).init_weights()
    model = PluginResNet(**TINY, norm_eval=False, init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(
        model.layer4[2].conv2.weight, state['layer4.2.conv2.weight']
    )


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / 'ran',))

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': Evil()}, path)
    with pytest.raises(UserError, match='evil.pth'):
        PluginResNet(**SMALL, init_cfg=pretrained(path)).init_weights()
    assert not (tmp_path / 'ran').exists()


def test_frozen_random_weights_give_a_warning(logged: list[str]) -> None:
    StepNetResNet(**SMALL, frozen_stages=1).init_weights()
    assert 'frozen_stages=1, norm_eval=True' in logged[0]
    logged.clear()
    StepNetResNet(**SMALL, norm_eval=False).init_weights()
    assert not logged


def test_random_weights_keep_the_residual_off() -> None:
    """mmdet's zero_init_residual reaches the step blocks."""
    model = StepNetResNet(**TINY, norm_eval=False)
    model.init_weights()
    for block in model.layer3:
        assert block.bn3.weight.eq(0).all()
        assert block.step.branches[0].fc2.weight.eq(0).all()
