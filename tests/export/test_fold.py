# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Norms that are folded leave the results; others stay."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import ResNet
from torch import nn

from mmext.export.fold import folded
from mmext.models.backbones.starnet import StarNet
from mmext.models.backbones.stepnet_resnet import StepNetResNet


def trained(model: nn.Module) -> nn.Module:
    """With norms that do something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias):
                nn.init.normal_(value)
            for value in (module.running_var, module.weight):
                nn.init.uniform_(value, 0.5, 2)
    model.eval()
    return model


def check(model: nn.Module, x: torch.Tensor, norms: int) -> None:
    """Compares a model with its folded copy, in which ``norms`` are left."""
    model, x = model.double(), x.double()
    with torch.no_grad():
        expected = model(x)
        fewer = folded(model, lambda model: model(x))
        found = fewer(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    left = [m for m in fewer.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == norms


class Flow(nn.Module):
    """Its modules are in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.before = nn.BatchNorm2d(4)  # gets the input
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.after = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2, bias=False)
        self.last = nn.BatchNorm2d(4)
        self.grouped = nn.ConvTranspose2d(4, 4, 2, 2, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        x = self.one(self.shared(x)) + self.two(self.shared(x.flip(3)))
        return self.last(self.grouped(self.after(self.up(x))))


def test_only_norms_behind_their_own_convolution_are_folded():
    check(trained(Flow()), torch.randn(2, 4, 6, 8), norms=4)


def test_a_convolution_and_its_norm_on_several_maps():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    )

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.layers(x), self.layers(x[..., ::2])]

    check(trained(Levels()), torch.randn(1, 4, 6, 8), norms=0)


def test_a_norm_behind_an_activation_in_place_stays():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)
    )
    check(trained(model), torch.randn(1, 4, 6, 8), norms=1)


def test_a_norm_in_training_mode_stays():
    model = trained(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    model[1].train()
    fewer = folded(model, lambda model: model(torch.randn(2, 4, 3, 3)))
    assert isinstance(fewer[1], nn.BatchNorm2d)


def test_the_activation_of_a_norm_of_timm_stays():
    timm = pytest.importorskip('timm', minversion='1.0.31')
    model = timm.create_model('mobilenetv4_conv_small', features_only=True)
    check(trained(model), torch.randn(1, 3, 64, 96), norms=0)


@pytest.mark.parametrize(
    'model, norms',
    [
        (StarNet('s050'), 0),
        (StepNetResNet(18), 0),
        (ResNet(18), 0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_backbones(model, norms):
    check(trained(model), torch.randn(1, 3, 64, 96), norms)
