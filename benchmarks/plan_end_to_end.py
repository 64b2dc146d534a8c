# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs a plan twice, the second time with a kill and a failing run.

    python benchmarks/plan_end_to_end.py DATA [--images N] [--epochs N]

DATA is a folder in COCO format, such as BCCD. ResNet-18 and StepNet-ResNet-18
are trained by `mmext plan`, `mmext run` and `mmext report`, three seeds a
side, with the commands of docs/experiments.md. In the second experiment,
SIGKILL ends `mmext run` and the training that it works on, and the next
training is killed, so that it fails and is started again. Both reports must
be the same. The result is benchmarks/results/plan_end_to_end.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.experiments.plan import Plan, read_plan
from mmext.experiments.reports.report import PlanReport, report_plan
from mmext.experiments.state import read_state
from mmext.utils.text import duration

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks' / 'results' / 'plan_end_to_end.md'
NAMES = ('r18', 'stepnet-r18')
SEEDS = 3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('data', help='folder in COCO format')
    add('--images', type=int, default=48, help='training images')
    add('--epochs', type=int, default=4, help='epochs of a training')
    add('--work-dir', type=Path, default=Path('work_dirs/plan_end_to_end'))
    return parser.parse_args(argv)


def tool(name: str, *options: object) -> list[str]:
    return [sys.executable, str(ROOT / 'tools' / name), *map(str, options)]


def write_plan(args: argparse.Namespace) -> Path:
    path = args.work_dir / 'plan.yaml'
    if path.exists():
        return path
    configs = [
        ROOT / f'configs/demo/faster-rcnn_{name}_fpn_demo_shapes.py'
        for name in NAMES
    ]
    options = {
        '+train_dataloader.dataset.indices': args.images,
        'train_cfg.max_epochs': args.epochs,
        '+train_cfg.val_begin': args.epochs + 1,
        'param_scheduler.1.T_max': args.epochs,
        'default_hooks.checkpoint.interval': 1,
    }
    subprocess.run(
        tool(
            'plan.py',
            *('--baseline', configs[0], '--candidate', configs[1]),
            *('--gain', 5, '--seeds', SEEDS, '--data', args.data),
            *('--out', path, '--no-timing', '--cfg-options'),
            *(f'{key}={value}' for key, value in options.items()),
        ),
        check=True,
    )
    return path


def run(path: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(tool('run.py', path, '--work-dir', folder))


def wait_for(plan: Plan, folder: Path, number: int) -> int:
    """Waits until a run is in the middle of its training; returns its pid."""
    job = [*plan.jobs()][number]
    while True:
        state = read_state(plan.folder_of(job, folder))
        if state and state.status == 'training' and state.share > 0.3:
            return state.pid
        time.sleep(0.2)


def disturbed(path: Path, folder: Path) -> list[str]:
    """Runs a plan that is killed once, and of which a run fails once."""
    plan = read_plan(path)
    queue = run(path, folder)
    training = wait_for(plan, folder, 1)
    queue.send_signal(signal.SIGKILL)
    os.kill(training, signal.SIGKILL)
    queue.wait()
    queue = run(path, folder)
    os.kill(wait_for(plan, folder, 3), signal.SIGKILL)
    if queue.wait():
        raise SystemExit('mmext run failed')
    states = [read_state(plan.folder_of(j, folder)) for j in plan.jobs()]
    return [str(state.failures) for state in states]


def differing(a: PlanReport, b: PlanReport) -> list[str]:
    """What differs between the reports of two experiments."""
    found = [
        name
        for name in ('verdicts', 'details')
        if repr(getattr(a, name)()) != repr(getattr(b, name)())
    ]
    for job, record in a.records.items():
        other = b.records[job]
        for x, y in zip(
            record.results.classes, other.results.classes, strict=True
        ):
            if not all(
                np.array_equal(getattr(x, key), getattr(y, key))
                for key in ('image', 'hit', 'ignored')
            ):
                found.append(f'matches of {job}')
    return found


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    path = write_plan(args)
    undisturbed, other = args.work_dir / 'plain', args.work_dir / 'disturbed'
    if run(path, undisturbed).wait():
        raise SystemExit('mmext run failed')
    shutil.rmtree(other, ignore_errors=True)
    failures = disturbed(path, other)
    reports = [report_plan(path, folder) for folder in (undisturbed, other)]
    differ = differing(*reports)
    plan, report = reports[0].plan, reports[0]
    folders = [plan.folder_of(job, undisturbed) for job in plan.jobs()]
    took = sum(read_state(folder).seconds for folder in folders)
    heading, lines = report.verdicts()[0]
    text = [
        '# A plan, undisturbed and disturbed',
        '',
        f'`python benchmarks/plan_end_to_end.py DATA --images {args.images} '
        f'--epochs {args.epochs}`: {plan.claim}; {SEEDS} seeds a side, '
        f'{plan.data["images"]} test images. The six runs took '
        f'{duration(took)}.',
        '',
        'Disturbed: SIGKILL to `mmext run` and its second training, then '
        'SIGKILL to the fourth training. Failed attempts of the runs: '
        f'{", ".join(failures)}.',
        '',
        'The reports and the matches of every run are '
        + (f'different: {", ".join(differ)}.' if differ else 'the same.'),
        '',
        f'**{heading}**',
        '',
        *(f'- {line}' for line in lines),
        '',
        *(table.markdown() for table in report.tables()[:1]),
    ]
    RESULT.write_text('\n'.join(text))
    print('\n'.join(text))
    if differ:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
