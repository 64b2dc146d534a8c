# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A toy run that can be stopped, resumed, and notes its images.

torchrun --nproc_per_node=2 resume_ranks.py WORK_DIR EPOCHS [STOP]

Before step STOP, process 1 gets SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook
from toy import Numbers, Scores, build_runner, loader

from mmext.engine.resume.interrupt import Interrupted

RANK = int(os.environ.get('RANK', 0))


class Notes(Hook):
    """Notes the epoch and the images of each step; stops before one."""

    def __init__(self, stop: int | None) -> None:
        self.stop = stop
        self.seen: list[tuple[int, list[int]]] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        images = [s.img_id for s in data_batch['data_samples']]
        self.seen.append((runner.epoch, images))
        if runner.iter + 1 == self.stop and runner.world_size - 1 == RANK:
            os.kill(os.getpid(), signal.SIGTERM)


def main(
    folder: Path, epochs: int, stop: int | None = None, **more: object
) -> None:
    """Writes weights, steps and images to ``FOLDER/rank_N.pth``."""
    notes = Notes(stop)
    scores = [{'mAP': 0.1 * (1 + i)} for i in range(epochs)]
    runner = build_runner(
        folder,
        images=12,
        epochs=epochs,
        shuffle=True,
        resume=True,
        log_level='INFO',
        custom_hooks=[notes],
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        val_dataloader=loader(Numbers(4)),
        val_cfg={'type': 'ValLoop'},
        val_evaluator=[Scores(scores)],
        **{'batch_size': 1, **more},
    )
    try:
        runner.train()
    except Interrupted:
        print('stopped', flush=True)
    end = {
        'state': {
            k.removeprefix('module.'): v
            for k, v in runner.model.state_dict().items()
        },
        'seen': notes.seen,
        'epoch': runner.epoch,
        'iter': runner.iter,
        'max_iters': runner.max_iters,
    }
    torch.save(end, folder / f'rank_{RANK}.pth')


if __name__ == '__main__':
    place, epochs, *stops = sys.argv[1:]
    main(Path(place), int(epochs), *map(int, stops), launcher='pytorch')
