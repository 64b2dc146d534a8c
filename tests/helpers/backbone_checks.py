# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that hold for every backbone of mmext, called by their tests."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Build = Callable[..., nn.Module]


def made_up_weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint with the keys and shapes of one of the key lists."""
    shapes = json.loads(path.read_text())['state_dict']
    return {
        key: torch.full(shape, float(i)) if shape else torch.tensor(i)
        for i, (key, shape) in enumerate(shapes.items())
    }


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Breaks every symmetry of the initial weights and norm statistics."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator) * 0.1
            value.add_(noise.abs() if name.endswith('var') else noise)
    return model


def check_levels(model: nn.Module, size: tuple[int, int]) -> None:
    """Channels and sizes are what ``out_channels`` and ``strides`` say."""
    model.eval()
    x = torch.rand(2, model.in_channels, *size)
    outs = model(x)
    assert isinstance(outs, tuple)
    expected = [
        (2, channels, math.ceil(size[0] / s), math.ceil(size[1] / s))
        for channels, s in zip(model.out_channels, model.strides, strict=True)
    ]
    assert [tuple(o.shape) for o in outs] == expected


def check_gradients(model: nn.Module, x: Tensor) -> None:
    """Every parameter gets a finite gradient that is not all zero."""
    randomise(model).train()
    sum(o.square().mean() for o in model(x)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'{name} is unused'
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def check_no_images(model: nn.Module) -> None:
    """An empty batch gives empty levels, and zero for every gradient."""
    for mode in (True, False):
        outs = model.train(mode)(torch.rand(0, 3, 64, 64))
        assert [tuple(o.shape) for o in outs] == [
            (0, channels, 64 // s, 64 // s)
            for channels, s in zip(
                model.out_channels, model.strides, strict=True
            )
        ]
        model.zero_grad()
        sum(o.sum() for o in outs).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f'{name} is unused'
            assert (parameter.grad == 0).all(), name


def check_subset(build: Build, x: Tensor, subset: tuple[int, ...]) -> None:
    """Fewer outputs: the same numbers, no parameter without a gradient."""
    everything = randomise(build()).eval()
    some = build(out_indices=subset)
    check_gradients(copy.deepcopy(some), x)
    state = everything.state_dict()
    some.load_state_dict({k: state[k] for k in some.state_dict()})
    all_outs = dict(zip(everything.out_indices, everything(x), strict=True))
    for i, out in zip(some.out_indices, some.eval()(x), strict=True):
        torch.testing.assert_close(out, all_outs[i])


def check_checkpointing(build: Build, x: Tensor) -> None:
    """``with_cp`` changes neither outputs nor gradients."""
    plain = randomise(build()).double()
    lean = build(with_cp=True).double()
    lean.load_state_dict(plain.state_dict())
    grads = []
    for model in (plain, lean):
        image = x.double().requires_grad_()
        sum(o.square().sum() for o in model(image)).backward()
        grads.append([image.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(grads[0], grads[1])


def check_freezing(build: Build, frozen: int) -> None:
    """Frozen modules neither learn nor move their statistics."""
    model = build(frozen_stages=frozen).train()
    names = tuple(f'{n}.' for n in model.freezable[: frozen + 1])
    assert len(names) == frozen + 1
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(names)
    for name, module in model.named_modules():
        if f'{name}.'.startswith(names):
            assert not module.training
        elif isinstance(module, _BatchNorm):
            assert module.training


def check_norm_eval(build: Build) -> None:
    """``norm_eval`` stops the statistics, not the parameters."""
    model = build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert not any(m.training for m in norms)
    assert all(p.requires_grad for p in model.parameters())


def check_half(build: Build, x: Tensor, dtype: torch.dtype) -> None:
    """Autocast gives what full precision gives, to that type's accuracy."""
    model = randomise(build()).train()
    reference = copy.deepcopy(model)(x)
    with torch.autocast('cpu', dtype):
        outs = model(x)
        sum(o.float().square().mean() for o in outs).backward()
    for out, ref in zip(outs, reference, strict=True):
        error = (out.float() - ref).norm() / ref.norm()
        assert error < 0.1
    assert all(p.grad.isfinite().all() for p in model.parameters())


def check_channels_last(build: Build, x: Tensor) -> None:
    """The memory format changes nothing but the strides."""
    model = randomise(build()).double().eval()
    plain = model(x.double())
    model.to(memory_format=torch.channels_last)
    outs = model(x.double().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(outs, plain)


def check_trace(build: Build, x: Tensor) -> None:
    """A traced network gives the same at another batch size."""
    model = randomise(build()).eval()
    traced = torch.jit.trace(model, x)
    other = torch.rand(3, *x.shape[1:])
    torch.testing.assert_close(traced(other), model(other))


def check_bad_input(model: nn.Module, smallest: int) -> None:
    """A clear message for small images and wrong channels."""
    from mmext.errors import UserError

    with pytest.raises(UserError, match=f'{smallest}x{smallest}'):
        model(torch.rand(1, 3, smallest - 1, 64))
    with pytest.raises(UserError, match='images, 3, height, width'):
        model(torch.rand(1, 4, 64, 64))
    with pytest.raises(UserError, match='images, 3, height, width'):
        model(torch.rand(3, 64, 64))
