# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the start of Python modules and tools: time and peak memory.

    python benchmarks/startup.py [--rounds 5]

Times ``import mmext`` against ``import mmdet.registry``, ``--help`` of each
tool, and tools/compare.py on two result files of 80 images. Each command is a
new process; all commands take turns in each round. The table with the medians
is written to benchmarks/results/startup.md. Run it on an idle machine, after
one run that writes the bytecode of all modules.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mmext.utils.machine import processor

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / 'benchmarks' / 'results' / 'startup.md'
MIB = 2**20
#: Seconds and MiB before tools imported torch and MMDetection on demand, on a
#: machine with two cores.
BEFORE = {
    'import mmext': (5.45, 1049),
    'import mmdet.registry': (0.20, 42),
    'compare.py --help': (5.50, 1051),
    'train.py --help': (5.29, 1050),
    'test.py --help': (5.30, 1050),
    'check_data.py --help': (5.44, 1050),
    'image_demo.py --help': (5.34, 1050),
    'stiffness.py --help': (5.16, 1049),
    'voc2coco.py --help': (5.33, 1050),
    'get_flops.py --help': (5.46, 1050),
    'publish_model.py --help': (5.37, 1050),
    'doctor.py --help': (0.03, 13),
    'demo.py --help': (0.02, 12),
}
#: Command -> seconds and MiB of each run.
Measurements = dict[str, list[tuple[float, float]]]


def write_results(folder: Path, images: int = 80) -> list[str]:
    """Writes a ground truth and two result files.

    Returns:
        The arguments of tools/compare.py.
    """
    rng = random.Random(0)
    objects = [
        {
            'id': i + 1,
            'image_id': i // 7,
            'category_id': rng.randrange(3),
            'bbox': [rng.uniform(0, 300) for _ in range(2)] + [80.0, 60.0],
            'area': 4800.0,
            'iscrowd': 0,
        }
        for i in range(7 * images)
    ]
    truth = {
        'images': [
            {'id': i, 'width': 640, 'height': 480, 'file_name': f'{i}.jpg'}
            for i in range(images)
        ],
        'annotations': objects,
        'categories': [{'id': i, 'name': f'class{i}'} for i in range(3)],
    }
    files = {'truth.json': truth}
    for name in ('a.bbox.json', 'b.bbox.json'):
        files[name] = [
            {
                'image_id': x['image_id'],
                'category_id': x['category_id'],
                'bbox': [v + rng.gauss(0, 8) for v in x['bbox']],
                'score': rng.random(),
            }
            for x in objects * 3
        ]
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    a, b, ann = (
        str(folder / n) for n in ('a.bbox.json', 'b.bbox.json', 'truth.json')
    )
    return [a, b, '--ann', ann]


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns the arguments of Python by the name of the measurement."""
    found = {
        f'import {module}': ['-c', f'import {module}']
        for module in ('mmext', 'mmdet.registry')
    }
    for tool in sorted((ROOT / 'tools').rglob('*.py')):
        found[f'{tool.name} --help'] = [str(tool), '--help']
    found['compare.py, two files of 80 images'] = [
        str(ROOT / 'tools' / 'compare.py'),
        *write_results(folder),
    ]
    return found


def run(arguments: Sequence[str]) -> tuple[float, float]:
    """Runs Python once: seconds and peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f'{" ".join(arguments)} exits with {process.returncode}')
    unit = 1 if sys.platform == 'darwin' else 1024
    return seconds, usage.ru_maxrss * unit / MIB


def machine() -> str:
    """Describes processor, cores and memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    python = '.'.join(map(str, sys.version_info[:3]))
    return (
        f'{processor()}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB of '
        f'memory, Python {python}'
    )


def table(found: Measurements, rounds: int) -> str:
    """Returns the page with the medians, in Markdown."""
    lines = [
        f'`python benchmarks/startup.py`: medians of {rounds} runs in turn, '
        f'wall clock and peak memory (resident set). {machine()}. "Before" '
        'was measured before tools imported torch and MMDetection on demand, '
        'on a machine with two cores.',
        '',
        '| command | time | memory | before: time | memory |',
        '|---|---:|---:|---:|---:|',
    ]
    for name, values in found.items():
        seconds, memory = (
            statistics.median(column) for column in zip(*values, strict=True)
        )
        old = ('', '')
        if name in BEFORE:
            old = (f'{BEFORE[name][0]:.2f} s', f'{BEFORE[name][1]:,} MiB')
        lines.append(
            f'| `{name}` | {seconds:.2f} s | {memory:.0f} MiB | {old[0]} '
            f'| {old[1]} |'
        )
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=OUT)
    args = parser.parse_args()
    found: Measurements = {}
    with tempfile.TemporaryDirectory() as folder:
        work = commands(Path(folder))
        for _ in range(args.rounds):
            for name, arguments in work.items():
                found.setdefault(name, []).append(run(arguments))
    page = table(found, args.rounds)
    print(page)
    args.out.write_text(page, 'utf-8')


if __name__ == '__main__':
    main()
