# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares MMDetection's models with compiled ops and with mmext's.

    python tests/mmcv_ext/survey.py run compiled.json  # with compiled ops
    python tests/mmcv_ext/survey.py run mmext.json     # without
    python tests/mmcv_ext/survey.py compare compiled.json mmext.json

``run`` takes one config of each family of the installed mmdet, or of those
named by ``--only``, narrowed as in test_detectors.py, with fixed random
weights on the CPU, and records the losses, the norm of the gradient and the
predictions. It resumes an interrupted run. ``compare`` prints the largest
relative differences, and the families that fail with one kind of ops only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from test_detectors import CONFIGS, build, narrow, predict, train_step

import mmext  # noqa: F401

# isort: split
import mmcv
from mmdet.testing import demo_mm_inputs
from torch.nn.utils import get_total_norm

# Data, trackers, video, language models and teachers are not trained here.
OTHERS = [
    '_base_',
    'albu_example',
    'bytetrack',
    'cityscapes',
    'common',
    'deepsort',
    'dsdl',
    'ocsort',
    'qdtrack',
    'reid',
    'sort',
    'strongsort',
    'masktrack_rcnn',
    'mask2former_vis',
    'glip',
    'grounding_dino',
    'mm_grounding_dino',
    'selfsup_pretrain',
    'soft_teacher',
    'timm_example',
]
SEMANTIC = ('panoptic', 'htc', 'scnet', 'detectors', 'maskformer')


def families() -> dict[str, Path]:
    """Returns one config per family, with a ResNet-50 if there is one."""
    chosen = {}
    for folder in sorted(CONFIGS.iterdir()):
        files = [f for f in folder.glob('*.py') if 'tta' not in f.name]
        if files and folder.name not in OTHERS:
            chosen[folder.name] = min(
                files, key=lambda f: ('r50' not in f.name, len(f.name), f.name)
            )
    return chosen


def without_weights(cfg: Any) -> None:
    """Removes all pre-trained checkpoints, which would be downloaded."""
    if isinstance(cfg, dict):
        cfg.pop('pretrained', None)
        if isinstance(cfg.get('init_cfg'), dict) and (
            cfg['init_cfg'].get('type') == 'Pretrained'
        ):
            cfg.pop('init_cfg')
        for value in list(cfg.values()):
            without_weights(value)
    elif isinstance(cfg, list | tuple):
        for value in cfg:
            without_weights(value)


def class_counts(cfg: Any) -> Iterator[int]:
    """Yields each ``num_classes`` in a config."""
    values = cfg
    if isinstance(cfg, dict):
        if isinstance(cfg.get('num_classes'), int):
            yield cfg['num_classes']
        values = cfg.values()
    if isinstance(cfg, dict | list | tuple):
        for value in values:
            yield from class_counts(value)


def measure(path: Path, shrink: bool) -> dict[str, float]:
    """Returns losses, the norm of the gradient and sums of predictions.

    Args:
        path: The config.
        shrink: Whether to narrow the model.
    """
    cfg: ConfigDict = Config.fromfile(path).model
    if shrink:
        cfg = narrow(cfg)
    without_weights(cfg)
    name = f'{path.parent.name}/{path.stem}'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build(cfg)
        data = demo_mm_inputs(
            2,
            [(3, 128, 160)] * 2 if shrink else [(3, 320, 320)] * 2,
            [2, 3],
            min(class_counts(cfg), default=80),
            with_mask=True,
            with_semantic=any(word in name for word in SEMANTIC),
        )
        _, parts = train_step(model, data)
        found = {key: float(value) for key, value in parts.items()}
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found['norm of the gradient'] = float(get_total_norm(grads))
        result = predict(model, data)
    if 'pred_instances' in result:
        instances = result.pred_instances
        found['boxes'] = len(instances)
        found['sum of the scores'] = float(instances.scores.sum())
        found['sum of the boxes'] = float(instances.bboxes.abs().sum())
    return found


def run(out: Path, only: list[str], full: bool) -> None:
    """Adds the missing families to a JSON file."""
    found = json.loads(out.read_text()) if out.exists() else {}
    compiled = not hasattr(mmcv._ext, '__path__')
    print(f'ops: {"compiled" if compiled else "of mmext"}')
    chosen = families()
    for i, (family, path) in enumerate(chosen.items(), 1):
        if family in found or (only and family not in only):
            continue
        # Models that cannot be narrowed run at their own size.
        for shrink in (False,) if full else (True, False):
            try:
                found[family] = measure(path, shrink)
                break
            except Exception as error:  # noqa: BLE001  # compared
                message = str(error).strip().splitlines() or ['']
                found[family] = f'{type(error).__name__}: {message[0][:120]}'
        text = found[family]
        if isinstance(text, dict):
            text = f'loss {text["loss"]:.4g}'
        print(f'[{i}/{len(chosen)}] {path.stem}: {text}', flush=True)
        out.write_text(json.dumps(found, indent=1))


def difference(a: dict[str, float], b: dict[str, float]) -> float:
    """Returns the largest relative difference of two sets of numbers."""
    if a.keys() != b.keys():
        return float('inf')
    largest = 0.0
    for x, y in ((a[key], b[key]) for key in a):
        both_nan = x != x and y != y
        if x != y and not both_nan:
            scale = max(abs(x), abs(y), 1e-6)
            largest = max(largest, abs(x - y) / scale)
    return largest


def compare(one: Path, other: Path) -> None:
    """Prints a Markdown table, the largest difference first."""
    a, b = json.loads(one.read_text()), json.loads(other.read_text())
    rows, failed = [], []
    for family in sorted(a.keys() | b.keys()):
        x, y = a.get(family, 'not run'), b.get(family, 'not run')
        if isinstance(x, dict) and isinstance(y, dict):
            rows.append((difference(x, y), family))
        else:
            ends = ['runs' if isinstance(z, dict) else z for z in (x, y)]
            failed.append((family, *ends))
    print(f'{len(rows)} families run with both.\n')
    print('| family | largest relative difference |\n| --- | --- |')
    for value, family in sorted(rows, reverse=True):
        print(f'| {family} | {value:.1e} |')
    print(f'\n| family | {one.stem} | {other.stem} |\n| --- | --- | --- |')
    for family, x, y in failed:
        print(f'| {family} | {x} | {y} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    running = commands.add_parser('run')
    running.add_argument('out', type=Path)
    running.add_argument('--only', nargs='+', default=[])
    running.add_argument('--full', action='store_true', help='no narrowing')
    comparing = commands.add_parser('compare')
    comparing.add_argument('one', type=Path)
    comparing.add_argument('other', type=Path)
    args = parser.parse_args()
    if args.command == 'run':
        run(args.out, args.only, args.full)
    else:
        compare(args.one, args.other)


if __name__ == '__main__':
    main()
