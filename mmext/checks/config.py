# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of a config's data against its heads and evaluators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from mmext.checks.evaluators import require_metric_options
from mmext.checks.findings import Finding, Split
from mmext.checks.parts import datasets
from mmext.errors import UserError, did_you_mean
from mmext.utils.config import evaluates_masks, evaluators
from mmext.utils.documents import require_regular
from mmext.utils.registries import find_class
from mmext.utils.text import sentences, some


def find_config_splits(cfg: Config, stages: tuple[str, ...]) -> list[Split]:
    """Finds the COCO annotations and image folders that a run reads."""
    splits = []
    for stage in stages:
        if cfg.get(f'{stage}_dataloader'):
            splits += _loader_splits(cfg, stage)
        for place, evaluator in evaluators(cfg, stage).items():
            require_metric_options(cfg, place, evaluator)
            file = evaluator.get('ann_file')
            if file and '://' not in file:
                _require(f'{place}.ann_file', Path(file), 'file')
    return splits


def _loader_splits(cfg: Config, stage: str) -> Iterator[Split]:
    place = f'{stage}_dataloader.dataset'
    scope = cfg.get('default_scope', 'mmdet')
    segm = evaluates_masks(cfg, stage)
    for where, dataset in datasets(cfg[f'{stage}_dataloader'].dataset, place):
        if 'dataset' in dataset or 'datasets' in dataset:
            continue  # a wrapper such as RepeatDataset
        # Configs of mmseg and mmpretrain use data sets of their own scope.
        kind = dataset.get('type')
        cls = find_class(kind, DATASETS, scope, f'{where}.type')
        # Those of mmext make their own files; those of others may read any.
        if cls.__module__.startswith('mmdet.') and not dataset.get(
            'backend_args'
        ):
            split = _find_split(where, dataset, cls, stage == 'train', segm)
            if split is not None:
                yield split


def _find_split(
    where: str, dataset: dict, cls: type, training: bool, segm: bool
) -> Split | None:
    from mmdet.datasets import CocoDataset

    root = str(dataset.get('data_root') or '')
    name = dataset.get('ann_file') or ''
    if '://' in root or '://' in name:
        return None
    file = Path(root, name)
    if name:
        _require(f'{where}.ann_file', file, 'file')
    folders = {
        key: Path(root, prefix or '')
        for key, prefix in (dataset.get('data_prefix') or {}).items()
    }
    for key, folder in folders.items():
        _require(f'{where}.data_prefix.{key}', folder, 'folder')
    # LVIS, for example, reads boxes differently.
    reads_coco = issubclass(cls, CocoDataset) and (
        cls.load_data_list is CocoDataset.load_data_list
        and cls.parse_data_info is CocoDataset.parse_data_info
    )
    if not name or not reads_coco:
        return None
    training = training and not dataset.get('test_mode')
    chosen = dataset.get('filter_cfg') or {}
    steps = dataset.get('pipeline') or ()
    loading = next((s for s in steps if 'LoadImage' in str(s.get('type'))), {})
    return Split(
        name=where,
        ann_file=file,
        img_dir=folders.get('img', Path(root)),
        classes=_classes(where, dataset, cls),
        masks=segm or any(step.get('with_mask') for step in steps),
        training=training,
        filter_empty=training and bool(chosen.get('filter_empty_gt')),
        min_size=chosen.get('min_size', 0) if training else 0,
        root=Path(root) if root else None,
        color_type=loading.get('color_type', 'color'),
    )


def _classes(where: str, dataset: Mapping, cls: type) -> tuple[str, ...]:
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        if not Path(classes).is_file():
            raise UserError(
                f'{where}.metainfo.classes is the string {classes!r}, and no '
                'such file exists',
                f'A single class is written with a comma: ({classes!r},).',
            )
        classes = Path(classes).read_text(encoding='utf-8').split('\n')
        classes = [line.rstrip('\r') for line in classes if line]
    return tuple(classes or cls.METAINFO.get('classes', ()))


def _require(where: str, path: Path, what: str) -> None:
    if what == 'file':
        require_regular(path)
    exists = path.is_file() if what == 'file' else path.is_dir()
    if exists:
        return
    folder = path
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    missing = path.relative_to(folder).parts[0] if folder != path else ''
    inside = sorted(p.name for p in folder.iterdir())
    raise UserError(
        f'{where}: {what} {path} does not exist',
        sentences(
            f'{folder.resolve()} has {some(inside, 6) or "nothing in it"}.',
            did_you_mean(missing, inside),
            f'Set it: --cfg-options {where}=... or the data_root beside it.',
        ),
    )


def check_heads(
    cfg: Config, model: nn.Module, splits: list[Split]
) -> Iterator[Finding]:
    """Checks that every head has as many classes as the data.

    As in mmdet's ``NumClassCheckHook``, heads are all modules with
    ``num_classes`` except those of the backbone and the RPN.
    """
    from mmdet.models.roi_heads.mask_heads import FusedSemanticHead

    heads = {
        name: module.num_classes
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'num_classes', None), int)
        and not isinstance(module, FusedSemanticHead)
        and not getattr(module, 'class_agnostic', False)
        and not name.startswith('backbone')
        and 'rpn_head' not in name
        and 'RPN' not in type(module).__name__
    }
    for split in splits:
        wrong = [n for n, k in heads.items() if k != len(split.classes)]
        # Reported once for splits with the same classes.
        first = next(s for s in splits if s.classes == split.classes)
        if wrong and split is first and not _is_open_vocabulary(cfg, split):
            count = len(split.classes)
            found = ', '.join(f'{n} has {heads[n]}' for n in wrong)
            fix = ' '.join(f'model.{n}.num_classes={count}' for n in wrong)
            yield split.error(
                'num_classes',
                f'{count} classes ({some(split.classes)}), but {found}',
                f'--cfg-options {fix}',
                count=len(wrong),
            )
        # Only of two-stage models: BoxInst, with one stage, learns masks from
        # boxes.
        roi_head = getattr(model, 'roi_head', None)
        if getattr(roi_head, 'with_mask', False) and (
            split.training and not split.masks
        ):
            yield split.error(
                'masks',
                'the model predicts masks and the pipeline does not load any',
                "In the pipeline: dict(type='LoadAnnotations', "
                'with_bbox=True, with_mask=True).',
            )


def _is_open_vocabulary(cfg: Config, split: Split) -> bool:
    """Returns whether the model gets the classes as text."""
    node: Any = cfg
    for key in split.name.split('.'):
        node = node[int(key) if key.isdigit() else key]
    return bool(node.get('return_classes'))


def check_pipelines(cfg: Config, splits: list[Split]) -> Iterator[Finding]:
    """Checks that validation and test process the same images equally.

    In most configs the test loader is a copy of the validation loader, and an
    option that changes one of them does not change the other.
    """
    loaders = [cfg.get(f'{stage}_dataloader') for stage in ('val', 'test')]
    val, test = (dict(loader.dataset) if loader else {} for loader in loaders)
    steps, other = val.pop('pipeline', ()), test.pop('pipeline', ())
    place = 'val_dataloader.dataset'
    split = next((s for s in splits if s.name == place), None)
    if split is None or val != test or steps == other:
        return
    for i, (step, copy) in enumerate(zip(steps, other, strict=False)):
        for key in sorted(step.keys() | copy.keys()):
            if step.get(key) != copy.get(key):
                where = f'test_dataloader.dataset.pipeline.{i}.{key}'
                yield split.warning(
                    'pipeline',
                    f'{where} is {copy.get(key)}, and {step.get(key)} for '
                    'validation on the same images, so that mmext test '
                    'does not give the AP of the training log',
                    f"--cfg-options '{where}={step.get(key)}'",
                )


def check_tta(cfg: Config) -> None:
    """Checks that the results of test-time augmentation can be merged.

    mmdet's ``DetTTAModel`` merges boxes only. Raises `UserError` if masks or
    panoptic results are evaluated with it.
    """
    merges = (cfg.get('tta_model') or {}).get('type', 'DetTTAModel')
    if str(merges).rpartition('.')[2] != 'DetTTAModel':
        return
    metrics = evaluators(cfg, 'test')
    of_masks = [k for k, e in metrics.items() if 'segm' in e.get('metric', ())]
    if of_masks:
        raise UserError(
            '--tta merges boxes, and the run evaluates masks, too',
            f'--cfg-options {of_masks[0]}.metric=bbox tests the boxes alone. '
            'Without --tta, both are tested.',
        )
    if any('Panoptic' in str(e.get('type')) for e in metrics.values()):
        raise UserError(
            '--tta merges boxes, and the run evaluates panoptic results, too',
            'Test without --tta.',
        )
