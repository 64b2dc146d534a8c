# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that hold for every subclass of BaseBackbone.

A new backbone gets an entry in ``CASES`` (tests/helpers/backbone_checks.py).
What is special about one is in its own test file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from backbone_checks import CASES, Case, check_gradients, randomise
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.checks.backbone import properties
from mmext.errors import UserError


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def expected_shapes(
    model: nn.Module, images: int, size: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Returns the shapes that ``out_channels`` and ``strides`` promise."""
    return [
        (images, channels, math.ceil(size[0] / s), math.ceil(size[1] / s))
        for channels, s in zip(model.out_channels, model.strides, strict=True)
    ]


def test_levels(case: Case) -> None:
    """Channels and sizes are those of ``out_channels`` and ``strides``."""
    for out_indices in case.outputs:
        model = case.build(out_indices=out_indices).eval()
        for size in case.sizes:
            outs = model(torch.rand(2, 3, *size))
            assert isinstance(outs, tuple)
            shapes = [tuple(out.shape) for out in outs]
            assert shapes == expected_shapes(model, 2, size)


def test_subsets_of_outputs(case: Case, x: Tensor) -> None:
    """Fewer outputs have the same numbers; every parameter has a gradient."""
    build = partial(case.build, **case.plain)
    everything = randomise(build()).eval()
    state = everything.state_dict()
    all_outs = dict(zip(everything.out_indices, everything(x), strict=True))
    for subset in case.subsets:
        some = build(out_indices=subset)
        check_gradients(copy.deepcopy(some), x)
        some.load_state_dict({k: state[k] for k in some.state_dict()})
        for i, out in zip(some.out_indices, some.eval()(x), strict=True):
            torch.testing.assert_close(out, all_outs[i])


def test_gradients(case: Case, x: Tensor) -> None:
    for arguments in case.trained:
        check_gradients(case.build(**arguments), x)


def test_no_images(case: Case) -> None:
    """An empty batch gives empty levels, and zero for every gradient."""
    model = case.build()
    for mode in (True, False):
        outs = model.train(mode)(torch.rand(0, 3, 64, 64))
        shapes = [tuple(out.shape) for out in outs]
        assert shapes == expected_shapes(model, 0, (64, 64))
        model.zero_grad()
        sum(out.sum() for out in outs).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f'{name} is unused'
            assert (parameter.grad == 0).all(), name


def test_checkpointing(case: Case, x: Tensor) -> None:
    """``with_cp`` changes neither outputs nor gradients, and saves memory."""
    plain, lean = (case.build(with_cp=cp).double() for cp in (False, True))
    found = properties.check_checkpointing(plain, lean, x.double())
    assert found.ok, found


@pytest.mark.parametrize(
    'check',
    [
        properties.check_modes,
        properties.check_batch,
        properties.check_channels_last,
        properties.check_determinism,
        partial(properties.check_precision, dtype=torch.bfloat16),
        partial(properties.check_precision, dtype=torch.float16),
    ],
    ids=['modes', 'batch', 'channels_last', 'determinism', 'bf16', 'fp16'],
)
def test_property(case: Case, check: Callable, x: Tensor) -> None:
    for arguments in case.trained:
        found = check(case.build(**arguments), x)
        assert found.ok, found


def test_freezing(case: Case) -> None:
    """Frozen modules neither learn nor update their statistics."""
    for frozen in case.frozen:
        model = case.build(frozen_stages=frozen).train()
        names = tuple(f'{n}.' for n in model.freezable[: frozen + 1])
        assert len(names) == frozen + 1
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != name.startswith(names)
        for name, module in model.named_modules():
            if f'{name}.'.startswith(names):
                assert not module.training
            elif isinstance(module, _BatchNorm):
                assert module.training


def test_norm_eval(case: Case) -> None:
    """``norm_eval`` stops the statistics, not the parameters."""
    model = case.build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert bool(norms) == case.has_batch_norm
    assert not any(norm.training for norm in norms)
    assert all(p.requires_grad for p in model.parameters())


def test_freezing_random_weights_warns(case: Case, logged: list[str]) -> None:
    case.build(frozen_stages=1).init_weights()
    assert 'frozen_stages=1 keeps random weights' in logged[0]
    case.build().init_weights()
    assert len(logged) == 1


@pytest.mark.parametrize('name', [n for n in CASES if CASES[n].has_batch_norm])
def test_fused_norms_change_nothing(name: str, x: Tensor) -> None:
    model = randomise(CASES[name].build()).double().eval()
    plain = model(x.double())
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    fused = fuse_conv_bn(model)
    left = [m for m in fused.modules() if isinstance(m, _BatchNorm)]
    assert len(left) < len(norms)
    if name == 'StarNet':
        assert not left
    torch.testing.assert_close(fused(x.double()), plain)


def test_trace(case: Case, x: Tensor) -> None:
    """A traced backbone gives the same outputs for another batch size."""
    model = randomise(case.build()).eval()
    traced = torch.jit.trace(model, x)
    other = torch.rand(3, *x.shape[1:])
    torch.testing.assert_close(traced(other), model(other))


def test_bad_input(case: Case) -> None:
    model, smallest = case.build(), case.smallest
    with pytest.raises(UserError, match=f'{smallest}x{smallest}'):
        model(torch.rand(1, 3, smallest - 1, 64))
    with pytest.raises(UserError, match='images, 3, height, width'):
        model(torch.rand(1, 4, 64, 64))
    with pytest.raises(UserError, match='images, 3, height, width'):
        model(torch.rand(3, 64, 64))
