# Licensed under the Apache License, Version 2.0. See LICENSE.
"""AP of a model and of its exported files, on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmext.checks.classes import used_names
from mmext.checks.config import find_config_splits
from mmext.checks.images import image_paths
from mmext.datasets.coco import read_coco
from mmext.errors import UserError
from mmext.evaluation.compare import compare
from mmext.evaluation.report.report import Report
from mmext.export.detections import Run
from mmext.export.detector import detect
from mmext.export.preparation import Preparation
from mmext.utils.files import write_json


@dataclass(frozen=True)
class Annotated:
    """Images with annotations.

    Args:
        paths: Their files.
        content: The COCO file, reduced to these images.
        classes: The name of each label.
    """

    paths: Sequence[Path]
    content: dict[str, Any]
    classes: Sequence[str]


def config_images(cfg: Config, stage: str, limit: int) -> Annotated:
    """Returns images of a config's ``'train'`` or ``'test'`` set, evenly.

    Raises:
        UserError: The config has no COCO file of this stage.
    """
    splits = find_config_splits(cfg, (stage,))
    if not splits:
        raise UserError(
            f'config {cfg.filename} has no COCO annotations in '
            f'{stage}_dataloader',
            'Name images that the exported file is compared on: --images '
            'FOLDER.'
            if stage == 'test'
            else 'Calibration of int8 needs training images: change '
            'train_dataloader, or omit int8.',
        )
    split = splits[0]
    content = read_coco(split.ann_file)
    entries = list(image_paths(content, split).items())
    count = min(limit, len(entries))
    chosen = [entries[i * len(entries) // count] for i in range(count)]
    ids = {entry['id'] for _, entry in chosen}
    reduced = {
        **content,
        'images': [entry for _, entry in chosen],
        'annotations': [
            a for a in content.get('annotations', ()) if a['image_id'] in ids
        ],
    }
    paths = [path for path, _ in chosen]
    return Annotated(paths, reduced, used_names(content, split))


def compare_ap(
    runs: Mapping[str, Run],
    prepare: Preparation,
    images: Annotated,
    progress: Callable[[str, float], None],
) -> list[Report]:
    """Compares the first run with the others by AP.

    One report is of boxes, and one of masks if there are any. ``progress`` is
    called with what is being done and the share that is done, from 0 to 1.
    """
    ids = [entry['id'] for entry in images.content['images']]
    known = {c['name']: c['id'] for c in images.content['categories']}
    categories = [known[name] for name in images.classes]
    with tempfile.TemporaryDirectory() as folder:
        ann = Path(folder, 'annotations.json')
        write_json(ann, images.content)
        files = []
        for n, (name, run) in enumerate(runs.items()):
            entries = []
            pairs = zip(images.paths, ids, strict=True)
            for i, (path, image_id) in enumerate(pairs):
                progress(f'AP of {name}', (n + i / len(ids)) / len(runs))
                (found,) = detect(run, prepare, [path])
                entries += found.coco(image_id, categories)
            files.append(Path(folder, f'{name}.json'))
            write_json(files[-1], entries)
        kinds = ['bbox']
        if entries and 'segmentation' in entries[0]:
            kinds.append('segm')
        return [compare(files, ann=ann, iou_type=kind) for kind in kinds]
