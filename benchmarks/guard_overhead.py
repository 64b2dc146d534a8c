# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the time that all guards together add to a training step.

    python benchmarks/guard_overhead.py [--pairs 12] [--out FILE.json]

Faster R-CNN with ResNet-50 trains on random images and boxes, with MMEngine's
default hooks. Every other step also has all hooks that ``ReliableRunner``
adds. The two kinds alternate in one process, so that a slow moment of the
machine affects both. The results are the median of the ratios of neighbouring
steps with its quartiles, and, with less noise, the time of the guards' own
calls. Times are CPU times of one thread, or on a GPU wall-clock times until
the device has finished.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import LOOPS, init_default_scope
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import Dataset

import mmext
from mmext.engine.curves_hook import CurvesHook
from mmext.engine.guards.numerical_guard import NumericalGuardHook
from mmext.engine.resume.exact_resume import ExactResumeHook
from mmext.engine.resume.interrupt import InterruptHook
from mmext.engine.resume.seeding import EpochSeedHook
from mmext.engine.runner import ReliableRunner
from mmext.errors import command

GUARDS = (
    CurvesHook,
    EpochSeedHook,
    ExactResumeHook,
    InterruptHook,
    NumericalGuardHook,
)


class RandomImages(Dataset):
    """Images of noise with seven boxes each; no file is read."""

    metainfo = {'classes': ('thing',)}

    def __init__(self, length: int, size: tuple[int, int]) -> None:
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        height, width = size
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randint(
            256, (3, height, width), generator=generator, dtype=torch.uint8
        )
        corner = torch.rand(7, 2, generator=generator) * 0.5
        extent = torch.rand(7, 2, generator=generator) * 0.4 + 0.05
        boxes = torch.cat([corner, corner + extent], 1)
        boxes *= torch.tensor([width, height, width, height])
        self.sample = DetDataSample(
            metainfo={'img_shape': size, 'ori_shape': size, 'img_id': 0}
        )
        self.sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.zeros(7, dtype=torch.long)
        )
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {'inputs': self.image, 'data_samples': self.sample}


@LOOPS.register_module()
class Turns(EpochBasedTrainLoop):
    """Alternates steps with and without the guards."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.times: dict[bool, list[float]] = {True: [], False: []}
        self.own: list[float] = []

    def run_epoch(self) -> None:
        hooks = list(self.runner.hooks)
        self.hooks = {
            True: hooks,
            False: [h for h in hooks if not isinstance(h, GUARDS)],
        }
        (self.guard,) = (h for h in hooks if type(h) is NumericalGuardHook)
        for hook in hooks:
            if isinstance(hook, GUARDS):
                for name in ('before_train_iter', 'after_train_iter'):
                    setattr(hook, name, self._timed(getattr(hook, name)))
        for name in ('_poison', '_before_step'):
            setattr(self.guard, name, self._timed(getattr(self.guard, name)))
        super().run_epoch()

    def _timed(self, call: Callable) -> Callable:
        """Adds the time of a call to that of the step."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.own[-1] += time.process_time() - start

        return timed

    def run_iter(self, idx: int, data_batch: Any) -> None:
        # The order alternates: with, without; without, with; ...
        on = (idx % 2 == 0) == (idx // 2 % 2 == 0)
        self.guard.after_train(self.runner)
        if on:
            self.guard.before_train(self.runner)
        self.runner._hooks = self.hooks[on]
        self.own.append(0.0)
        start = now()
        super().run_iter(idx, data_batch)
        taken = now() - start
        if idx >= 2:  # the first pair warms up
            self.times[on].append(taken)
        if idx < 2 or not on:
            self.own.pop()


def now() -> float:
    """Returns CPU time in seconds, or on a GPU wall-clock time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure(
    pairs: int, batch: int, size: tuple[int, int], clip: bool
) -> dict[str, Any]:
    """Trains for a few steps and returns medians of times and ratios.

    Args:
        pairs: Steps with and without guards; one more pair warms up.
        batch: Images of a step.
        size: Height and width of the images in pixels.
        clip: Whether gradients are clipped.
    """
    cfg = Config.fromfile(get_config_path())
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    cfg.model.roi_head.bbox_head.num_classes = 1
    if clip:
        cfg.optim_wrapper.clip_grad = {'max_norm': 10}
    length = 2 * (pairs + 1) * batch
    with tempfile.TemporaryDirectory() as folder:
        runner = ReliableRunner(
            model=cfg.model,
            work_dir=folder,
            train_dataloader={
                'batch_size': batch,
                'num_workers': 0,
                'dataset': RandomImages(length, size),
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'collate_fn': {'type': 'pseudo_collate'},
            },
            train_cfg={'type': 'Turns', 'max_epochs': 1},
            optim_wrapper=cfg.optim_wrapper,
            default_hooks={
                'checkpoint': {
                    'type': 'CheckpointHook',
                    'interval': -1,
                    'save_last': False,
                }
            },
            randomness={'seed': 0},
            default_scope='mmdet',
            log_level='ERROR',
            experiment_name=f'guards_{clip}',
        )
        runner.train()
    loop = runner.train_loop
    ratios = [
        a / b for a, b in zip(loop.times[True], loop.times[False], strict=True)
    ]
    plain = statistics.median(loop.times[False])
    return {
        'step_seconds': round(plain, 4),
        'guards_own_seconds': round(statistics.median(loop.own), 5),
        'guards_own_percent': round(
            100 * statistics.median(loop.own) / plain, 3
        ),
        'ratio_median': round(statistics.median(ratios), 4),
        'ratio_quartiles': [
            round(q, 4) for q in statistics.quantiles(ratios, n=4)[::2]
        ],
        'ratios': [round(r, 4) for r in ratios],
    }


def get_config_path() -> Path:
    """Returns mmdet's Faster R-CNN config in the installed package."""
    import mmdet

    return Path(mmdet.__file__).parent.joinpath(
        '.mim', 'configs', 'faster_rcnn', 'faster-rcnn_r50_fpn_1x_coco.py'
    )


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--pairs', type=int, default=12, help='pairs of steps')
    add('--batch', type=int, default=2, help='images of a step')
    add('--size', type=int, nargs=2, default=[320, 480], help='pixels')
    add('--out', type=Path, help='JSON file for the result')
    args = parser.parse_args()
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    step = (args.pairs, args.batch, tuple(args.size))
    result = {
        'mmext': mmext.__version__,
        'torch': torch.__version__,
        'device': torch.cuda.get_device_name() if gpu else platform.machine(),
        'input': [args.batch, 3, *args.size],
        'pairs': args.pairs,
        'plain': measure(*step, clip=False),
        'clip_grad': measure(*step, clip=True),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
