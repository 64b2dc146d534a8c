# Licensed under the Apache License, Version 2.0. See LICENSE.
"""AP of a model and of its exported file, on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.progress import track

from mmext.checks.classes import used_names
from mmext.checks.config import find_config_splits
from mmext.checks.images import image_paths
from mmext.datasets.coco import read_coco
from mmext.errors import UserError
from mmext.evaluation.compare import compare
from mmext.evaluation.report.report import Report
from mmext.export.detector import Run, detect
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


def test_images(cfg: Config, limit: int) -> Annotated:
    """Returns images of a config's test set, evenly spaced.

    Raises:
        UserError: The config has no COCO file to test on.
    """
    splits = find_config_splits(cfg, ('test',))
    if not splits:
        raise UserError(
            f'config {cfg.filename} tests on no COCO annotations',
            'Name images that the exported file is compared on: --images '
            'FOLDER.',
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
    eager: Run, exported: Run, prepare: Preparation, images: Annotated
) -> list[Report]:
    """Compares both by AP of boxes and, if they have them, of masks."""
    ids = [entry['id'] for entry in images.content['images']]
    known = {c['name']: c['id'] for c in images.content['categories']}
    categories = [known[name] for name in images.classes]
    with tempfile.TemporaryDirectory() as folder:
        ann = Path(folder, 'annotations.json')
        write_json(ann, images.content)
        files = []
        for name, run in (('model', eager), ('file', exported)):
            entries = []
            pairs = list(zip(images.paths, ids, strict=True))
            for path, image_id in track(pairs, f'AP of the {name}'):
                (found,) = detect(run, prepare, [path])
                entries += found.coco(image_id, categories)
            files.append(Path(folder, f'{name}.json'))
            write_json(files[-1], entries)
        kinds = ['bbox']
        if entries and 'segmentation' in entries[0]:
            kinds.append('segm')
        return [compare(files, ann=ann, iou_type=kind) for kind in kinds]
