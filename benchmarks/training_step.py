# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares training steps of MMEngine's runner and of ``ReliableRunner``.

    python benchmarks/training_step.py [--models R50 ...] [--rounds 7]
    python benchmarks/training_step.py --out benchmarks/results

Both train the same detector on the same batch from the same weights. Their
steps, hooks included, take turns in one process; figures are medians. The
batch is noise with seven boxes an image, and the learning rate is tiny, so
that all steps do the same work. MMEngine's runner has no mixed precision on a
CPU. On a CPU one step of each is also profiled (:mod:`profile_parts`).

``--out`` adds the rows to training_step.json of that folder and writes its
table, training_step.md, and docs/images/training_step.png.

The steps of MMEngine's runner use torchvision's RoIAlign and NMS. They stand
for mmcv's compiled ones, which its wheel does not have.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmext  # before mmcv and mmdet: it provides mmcv._ext

# isort: split
import mmcv
import mmcv.ops
import mmdet
import torch
import torchvision
from guard_overhead import RandomImages
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import LOOPS, init_default_scope
from mmengine.runner import EpochBasedTrainLoop, Runner
from profile_parts import NAMES, named, seconds_by_part

from mmext.engine.runner import ReliableRunner
from mmext.errors import command
from mmext.utils.config import load_config
from mmext.utils.figures import color, new_figure, tidy
from mmext.utils.machine import processor
from mmext.utils.modules import unwrap
from mmext.utils.timing import in_turn, ratio

ROOT = Path(__file__).resolve().parents[1]
ZOO = Path(mmdet.__file__).parent / '.mim/configs'
MODELS = {
    'R50': ZOO / 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'StarNet-s1': ROOT.joinpath(
        'configs/starnet/faster-rcnn_starnet-s1_fpn_1x_coco.py'
    ),
    'DWNet-T': ROOT / 'configs/dwnet/faster-rcnn_dwnet-tiny_fpn_1x_coco.py',
    'RTMDet-tiny': ZOO / 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}
#: Name -> whether it is ours, and whether it has mixed precision.
SIDES = {
    'stock, float32': (False, False),
    'mmext, float32': (True, False),
    'stock, bfloat16': (False, True),
    'mmext, bfloat16': (True, True),
}
STOCK, OURS = [*SIDES][:2]


@LOOPS.register_module()
class Prepared(EpochBasedTrainLoop):
    """Prepares the run; the benchmark calls ``run_iter``."""

    def run(self) -> None:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()


class Losses(Hook):
    """Keeps what the last step logged."""

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        self.found = {k: float(v) for k, v in outputs.items() if 'loss' in k}


@contextmanager
def torchvision_nms() -> Iterator[None]:
    """Replaces mmext's NMS inside of the block; compiled ones stay."""
    if not hasattr(mmcv._ext, '__path__'):
        yield
        return
    before = mmcv._ext.nms

    def nms(
        bboxes: torch.Tensor,
        scores: torch.Tensor,
        iou_threshold: float,
        offset: int,
    ) -> torch.Tensor:
        return torchvision.ops.nms(bboxes, scores, iou_threshold)

    mmcv._ext.nms = named(nms, 'NMS')
    try:
        yield
    finally:
        mmcv._ext.nms = before


class Side:
    """A runner that is ready to train, and its batch."""

    def __init__(
        self, config: Path, side: str, batch: int, size: list[int]
    ) -> None:
        self.ours, amp = SIDES[side]
        cfg = load_config(config)
        init_default_scope('mmdet')
        cfg.model.backbone.pop('init_cfg', None)
        _adapt(cfg.model, torchvision_ops=not self.ours)
        cfg.optim_wrapper.optimizer.lr = 1e-9
        if amp:
            cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
        self.folder = tempfile.TemporaryDirectory()
        self.losses = Losses()
        self.runner = (ReliableRunner if self.ours else Runner)(
            model=cfg.model,
            work_dir=self.folder.name,
            train_dataloader={
                'batch_size': batch,
                'num_workers': 0,
                'dataset': RandomImages(batch, tuple(size)),
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'collate_fn': {'type': 'pseudo_collate'},
            },
            train_cfg={'type': 'Prepared', 'max_epochs': 1},
            optim_wrapper=cfg.optim_wrapper,
            default_hooks={
                'checkpoint': {
                    'type': 'CheckpointHook',
                    'interval': -1,
                    'save_last': False,
                }
            },
            custom_hooks=[self.losses],
            randomness={'seed': 0},
            default_scope='mmdet',
            log_level='ERROR',
            experiment_name=f'{config.stem}_{side}',
        )
        self.runner.train()
        self.batch = next(iter(self.runner.train_dataloader))

    def step(self) -> None:
        """Runs a step with the hooks of the run."""
        torch.manual_seed(0)  # the samplers draw
        loop = self.runner.train_loop
        if self.ours:
            loop.run_iter(0, self.batch)
            return
        with torchvision_nms():
            loop.run_iter(0, self.batch)

    def profile(self) -> dict[str, list[float]]:
        model = unwrap(self.runner.model)
        return seconds_by_part(self.step, model, self.runner.optim_wrapper)


def _adapt(cfg: Any, torchvision_ops: bool) -> None:
    """Makes a model train in one process, and on one class."""
    mmext_ops = hasattr(mmcv._ext, '__path__')
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, (ConfigDict, list, tuple)):
            _adapt(value, torchvision_ops)
        if not isinstance(value, ConfigDict):
            continue
        if value.get('type') == 'SyncBN':
            value.type = 'BN'
        if value.get('type') == 'RoIAlign' and torchvision_ops and mmext_ops:
            value.use_torchvision = True


def measure(
    name: str, sides: list[str], rounds: int, batch: int, size: list[int]
) -> dict[str, Any]:
    """Returns times, losses and profiles of one detector."""
    built = {s: Side(MODELS[name], s, batch, size) for s in sides}
    weights = copy.deepcopy(unwrap(built[STOCK].runner.model).state_dict())
    first = {}
    for side, made in built.items():
        unwrap(made.runner.model).load_state_dict(weights)
        made.step()
        first[side] = dict(made.losses.found)
    times = in_turn({s: made.step for s, made in built.items()}, rounds)
    row: dict[str, Any] = {
        'model': name,
        'input': [batch, 3, *size],
        'rounds': rounds,
        'sides': {
            side: {
                'seconds': round(statistics.median(found), 4),
                'ratio': round(ratio(found, times[STOCK]), 3),
                'losses': first[side],
            }
            for side, found in times.items()
        },
    }
    if get_device() == 'cpu':
        for side, made in built.items():
            row['sides'][side]['parts'] = made.profile()
    return row


def difference(row: dict, side: str) -> float:
    """Returns the largest difference of a loss, over the sum of stock's."""
    stock, ours = (row['sides'][s]['losses'] for s in (STOCK, side))
    return max(abs(ours[k] - v) for k, v in stock.items()) / stock['loss']


def describe() -> str:
    """Returns the machine and the versions."""
    if get_device() != 'cpu':
        where = torch.cuda.get_device_name()
    else:
        where = f'{processor()}, {torch.get_num_threads()} cores'
    return (
        f'{where}, Python {platform.python_version()}, torch '
        f'{torch.__version__}, torchvision {torchvision.__version__}'
    )


def table(where: str, rows: list[dict]) -> str:
    """Returns the page of all rows in Markdown."""
    lines = [
        '# Training steps',
        '',
        f'`python benchmarks/training_step.py`, {where}. A step is the whole '
        "iteration, hooks included. Stock is MMEngine's runner in float32 "
        "with torchvision's RoIAlign and NMS; ratios are medians over rounds "
        'in turn, below 1 is faster. The last column is the largest '
        'difference of a loss of the first step, from the same weights and '
        'batch, over the sum of the losses.',
        '',
        '| model, input | step | seconds | ratio to stock | loss differs by |',
        '| --- | --- | ---: | ---: | ---: |',
    ]
    for row in rows:
        size = 'x'.join(map(str, row['input']))
        for side, found in row['sides'].items():
            lines.append(
                f'| {row["model"]}, {size} | {side} | {found["seconds"]:.3f} '
                f'| {found["ratio"]:.2f} | {difference(row, side):.1e} |'
            )
    lines += [
        '',
        '## Where the time goes',
        '',
        'Milliseconds of one profiled step, forward + backward. The rest is '
        'hooks, guards, the batch and the sums of losses.',
        '',
        '![Parts of a step](../../docs/images/training_step.png)',
        '',
        f'| model, step | {" | ".join(NAMES)} |',
        f'| --- |{" ---: |" * len(NAMES)}',
    ]
    for row in rows:
        for side, found in row['sides'].items():
            cells = [
                ' + '.join(f'{1e3 * s:.0f}' for s in found['parts'][n] if s)
                if n in found.get('parts', {})
                else ''
                for n in NAMES
            ]
            lines.append(f'| {row["model"]}, {side} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def draw(rows: list[dict], path: Path) -> None:
    """Draws the parts of each step as stacked bars."""
    bars = [
        (f'{row["model"]}, {side}', found['parts'])
        for row in rows
        for side, found in row['sides'].items()
        if 'parts' in found
    ][::-1]
    figure = new_figure(8, 0.5 + 0.35 * len(bars))
    ax = figure.add_subplot()
    left = [0.0] * len(bars)
    for i, name in enumerate(NAMES):
        width = [sum(parts.get(name, [0])) for _, parts in bars]
        ax.barh(
            range(len(bars)),
            width,
            left=left,
            color=color(i),
            hatch='////' if i > 6 else None,
            edgecolor='white',
            label=name,
        )
        left = [a + b for a, b in zip(left, width, strict=True)]
    ax.set_yticks(range(len(bars)), [name for name, _ in bars])
    ax.set_xlabel('seconds of one profiled step')
    tidy(ax)
    ax.legend(
        frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1)
    )
    figure.savefig(path, dpi=120)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--models', nargs='+', choices=MODELS, default=[*MODELS])
    add('--rounds', type=int, default=7)
    add('--batch', type=int, default=2, help='images of a step')
    add('--size', type=int, nargs=2, default=[480, 640], help='pixels')
    add('--out', type=Path, help='folder of the results')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    on_cpu = get_device() == 'cpu'
    sides = [s for s in SIDES if not (on_cpu and SIDES[s] == (False, True))]
    print(f'mmext {mmext.__version__}, {describe()}')
    stored = {}
    if args.out and (args.out / 'training_step.json').exists():
        stored = json.loads((args.out / 'training_step.json').read_text())
    found = {row['model']: row for row in stored.get('rows', [])}
    for name in args.models:
        row = measure(name, sides, args.rounds, args.batch, args.size)
        found[name] = row
        for side, result in row['sides'].items():
            print(
                f'{name:<12} {side:<16} {result["seconds"]:.3f} s, '
                f'{result["ratio"]:.3f} of stock, losses differ by '
                f'{difference(row, side):.1e}',
                flush=True,
            )
            for part, seconds in result.get('parts', {}).items():
                print(f'  {part:<12}', *(f'{s:7.3f}' for s in seconds))
    if args.out:
        rows = [found[name] for name in MODELS if name in found]
        content = {'where': describe(), 'rows': rows}
        text = json.dumps(content, indent=1) + '\n'
        (args.out / 'training_step.json').write_text(text)
        page = table(describe(), rows)
        (args.out / 'training_step.md').write_text(page)
        draw(rows, ROOT / 'docs/images/training_step.png')


if __name__ == '__main__':
    main()
