# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be known to be wrong before anything is written.

Runs on the first process before the runner exists: the model is built and
thrown away, the checkpoint compared with it, the data set's files looked at.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    MODELS,
    Registry,
    init_default_scope,
)
from torch import nn

from mmext.datasets.checks import check_annotations
from mmext.engine.checkpoint import load, newest_valid, require_match
from mmext.errors import UserError, did_you_mean

LARGEST_READ = 100 * 2**20  # bytes: COCO's own files are known to be COCO
IMAGE_KEYS = {'id', 'file_name', 'width', 'height'}
ANNOTATION_KEYS = {'id', 'image_id', 'category_id', 'bbox'}
CATEGORY_KEYS = {'id', 'name'}


def preflight(cfg: Config, stages: tuple[str, ...]) -> None:
    """Stops where a run of ``cfg`` cannot work, before it leaves a trace.

    Args:
        cfg: The config as the runner would get it.
        stages: Of ``train``, ``val``, ``test``: the loaders that are used.

    Raises:
        UserError: What was found first.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    for stage in stages:
        if cfg.get(f'{stage}_dataloader'):
            check_loader(cfg, stage)
    model = build_model(cfg.model)
    checkpoint = cfg.get('load_from')
    if cfg.get('resume') and checkpoint is None:
        checkpoint = newest_valid(cfg.work_dir, lambda line: None)
    if checkpoint is not None:
        strict = 'test' in stages or cfg.get('resume')
        require_match(
            model, load(checkpoint), str(checkpoint), 1.0 if strict else 0.5
        )


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
            did_you_mean(name, _registered(MODELS))
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


def _registered(registry: Registry) -> set[str]:
    names = set(registry.module_dict)
    for child in registry.children.values():
        names |= _registered(child)
    return names


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


def check_loader(cfg: Config, stage: str) -> None:
    """Looks for the files that a loader and its evaluator name."""
    place = f'{stage}_dataloader.dataset'
    scope = cfg.get('default_scope', 'mmdet')
    for where, dataset in _leaves(cfg[f'{stage}_dataloader'].dataset, place):
        kind = dataset.get('type')
        # mmseg's and mmpretrain's configs bring their own data sets.
        with DATASETS.switch_scope_and_registry(scope) as registry:
            cls = registry.get(kind) if isinstance(kind, str) else kind
        if cls is None:
            raise UserError(
                f'{where}.type: data set {kind!r} is not registered',
                did_you_mean(str(kind), _registered(DATASETS))
                or 'Is the module that defines it in custom_imports?',
            )
        # Ours make or check their own files; others' may lie anywhere.
        if cls.__module__.startswith('mmdet.') and not dataset.get(
            'backend_args'
        ):
            _check_dataset(where, dataset, cls)
    evaluators = cfg.get(f'{stage}_evaluator') or []
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    for evaluator in evaluators:
        file = evaluator.get('ann_file')
        if file and '://' not in file and not Path(file).is_file():
            raise _no_file(f'{stage}_evaluator.ann_file', Path(file), 'file')


def _leaves(dataset: dict, place: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside wrappers such as RepeatDataset."""
    if isinstance(dataset.get('dataset'), Mapping):
        yield from _leaves(dataset['dataset'], f'{place}.dataset')
    elif isinstance(dataset.get('datasets'), list):
        for i, inner in enumerate(dataset['datasets']):
            yield from _leaves(inner, f'{place}.datasets.{i}')
    else:
        yield place, dataset


def _check_dataset(where: str, dataset: dict, cls: type) -> None:
    root = str(dataset.get('data_root') or '')
    name = dataset.get('ann_file') or ''
    if '://' in root or '://' in name:
        return
    images = None
    if name:
        file = Path(root, name)
        if not file.is_file():
            raise _no_file(f'{where}.ann_file', file, 'file')
        if _is_coco(cls):
            images = check_coco_file(f'{where}.ann_file', file, dataset, cls)
    for key, prefix in (dataset.get('data_prefix') or {}).items():
        folder = Path(root, prefix or '')
        if not folder.is_dir():
            raise _no_file(f'{where}.data_prefix.{key}', folder, 'folder')
        if key == 'img' and images:
            first = folder / str(images[0]['file_name'])
            if not first.is_file():
                raise _no_file(f'{where}.data_prefix.{key}', first, 'image')


def _is_coco(cls: type) -> bool:
    return any(base.__name__ == 'CocoDataset' for base in cls.__mro__)


def _no_file(where: str, path: Path, what: str) -> UserError:
    there = path
    while not there.is_dir() and there != there.parent:
        there = there.parent
    step = path.relative_to(there).parts[0] if there != path else ''
    beside = sorted(p.name for p in there.iterdir())
    return UserError(
        f'{where}: {what} {path} does not exist',
        f'{there.resolve()} has '
        + (', '.join(beside[:6]) or 'nothing in it')
        + (', ...' if len(beside) > 6 else '')
        + f'. {did_you_mean(step, beside)} Set it: --cfg-options {where}=... '
        'or the data_root beside it.',
    )


def check_coco_file(
    where: str, file: Path, dataset: Mapping, cls: type
) -> list[dict] | None:
    """Whether a file is COCO annotation with at least one class we use.

    Returns:
        The ``images`` of the file; None where it is too big to read twice.

    Raises:
        UserError: What it is instead.
    """
    if file.stat().st_size > LARGEST_READ:
        return None
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f'{where}: {file} is not JSON: {error}',
            'A COCO annotation file is one JSON object with images, '
            'annotations and categories.',
        ) from error
    if problem := _not_coco(content):
        raise UserError(
            f'{where}: {file} is not a COCO annotation file: {problem}',
            'It must hold images (id, file_name, width, height), annotations '
            '(id, image_id, category_id, bbox) and categories (id, name).',
        )
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes') or cls.METAINFO.get('classes', ())
    if isinstance(classes, str):
        return content['images']
    names = [c['name'] for c in content['categories']]
    if not set(names) & set(classes):
        raise UserError(
            f'{where}: none of the classes {_some(classes)} is among the '
            f'categories of {file}: {_some(names)}',
            f'{where.rsplit(".", 1)[0]}.metainfo=dict(classes='
            f'{tuple(names)!r}), and the same number as num_classes of the '
            'heads.',
        )
    if content['annotations']:  # a test set may have none
        check_annotations(content, file, classes, _loads_masks(dataset))
    return content['images']


def _loads_masks(dataset: Mapping) -> bool:
    return any(step.get('with_mask') for step in dataset.get('pipeline') or ())


def _some(names: Any) -> str:
    names = list(names)
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')


def _not_coco(content: Any) -> str | None:
    if isinstance(content, list):
        return 'it is a list' + (
            ' of detections (a result file)'
            if content and 'score' in content[0]
            else ''
        )
    if not isinstance(content, dict):
        return f'it is a {type(content).__name__}'
    if 'shapes' in content and 'imagePath' in content:
        return 'it is a LabelMe file'
    for key, needed in (
        ('images', IMAGE_KEYS),
        ('categories', CATEGORY_KEYS),
        ('annotations', ANNOTATION_KEYS),
    ):
        if not isinstance(content.get(key), list):
            return f'no list {key!r}; its keys are {_some(content)}'
        if not content[key] and key != 'annotations':
            return f'{key!r} is empty'
        for entry in content[key][:1]:
            if not isinstance(entry, dict) or needed - entry.keys():
                seen = _some(entry) if isinstance(entry, dict) else entry
                return f'entries of {key!r} have {seen}'
    return None
