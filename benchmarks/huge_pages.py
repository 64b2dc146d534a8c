# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares training steps in pages of 4 KiB and in huge pages.

    python benchmarks/huge_pages.py [--models R50 ...] [--rounds 3]

Starts a process with each kind of pages in turn, which takes seven steps of
each detector of training_step.py with ``ReliableRunner``. Writes the medians
to benchmarks/results/huge_pages.md. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from training_step import MODELS, SIDES, Side

from mmext.evaluation.report.table import Table
from mmext.utils.huge_pages import VALUE, VARIABLE
from mmext.utils.machine import cores, processor
from mmext.utils.timing import in_turn, ratio

OUT = Path(__file__).parent / 'results' / 'huge_pages.md'
STEPS = [name for name, (ours, _) in SIDES.items() if ours]
#: What is measured.
SECONDS, MEMORY = 'seconds', 'peak memory'


def measure(model: str, size: list[int], batch: int) -> dict[str, dict]:
    """Returns the median step of each precision, and the process's memory."""
    found = {}
    for step in STEPS:
        side = Side(MODELS[model], step, batch, size)
        (times,) = in_turn({step: side.step}, 7).values()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found[step] = {SECONDS: statistics.median(times), MEMORY: peak}
    return found


def in_process(model: str, pages: str, rest: list[str]) -> dict[str, dict]:
    """Measures in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, '--models', model, '--here', *rest],
        env={**os.environ, VARIABLE: pages},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--models', nargs='+', choices=MODELS, default=[*MODELS])
    add('--rounds', type=int, default=3, help='processes of each kind')
    add('--batch', type=int, default=2, help='images of a step')
    add('--size', type=int, nargs=2, default=[320, 320], help='pixels')
    add('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.models[0], args.size, args.batch)))
        return
    rest = ['--batch', str(args.batch), '--size', *map(str, args.size)]
    rows = []
    for model in args.models:
        found = {'': [], VALUE: []}
        for number in range(args.rounds):
            order = [*found] if number % 2 == 0 else [*reversed(found)]
            for pages in order:
                found[pages].append(in_process(model, pages, rest))
        for step in STEPS:
            row = [model, step.removeprefix('mmext, ')]
            for what, unit in ((SECONDS, 's'), (MEMORY, 'GiB')):
                small, huge = (
                    [run[step][what] for run in runs]
                    for runs in found.values()
                )
                row += [
                    f'{statistics.median(small):.2f} {unit}',
                    f'{statistics.median(huge):.2f} {unit}',
                    f'{ratio(huge, small):.2f}',
                ]
            rows.append(row)
            print(*row, flush=True)
    shape = 'x'.join(map(str, [args.batch, 3, *args.size]))
    words = (
        f'`python benchmarks/huge_pages.py`: {processor()}, {cores()} cores, '
        f'{torch.get_num_threads()} threads, '
        f'torch {torch.__version__}. Steps of {shape} with hooks, and the '
        'peak memory of the process until then; medians of '
        f'{args.rounds} processes with pages of 4 KiB and {args.rounds} with '
        f'huge pages (`{VARIABLE}={VALUE}`), in turn. Ratios below 1 are '
        'faster, or less.'
    )
    header = ['model', 'step', '4 KiB', 'huge', 'ratio']
    header += ['memory, 4 KiB', 'huge', 'ratio']
    OUT.write_text(
        f'# Huge pages\n\n{words}\n\n{Table(header, rows).markdown()}'
    )


if __name__ == '__main__':
    main()
