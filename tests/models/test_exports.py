# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What `mmext.models` offers by name."""

from __future__ import annotations

import inspect

from mmengine.registry import MODELS

import mmext.models
from mmext.models import backbones, layers, necks


def test_every_registered_model_is_importable_from_the_package() -> None:
    registered = {
        name
        for package in (backbones, layers, necks)
        for name in package.__all__
        if inspect.isclass(getattr(package, name)) and MODELS.get(name)
    }
    assert {'StarNet', 'GMLP', 'SimpleFeaturePyramid'} <= registered
    assert registered <= set(mmext.models.__all__)
    for name in mmext.models.__all__:
        assert hasattr(mmext.models, name)
