# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Small detectors of all families, and their data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from tiny_families import write_family
from tiny_run import make_coco
from torch import nn

from mmext.engine.predict import load_detector
from mmext.utils.config import load_config


class Family(NamedTuple):
    """A config, its checkpoint, and the model that they make."""

    config: Path
    checkpoint: Path
    cfg: Config
    model: nn.Module


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    """A COCO folder of drawn images."""
    return make_coco(tmp_path_factory.mktemp('data') / 'coco', 1, 4)


@pytest.fixture(scope='session')
def family(data, tmp_path_factory) -> Callable[[str], Family]:
    """Makes the detector of a family, once."""
    known: dict[str, Family] = {}

    def make(name: str) -> Family:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            config, checkpoint = write_family(name, folder, data)
            cfg = load_config(config)
            model = load_detector(cfg, checkpoint, 'cpu').model
            model.to(memory_format=torch.contiguous_format)
            known[name] = Family(config, checkpoint, cfg, model)
        return known[name]

    return make
