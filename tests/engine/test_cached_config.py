# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The text of a config is that of MMEngine, and is formatted once."""

from __future__ import annotations

import copy
import pickle

import pytest
from mmengine.config import Config
from tiny_run import write_config
from trained import train
from yapf.yapflib import yapf_api

from mmext.engine.cached_config import CachedConfig


@pytest.fixture
def formatted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that yapf has formatted."""
    texts, real = [], yapf_api.FormatCode

    def count(text, **options):
        texts.append(text)
        return real(text, **options)

    monkeypatch.setattr(yapf_api, 'FormatCode', count)
    return texts


def test_it_follows_each_change(data, tmp_path) -> None:
    plain = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
    cached = CachedConfig.of(plain)
    for cfg in (plain, cached):
        assert cfg.pretty_text
        cfg.model.backbone.depth = 7
        cfg.more = {'a': [1, 2]}
        cfg.more.a.append(3)
    assert 'depth=7' in cached.pretty_text
    assert cached.pretty_text == plain.pretty_text
    for other in (copy.deepcopy(cached), pickle.loads(pickle.dumps(cached))):
        other.more.a.append(12345)
        assert '12345' in other.pretty_text
        assert '12345' not in cached.pretty_text


def test_the_original_is_not_changed(data, tmp_path) -> None:
    plain = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
    CachedConfig.of(plain).model.backbone.depth = 7
    assert plain.model.backbone.depth != 7


def test_a_training_formats_no_text_twice(data, tmp_path, formatted) -> None:
    train(tmp_path, data)
    assert len(formatted) == len(set(formatted)) > 0
