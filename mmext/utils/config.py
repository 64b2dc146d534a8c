# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads configs and merges ``--cfg-options`` into them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmext.errors import UserError, did_you_mean, nearest

#: Top-level keys that the runner or a tool reads.
READ = {*inspect.signature(Runner.__init__).parameters, 'runner_type'} | {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'default_scope',
    'efficient_conv_bn_eval',
    'env_cfg',
    'find_unused_parameters',
    'memory_format',
    'model_wrapper_cfg',
    'reduced_decoding',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parses the values of ``--cfg-options`` as MMEngine does.

    Raises `UserError` if a text is not ``KEY=VALUE``, or a value is not a
    number, text, list or tuple.
    """
    options = {}
    # MMEngine removes all spaces, also those inside a path or a name.
    inside = r'(?<=[^\s,(\[]) +(?=[^\s,)\]])'
    for text in texts:
        key, equals, value = text.partition('=')
        if not key or not equals:
            raise UserError(
                f'--cfg-options {text}: not KEY=VALUE',
                'For example model.backbone.depth=50. Quote a value that '
                'contains spaces.',
            )
        try:
            kept = re.sub(inside, '\0', value.strip('\'" '))
            parsed = DictAction._parse_iterable(kept)
        except (AssertionError, RecursionError):
            raise UserError(
                f'--cfg-options {text}: the value is not a number, text, list '
                'or tuple of these',
                'Write a dict into a config file that begins with '
                "_base_ = '...'.",
            ) from None
        options[key] = _with_spaces(parsed)
    return options


def _with_spaces(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_with_spaces, value))
    return value.replace('\0', ' ') if isinstance(value, str) else value


def load_config(
    filename: str | Path,
    options: Mapping[str, Any] | Sequence[str] | None = None,
) -> Config:
    """Reads a config file and merges ``--cfg-options`` into it.

    ``options`` are dotted keys with their values, or the texts of
    ``--cfg-options``. Raises `UserError` if the file does not exist or does
    not load, or if a new key is almost the same as one of the config;
    ``+key=value`` adds it nevertheless.
    """
    path = Path(filename)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        near = did_you_mean(path.name, [p.name for p in folder.glob('*.py')])
        raise UserError(
            f'config {path} does not exist',
            f'{near} (in {folder})' if near else 'Check the path.',
        )
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserError(
            f'config {path}: a file it inherits is missing: {error}',
            'Check its _base_ list.',
        ) from error
    except ImportError as error:
        # MMEngine's message continues with all of sys.path.
        reason = str(error).partition(', the current sys.path')[0]
        raise UserError(
            f'config {path} does not load: {reason}',
            'Install that module, or add its folder to PYTHONPATH.',
        ) from error
    except (
        AttributeError,
        KeyError,
        NameError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f'config {path} does not load: {type(error).__name__}: {error}',
            'MMEXT_DEBUG=1 shows the traceback.',
        ) from error
    if options and not isinstance(options, Mapping):
        options = parse_options(options)
    merge_options(cfg, options or {})
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merges dotted ``--cfg-options`` into ``cfg``, in place.

    Raises `UserError` if a key is misspelt or not a place in the config.
    """
    for key in options:
        if not key.startswith('+'):
            _check_key(cfg, key)
    try:
        cfg.merge_from_dict({k.removeprefix('+'): options[k] for k in options})
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'--cfg-options {dict(options)} cannot be merged: {error}',
            'Address the parts of a list by number: pipeline.0.type=...',
        ) from error


def _check_key(cfg: Config, key: str) -> None:
    here: Any = cfg._cfg_dict
    parts = key.split('.')
    for i, part in enumerate(parts):
        if isinstance(here, Sequence) and not isinstance(here, str):
            if not part.isdigit() or int(part) >= len(here):
                raise UserError(
                    f'--cfg-options {key}: {".".join(parts[:i])} is a list '
                    f'of {len(here)}, and {part!r} is not a place in it',
                    f'Give a number from 0 to {len(here) - 1}.',
                )
            here = here[int(part)]
            continue
        if not isinstance(here, Mapping):
            return
        if part not in here:
            known = set(here) | (READ if i == 0 else set())
            similar = nearest(part, known, 0.8) if part not in known else None
            if similar:
                where = '.'.join([*parts[:i], similar])
                raise UserError(
                    f'--cfg-options {key}: no such key in the config',
                    f'Did you mean {where!r}? To add a new key, write '
                    f'+{key}=...',
                )
            return
        here = here[part]
    if len(parts) == 1 and key not in READ:
        print_log(
            f'--cfg-options {key}=... changes only a variable of the config '
            'file: whatever the file built from it keeps the old value. '
            'Change the places that use it, for example '
            f'train_dataloader.dataset.{key}=...',
            'current',
            30,
        )


def evaluators(cfg: Config, stage: str) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of ``val`` or ``test`` by their places.

    They may be a list, or those of an evaluator such as mmdet's
    ``MultiDatasetsEvaluator``.
    """
    place = f'{stage}_evaluator'
    found = cfg.get(place) or []
    if isinstance(found, Mapping) and 'metrics' in found:
        place, found = f'{place}.metrics', found['metrics']
    if isinstance(found, Mapping):
        return {place: found}
    return {f'{place}.{i}': metric for i, metric in enumerate(found)}


def evaluates_masks(cfg: Config, stage: str) -> bool:
    """Returns whether an evaluator of ``val`` or ``test`` needs masks."""
    metrics = evaluators(cfg, stage).values()
    return any('segm' in metric.get('metric', ()) for metric in metrics)


def resize_scales(dataset: Any) -> list[Any]:
    """Returns the scales that the pipelines of a data set resize images to.

    ``dataset`` may be a wrapper of others, or a pipeline. A scale is
    [width, height], or a number for a factor.
    """
    found: list[Any] = []
    if isinstance(dataset, Mapping):
        if 'Resize' in str(dataset.get('type')):
            scales = dataset.get('scale', dataset.get('scales'))
            scales = dataset.get('scale_factor') if scales is None else scales
            nested = isinstance(scales, list | tuple) and isinstance(
                scales[0], list | tuple
            )
            for scale in scales if nested else [scales]:
                is_pair = isinstance(scale, list | tuple)
                found.append(list(scale) if is_pair else scale)
        else:
            keys = ('dataset', 'datasets', 'pipeline', 'transforms')
            for key in keys:
                found += resize_scales(dataset.get(key))
    elif isinstance(dataset, list | tuple):
        for part in dataset:
            found += resize_scales(part)
    return [x for i, x in enumerate(found) if x not in (None, *found[:i])]
