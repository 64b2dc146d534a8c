# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that the parts of a config can be built.

The runner builds most parts after it has made the work dir, some after the
first epoch. The checks build nothing: they look names up in MMEngine's
registries and arguments in the signatures of the classes.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    Registry,
)

from mmext.errors import UserError
from mmext.utils.registries import find_class, unknown_argument

STAGES = ('train', 'val', 'test')
#: Whole numbers -> the least that works.
COUNTS = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'randomness.seed': 0,
    **{f'{stage}_dataloader.batch_size': 1 for stage in STAGES},
    **{f'{stage}_dataloader.num_workers': 0 for stage in STAGES},
}
#: Finite numbers that are not negative.
RATES = ('optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay')
#: Backend of the visualizer -> the packages that it imports, as on PyPI.
TRACKERS = {
    'AimVisBackend': ('aim',),
    'ClearMLVisBackend': ('clearml',),
    'DVCLiveVisBackend': ('dvclive', 'pygit2'),
    'MLflowVisBackend': ('mlflow',),
    'NeptuneVisBackend': ('neptune',),
    'TensorboardVisBackend': ('tensorboard',),
    'WandbVisBackend': ('wandb',),
}
# Keys that the runner removes from a part before it builds it.
TAKEN = {'type', 'constructor', 'paramwise_cfg', 'priority'} | {
    'convert_to_iter_based'
}


def check_parts(cfg: Config, stages: tuple[str, ...]) -> None:
    """Checks names, arguments and numbers in the parts of a config."""
    for place, part, registry in _parts(cfg, stages):
        _check_part(place, part, registry, cfg.get('default_scope', 'mmdet'))
    _check_trackers(cfg)
    for place, least in COUNTS.items():
        value = _value(cfg, place)
        valid = _is_number(value, least) and value == int(value)
        if value is not None and not valid:
            raise UserError(
                f'{place} is {value!r}, and must be a whole number of at '
                f'least {least}',
                f'--cfg-options {place}={least}, or more.',
            )
    for place in RATES:
        value = _value(cfg, place)
        if value is not None and not _is_number(value, 0):
            raise UserError(
                f'{place} is {value!r}, and must be a number that is not '
                'negative',
                f'For example --cfg-options {place}=1e-4.',
            )


def _check_trackers(cfg: Config) -> None:
    """Checks that the packages of experiment trackers are installed.

    MMEngine imports them once the work dir exists.
    """
    missing: dict[str, list[str]] = {}
    for place, part, registry in _visualizers(cfg):
        kind = part.get('type') if isinstance(part, Mapping) else None
        if registry is not VISBACKENDS or kind is None:
            continue
        scope = cfg.get('default_scope', 'mmdet')
        cls = find_class(kind, registry, scope, f'{place}.type')
        where = f'{place} ({cls.__name__})'
        bases = [base.__name__ for base in inspect.getmro(cls)]
        needed = [name for base in bases for name in TRACKERS.get(base, ())]
        if absent := [name for name in needed if not _installed(name)]:
            missing[where] = absent
        elif 'WandbVisBackend' in bases:
            _check_login(where, part)
    if missing:
        packages = dict.fromkeys(
            n for names in missing.values() for n in names
        )
        raise UserError(
            '; '.join(
                f'{where} needs {" and ".join(names)}, not found in this '
                'environment'
                for where, names in missing.items()
            ),
            f'pip install {" ".join(packages)}, or remove the backend from '
            'vis_backends of the config.',
        )


def _installed(name: str) -> bool:
    """Whether a package is installed.

    A folder of the same name in the current one, as wandb makes, is not it.
    """
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _check_login(where: str, part: Mapping) -> None:
    """Checks that W&B has a key where it cannot ask for one."""
    mode = (part.get('init_kwargs') or {}).get('mode')
    if mode or os.getenv('WANDB_MODE') or sys.stdin.isatty():
        return
    import wandb

    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except TypeError:  # an older version, which prints no warning here
        logged_in = wandb.api.api_key is not None
    if not logged_in:
        raise UserError(
            f'{where}: W&B is not logged in',
            'wandb login, or WANDB_MODE=offline.',
        )


def _visualizers(cfg: Config) -> Iterator[tuple[str, Any, Registry]]:
    yield from _each(cfg, 'visualizer', VISUALIZERS)
    visualizer = cfg.get('visualizer')
    if isinstance(visualizer, Mapping):
        yield from _each(
            visualizer, 'vis_backends', VISBACKENDS, 'visualizer.'
        )


def _parts(
    cfg: Config, stages: tuple[str, ...]
) -> Iterator[tuple[str, Mapping, Registry]]:
    if 'train' in stages:
        wrapper = cfg.get('optim_wrapper') or {}
        # It has no type if the runner uses its default, or if it holds several
        # wrappers, as for a GAN.
        yield 'optim_wrapper', wrapper, OPTIM_WRAPPERS
        yield from _each(wrapper, 'optimizer', OPTIMIZERS, 'optim_wrapper.')
        yield from _each(cfg, 'param_scheduler', PARAM_SCHEDULERS)
    yield from _visualizers(cfg)
    yield from _each(cfg, 'custom_hooks', HOOKS)
    for name in cfg.get('default_hooks') or {}:
        yield from _each(cfg.default_hooks, name, HOOKS, 'default_hooks.')
    for stage in stages:
        yield from _each(cfg, f'{stage}_cfg', LOOPS)
        evaluator = cfg.get(f'{stage}_evaluator')
        several = isinstance(evaluator, Mapping) and isinstance(
            evaluator.get('metrics'), Mapping | list | tuple
        )
        yield from _each(
            cfg, f'{stage}_evaluator', EVALUATOR if several else METRICS
        )
        loader = cfg.get(f'{stage}_dataloader') or {}
        place = f'{stage}_dataloader.'
        yield from _each(loader, 'sampler', DATA_SAMPLERS, place)
        for where, dataset in datasets(
            loader.get('dataset'), f'{place}dataset'
        ):
            yield from _each(dataset, 'pipeline', TRANSFORMS, f'{where}.')


def _each(
    owner: Mapping, key: str, registry: Registry, prefix: str = ''
) -> Iterator[tuple[str, Mapping, Registry]]:
    """Finds a part, or each of a list of parts."""
    value = owner.get(key)
    if isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield f'{prefix}{key}.{i}', part, registry
    else:
        yield f'{prefix}{key}', value, registry


def datasets(dataset: Any, place: str) -> Iterator[tuple[str, Mapping]]:
    """Finds a data set and those that it wraps, with their places."""
    if isinstance(dataset, list | tuple):
        for i, inner in enumerate(dataset):
            yield from datasets(inner, f'{place}.{i}')
    elif isinstance(dataset, Mapping):
        yield place, dataset
        for key in ('dataset', 'datasets'):
            yield from datasets(dataset.get(key), f'{place}.{key}')


def _check_part(place: str, part: Any, registry: Registry, scope: str) -> None:
    if not isinstance(part, Mapping) or 'type' not in part:
        return
    cls = find_class(part['type'], registry, scope, f'{place}.type')
    names = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in names.values()):
        return
    for key in part:
        if key not in names and key not in TAKEN and key[:1] != '_':
            raise unknown_argument(key, part['type'], names, place)


def _value(cfg: Config, place: str) -> Any:
    node: Any = cfg
    for key in place.split('.'):
        node = node.get(key) if isinstance(node, Mapping | Config) else None
    return node


def _is_number(value: object, least: int) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= least
    )
