# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures what locks and checksums cost in an epoch of the demo.

    python benchmarks/safety_overhead.py [--epochs 3] [--out FILE.md]

The baseline of the demo trains and validates as usual, with a checkpoint
after each epoch. The calls that lock the work dir, compute checksums and read
a checkpoint back are timed inside of the run, and compared with the time of
the complete run. Times are wall-clock times.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import mmext
from mmext.errors import command
from mmext.evaluation.report.table import Table

CONFIG = (
    Path(__file__).parents[1]
    / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py'
)
#: Function -> what it does.
CALLS = {
    'mmext.engine.runner.checksums': 'CRC-32 of the tensors (a save)',
    'mmext.checkpoints.files.defect': 'reading the file back (a save)',
    'mmext.utils.locks._acquire': 'locking the work dir (a run)',
    'mmext.engine.resume.exact_resume.describe_data': (
        'SHA-256 of the annotations (a run)'
    ),
}


@contextmanager
def timed(name: str, seconds: Counter, calls: Counter) -> Iterator[None]:
    """Adds the time of each call of a function."""
    module, _, function = name.rpartition('.')
    real: Callable = getattr(__import__(module, fromlist=['']), function)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - start
            calls[name] += 1

    with patch(name, call):
        yield


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--epochs', type=int, default=3, help='default: 3')
    parser.add_argument('--out', type=Path, help='Markdown file')
    args = parser.parse_args()
    seconds, calls = Counter(), Counter()
    options = {
        'train_cfg.max_epochs': args.epochs,
        'train_cfg.val_interval': 1,
        'param_scheduler.1.T_max': args.epochs,
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(timed(name, seconds, calls))
        start = time.perf_counter()
        mmext.train(CONFIG, work_dir=folder, amp=True, cfg_options=options)
        total = time.perf_counter() - start
        size = Path(folder, f'epoch_{args.epochs}.pth').stat().st_size
    epoch = total / args.epochs
    rows = []
    for name, what in CALLS.items():
        each = seconds[name] / max(calls[name], 1)
        share = f'{100 * each / epoch:.3f} %'
        rows.append([what, str(calls[name]), f'{1000 * each:.1f} ms', share])
    added = seconds.total() - seconds['mmext.checkpoints.files.defect']
    table = Table(
        ('call', 'calls', 'time of one', 'of an epoch'),
        rows,
        notes=(
            f'{args.epochs} epochs of {epoch:.1f} s, with validation; '
            f'checkpoints of {size / 2**20:.0f} MiB. Without reading back, '
            f'which earlier versions did too: {100 * added / total:.3f} % of '
            'the run.',
            f'mmext {mmext.__version__}, torch {torch.__version__}, '
            f'{torch.get_num_threads()} threads, {platform.machine()}.',
        ),
    )
    print(table.text())
    if args.out:
        args.out.write_text(table.markdown(), encoding='utf-8')


if __name__ == '__main__':
    main()
