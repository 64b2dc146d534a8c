# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of evaluators: their options, and whether they fit the loader."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from itertools import combinations
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
        if not own:
            continue
        metrics = evaluators(cfg, stage)
        files = {
            f'{place}.ann_file': Path(file)
            for place, metric in metrics.items()
            if (file := metric.get('ann_file')) and '://' not in file
        }
        evaluator = cfg.get(f'{stage}_evaluator')
        if isinstance(evaluator, Mapping) and 'MultiDatasets' in str(
            evaluator.get('type')
        ):
            yield from _check_each([*metrics], files, own)
        elif len(own) == 1:
            for place, file in files.items():
                yield from _check_evaluator(place, file, own[0])
        else:
            yield from _check_several(files, own)
        yield from _check_tested(cfg, stage, own, bool(files))


def _check_each(
    places: list[str], files: dict[str, Path], splits: list[Split]
) -> Iterator[Finding]:
    """Checks several data sets that have a metric each, in their order."""
    if len(places) != len(splits):
        yield splits[0].error(
            'evaluator',
            f'MultiDatasetsEvaluator has {count(len(places), "metric")} for '
            f'{count(len(splits), "data set")}: mmdet fails after the last '
            'image',
            'Give a metric and one of dataset_prefixes for each data set, in '
            'their order.',
        )
        return
    for metric, split in zip(places, splits, strict=True):
        place = f'{metric}.ann_file'
        if place in files:
            yield from _check_evaluator(place, files[place], split)


def _check_evaluator(
    place: str, file: Path, split: Split
) -> Iterator[Finding]:
    used = split.ann_file
    if file.samefile(used) or filecmp.cmp(file, used, shallow=False):
        return
    theirs, ours = read_coco(file), read_coco(used)
    their_images, our_images = (
        {i['id']: Path(i['file_name']).stem for i in content['images']}
        for content in (theirs, ours)
    )
    their_names = used_names(theirs, split)
    our_names = used_names(ours, split)
    level = ERROR
    if their_images.keys() != our_images.keys():
        more = len(their_images.keys() - our_images.keys())
        problem = (
            f'{len(their_images)} images, and the detector is run on the '
            f'{len(our_images)} of {used}; '
        ) + (
            f'{more} would count as images without detections'
            if more
            else 'mmdet fails at detections on the others'
        )
    elif their_images != our_images:
        number, name = next(iter(their_images.items() - our_images.items()))
        problem = (
            f'other images than {used}: id {number} is {name} in one and '
            f'{our_images[number]} in the other'
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
    files: dict[str, Path], splits: list[Split]
) -> Iterator[Finding]:
    """Checks several data sets in one loader, which one metric evaluates."""
    contents = [read_coco(split.ann_file) for split in splits]
    ids = [{i['id'] for i in content['images']} for content in contents]
    alone = (
        'Test one data set at a time, or give each a metric: type='
        "'MultiDatasetsEvaluator', metrics=[...], dataset_prefixes=[...]."
    )
    for (one, mine), (other, theirs) in combinations(
        zip(splits, ids, strict=True), 2
    ):
        if shared := mine & theirs:
            yield other.error(
                'evaluator',
                f'{count(len(shared), "image id")} of {other.ann_file} '
                f'({some(sorted(shared), 3)}) occur in {one.ann_file} too. A '
                'metric tells images by their ids: the detections of both '
                'would count on the same image',
                alone,
                count=len(shared),
            )
            return
    for place, file in files.items():
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
            if (own := used_names(content, split)) != names:
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
        if where in by_name and has_file:
            yield from _check_part(by_name[where], dataset)
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


def _check_part(split: Split, dataset: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks what ``filter_cfg`` and ``indices`` leave of a data set."""
    indices, chosen = dataset.get('indices'), dataset.get('filter_cfg') or {}
    if dataset.get('test_mode'):
        chosen = {}
    if indices is None and not chosen:
        return
    content = read_coco(split.ann_file)
    used = {a['image_id'] for a in of_classes(content, split)}
    total = len(content['images'])
    kept = sum(
        (i['id'] in used or not chosen.get('filter_empty_gt'))
        and min(i['width'], i['height']) >= chosen.get('min_size', 0)
        for i in content['images']
    )
    yield from _few(split, total, kept, 'filter_cfg without test_mode')
    if isinstance(indices, int):
        yield from _few(split, kept, abs(indices), f'indices={indices}')
    elif indices is not None:
        part = {i % kept for i in indices if -kept <= i < kept}
        yield from _few(split, kept, len(part), f'indices={indices}')


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

    scope = cfg.get('default_scope', 'mmdet')
    kind = evaluator.get('type')
    if kind is None or not issubclass(
        find_class(kind, METRICS, scope, f'{place}.type'), CocoMetric
    ):
        return
    items = evaluator.get('metric_items') or ()
    if isinstance(items, str):
        raise UserError(
            f'{place}.metric_items is the string {items!r}, not a list',
            f"--cfg-options {place}.metric_items='[{items}]'",
        )
    kinds = evaluator.get('metric', 'bbox')
    kinds = kinds if isinstance(kinds, list | tuple) else [kinds]
    for key, words, known in (
        ('metric', kinds, _METRICS),
        ('metric_items', items, _METRIC_ITEMS),
    ):
        for word in words:
            if word not in known:
                raise UserError(
                    f'{place}.{key}: {word!r} is not known',
                    sentences(
                        did_you_mean(str(word), known),
                        f'CocoMetric has: {some(known, 12)}.',
                    ),
                )
    if {*kinds} <= {'proposal_fast'}:
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
    fixed = 'proposal' in kinds or any('@' in item for item in items)
    problem = ''
    if not good:
        problem = (
            'mmdet needs three numbers of detections, one of them 100; AP '
            'would be -1, or the test fail after the last image'
        )
    elif fixed and list(numbers) != [100, 300, 1000]:
        problem = (
            'mmdet writes the second number as AR@300 and the third as '
            'AR@1000, whatever they are'
        )
    if problem:
        raise UserError(
            f'{place}.proposal_nums is {numbers}: {problem}',
            f"--cfg-options {place}.proposal_nums='[100,300,1000]'",
        )
