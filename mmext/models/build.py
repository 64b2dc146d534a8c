# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Builds a model from a config, with errors that name the mistake."""

from __future__ import annotations

import copy
import inspect
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmext.errors import UserError
from mmext.models.channels import fill_channels
from mmext.utils.registries import not_registered, unknown_argument


def build_model(cfg: Mapping[str, Any]) -> nn.Module:
    """Builds a model from the ``model`` part of a config.

    It is built from a copy, since mmdet's detectors write into the config.
    """
    cfg = copy.deepcopy(cfg)
    try:
        fill_channels(cfg)
        return MODELS.build(copy.deepcopy(cfg))
    except (
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise _explain_build(cfg, error) from error


def model_config(cfg: Config) -> ConfigDict:
    """Returns the ``model`` part of a config as MMEngine's runner builds it.

    MMPretrain's configs have the model's ``data_preprocessor`` beside it.
    """
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return model


def build_from_config(cfg: Config) -> nn.Module:
    """Builds the model of a config, in the config's scope."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    return build_model(model_config(cfg))


def _explain_build(cfg: Mapping[str, Any], error: Exception) -> UserError:
    text = str(error.args[0] if error.args else error)
    if found := re.search(r'(\S+) is not in the (\S+) registry', text):
        name = found[1].strip('\'"')
        places = [key for key, value in _walk(cfg, 'model') if value == name]
        return not_registered(name, MODELS, ' and '.join(places) or 'model')
    if found := re.search(
        r'(\S+?)(?:\.__init__)?\(\) got an unexpected keyword argument '
        "'(.+?)'",
        text,
    ):
        places = [k for k, _ in _walk(cfg, 'model') if k.endswith(found[2])]
        registries = (MODELS, *MODELS.children.values())
        classes = ChainMap(*(r.module_dict for r in registries))
        cls = classes.get(found[1])
        names = inspect.signature(cls).parameters if cls else ()
        place = ' or '.join(places) or 'model'
        return unknown_argument(found[2], found[1], names, place)
    return UserError(
        f'the model cannot be built: {type(error).__name__}: {text}',
        'Check the `model` part of the config. MMEXT_DEBUG=1 shows the '
        'traceback.',
    )


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields dotted paths and values of the leaves of a config."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _walk(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _walk(value, f'{path}.{i}')
    else:
        yield path, node
