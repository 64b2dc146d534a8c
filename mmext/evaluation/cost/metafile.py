# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes the cost of models into the metafiles of their configs.

A ``metafile.yml`` lists the configs of its folder for MIM. Parameters and
FLOPs are measured here. Results are written by hand, for models that were
trained or whose results were published.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mmext.evaluation.cost.complexity import Complexity
from mmext.utils.files import replacing

HEADER = (
    '# Parameters and FLOPs (multiply-adds of one image of the given size)\n'
    '# are written by tools/analysis_tools/get_flops.py --metafile.\n'
)


def write_cost(config: Path, cost: Complexity, root: Path) -> None:
    """Writes a measured cost into the metafile of a config's folder.

    ``config`` is an absolute path, ``root`` the folder of the repository.
    """
    file = config.parent / 'metafile.yml'
    content = {'Collections': [{'Name': config.parent.name}], 'Models': []}
    if file.is_file():
        content = yaml.safe_load(file.read_text()) or content
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
