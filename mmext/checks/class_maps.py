# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the class maps that MMSegmentation trains and evaluates on.

A label that a head does not know ends training in an ``IndexError`` (on a GPU
in an assertion without a name), and the metric leaves its pixels out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image
from torch import nn

from mmext.checks.findings import ERROR, Finding
from mmext.checks.parts import datasets
from mmext.errors import UserError
from mmext.utils.config import evaluators
from mmext.utils.images import shown_size
from mmext.utils.registries import find_class
from mmext.utils.text import count, some

SAMPLE = 64  # maps of a split that are read before a run


def find_class_maps(cfg: Config, stages: tuple[str, ...]) -> dict[str, Any]:
    """Returns place in the config -> MMSegmentation's data set.

    The data sets are built with the steps that load class maps. Raises
    `UserError` if one cannot be built or has no images.
    """
    if cfg.get('default_scope') != 'mmseg':
        return {}
    from mmseg.datasets import BaseSegDataset

    found = {}
    for stage in stages:
        loader = cfg.get(f'{stage}_dataloader') or {}
        place = f'{stage}_dataloader.dataset'
        for where, part in datasets(loader.get('dataset'), place):
            if 'dataset' in part or 'datasets' in part:
                continue  # a wrapper such as RepeatDataset
            kind = part.get('type')
            cls = find_class(kind, DATASETS, 'mmseg', f'{where}.type')
            steps = part.get('pipeline') or ()
            steps = [s for s in steps if s.get('type') == 'LoadAnnotations']
            if (
                steps
                and not part.get('backend_args')
                and issubclass(cls, BaseSegDataset)
                # Those of mmext make their own files.
                and cls.__module__.startswith('mmseg.')
            ):
                found[where] = _build({**part, 'pipeline': steps}, where)
    return found


def _build(part: dict[str, Any], where: str) -> Any:
    with DATASETS.switch_scope_and_registry('mmseg') as registry:
        try:
            dataset = registry.build(part)
        except (OSError, AssertionError, ValueError, KeyError) as error:
            raise UserError(
                f'{where} cannot be read: {error}',
                f'Check {where}.data_root, data_prefix and ann_file.',
            ) from error
    if not len(dataset):
        raise UserError(
            f'{where} has no images that end in {dataset.img_suffix!r} in '
            f'{dataset.data_prefix.get("img_path")}',
            f'Set {where}.data_prefix or img_suffix.',
        )
    return dataset


def check_class_maps(
    cfg: Config,
    model: nn.Module,
    maps: Mapping[str, Any],
    limit: int | None = SAMPLE,
) -> Iterator[Finding]:
    """Checks that labels in class maps are classes of the model.

    ``maps`` are those of :func:`find_class_maps`; ``limit`` is the number of
    maps to read of each data set, at even distances (None is all).
    """
    if not maps:
        return
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    heads = [m for m in model.modules() if isinstance(m, BaseDecodeHead)]
    if not heads:
        return
    number = min(head.num_classes for head in heads)
    for where, dataset in maps.items():
        stage = where.partition('_')[0]
        ignored = {head.ignore_index for head in heads}
        if stage != 'train':
            found = evaluators(cfg, stage).values()
            ignored = {e.get('ignore_index', 255) for e in found}
        yield from _check(where, dataset, number, ignored, limit)


def _check(
    where: str,
    dataset: Any,
    number: int,
    ignored: set[int],
    limit: int | None,
) -> Iterator[Finding]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [info['seg_map_path'] for info in infos]
    if absent := [path for path in paths if not os.path.isfile(path)]:
        yield Finding(
            ERROR,
            'class maps',
            where,
            f'{len(absent)} of {count(len(infos), "image")} have no class '
            f'map: {some(absent, 3)}',
            f'Add them, or list the other images in {where}.ann_file.',
            count=len(absent),
        )
        infos = [i for i in infos if os.path.isfile(i['seg_map_path'])]
    last = len(infos) - 1
    at = np.linspace(0, last, min(limit or last + 1, last + 1)).round()
    total = count(len(at), 'class map')
    wrong: dict[str, list[int]] = {}
    problems = []
    for info in (infos[int(i)] for i in at):
        path, size = info['seg_map_path'], None
        try:
            with Image.open(path) as image:
                raw = np.asarray(image)
        except Exception as error:  # its type depends on the format
            problems.append(f'{path} cannot be read: {error}')
            continue
        # Images of other formats have loaders of their own.
        with contextlib.suppress(Exception):
            size = shown_size(Path(info['img_path']))
        if raw.ndim > 2:
            problems.append(
                f'{path} is a picture of {raw.shape[2]} channels, not a map '
                'of class numbers'
            )
        elif raw.max() > 255:
            problems.append(
                f'{path} has label {raw.max()}, and labels above 255 are '
                'taken modulo 256'
            )
        elif size not in (None, raw.shape[::-1]):
            problems.append(
                f'{path} is {raw.shape[1]} x {raw.shape[0]}, and its image '
                f'{size[0]} x {size[1]} as OpenCV reads it'
            )
        else:
            labels = np.unique(dataset.pipeline(info)['gt_seg_map']).tolist()
            if bad := [v for v in labels if v >= number and v not in ignored]:
                wrong[path] = bad
    if problems:
        yield Finding(
            ERROR,
            'class maps',
            where,
            f'{len(problems)} of {total} cannot be used: {some(problems, 3)}',
            'Write PNG files of one channel with 8 bits, one number for each '
            'pixel of the image.',
            count=len(problems),
        )
    if wrong:
        every = sorted({v for bad in wrong.values() for v in bad})
        yield Finding(
            ERROR,
            'class maps',
            where,
            f'{len(wrong)} of {total} have labels that are no classes: '
            f'{some(every, 10)} (the first: {next(iter(wrong))}); the model '
            f'has {number} classes, 0 to {number - 1}, and ignores '
            f'{some(sorted(ignored))}',
            'Correct classes and num_classes, or write '
            f'{min(ignored, default=255)} for pixels that do not count. If '
            f'labels count from 1: --cfg-options {where}'
            '.reduce_zero_label=True.',
            count=len(wrong),
        )
