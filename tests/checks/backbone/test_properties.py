# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every measurement of a backbone fails for one with that mistake."""

from __future__ import annotations

import copy
import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmext.checks.backbone import measures, properties
from mmext.checks.backbone.measures import gradients, kept_bytes, maps_of
from mmext.errors import UserError


class Net(nn.Module):
    """Two stages of stride 2; a subclass makes one mistake."""

    def __init__(self, with_cp: bool = False) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU()
            )
            for a in (3, 8)
        )
        self.with_cp = with_cp

    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)

    def change(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.change(x)
        outs = []
        for stage in self.stages:
            x = self.run(stage, x)
            outs.append(x)
        return self.end(outs)

    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(outs)


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(8, 2)


class ZeroGradient(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(y + 0 * self.gate for y in outs)


class InfiniteGradient(ZeroGradient):
    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        root = (self.gate - self.gate.detach()).sqrt()  # slope 1 / 0
        return tuple(y + root for y in outs)


class AlwaysTraining(Net):
    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        self.stages[0][1].training = True
        return self


class Counts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('images', torch.zeros(1))

    def change(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return x


class CountsUnsaved(Counts):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('images', torch.zeros(1), persistent=False)


class Auxiliary(Net):
    """A head that only a training has."""

    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(outs + outs[-1:] if self.training else outs)


class NotANumber(Net):
    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        return outs[0], outs[1] * torch.nan


class BatchMean(Net):
    def change(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) / 2


class Noise(Net):
    def change(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class CallCount(Net):
    """Depends on something that no seed sets."""

    calls = 0

    def change(self, x: Tensor) -> Tensor:
        CallCount.calls += self.training
        return x + CallCount.calls


class Overflow(Net):
    def change(self, x: Tensor) -> Tensor:
        return (x * 1e5).to(torch.float16).float() if _autocasts() else x


class LowPrecision(Net):
    """Drops digits only under autocast."""

    def change(self, x: Tensor) -> Tensor:
        return x.round() if _autocasts() else x


def _autocasts() -> bool:
    return torch.is_autocast_enabled('cpu')


class Strides(Net):
    """Reads the memory, which another format orders differently."""

    def change(self, x: Tensor) -> Tensor:
        return torch.as_strided(x, x.shape, torch.empty(x.shape).stride())


class Cropped(Net):
    def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(y[..., :-3, :-3] for y in outs)


class IgnoresCheckpointing(Net):
    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        return stage(x)


class WrongCheckpointing(Net):
    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        cut = x.detach().requires_grad_() if self.with_cp else x
        return super().run(stage, cut)


class ChangesImages(Net):
    """No mistake: a detector does not use the images again."""

    def change(self, x: Tensor) -> Tensor:
        return x.sub_(0.5)


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Branches(Net):
    """Python that depends on the numbers of an image."""

    def change(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def sizes(model: nn.Module, x: Tensor) -> properties.Property:
    levels = [{'channels': 8, 'stride': s} for s in (2, 4)]
    return properties.check_sizes(model, x, levels)


def checkpointing(model: nn.Module, x: Tensor) -> properties.Property:
    lean = copy.deepcopy(model)
    lean.with_cp = True
    return properties.check_checkpointing(model, lean, x)


bf16, fp16 = (
    partial(properties.check_precision, dtype=dtype)
    for dtype in (torch.bfloat16, torch.float16)
)
CHECKS = [
    *(
        properties.check_gradients,
        properties.check_modes,
        properties.check_batch,
    ),
    *(properties.check_determinism, properties.check_channels_last),
    *(properties.check_export, sizes, checkpointing, bf16, fp16),
]
ALL = [
    (properties.check_gradients, Unused, r'2 of 10 \(classifier\.weight'),
    (properties.check_gradients, ZeroGradient, r'0 everywhere \(gate\)'),
    (properties.check_gradients, InfiniteGradient, r'not finite \(gate\)'),
    (
        properties.check_modes,
        AlwaysTraining,
        r'after eval\(\) \(stages\.0\.1\)',
    ),
    (properties.check_modes, Counts, 'changes images'),
    (properties.check_modes, CountsUnsaved, 'changes images'),
    (properties.check_modes, Auxiliary, r'12\)\] in training and \['),
    (properties.check_batch, BatchMean, 'an image alone differs'),
    (properties.check_batch, NotANumber, 'differs by nan'),
    (properties.check_channels_last, NotANumber, 'differ by nan'),
    (properties.check_determinism, Noise, 'two passes in evaluation mode'),
    (properties.check_determinism, CallCount, 'two training steps'),
    (properties.check_channels_last, Strides, 'outputs differ'),
    (sizes, Cropped, r'65x97: maps \[\(30, 46\)'),
    (checkpointing, IgnoresCheckpointing, 'with_cp=True is ignored'),
    (checkpointing, WrongCheckpointing, 'gradients differ'),
    (fp16, Overflow, 'differ by nan%'),
    (bf16, LowPrecision, 'outputs differ by'),
]


def as_list(found: object) -> list[properties.Property]:
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize(
    ('check', 'kind', 'says'), ALL, ids=[kind.__name__ for _, kind, _ in ALL]
)
def test_a_mistake_is_found(check, kind, says, x):
    wrong = [p for p in as_list(check(kind(), x)) if not p.ok]
    assert len(wrong) == 1
    assert re.search(says, wrong[0].text), wrong


def test_what_cannot_be_exported_raises(x):
    with pytest.raises(Exception, match='(?i)data-dependent|guard'):
        properties.check_export(Branches(), x)


@pytest.mark.parametrize('kind', [Net, ChangesImages, Frozen])
@pytest.mark.parametrize('check', CHECKS)
def test_a_backbone_without_mistakes_passes_and_stays_as_it_was(
    check, kind, x
):
    model, image = kind(), x.clone()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    for found in as_list(check(model, x)):
        assert found.ok, found
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, image)


def test_rounding_of_complex_weights(x):
    """A regression: without imaginary parts, any error was small."""

    class Spectral(LowPrecision):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.tensor(1 + 5j))

        def end(self, outs: list[Tensor]) -> tuple[Tensor, ...]:
            return tuple((y.float() * self.gate).abs() for y in outs)

    assert not bf16(Spectral(), x).ok


def test_levels(x):
    model = Net()
    levels = properties.measure_levels(model, x)
    assert levels == [{'channels': 8, 'stride': s} for s in (2, 4)]
    assert properties.check_promises(model, levels).ok is None
    model.out_channels = (8, 8)
    assert properties.check_promises(model, levels).ok
    model.out_channels = (8, 16)
    wrong = properties.check_promises(model, levels)
    assert wrong.ok is False
    assert wrong.text == 'out_channels is (8, 16), measured (8, 8)'


@pytest.mark.parametrize(
    ('outs', 'says'),
    [
        (torch.ones(1, 2, 3, 4), r'a Tensor of shape \(1, 2, 3, 4\)'),
        ({'c1': 1, 'c2': 2}, 'a dict with the keys c1, c2'),
        ((torch.ones(2, 3),), r'a tuple of \(Tensor \(2, 3\)\)'),
        (([torch.ones(1)], 3), r'a tuple of \(list, int\)'),
        (None, 'a NoneType'),
        ((), r'a tuple of \(\)'),
    ],
)
def test_outputs_that_are_no_maps(outs, says):
    with pytest.raises(UserError, match=f'Net returns {says}, not a tuple'):
        maps_of(outs, 'Net')


def test_gradients_of_a_frozen_model(x):
    model = Net().requires_grad_(False)
    assert gradients(model, model(x)).total == 0
    model.stages[1].requires_grad_(True)
    found = gradients(model, model(x)[:1])
    assert (len(found.unused), found.total) == (4, 4)


def test_errors_of_imaginary_parts_and_of_one_nan():
    one = torch.tensor([1 + 1j])
    assert measures.error_of([one.conj()], [one]) == pytest.approx(2**0.5)
    error = measures.error_of([one, one * torch.nan, one], [one] * 3)
    assert not measures.equal(error)


def test_kept_bytes_are_those_of_the_activations():
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).square()

    model = Square()
    model.weight = nn.Parameter(torch.ones(100))
    # The input is kept for the gradient of the weight, its product for that
    # of the square; the weight itself is not counted.
    assert kept_bytes(model, torch.ones(100)) == 800
