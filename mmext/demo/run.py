# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the demo: a plan, its two runs, the report and a picture."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from mmext.demo.picture import draw_picture
from mmext.demo.plan import make_plan
from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.runs import read_run
from mmext.experiments.configs import side_config
from mmext.experiments.plan import Plan, read_plan, write_plan
from mmext.experiments.reports.report import PlanReport, report_plan
from mmext.experiments.runs.places import Command, Local
from mmext.experiments.runs.queue import run_plan
from mmext.experiments.runs.slots import find_slots
from mmext.experiments.test_data import test_data
from mmext.utils.files import naming, write_json
from mmext.utils.locks import locked
from mmext.utils.text import count, duration

#: The file that marks the folder of a demo, and what it was made for.
ARGUMENTS = 'arguments.json'


def run_demo(
    work_dir: str | Path = 'work_dirs/demo',
    *,
    data: str | Path | None = None,
    minutes: float = 10.0,
    epochs: int | None = None,
    images: int | None = None,
    seed: int = 0,
    restart: bool = False,
    console: Console | None = None,
) -> PlanReport:
    """Trains two small detectors by a plan and reports what they show.

    An interrupted demo continues in ``work_dir``, and a finished one is only
    shown, unless ``restart`` is set or other arguments are given.

    Args:
        work_dir: Folder of the results. Default: ``work_dirs/demo``.
        data: A folder in COCO format instead of the generated shapes.
        minutes: About how long both trainings may take. Default: 10.
        epochs: Passes over the training images. Default: as many as fit into
            the time, at most those of the configs for the shapes.
        images: Training images to use. Default: those of the configs, or all
            of ``data``.
        seed: Of the first training; the second one has the next. Default: 0.
        restart: Whether to train from the beginning. Default: False.
        console: Default: the standard output.

    Raises:
        UserError: The data or an argument cannot be used, or a run failed.
    """
    console = console or Console(file=sys.stdout)
    begun = time.monotonic()
    work_dir = Path(work_dir)
    wanted = {
        'data': data and str(Path(data).absolute()),
        'minutes': minutes,
        'epochs': epochs,
        'images': images,
        'seed': seed,
    }
    path, runs = work_dir / 'plan.yaml', work_dir / 'runs'
    with naming(work_dir), locked(work_dir):
        plan = None if restart else _known_plan(work_dir, wanted)
        if plan is None:
            _require_own(work_dir)
            console.print('Measuring training steps', highlight=False)
            plan = make_plan(data, minutes, epochs, images, seed)
            shutil.rmtree(runs, ignore_errors=True)
            write_json(work_dir / ARGUMENTS, wanted)
            write_plan(path, plan)
        _announce(console, plan, data)
        place = Local(Command(path, runs), find_slots(None, None))
        if not run_plan(
            plan,
            runs,
            place,
            command='mmext demo',
            retry=True,
            console=console,
        ):
            raise UserError(
                'a run of the demo failed',
                f'Its output is in job.log in its folder in {runs}. The same '
                'command tries again.',
            )
        report = report_plan(path, runs)
        picture = work_dir / 'detections.png'
        _draw(picture, plan, runs, report)
        page, *_ = report.write(work_dir / 'report')
    console.print()
    report.print(console)
    console.print(
        f'\n{duration(time.monotonic() - begun)} in all. '
        f'Detections: {picture}\nReport: {page}',
        highlight=False,
        soft_wrap=True,
    )
    return report


def _require_own(work_dir: Path) -> None:
    """Raises `UserError` for a folder whose runs are not of a demo."""
    runs = work_dir / 'runs'
    if runs.exists() and not (work_dir / ARGUMENTS).exists():
        raise UserError(
            f'{runs} exists, and no demo has made it',
            'Name another folder with --work-dir.',
        )


def _known_plan(work_dir: Path, wanted: dict) -> Plan | None:
    """The plan in the folder, None if there is none for these arguments."""
    try:
        known = json.loads((work_dir / ARGUMENTS).read_text())
        return read_plan(work_dir / 'plan.yaml') if known == wanted else None
    except (OSError, ValueError, UserError):
        return None


def _announce(console: Console, plan: Plan, data: str | Path | None) -> None:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f'the CPU ({count(torch.get_num_threads(), "thread")})'
    epochs = count(plan.options['train_cfg.max_epochs'], 'epoch')
    console.print(
        f'Faster R-CNN with two backbones on {device}\n'
        f'Data: {data or "generated shapes"}, {epochs}, '
        f'{plan.data["images"]} images to test\n',
        highlight=False,
        soft_wrap=True,
    )


def _draw(picture: Path, plan: Plan, runs: Path, report: PlanReport) -> None:
    """Draws detections of both detectors beside the ground truth."""
    detections = {}
    for job, value in report.decision.values.items():
        run = read_run(plan.folder_of(job, runs))
        title = f'{job.side}   AP {100 * value:.1f}'
        detections[title] = run.predictions['bbox']
    file = test_data(side_config(plan, plan.baseline)).annotations
    truth, folder = read_ground_truth(file), Path(file).parent.parent
    draw_picture(picture, truth, folder / 'val', detections)
