# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the plan: trains both models, prints the table, draws the picture."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console

from mmext.checks.config import find_splits
from mmext.checks.preflight import require_fit
from mmext.demo.picture import draw_picture
from mmext.demo.plan import Plan, make_plan, work_units
from mmext.demo.progress import DemoProgress, ProgressHook
from mmext.engine.launch import build_runner
from mmext.evaluation.report.logged import (
    comparison_table,
    run_costs,
    run_labels,
)
from mmext.evaluation.runs import Run, describe_backbone, read_run
from mmext.models.build import build_model
from mmext.utils.text import duration

FINGERPRINT = 'demo.sha256'


def run_demo(args: Namespace, console: Console | None = None) -> list[Run]:
    """Does what ``tools/demo.py``'s arguments say; returns the runs.

    Args:
        args: ``data``, ``work_dir``, ``epochs``, ``images``, ``seed``,
            ``restart``; see ``tools/demo.py``.
        console: Where to print. Default: the terminal.

    Raises:
        UserError: What the user can mend.
    """
    # Bound to the terminal of now, or _quiet would silence it too.
    console = console or Console(file=sys.stdout)
    begun = time.monotonic()
    work_dir = Path(args.work_dir)
    log = work_dir / 'demo.log'
    with _quiet():  # no file yet: the arguments may be wrong
        plan = make_plan(
            work_dir, args.data, args.epochs, args.images, args.seed
        )
        cfg = plan.configs[0]
        splits = find_splits(cfg, ('train', 'val'))
        require_fit(cfg, build_model(cfg.model), splits)
    _announce(console, plan, args.data, log)
    try:
        train_all(plan, console, log, args.restart)
    except KeyboardInterrupt:
        console.print(
            '\nInterrupted. The same command continues from the last '
            'checkpoint; with --restart it begins anew.'
        )
        raise
    with _quiet(log):
        runs = [read_run(cfg.work_dir) for cfg in plan.configs]
        table = comparison_table(runs, costs=run_costs(runs))
        picture = work_dir / 'detections.png'
        draw_picture(
            picture,
            plan.data.ann_files['val'],
            plan.data.img_dirs['val'],
            {
                f'{label}   AP {100 * run.metrics["bbox"]["AP"]:.1f}': Path(
                    cfg.work_dir, 'predictions', 'val.bbox.json'
                )
                for label, run, cfg in zip(
                    run_labels(runs), runs, plan.configs, strict=True
                )
            },
        )
    (work_dir / 'table.md').write_text(table.markdown(), encoding='utf-8')
    console.print(f'\n{table.text()}\n', highlight=False, soft_wrap=True)
    took = duration(time.monotonic() - begun)
    console.print(
        f'{took} in all. Detections drawn: {picture}\n'
        f'Table: {work_dir / "table.md"}   Log: {log}',
        highlight=False,
        soft_wrap=True,
    )
    return runs


def _announce(
    console: Console, plan: Plan, data: str | None, log: Path
) -> None:
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f'the CPU ({torch.get_num_threads()} threads)'
    )
    cfg, images = plan.configs[0], plan.data.num_images
    used = cfg.train_dataloader.dataset.get('indices') or images['train']
    classes = ', '.join(plan.data.classes[:6])
    more = len(plan.data.classes) - 6
    console.print(
        f'Faster R-CNN with two backbones on {device}\n'
        f'Data: {data or "generated shapes"}: {used} images to train, '
        f'{images["val"]} to validate, {cfg.train_cfg.max_epochs} epochs\n'
        f'Classes: {classes}{f" and {more} more" if more > 0 else ""}\n'
        f'Log: {log}\n',
        highlight=False,
        soft_wrap=True,
    )


def train_all(
    plan: Plan, console: Console, log: Path, restart: bool = False
) -> None:
    """Trains and validates each config that is not finished yet.

    Args:
        plan: What to train.
        console: Where progress is shown.
        log: File that takes what the libraries print.
        restart: Train anew what is finished or begun. Default: False.
    """
    names = [describe_backbone(cfg.model.backbone) for cfg in plan.configs]
    totals, units = [], []
    for cfg in plan.configs:
        iterations, work, images = work_units(cfg, plan.data)
        epochs = cfg.train_cfg.max_epochs
        units.append((work, images))
        totals.append(epochs * iterations * work + images)
    with DemoProgress(names, totals, console) as progress:
        for i, cfg in enumerate(plan.configs):
            _prepare_work_dir(cfg, restart)
            if is_finished(cfg):
                progress.start(i, totals[i])
                progress.update(i, totals[i], 'finished before')
                continue
            with _quiet(log):
                runner = build_runner(cfg)
                runner.register_hook(ProgressHook(progress, i, *units[i]))
                runner.train()


def is_finished(cfg: Config) -> bool:
    """Whether the run of this config has been validated after its end."""
    predictions = Path(cfg.work_dir, 'predictions', 'val.bbox.json')
    return (
        predictions.is_file()
        and read_run(cfg.work_dir).step == cfg.train_cfg.max_epochs
    )


def _prepare_work_dir(cfg: Config, restart: bool) -> None:
    """Empties the folder of a run that was not this config's."""
    folder = Path(cfg.work_dir)
    mark = folder / FINGERPRINT
    wanted = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()
    if mark.is_file() and (restart or mark.read_text() != wanted):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted)


@contextlib.contextmanager
def _quiet(log: Path | None = None) -> Iterator[None]:
    """Sends what the libraries print to a file, or nowhere."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with (
        (
            io.StringIO() if log is None else log.open('a', encoding='utf-8')
        ) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield
