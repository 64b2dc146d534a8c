# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes docs/model_zoo.md from the metafiles.

    python tools/dev/model_zoo.py

A test fails if the page is older than the metafiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'model_zoo.md'
HEAD = """\
<!-- Written by tools/dev/model_zoo.py from configs/*/metafile.yml. -->

# Model zoo

All configs with the cost of their models: all parameters, including frozen
ones, and the multiply-adds of one image of the given size. *Trained here* are
results of [results.md](results.md), which has the commands and limits;
*published* are results of others, often for another schedule or other weights
than those of the config, whose first lines have the details. Most configs are
not trained because COCO, ImageNet and ADE20K were not available. A *gain* is
the difference to the same detector without the method.

FLOPs are those of mmdet's plain forward pass: up to 1,000 proposals per image
in the box heads, and masks for 100 of them in Mask R-CNN, but for all of them
in Cascade Mask R-CNN. The prediction of a cascade computes 100 masks, which
takes about 1,430 G less than the table shows.
"""
TASKS = {
    'cascade-mask-rcnn': 'boxes, masks',
    'mask-rcnn': 'boxes, masks',
    'mask2former': 'boxes, masks',
    'rtmdet-ins-s': 'boxes, masks',
    'rtmdet-ins-tiny': 'boxes, masks',
    'faster-rcnn': 'boxes',
    'retinanet': 'boxes',
    'atss': 'boxes',
    'fcos': 'boxes',
    'tood': 'boxes',
    'rtmdet-s': 'boxes',
    'rtmdet-tiny': 'boxes',
    'dino-4scale': 'boxes',
    'deformable-detr-refine-twostage': 'boxes',
    'conditional-detr': 'boxes',
    'dab-detr': 'boxes',
    'upernet': 'semantic',
    'fpn': 'semantic',
}
COLUMNS = (
    'config',
    'task',
    'parameters',
    'FLOPs',
    'trained here',
    'published',
)


def render(root: Path = ROOT) -> str:
    """Returns the page: one table per metafile, in the order of the index."""
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    return '\n'.join([HEAD, *(_family(root / f) for f in index['Import'])])


def _family(metafile: Path) -> str:
    content = yaml.safe_load(metafile.read_text())
    (collection,) = content['Collections']
    lines = [
        f'## {collection["Name"]}',
        '',
        f'[{collection["README"]}](../{collection["README"]})',
        '',
        _row(COLUMNS),
        _row(['---'] * len(COLUMNS)),
        *(_row(_cells(model)) for model in content['Models']),
        '',
    ]
    return '\n'.join(lines)


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f'| {" | ".join(cells)} |'


def _cells(model: dict) -> list[str]:
    name, cost = model['Name'], model['Metadata']
    flops = 'not counted'
    if 'FLOPs' in cost:
        flops = f'{cost["FLOPs"] / 1e9:.4g} G at {cost["Resolution"]}'
    results = model.get('Results', [])
    ours = [r for r in results if r['Source'].startswith('docs/')]
    others = [r for r in results if r not in ours]
    return [
        f'[{name}](../{model["Config"]})',
        TASKS.get(name.split('_')[0], 'classes'),
        f'{cost["Parameters"] / 1e6:.2f} M',
        flops,
        _describe(ours, 'Dataset') or 'not trained',
        _describe(others, 'Source') or '-',
    ]


def _describe(results: list[dict], key: str) -> str:
    """Returns ``box AP 33.8, mask AP 31.9 (source)``."""
    values: dict[str, list[str]] = {}
    for result in results:
        for metric, value in result['Metrics'].items():
            values.setdefault(result[key], []).append(f'{metric} {value}')
    return '; '.join(f'{", ".join(v)} ({k})' for k, v in values.items())


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    PAGE.write_text(render(), encoding='utf-8')
