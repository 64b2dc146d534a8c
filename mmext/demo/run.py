# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the demo: trains both models, compares them, draws a picture."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console

from mmext.checks.config import find_config_splits
from mmext.checks.preflight import require_fit
from mmext.demo.picture import draw_picture
from mmext.demo.plan import Plan, make_plan, work_units
from mmext.demo.progress import DemoProgress, ProgressHook
from mmext.engine.launch import build_runner
from mmext.engine.predictions_hook import model_meta
from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import (
    GroundTruth,
    read_ground_truth,
)
from mmext.evaluation.compare import compare
from mmext.evaluation.report.tables import logged_table, run_labels
from mmext.evaluation.runs import Run, describe_backbone, read_run
from mmext.evaluation.tested import cost_of
from mmext.models.build import build_model
from mmext.utils.files import naming, write_json
from mmext.utils.locks import locked
from mmext.utils.text import count, duration, some


def run_demo(
    work_dir: str | Path = 'work_dirs/demo',
    *,
    data: str | Path | None = None,
    epochs: int | None = None,
    images: int | None = None,
    seed: int = 0,
    restart: bool = False,
    console: Console | None = None,
) -> list[Run]:
    """Trains two small detectors and compares them.

    It prints a table and what the comparison shows, and leaves predictions
    that `mmext.compare` takes.

    An interrupted demo continues in ``work_dir``, and a finished one is only
    shown, unless ``restart`` is set. ``data`` is a folder in COCO format
    instead of the generated shapes. By default the configs define the
    numbers of epochs and training images; with ``data``, as many epochs as
    take the same number of iterations.
    """
    # The stream is bound here, because _quiet redirects sys.stdout.
    console = console or Console(file=sys.stdout)
    begun = time.monotonic()
    work_dir = Path(work_dir)
    log = work_dir / 'demo.log'
    with _quiet():  # without a log file: the arguments may be wrong
        plan = make_plan(work_dir, data, epochs, images, seed)
        cfg = plan.configs[0]
        splits = find_config_splits(cfg, ('train', 'val'))
        require_fit(cfg, build_model(cfg.model), splits)
        truth = read_ground_truth(plan.data.ann_files['val'])
    with naming(work_dir), locked(work_dir):
        _announce(console, plan, data, log)
        try:
            _train(plan, console, log, restart)
        except KeyboardInterrupt:
            console.print(
                '\nInterrupted. The same command resumes from the last '
                'checkpoint; with --restart it trains from the beginning.'
            )
            raise
        except UserError as error:
            if '--resume' not in error.fix:
                raise
            raise UserError(
                error.problem,
                f'{error.fix} The demo continues without that option.',
            ) from error
        picture = work_dir / 'detections.png'
        with _quiet(log):
            for cfg in plan.configs:
                _describe_predictions(cfg, truth)
            runs = [read_run(cfg.work_dir) for cfg in plan.configs]
            table = logged_table(
                runs, costs=[cost_of(run.model) for run in runs]
            )
            detections = {}
            for label, run in zip(run_labels(runs), runs, strict=True):
                title = f'{label}   AP {100 * run.metrics["bbox"]["AP"]:.1f}'
                detections[title] = run.predictions['bbox']
            draw_picture(picture, truth, plan.data.img_dirs['val'], detections)
            report = compare([r.path for r in runs], quick=True, cost=False)
        ((title, lines),) = report.verdicts()
        lines += [f'Warning: {line}' for line in report.warnings]
        points = '\n'.join(f'- {line}' for line in lines)
        text = f'{table.markdown()}\n## {title}\n\n{points}\n'
        (work_dir / 'table.md').write_text(text, encoding='utf-8')
        folders = ' '.join(str(run.path) for run in runs)
        took = duration(time.monotonic() - begun)
        console.print()
        table.print(console)
        report.print_verdicts(console)
        console.print(
            f'\n{took} in all. Detections: {picture}\n'
            f'Table: {work_dir / "table.md"}   Log: {log}\n'
            f'Full comparison: mmext compare {folders} --out report',
            highlight=False,
            soft_wrap=True,
        )
    return runs


def _announce(
    console: Console, plan: Plan, data: str | Path | None, log: Path
) -> None:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f'the CPU ({count(torch.get_num_threads(), "thread")})'
    cfg, images = plan.configs[0], plan.data.num_images
    used = cfg.train_dataloader.dataset.get('indices') or images['train']
    console.print(
        f'Faster R-CNN with two backbones on {device}\n'
        f'Data: {data or "generated shapes"}: {used} images to train, '
        f'{images["val"]} to validate, {cfg.train_cfg.max_epochs} epochs\n'
        f'Classes ({len(plan.data.classes)}): {some(plan.data.classes, 6)}\n'
        f'Log: {log}\n',
        highlight=False,
        soft_wrap=True,
    )


def _train(plan: Plan, console: Console, log: Path, restart: bool) -> None:
    """Trains and validates each config that is not finished."""
    names = [describe_backbone(cfg.model.backbone) for cfg in plan.configs]
    totals, units = [], []
    for cfg in plan.configs:
        iterations, work, images = work_units(cfg, plan.data)
        units.append((work, images))
        totals.append(cfg.train_cfg.max_epochs * iterations * work + images)
    with DemoProgress(names, totals, console) as progress:
        for i, cfg in enumerate(plan.configs):
            _prepare_work_dir(cfg, restart)
            if _is_finished(cfg):
                progress.start(i, totals[i])
                progress.update(i, totals[i], 'finished before')
                continue
            with _quiet(log):
                runner = build_runner(cfg)
                runner.register_hook(ProgressHook(progress, i, *units[i]))
                runner.train()


def _is_finished(cfg: Config) -> bool:
    if not Path(cfg.work_dir, 'predictions', 'val.bbox.json').is_file():
        return False
    return read_run(cfg.work_dir).step == cfg.train_cfg.max_epochs


def _describe_predictions(cfg: Config, truth: GroundTruth) -> None:
    """Writes the data and the checkpoint of the validation's predictions."""
    folder = Path(cfg.work_dir)
    last = (folder / 'last_checkpoint').read_text(encoding='utf-8').strip()
    meta = {
        'annotation_file': str(truth.path.resolve()),
        'annotation_sha256': truth.sha256,
        'config_name': folder.name,
        'checkpoint': last,
        'seed': cfg.randomness.seed,
        'model': model_meta(cfg, build_model(cfg.model)),
    }
    write_json(folder / 'predictions' / 'val.meta.json', meta, indent=1)


def _prepare_work_dir(cfg: Config, restart: bool) -> None:
    """Empties the folder if it is of a run with another config."""
    folder = Path(cfg.work_dir)
    mark = folder / 'demo.sha256'
    wanted = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()
    if mark.is_file() and (restart or mark.read_text() != wanted):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted)


@contextlib.contextmanager
def _quiet(log: Path = Path(os.devnull)) -> Iterator[None]:
    """Redirects the output of the libraries to a file, or drops it."""
    with (
        log.open('a', encoding='utf-8') as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield
