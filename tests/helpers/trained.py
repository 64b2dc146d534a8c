# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains the tiny detector of ``tiny_run``; reads and writes logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from tiny_run import write_config

from mmext.engine.runner import ReliableRunner


def train(
    folder: Path, data: Path, epochs: int = 2, more: str = '', **cfg: Any
) -> ReliableRunner:
    """Trains a tiny detector in ``folder / 'work'``.

    Args:
        folder: A folder for the config ``tiny.py`` and the work dir.
        data: A folder of :func:`make_coco`.
        epochs: Default: 2.
        more: Lines that are added to the config. Default: none.
        cfg: Changes of the config.
    """
    folder.mkdir(exist_ok=True, parents=True)
    config = Config.fromfile(
        write_config(folder / 'tiny.py', data, epochs, more=more)
    )
    config.work_dir = str(folder / 'work')
    config.merge_from_dict(cfg)
    runner = ReliableRunner.from_cfg(config)
    runner.train()
    return runner


def records(work: Path) -> list[dict]:
    """Returns what the only run of a work dir has logged."""
    (file,) = work.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_log(work: Path, *runs: list[dict]) -> None:
    """Writes the records of one or more runs into a work dir."""
    for i, run in enumerate(runs):
        file = work / f'20260101_00000{i}' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text(''.join(f'{json.dumps(record)}\n' for record in run))
