# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws curves while a run trains and prints a table when it ends."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.errors import UserError
from mmext.evaluation.runs import (
    Run,
    logged_curves,
    other_metrics,
    parse_metrics,
    read_run,
)

#: Seconds between two drawings during the training.
PAUSE = 60.0
#: Rows of the final table: the last ones and the best one.
ROWS = 24


@HOOKS.register_module()
class CurvesHook(Hook):
    """Writes ``WORK_DIR/curves``: everything logged as CSV, curves as PNG.

    The loss, the learning rate and the main metrics are drawn after a
    validation, at most once a minute, and at the end of the training. A table
    of the validations then ends the log and marks the best one. The best one
    is chosen on the data that it is reported on, so that it looks better than
    it is.
    """

    priority = 'LOWEST'  # after everything that is logged

    def __init__(self) -> None:
        self._drawn = -PAUSE

    @master_only
    def after_val_epoch(self, runner: Runner, **kwargs: Any) -> None:
        training = runner._train_loop is not None and runner.iter > 0
        if training and time.monotonic() - self._drawn >= PAUSE:
            _draw(runner)
            self._drawn = time.monotonic()

    @master_only
    def after_train(self, runner: Runner) -> None:
        run = _draw(runner)
        if run is not None:
            runner.logger.info(
                f'{summary(runner, run)}\nCurves: {_folder(runner)}'
            )


def _folder(runner: Runner) -> Path:
    return Path(runner.work_dir, 'curves')


def _draw(runner: Runner) -> Run | None:
    """Draws what was logged; returns None if nothing was drawn."""
    # matplotlib takes a second to import, and only training needs it.
    from mmext.evaluation.report.plots import plot_curves

    try:
        run = read_run(runner.work_dir)
    except UserError:  # the config logs to another place
        return None
    main = {'loss', 'lr', 'val_loss'}
    for record in run.val_log:
        main |= other_metrics(record).keys()
    keys = [
        key
        for key in logged_curves(run)
        if key in main or key.endswith('_mAP')
    ]
    try:
        plot_curves([run], _folder(runner), keys)
    except OSError as error:
        folder = _folder(runner)
        runner.logger.warning(f'{folder} could not be written: {error}')
        return None
    return run


def summary(runner: Runner, run: Run) -> str:
    """Returns a table of the validations; the best one has an asterisk.

    COCO metrics are shown from 0 to 100, others as they were logged.
    """
    from mmext.evaluation.report.table import Table

    log = run.val_log
    if not log:
        return 'Nothing was validated.'
    is_coco = bool(parse_metrics(log[0]))
    read = _coco if is_coco else other_metrics
    found = [read(record) for record in log]
    names = dict.fromkeys(name for values in found for name in values)
    names = sorted(names, key=lambda name: name.split('/')[-1] != 'mIoU')
    values = [[f.get(name, math.nan) for name in names] for f in found]
    main = [row[0] for row in values]
    best = None if np.isnan(main).all() else int(np.nanargmax(main))
    has_loss = any('val_loss' in record for record in log)
    rows = []
    for i, record in enumerate(log):
        if i < len(log) - ROWS and i != best:
            continue
        row = [f'{record["step"]} *' if i == best else str(record['step'])]
        row += [_cell(v, '.1f' if is_coco else '.4g') for v in values[i]]
        if has_loss:
            row.append(_cell(record.get('val_loss', math.nan), '.4f'))
        rows.append(row)
    loop = runner.train_loop
    by_epoch = loop.max_epochs > 1 or not hasattr(loop, 'dataloader_iterator')
    unit = 'epoch' if by_epoch else 'iteration'
    header = [unit, *names]
    if has_loss:
        header.append('val loss')
    title = f'No {unit} has a value of {names[0]}'
    if best is not None:
        title = f'Best: {unit} {log[best]["step"]}'
    table = Table(header, rows, title=title)
    saved = runner.message_hub.runtime_info.get('best_ckpt')
    return table.text() + (f'\nsave_best kept {saved}' if saved else '')


def _cell(value: float, form: str) -> str:
    return '' if math.isnan(value) else f'{value:{form}}'


def _coco(record: dict) -> dict[str, float]:
    """Returns AP, AP50 and AP75 of each IoU type, from 0 to 100."""
    metrics = parse_metrics(record)
    return {
        f'{kind} {name}' if len(metrics) > 1 else name: 100 * value
        for kind, values in metrics.items()
        for name, value in values.items()
        if name in ('AP', 'AP50', 'AP75')
    }
