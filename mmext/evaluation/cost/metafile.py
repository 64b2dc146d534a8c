# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes the cost of models into the metafiles of their configs.

A ``metafile.yml`` lists the configs of its folder for MIM. Parameters and
FLOPs are measured here. Results are written by hand, for models that were
trained or whose results were published.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from mmengine.config import Config

from mmext.evaluation.cost.complexity import (
    Complexity,
    config_complexity,
    detection_shape,
)
from mmext.utils.files import replacing

HEADER = (
    '# Parameters and FLOPs (multiply-adds of one image of the given size)\n'
    '# are written by tools/analysis_tools/get_flops.py --metafile.\n'
)


def input_shape(cfg: Config) -> tuple[int, int]:
    """Returns the height and width at which the cost is counted, in pixels.

    For detection they are those of the test pipeline, for segmentation those
    of the crops in training, for classification those of the centre crop, or
    of the resized image if there is no crop.
    """
    scope = cfg.get('default_scope', 'mmdet')
    if scope == 'mmseg':
        return tuple(cfg.model.data_preprocessor.size)
    if scope == 'mmpretrain':
        for step in cfg.test_dataloader.dataset.pipeline:
            if step['type'] == 'CenterCrop':
                return step['crop_size'], step['crop_size']
    return detection_shape(cfg)


def measure(config: str | Path) -> Complexity:
    """Counts parameters and multiply-adds of a config's model."""
    cfg = Config.fromfile(config)
    return config_complexity(cfg, input_shape(cfg))


def leaf_configs(folder: Path) -> list[Path]:
    """Returns the configs of a folder in order of names, without bases."""
    return sorted(p for p in folder.rglob('*.py') if '_base_' not in p.parts)


def write_cost(config: Path, cost: Complexity, root: Path) -> None:
    """Writes a measured cost into the metafile of a config's folder.

    The metafile and the entry are made if they do not exist; models are in
    order of their names.

    Args:
        config: Absolute path of the config.
        cost: Of the config's model.
        root: Root of the repository.
    """
    file = config.parent / 'metafile.yml'
    content = yaml.safe_load(file.read_text()) if file.is_file() else None
    if not content:
        collection = {'Name': config.parent.name}
        content = {'Collections': [collection], 'Models': []}
    entries = {entry['Name']: entry for entry in content['Models']}
    new = {
        'Name': config.stem,
        'In Collection': content['Collections'][0]['Name'],
        'Config': str(config.relative_to(root)),
    }
    entry = entries.setdefault(config.stem, new)
    metadata = entry.setdefault('Metadata', {})
    metadata['Parameters'] = cost.params
    metadata.pop('FLOPs', None)
    metadata.pop('Resolution', None)
    if cost.flops is not None:
        metadata['FLOPs'] = cost.flops
        metadata['Resolution'] = f'{cost.shape[1]}x{cost.shape[0]}'
    content['Models'] = [entries[name] for name in sorted(entries)]
    text = yaml.safe_dump(content, sort_keys=False, width=79)
    with replacing(file) as part:
        part.write_text(HEADER + text)
