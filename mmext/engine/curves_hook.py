# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Curves in the work folder while a run trains, and a table when it ends."""

from __future__ import annotations

import time
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmext.errors import UserError

#: Seconds between two drawings, the last one apart.
PAUSE = 60.0
#: Rows of the final table; of a longer run the last ones, and the best.
ROWS = 24


@HOOKS.register_module()
class CurvesHook(Hook):
    """Writes ``WORK_DIR/curves``: a CSV of all that was logged, PNGs.

    Drawn are the loss, the learning rate and the main metrics, after a
    validation but no more than once a minute, and at the end. A table of the
    validations with the best one marked then closes the log. The best is
    chosen on the data it is reported on, which flatters it.
    """

    priority = 'LOWEST'  # after what is logged

    def __init__(self) -> None:
        self._drawn = -PAUSE

    @master_only
    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Draws, in training, if the last time is a minute ago."""
        training = runner._train_loop is not None and runner.iter > 0
        if training and time.monotonic() - self._drawn >= PAUSE:
            draw(runner)
            self._drawn = time.monotonic()

    @master_only
    def after_train(self, runner) -> None:
        """Draws for the last time and prints the table."""
        if folder := draw(runner):
            table = summary(runner)
            runner.logger.info(f'{table}\nCurves: {folder}')


def draw(runner) -> Path | None:
    """Draws what was logged; None where nothing was."""
    # matplotlib takes a second, which only a run that trains should pay.
    from mmext.evaluation.report.plots import logged_curves, plot_curves
    from mmext.evaluation.runs import other_metrics, read_run

    try:
        run = read_run(runner.work_dir)
    except UserError:  # no LocalVisBackend: somebody else keeps the numbers
        return None
    folder = Path(runner.work_dir, 'curves')
    others = {key for record in run.val_log for key in other_metrics(record)}
    keys = [
        key
        for key, points in logged_curves(run).items()
        if len(points) > 1
        and (
            key in {'loss', 'lr', 'val_loss'} | others or key.endswith('_mAP')
        )
    ]
    try:
        plot_curves([run], folder, keys)
    except OSError as error:
        runner.logger.warning(f'{folder} could not be written: {error}')
        return None
    return folder


def summary(runner) -> str:
    """A table of the validations; the best has an asterisk."""
    from mmext.evaluation.report.table import Table
    from mmext.evaluation.runs import other_metrics, parse_metrics, read_run

    log = read_run(runner.work_dir).val_log
    if not log:
        return 'Nothing was validated.'
    if kinds := [*parse_metrics(log[0])]:
        found = [
            {
                f'{kind} {name}' if len(kinds) > 1 else name: 100 * value
                for kind, values in parse_metrics(record).items()
                for name, value in values.items()
                if name in ('AP', 'AP50', 'AP75')
            }
            for record in log
        ]
    else:
        found = [other_metrics(record) for record in log]
    names = sorted(found[0], key=lambda name: name.split('/')[-1] != 'mIoU')
    values = [[f.get(name, float('nan')) for name in names] for f in found]
    best = max(
        range(len(log)),
        key=lambda i: (values[i][0] == values[i][0], values[i][0]),
    )
    shown = [i for i in range(len(log)) if i >= len(log) - ROWS or i == best]
    losses = any('val_loss' in record for record in log)
    rows = []
    for i in shown:
        row = [f'{log[i]["step"]}{" *" if i == best else ""}']
        row += [f'{v:.1f}' if kinds else f'{v:.4g}' for v in values[i]]
        if losses:
            row.append(f'{log[i].get("val_loss", float("nan")):.4f}')
        rows.append(row)
    by_epoch = runner.train_loop.max_epochs > 1 or not hasattr(
        runner.train_loop, 'dataloader_iterator'
    )
    header = ['epoch' if by_epoch else 'iteration', *names]
    header += ['val loss'] * losses
    table = Table(header, rows, title=f'Best: {header[0]} {log[best]["step"]}')
    saved = runner.message_hub.runtime_info.get('best_ckpt')
    return table.text() + (f'\nsave_best kept {saved}' if saved else '')
