# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What `mmext.models` offers by name, and its examples."""

from __future__ import annotations

import doctest

import pytest
from mmengine.registry import MODELS

import mmext.models


def test_every_registered_model_is_importable_from_the_package() -> None:
    registered = {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith('mmext.models.')
    }
    assert {'StarNet', 'GMLP', 'SimpleFeaturePyramid'} <= registered
    assert registered <= set(mmext.models.__all__)
    for name in mmext.models.__all__:
        assert hasattr(mmext.models, name)


@pytest.mark.parametrize(
    'name',
    [n for n, m in vars(mmext.models).items() if '>>> ' in (m.__doc__ or '')],
)
def test_examples_run_as_they_stand(name: str) -> None:
    model = getattr(mmext.models, name)
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(model, globs={name: model}):
        assert runner.run(example).failed == 0
