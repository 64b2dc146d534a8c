# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains Faster R-CNN with every backbone on the generated shapes.

    python benchmarks/shapes_ap.py [--only DWNet GMLP] [--target 0.3]

Each backbone replaces the ResNet-18 of the demo and starts from random
weights. The neck (a SimpleFeaturePyramid if the backbone has one resolution),
heads and schedule are those of the demo. Training is in bf16 and ends when the
AP on the validation images exceeds the target, or with the last epoch.
Finished runs are not repeated. The table is written to
benchmarks/results/shapes_ap.md, the runs to work_dirs/shapes_ap.

The table shows whether a backbone trains, not which is better: there are one
seed, one learning rate and a few hundred images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.engine.launch import build_runner
from mmext.engine.mixed_precision import set_amp
from mmext.evaluation.report.table import Table
from mmext.models.build import build_model
from mmext.utils.text import duration

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py'


def plugin_resnet(attention: str) -> dict:
    """ResNet-50 with an attention layer at the end of every block."""
    plugin = {'cfg': {'type': attention}, 'position': 'after_conv3'}
    return {
        'type': 'PluginResNet',
        'depth': 50,
        'norm_eval': False,
        'plugins': [plugin],
    }


def dwnet(**kwargs: object) -> dict:
    """DWNet-tiny with BN, because SyncBN needs several GPUs."""
    return {'type': 'DWNet', 'arch': 'tiny', 'norm_cfg': {'type': 'BN'}} | (
        kwargs
    )


BACKBONES = {
    'StarNet-s1': {'type': 'StarNet', 'arch': 's1'},
    'StarNet-s4': {'type': 'StarNet', 'arch': 's4'},
    'DemoNet-d12-w192': {
        'type': 'DemoNet',
        'depth': 12,
        'embed_dims': 192,
    },
    'GMLP-tiny': {'type': 'GMLP', 'arch': 'tiny'},
    'DWNet-tiny': dwnet(),
    'DWNet-tiny homogeneous': dwnet(dynamic='homogeneous'),
    'DWNet-tiny inhomogeneous': dwnet(dynamic='inhomogeneous'),
    'StepNet-ResNet-50': {
        'type': 'StepNetResNet',
        'depth': 50,
        'norm_eval': False,
    },
    'SE-ResNet-50': plugin_resnet('SEAttention'),
    'ECA-ResNet-50': plugin_resnet('ECAAttention'),
    'FCA-ResNet-50': plugin_resnet('FCAAttention'),
    'SRM-ResNet-50': plugin_resnet('SRMAttention'),
}


@HOOKS.register_module()
class StopAtTarget(Hook):
    """Ends the training when the validation AP exceeds a target."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.history: list[float] = []

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        ap = next(v for k, v in metrics.items() if k.endswith('bbox_mAP'))
        self.history.append(ap)
        print(f'  epoch {runner.epoch}: AP {100 * ap:.1f}', flush=True)
        runner.train_loop.stop_training = ap > self.target


def config(backbone: dict, args: argparse.Namespace) -> Config:
    """Returns the config of the demo with another backbone."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone = backbone
    out_channels = build_model(backbone).out_channels
    if len(out_channels) == 1:
        cfg.model.neck = {
            'type': 'SimpleFeaturePyramid',
            'out_channels': 64,
            'num_outs': 4,
        }
    cfg.model.neck.in_channels = list(out_channels)
    cfg.train_cfg.max_epochs = args.epochs
    cfg.train_cfg.val_interval = 1
    cfg.param_scheduler[1].T_max = args.epochs
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': -1}
    cfg.custom_hooks = [{'type': 'StopAtTarget', 'target': args.target}]
    set_amp(cfg)
    return cfg


def train(name: str, args: argparse.Namespace) -> dict:
    """Trains one backbone, or reads its result if it is finished."""
    work_dir = args.work_dir / name.replace(' ', '-').lower()
    result = work_dir / 'result.json'
    if result.is_file():
        return json.loads(result.read_text(encoding='utf-8'))
    cfg = config(BACKBONES[name], args)
    cfg.work_dir = str(work_dir)
    print(f'{name}, at most {args.epochs} epochs', flush=True)
    start = time.perf_counter()
    runner = build_runner(cfg)
    runner.train()
    hook = next(h for h in runner.hooks if isinstance(h, StopAtTarget))
    row = {
        'backbone': name,
        'parameters': sum(
            p.numel() for p in runner.model.backbone.parameters()
        ),
        'ap': hook.history,
        'seconds': time.perf_counter() - start,
        'threads': torch.get_num_threads(),
    }
    result.write_text(json.dumps(row), encoding='utf-8')
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', metavar='BACKBONE')
    parser.add_argument('--target', type=float, default=0.3)
    parser.add_argument('--epochs', type=int, default=12)
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs/shapes_ap'
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'benchmarks/results/shapes_ap.md'
    )
    args = parser.parse_args()
    only = [o.lower() for o in args.only or ['']]
    names = [n for n in BACKBONES if any(o in n.lower() for o in only)]
    if not names:
        parser.error(f'--only: none of {", ".join(BACKBONES)}')
    rows = [train(name, args) for name in names]
    table = Table(
        header=('backbone', 'parameters', 'epochs', 'AP by epoch', 'time'),
        rows=[
            (
                row['backbone'],
                f'{row["parameters"] / 1e6:.1f} M',
                str(len(row['ap'])),
                ', '.join(f'{100 * ap:.1f}' for ap in row['ap']),
                f'{duration(row["seconds"])}, {row["threads"]} threads',
            )
            for row in rows
        ],
    )
    print(table.text())
    if not args.only:
        args.out.write_text(table.markdown() + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
