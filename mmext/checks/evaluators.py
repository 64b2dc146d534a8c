# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of evaluators: their options, and whether they fit the loader."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS

from mmext.checks.classes import of_classes, used_names
from mmext.checks.findings import ERROR, WARNING, Finding, Split
from mmext.checks.parts import datasets
from mmext.datasets.coco import read_coco
from mmext.errors import UserError, did_you_mean
from mmext.utils.config import evaluators
from mmext.utils.registries import find_class
from mmext.utils.text import count, sentences, some


def check_evaluators(cfg: Config, splits: list[Split]) -> Iterator[Finding]:
    """Checks that an evaluator uses the annotations that are loaded."""
    for stage in ('val', 'test'):
        own = [s for s in splits if s.name.startswith(f'{stage}_dataloader')]
        metrics = evaluators(cfg, stage)
        if not own or any('metrics' in e for e in metrics):
            continue  # MultiDatasetsEvaluator has a metric for each data set
        files = {e.get('ann_file') for e in metrics}
        files = {Path(f) for f in files if f and '://' not in f}
        place = f'{stage}_evaluator.ann_file'
        if len(own) == 1:
            for file in files:
                yield from _check_evaluator(place, file, own[0])
        else:
            yield from _check_several(place, files, own)
        yield from _check_tested(cfg, stage, own, bool(files))


def _check_evaluator(
    place: str, file: Path, split: Split
) -> Iterator[Finding]:
    used = split.ann_file
    if file.samefile(used) or filecmp.cmp(file, used, shallow=False):
        return
    theirs, ours = read_coco(file), read_coco(used)
    their_ids = {image['id'] for image in theirs['images']}
    our_ids = {image['id'] for image in ours['images']}
    their_names = used_names(theirs, split)
    our_names = used_names(ours, split)
    level = ERROR
    if their_ids != our_ids:
        problem = (
            f'{len(their_ids)} images, and the detector is run on the '
            f'{len(our_ids)} of {used}; {len(their_ids - our_ids)} would '
            'count as images without detections'
        )
    elif their_names != our_names:
        problem = (
            f'categories {some(their_names)}, and the data set '
            f'{some(our_names)}: labels are numbered by their order'
        )
    else:
        level = WARNING
        problem = f'the same images as {used}, but other annotations'
    yield split.finding(
        level,
        'evaluator',
        f'{place} ({file}) has {problem}',
        f'--cfg-options {place}={used}',
    )


def _check_several(
    place: str, files: set[Path], splits: list[Split]
) -> Iterator[Finding]:
    """Checks several data sets in one loader, which one metric evaluates."""
    contents = [read_coco(split.ann_file) for split in splits]
    ids = [{i['id'] for i in content['images']} for content in contents]
    alone = (
        'Test one data set at a time, or give each a metric: type='
        "'MultiDatasetsEvaluator', metrics=[...], dataset_prefixes=[...]."
    )
    for j, split in enumerate(splits):
        for i in range(j):
            shared = ids[i] & ids[j]
            if shared:
                yield split.error(
                    'evaluator',
                    f'{count(len(shared), "image id")} of {split.ann_file} '
                    f'({some(sorted(shared), 3)}) occur in '
                    f'{splits[i].ann_file} too. A metric tells images by '
                    'their ids: the detections of both would count on the '
                    'same image',
                    alone,
                    count=len(shared),
                )
                return
    for file in files:
        theirs = read_coco(file)
        missing = set().union(*ids) ^ {i['id'] for i in theirs['images']}
        names = used_names(theirs, splits[0])
        if missing:
            yield splits[0].error(
                'evaluator',
                f'{place} ({file}) and the {len(splits)} data sets that are '
                f'tested differ in {count(len(missing), "image")} (id '
                f'{some(sorted(missing), 3)})',
                f'Give a file with the images of all data sets. {alone}',
                count=len(missing),
            )
        for split, content in zip(splits, contents, strict=True):
            own = used_names(content, split)
            if own != names:
                yield split.error(
                    'evaluator',
                    f'{place} ({file}) has categories {some(names)}, and the '
                    f'data set {some(own)}: labels are numbered by their '
                    'order',
                    alone,
                )


def _check_tested(
    cfg: Config, stage: str, splits: list[Split], has_file: bool
) -> Iterator[Finding]:
    """Checks that the loader gives every image of the metric once."""
    place = f'{stage}_dataloader'
    loader = cfg[place]
    by_name = {split.name: split for split in splits}
    for where, dataset in datasets(loader.dataset, f'{place}.dataset'):
        kind = str(dataset.get('type')).rpartition('.')[-1]
        if kind in ('RepeatDataset', 'ClassBalancedDataset'):
            yield splits[0].error(
                'repeated images',
                f'{where} is a {kind}, which gives images several times. '
                'Their detections would count several times, too',
                'Use the data set that it wraps.',
            )
        if where not in by_name or not has_file:
            continue
        split = by_name[where]
        indices = dataset.get('indices')
        chosen = {} if dataset.get('test_mode') else dataset.get('filter_cfg')
        if indices is None and not chosen:
            continue
        images = read_coco(split.ann_file)['images']
        kept = _kept_by_filter(split, chosen or {})
        yield from _few(
            split,
            len(images),
            len(kept),
            'filter_cfg without test_mode',
        )
        if indices is not None:
            part = _part(kept, indices)
            yield from _few(split, len(kept), len(part), f'indices={indices}')
    drops, number = loader.get('drop_last'), loader.get('num_batch_per_epoch')
    if not has_file or not (drops or number):
        return
    total = sum(len(read_coco(s.ann_file)['images']) for s in splits)
    batch = loader.get('batch_size') or 1
    if drops:
        left = total - total % batch
        yield from _few(splits[0], total, left, 'drop_last')
    if number:
        left = min(total, batch * number)
        yield from _few(splits[0], total, left, 'num_batch_per_epoch')


def _kept_by_filter(split: Split, chosen: Mapping[str, Any]) -> list[int]:
    """Ids of the images that mmdet's ``filter_cfg`` leaves."""
    content = read_coco(split.ann_file)
    used = {a['image_id'] for a in of_classes(content, split)}
    least = chosen.get('min_size', 0)
    return [
        i['id']
        for i in content['images']
        if (not chosen.get('filter_empty_gt') or i['id'] in used)
        and min(i['width'], i['height']) >= least
    ]


def _part(ids: list[int], indices: Any) -> list[int]:
    if isinstance(indices, int):
        return ids[:indices] if indices >= 0 else ids[indices:]
    return [ids[i] for i in set(indices) if -len(ids) <= i < len(ids)]


def _few(split: Split, total: int, tested: int, why: str) -> Iterator[Finding]:
    if tested < total:
        yield split.warning(
            'images not tested',
            f'{why}: {tested} of {total} images are tested, and AP is that '
            'of all images of the annotation file. The objects of the others '
            'count as missed, and false detections on them do not count',
            'Test all images, or write an annotation file of the part.',
            count=total - tested,
        )


#: Parts of mmdet's metric names -> place in pycocotools' summary.
_METRIC_ITEMS = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000'),
)
_METRICS = ('bbox', 'segm', 'proposal', 'proposal_fast')


def require_metric_options(
    cfg: Config, place: str, evaluator: Mapping[str, Any]
) -> None:
    """Raises `UserError` for options with which ``CocoMetric`` fails.

    mmdet reads them after the last image: the test, or the first epoch, would
    be lost, or values would have the names of others.
    """
    from mmdet.evaluation import CocoMetric

    inner = evaluator.get('metrics') or ()  # as MultiDatasetsEvaluator has
    for i, metric in enumerate([inner] if isinstance(inner, dict) else inner):
        require_metric_options(cfg, f'{place}.metrics.{i}', metric)
    if inner:
        return
    scope = cfg.get('default_scope', 'mmdet')
    kind = evaluator.get('type')
    if kind is None or not issubclass(
        find_class(kind, METRICS, scope, f'{place}.type'), CocoMetric
    ):
        return
    for key, known in (('metric', _METRICS), ('metric_items', _METRIC_ITEMS)):
        value = evaluator.get(key)
        values = value if isinstance(value, list | tuple) else [value]
        if key == 'metric_items' and isinstance(value, str):
            raise UserError(
                f'{place}.{key} is the string {value!r}, not a list',
                f"--cfg-options {place}.{key}='[{value}]'",
            )
        for word in values if value is not None else ():
            if word not in known:
                raise UserError(
                    f'{place}.{key}: {word!r} is not known',
                    sentences(
                        did_you_mean(str(word), known),
                        f'CocoMetric has: {some(known, 12)}.',
                    ),
                )
    kinds = evaluator.get('metric', 'bbox')
    kinds = set(kinds if isinstance(kinds, list | tuple) else [kinds])
    if kinds <= {'proposal_fast'}:
        return
    if isinstance(evaluator.get('iou_thrs'), int | float | list | tuple):
        raise UserError(
            f'{place}.iou_thrs is {evaluator["iou_thrs"]}: mmdet computes '
            'AP, AP50 and AP75 of the thresholds 0.5, 0.55, ... 0.95 only, '
            'and fails with others after the last image',
            'Leave it out. AP50 is coco/bbox_mAP_50; mmext compare shows AP '
            'at each threshold.',
        )
    numbers = evaluator.get('proposal_nums', (100, 300, 1000))
    good = (
        isinstance(numbers, list | tuple)
        and len(numbers) == 3
        and all(type(n) is int and n > 0 for n in numbers)
        and 100 in numbers
    )
    items = evaluator.get('metric_items') or ()
    fixed = 'proposal' in kinds or any('@' in item for item in items)
    if not good or (fixed and list(numbers) != [100, 300, 1000]):
        raise UserError(
            f'{place}.proposal_nums is {numbers}: '
            + (
                'mmdet writes the second number as AR@300 and the third as '
                'AR@1000, whatever they are'
                if good
                else 'mmdet needs three numbers of detections, one of them '
                '100; AP would be -1, or the test fail after the last image'
            ),
            f"--cfg-options {place}.proposal_nums='[100,300,1000]'",
        )
