# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the files of a data set, and makes a config use them.

A folder has annotations of two splits and their images, in COCO's format::

    annotations/instances_train.json    train/*.jpg
    annotations/instances_val.json      val/*.jpg

or in another layout or format that :mod:`mmext.datasets.converters` reads. In
that case annotations in COCO's format are written into mmext's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmext.checks.annotations import check_files
from mmext.checks.classes import check_classes, unused_root
from mmext.checks.findings import Split, require
from mmext.checks.images import check_presence, image_paths
from mmext.checks.splits import check_order
from mmext.datasets.coco import read_coco
from mmext.datasets.converters.coco import find_coco, image_folder, json_files
from mmext.datasets.converters.common import Converted, is_converted
from mmext.datasets.converters.folder import SPLITS, format_of, read_folder
from mmext.errors import UserError, printable
from mmext.utils.files import write_json
from mmext.utils.images import files_in
from mmext.utils.machine import cache_dir

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


@dataclass(frozen=True)
class CocoFolder:
    """A data set: split -> annotation file, image folder, number of images.

    Paths are absolute; the order of the classes is that of the labels.
    """

    classes: tuple[str, ...]
    ann_files: dict[str, str]
    img_dirs: dict[str, str]
    num_images: dict[str, int]


def use_data_folder(
    cfg: Config, data: str | Path, classes: Sequence[str] | None = None
) -> None:
    """Makes a detection config train and evaluate on a folder, in place.

    ``data`` holds annotations of COCO, YOLO or VOC. Every annotation must
    have a mask if the config loads or evaluates masks. See
    :func:`find_coco_folder` and :func:`use_coco_folder`.
    """
    if cfg.get('default_scope', 'mmdet') != 'mmdet':
        raise UserError(
            'only detection configs can be trained on a folder of boxes, '
            f'and this one is for {cfg.default_scope}',
            'Set the paths and class names in the config.',
        )
    folder = find_coco_folder(data, classes, _needs_masks(cfg))
    use_coco_folder(cfg, folder)


def find_coco_folder(
    root: str | Path, classes: Sequence[str] | None = None, masks: bool = False
) -> CocoFolder:
    """Finds the files of a data set and checks the annotations.

    ``classes`` are the categories to use, in any order (None is all);
    ``masks`` requires a mask of every annotation. Raises `UserError` if the
    folder, a file in it or its content is not what training needs.
    """
    splits, contents = find_folder_splits(root, classes, masks)
    findings = list(check_order(*splits, contents))
    for split in splits:
        content = contents[split.name]
        findings += check_files(content, split)
        findings += check_presence(image_paths(content, split), split)[0]
        findings += check_classes(content, split)
    require(findings)
    return CocoFolder(
        classes=splits[0].classes,
        ann_files={s.name: str(s.ann_file) for s in splits},
        img_dirs={s.name: str(s.img_dir) for s in splits},
        num_images={n: len(c['images']) for n, c in contents.items()},
    )


def find_folder_splits(
    root: str | Path, classes: Sequence[str] | None = None, masks: bool = False
) -> tuple[list[Split], dict[str, dict[str, Any]]]:
    """Returns the splits and their annotations without checking them.

    ``root`` is a folder, or the YAML file of a YOLO data set. Annotations of
    other formats are converted, and how they were read is printed. Raises
    `UserError` if there are none.
    """
    root = Path(root).expanduser().absolute()
    kind = format_of(root)
    files = find_coco(root) if kind == 'coco' else {}
    if {*SPLITS} <= files.keys():
        base = root
        contents, img_dirs = {}, {}
        for name in SPLITS:
            content = read_coco(files[name], repeated_names=True)
            img_dirs[name] = root / name
            # The checks report images that are missing, and more.
            with suppress(UserError):
                img_dirs[name] = image_folder(root, files[name], name, content)
            contents[name] = content
        if is_converted(contents['train']):
            _warn_if_old(root, files)
    else:
        converted = read_folder(root, kind)
        base, contents = converted.base, converted.contents
        files = _write_to_cache(converted, root)
        img_dirs = dict.fromkeys(SPLITS, base)
        _print(f'{root}: {kind.upper()} annotations, read as COCO')
        for note in converted.notes:
            _print(f'note: {note}')
    train = contents['train']
    added = unused_root(train, *contents.values())  # by Roboflow
    names = [c['name'] for c in train['categories'] if c is not added]
    if classes is None:
        classes = names
    # In the order of their labels; unknown ones are reported later.
    known = [name for name in names if name in classes]
    unknown = [name for name in classes if name not in names]
    splits = [
        Split(
            name=name,
            ann_file=files[name],
            img_dir=img_dirs[name],
            classes=(*known, *unknown),
            masks=masks,
            training=name == 'train',
            filter_empty=name == 'train',
            min_size=int(name == 'train'),
            root=base,
        )
        for name in SPLITS
    ]
    return splits, contents


def _print(text: str) -> None:
    """Prints in the first of several processes."""
    if os.environ.get('RANK', '0') == '0':
        print(printable(text))


def _write_to_cache(converted: Converted, root: Path) -> dict[str, Path]:
    """Writes annotation files, whose folder depends on what they hold.

    So a run keeps its annotations after the folder has changed.
    """
    content = json.dumps([str(converted.base), converted.contents])
    digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
    folder = cache_dir() / 'data' / f'{root.stem}-{digest}'
    files = {name: folder / f'instances_{name}.json' for name in SPLITS}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            if not file.exists():
                write_json(file, converted.contents[name])
    except OSError as error:
        raise UserError(
            f'annotations of {root} cannot be written to {folder}: {error}',
            f'mmext convert {root} --out DIR, and use DIR.',
        ) from error
    return files


def _warn_if_old(root: Path, files: Mapping[str, Path]) -> None:
    """Warns if labels were changed after mmext had converted them."""
    written = files['train'].stat().st_mtime
    sources = {*json_files(root)} - {*files.values()}
    for path in files_in(root):
        is_label = path.suffix.lower() in ('.txt', '.xml', '.yaml')
        changed = path.stat().st_mtime > written
        if changed and (is_label or path in sources):
            _print(
                f'warning: {path} is newer than {files["train"]}, which was '
                f'converted from it and is used.\n  -> mmext convert {root} '
                'converts again.'
            )
            return


def use_coco_folder(cfg: Config, folder: CocoFolder) -> None:
    """Makes a detection config train and evaluate on a folder, in place.

    The data sets become mmdet's ``CocoDataset`` with the pipelines and the
    wrappers (``RepeatDataset``, ...) that they had, the evaluators read the
    folder's annotations, and every ``num_classes`` of the model becomes the
    number of its classes. Raises `UserError` if a loader has several data
    sets.
    """
    from mmengine.config import ConfigDict

    from mmext.utils.config import evaluators

    for key, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        new = ConfigDict(
            type='CocoDataset',
            ann_file=folder.ann_files[split],
            data_prefix={'img': folder.img_dirs[split]},
            metainfo={'classes': folder.classes},
            test_mode=split == 'val',
        )
        if key == 'train':
            new.filter_cfg = ConfigDict(filter_empty_gt=True, min_size=1)
        loader = cfg[f'{key}_dataloader']
        loader.dataset = _replaced(loader.dataset, new)
    for stage in ('val', 'test'):
        metric = next(iter(evaluators(cfg, stage).values()))
        cfg[f'{stage}_evaluator'] = ConfigDict(
            type='CocoMetric',
            ann_file=folder.ann_files['val'],
            metric=metric.get('metric', 'bbox'),
        )
    _set_num_classes(cfg.model, len(folder.classes))


def _replaced(old: ConfigDict, new: ConfigDict) -> ConfigDict:
    """Returns ``new`` with the pipeline and in the wrappers of ``old``."""
    from mmengine.config import ConfigDict

    if 'dataset' in old:
        return ConfigDict({**old, 'dataset': _replaced(old.dataset, new)})
    if 'pipeline' not in old:
        raise UserError(
            f'a data set of type {old.type} has no pipeline of its own',
            'Use a config with one data set in each loader.',
        )
    kept = {k: old[k] for k in ('pipeline', 'indices') if k in old}
    return ConfigDict({**new, **kept})


def _needs_masks(cfg: Config) -> bool:
    from mmext.utils.config import evaluates_masks

    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    steps = dataset.get('pipeline', ())
    return evaluates_masks(cfg, 'val') or any(
        step.get('with_mask') for step in steps
    )


def _set_num_classes(model: Any, num_classes: int) -> None:
    """Sets every ``num_classes`` of a model's config except the RPN's."""
    if isinstance(model, list | tuple):
        for part in model:
            _set_num_classes(part, num_classes)
    elif isinstance(model, Mapping):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = num_classes
            elif key != 'rpn_head':
                _set_num_classes(value, num_classes)
