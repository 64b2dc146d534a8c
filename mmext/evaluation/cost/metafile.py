# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Metafiles of configs: what a model costs comes from the model itself.

A ``metafile.yml`` lists the configs of its folder, as MIM reads them.
Parameters and FLOPs are filled in here; results stay as a person wrote them,
only where a model was trained or a figure was published.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from mmengine.config import Config

from mmext.evaluation.cost.complexity import Complexity, config_complexity
from mmext.evaluation.cost.complexity import test_shape as detection_shape

HEADER = (
    '# Parameters and FLOPs (multiply-adds of one image of the given size)\n'
    '# are written by tools/analysis_tools/get_flops.py --metafile.\n'
)


def input_shape(cfg: Config) -> tuple[int, int]:
    """Height and width, in pixels, that a config's cost is counted at.

    Detection: the test pipeline's size. Segmentation: the crop it trains on.
    Classification: the centre crop, or the size it resizes to.
    """
    scope = cfg.get('default_scope', 'mmdet')
    if scope == 'mmseg':
        return tuple(cfg.model.data_preprocessor.size)
    if scope == 'mmpretrain':
        for step in cfg.test_dataloader.dataset.pipeline:
            if step['type'] == 'CenterCrop':
                return step['crop_size'], step['crop_size']
        return detection_shape(cfg)
    return detection_shape(cfg)


def measure(config: str | Path) -> Complexity:
    """Parameters and multiply-adds of a config's model, for one image."""
    cfg = Config.fromfile(config)
    return config_complexity(cfg, input_shape(cfg))


def leaf_configs(folder: Path) -> list[Path]:
    """The configs of a folder, bases left out, by name."""
    return sorted(p for p in folder.rglob('*.py') if '_base_' not in p.parts)


def update_entry(entry: dict, cost: Complexity) -> None:
    """Writes a measured cost into one model's entry."""
    metadata = entry.setdefault('Metadata', {})
    metadata['Parameters'] = cost.params
    metadata.pop('FLOPs', None)
    metadata.pop('Resolution', None)
    if cost.flops is not None:
        metadata['FLOPs'] = cost.flops
        metadata['Resolution'] = f'{cost.shape[1]}x{cost.shape[0]}'


def read_metafile(folder: Path) -> dict:
    """A folder's metafile; one with a bare collection where there is none."""
    path = folder / 'metafile.yml'
    content = yaml.safe_load(path.read_text()) if path.is_file() else None
    return content or {'Collections': [{'Name': folder.name}], 'Models': []}


def write_metafile(folder: Path, content: dict) -> None:
    """Writes a folder's metafile, models in the order of their names."""
    content['Models'].sort(key=lambda entry: entry['Name'])
    text = yaml.safe_dump(content, sort_keys=False, width=79)
    (folder / 'metafile.yml').write_text(HEADER + text)


def entry_of(content: dict, config: Path, root: Path) -> dict:
    """A config's entry in a metafile's content, made if need be."""
    for entry in content['Models']:
        if entry['Name'] == config.stem:
            return entry
    entry = {
        'Name': config.stem,
        'In Collection': content['Collections'][0]['Name'],
        'Config': str(config.relative_to(root)),
    }
    content['Models'].append(entry)
    return entry
