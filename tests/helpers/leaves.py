# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The leaf configs of ``configs/``: their paths, loading, building."""

from __future__ import annotations

import copy
import functools
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from commands import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import mmext  # noqa: F401
from mmext.models.build import build_model

CONFIGS = ROOT / 'configs'
#: Config name -> path, of every config that is run directly.
LEAVES = {
    p.stem: p
    for p in sorted(CONFIGS.rglob('*.py'))
    if '_base_' not in p.relative_to(ROOT).parts
}
#: Leaves of docs/evidence.md.
EVIDENCE = [n for n, p in LEAVES.items() if p.parent.name == 'evidence']
#: Leaves that describe a model; configs/theory holds experiments, too.
MODELS = [
    n for n, p in LEAVES.items() if p.parent.name not in ('theory', 'evidence')
]
#: The models of all metafiles.
ENTRIES = [
    model
    for path in sorted(CONFIGS.rglob('metafile.yml'))
    for model in yaml.safe_load(path.read_text())['Models']
]


def needs(path: Path) -> set[str]:
    """Packages that a config inherits from and mmext does not require."""
    text = path.read_text()
    found = set(re.findall(r"'(mmpretrain|mmseg)::", text))
    for base in re.findall(r"'(\.[^']*\.py)'", text):
        found |= needs(path.parent / base)
    return found


def load(name: str) -> Config:
    """Loads a leaf; skips the test if a package that it needs is missing."""
    for package in sorted(needs(LEAVES[name])):
        if find_spec(package) is None:
            pytest.skip(f'{package} is not installed')
    return copy.deepcopy(_load(name))


@functools.cache
def _load(name: str) -> Config:
    return Config.fromfile(LEAVES[name])


def build(cfg: Config) -> nn.Module:
    """Builds the model as the runner does."""
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return build_model(cfg.model)


def build_cheaply(cfg: Config) -> nn.Module:
    """Builds without memory for the weights if the model allows it."""
    # mmdet's Swin reads a tensor's values while it is built.
    device = 'cpu' if 'SwinTransformer' in str(cfg.model) else 'meta'
    with torch.device(device):
        return build(cfg)


def count_parameters(cfg: Config) -> int:
    return sum(p.numel() for p in build_cheaply(cfg).parameters())


def header(name: str) -> list[str]:
    """The comment lines of a leaf, without the comment sign."""
    return [
        line.removeprefix('#').removeprefix(' ')
        for line in LEAVES[name].read_text().splitlines()
        if line.startswith('#')
    ]
