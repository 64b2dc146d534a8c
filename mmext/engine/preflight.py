# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be known to be wrong before anything is written.

Runs on the first process before the runner exists: the model is built and
thrown away and compared with the checkpoint and with the data, whose
annotations are read and whose images are looked for and sampled.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    MODELS,
    Registry,
    init_default_scope,
)
from torch import nn

from mmext.datasets.check_data import check_data, remembered, verdict
from mmext.datasets.check_large import check_large, is_large
from mmext.datasets.checks import WARNING, Finding, Split, require
from mmext.engine.check_config import (
    check_evaluators,
    check_heads,
    check_pipelines,
    find_splits,
)
from mmext.engine.check_model import check_model
from mmext.engine.check_parts import check_parts, registered
from mmext.engine.checkpoint import load
from mmext.engine.checkpoint_files import newest_valid
from mmext.engine.checkpoint_match import require_match, require_resumable
from mmext.errors import UserError, did_you_mean

#: What was looked at before the runner exists, or was not to be.
CHECKED: set[tuple[Split, ...]] = set()


def preflight(cfg: Config, stages: tuple[str, ...], data: bool = True) -> None:
    """Stops where a run of ``cfg`` cannot work, before it leaves a trace.

    Args:
        cfg: The config as the runner would get it.
        stages: Of ``train``, ``val``, ``test``: the loaders that are used.
        data: Whether to look into annotations and images. Default: True.

    Raises:
        UserError: What was found.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    check_parts(cfg, stages)
    splits = find_splits(cfg, stages)
    model = build_model(cfg.model)
    check_model(cfg, model, stages)
    if data:
        require_fit(cfg, model, splits)
    CHECKED.add(tuple(splits))
    checkpoint, resume = cfg.get('load_from'), cfg.get('resume')
    if resume and checkpoint is None:
        checkpoint = newest_valid(cfg.work_dir, lambda line: None)
        if checkpoint is None:
            checkpoint, resume = cfg.get('start_from'), False
    if checkpoint is not None:
        content = load(checkpoint)
        if resume:
            require_resumable(content, str(checkpoint))
        least = 1.0 if resume or 'test' in stages else 0.5
        require_match(model, content, str(checkpoint), least)


def require_fit(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    say: Callable[[str], object] = print,
) -> None:
    """Stops where the data, the model and the evaluators do not fit.

    Args:
        cfg: The config.
        model: Built from it.
        splits: Of :func:`~mmext.engine.check_config.find_splits`.
        say: Takes each warning. Default: prints it, as there is no log yet.

    Raises:
        UserError: With all errors.
    """
    found = check_run_data(cfg, model, splits, say)
    for finding in found:
        if finding.level == WARNING:
            text = f'{finding.split}: {finding.problem}. {finding.remedy}'
            say(f'warning: {text.strip()}')
    require(found)


def check_run_data(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    say: Callable[[str], object] = print,
) -> list[Finding]:
    """What is wrong between the data, the model and the evaluators.

    A full check that tools/misc/check_data.py has made of the same files is
    taken over.
    """
    found = [
        *check_heads(cfg, model, splits),
        *check_evaluators(cfg, splits),
        *check_pipelines(cfg, splits),
    ]
    start = time.perf_counter()
    known = remembered(splits) if splits else []
    if known is not None:
        return found + known
    small = [split for split in splits if not is_large(split)]
    for split in splits:
        if split not in small:
            found += check_large(split)
    report = check_data(small)
    found += report.findings
    seconds = time.perf_counter() - start
    say(
        f'Data checked in {seconds:.1f} s: {verdict(found)}. '
        f'{len(report.facts)} images were read: tools/misc/check_data.py '
        'reads all and prints what was found.'
    )
    return found


def build_model(cfg: dict) -> nn.Module:
    """Builds a model, telling a wrong name or argument in the user's terms.

    Raises:
        UserError: An unknown ``type`` (with the nearest known one), an
            unknown argument, or one that the class refuses.
    """
    try:
        return MODELS.build(cfg)
    except (
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise _explain_build(cfg, error) from error


def _explain_build(cfg: dict, error: Exception) -> UserError:
    text = str(error.args[0] if error.args else error)
    if found := re.search(r'(\S+) is not in the (\S+) registry', text):
        name = found[1].strip('\'"')
        places = [key for key, value in _walk(cfg, 'model') if value == name]
        return UserError(
            f'{" and ".join(places) or "model"}: type {name!r} is not '
            'registered',
            did_you_mean(name, registered(MODELS))
            or 'Is the module that defines it in custom_imports?',
        )
    if found := re.search(
        r'(\S+?)(?:\.__init__)?\(\) got an unexpected keyword argument '
        "'(.+?)'",
        text,
    ):
        places = [k for k, _ in _walk(cfg, 'model') if k.endswith(found[2])]
        cls = _class(MODELS, found[1])
        names = inspect.signature(cls).parameters if cls else ()
        return UserError(
            f'{" or ".join(places) or "model"}: {found[1]} takes no argument '
            f'{found[2]!r}',
            did_you_mean(found[2], names) + f' It takes: {", ".join(names)}.',
        )
    return UserError(
        f'the model cannot be built: {type(error).__name__}: {text}',
        'Check the `model` part of the config. MMEXT_DEBUG=1 shows where.',
    )


def _class(registry: Registry, name: str) -> type | None:
    for module in (registry, *registry.children.values()):
        if name in module.module_dict:
            return module.module_dict[name]
    return None


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of the leaves of a config."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _walk(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _walk(value, f'{path}.{i}')
    else:
        yield path, node
