# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Configs with backbones of timm: its maps, its pixels, levels that fit."""

from __future__ import annotations

import pytest
import timm
import torch
from leaves import LEAVES, build, load

from mmext.checks.backbone.measures import randomise
from mmext.checks.model import check_model
from mmext.checks.normalization import check_normalization

NAMES = [n for n, path in LEAVES.items() if path.parent.name == 'timm']


@pytest.mark.parametrize('name', NAMES)
def test_a_run_would_start(name: str) -> None:
    """A wrong mean, stride or number of levels is an error or a warning."""
    cfg = load(name)
    model = build(cfg)
    check_normalization(cfg, model)
    warnings: list[str] = []
    check_model(cfg, model, ('train', 'val', 'test'), warnings.append)
    assert not warnings
    assert cfg.model.backbone.pretrained


@pytest.mark.parametrize('name', NAMES)
def test_maps_equal_those_of_timm(name: str) -> None:
    cfg = load(name)
    cfg.model.backbone.pretrained = False
    backbone = randomise(build(cfg).backbone).eval()
    theirs = timm.create_model(backbone.name, **backbone.model_args).eval()
    theirs.load_state_dict(backbone.model.state_dict(), strict=False)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        outs = backbone(x)
        expected = theirs.forward_intermediates(
            x,
            indices=list(backbone.out_indices),
            norm=backbone.final_norm,
            output_fmt='NCHW',
            intermediates_only=True,
        )
    for out, other in zip(outs, expected, strict=True):
        assert torch.equal(out, other)
