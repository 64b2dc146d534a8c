# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What ``tools/misc/check_data.py`` does with its arguments."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mmext.checks import config as check_config
from mmext.checks.data import Report, check_data, remember, table
from mmext.checks.findings import ERROR, Finding, Split
from mmext.checks.fix import write_fixed
from mmext.checks.layouts import find_splits, in_file_order
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config


def run(args: Namespace) -> int:
    """Checks, prints, mends; returns the exit status.

    Raises:
        UserError: No data to check, or a file that cannot be read as COCO.
    """
    splits, found = _splits(args)
    workers = args.workers or len(os.sched_getaffinity(0))
    with Progress(
        TextColumn('reading images'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=Console(stderr=True),
    ) as bar:

        def progress(total: int) -> Callable[[], object]:
            task = bar.add_task('', total=total)
            return lambda: bar.advance(task)

        report = check_data(splits, not args.sample, workers, progress)
    if not args.sample:
        remember(report)
    report = replace(report, findings=(*found, *report.findings))
    print(table(report))
    if args.fix:
        _fix(report, args)
    return int(any(f.level == ERROR for f in report.findings))


def _splits(args: Namespace) -> tuple[list[Split], list[Finding]]:
    if args.data.suffix == '.py':
        cfg = load_config(args.data, args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        splits = check_config.find_splits(cfg, ('train', 'val'))
        if not splits:
            raise UserError(
                f'{args.data} names no COCO annotations',
                'Data sets of other formats, and generated ones, are not '
                'checked.',
            )
        model = build_model(cfg.model)
        return splits, [
            *check_config.check_heads(cfg, model, splits),
            *check_config.check_evaluators(cfg, splits),
        ]
    splits, contents = find_splits(args.data, args.masks)
    chosen = in_file_order(args.classes, contents['train'])
    return [replace(split, classes=chosen) for split in splits], []


def _fix(report: Report, args: Namespace) -> None:
    written = write_fixed(report, args.fix)
    if not written:
        print('nothing to mend')
    for file, done in written.items():
        print(f'wrote {file}:')
        for what, count in done.items():
            print(f'{count:7d} {what}')
    files = {file.name: file for file in written}
    splits = [
        replace(s, ann_file=files.get(s.ann_file.name, s.ann_file))
        for s in report.splits
    ]
    left = [f for f in check_data(splits).findings if f.level == ERROR]
    for finding in left:
        print(f'still wrong: {finding.split}: {finding.problem}')
