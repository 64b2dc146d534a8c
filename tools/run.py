# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains, tests and records the runs of a plan.

The same command continues what was cut off. It uses all GPUs of this machine,
or its CPU; other plans that work on it at the same time share them.

    python tools/run.py plan.yaml
    python tools/run.py plan.yaml --slurm partition=gpu time=600 \\
        gpus_per_node=1
    python tools/run.py plan.yaml --launcher \\
        'sbatch --gres=gpu:1 --wrap "{command}"'
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import command
from mmext.utils.huge_pages import use_huge_pages


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('plan', help='plan file, as mmext plan writes it')
    add(
        '--work-dir',
        help='folder of all runs (default: work_dirs/<name of the plan>)',
    )
    add(
        '--all',
        action='store_true',
        help='run every seed, also if an earlier look settles the plan',
    )
    add(
        '--retry',
        action='store_true',
        help='give failed runs new attempts',
    )
    add(
        '--jobs',
        type=int,
        metavar='N',
        help='runs at once on the CPU (default: one for four cores)',
    )
    add(
        '--gpus-per-run',
        type=int,
        metavar='N',
        help='GPUs of a run, by torchrun (default: one, without torchrun)',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--slurm',
        nargs='+',
        metavar='KEY=VALUE',
        help='submit a job array: parameters of submitit, such as '
        'partition=gpu, time=600 (minutes), gpus_per_node=1',
    )
    where.add_argument(
        '--launcher',
        metavar='COMMAND',
        help='start each run with this command, in which {command} is what '
        'to run, {name} a name and {folder} the folder of the run',
    )
    add(
        '--no-wait',
        action='store_true',
        help='end when the runs are submitted (--slurm, --launcher)',
    )
    add('--job', metavar='SIDE/SEED', help='do only this run, in this process')
    args = parser.parse_args(argv)
    cluster = args.slurm or args.launcher
    if args.no_wait and not cluster:
        parser.error('--no-wait is for --slurm and --launcher')
    if args.jobs is not None and (cluster or args.jobs < 1):
        parser.error('--jobs is at least 1, and not for a cluster')
    if args.gpus_per_run is not None and args.gpus_per_run < 1:
        parser.error('--gpus-per-run is at least 1')
    return args


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    use_huge_pages()
    from mmext.experiments.plan import default_work_dir, read_plan

    plan = read_plan(args.plan)
    work_dir = Path(args.work_dir or default_work_dir(args.plan))
    if args.job:
        from mmext.experiments.runs.job import run_job

        run_job(args.plan, args.job, work_dir)
        return
    from mmext.experiments.runs.places import Command, Local, Slurm, Template
    from mmext.experiments.runs.queue import run_plan
    from mmext.experiments.runs.slots import find_slots

    of_run = Command(args.plan, work_dir, args.gpus_per_run)
    if args.slurm:
        place = Slurm(of_run, args.slurm, work_dir / 'slurm')
    elif args.launcher:
        place = Template(of_run, args.launcher)
    else:
        place = Local(of_run, find_slots(args.jobs, args.gpus_per_run))
    same = f'mmext run {shlex.quote(args.plan)}'
    if args.work_dir:
        same += f' --work-dir {shlex.quote(args.work_dir)}'
    if not run_plan(
        plan,
        work_dir,
        place,
        command=same,
        everything=args.all,
        retry=args.retry,
        wait=not args.no_wait,
    ):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
