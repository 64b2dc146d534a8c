# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A resumed run names the values of its config that it does not use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from toy import Toy, build_runner

COSINE = {'type': 'CosineAnnealingLR', 'T_max': 2, 'end': 2}
STEPS = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
OPTIMIZER = {'type': 'AdamW', 'lr': 0.01, 'weight_decay': 0.1}


def resume(
    folder: Path, before: Any, after: Any, last: int = 4
) -> tuple[list[str], list[float]]:
    """Trains two epochs, then others with other settings, until ``last``.

    ``before`` and ``after`` are an optimizer or a list of schedules. If
    ``last`` is 2, the second run repeats the second epoch. Returns the
    warnings and the learning rate at the end of each run.
    """
    lines: list[str] = []
    rates: list[float] = []
    start = str(folder / f'epoch_{last // 2}.pth')
    for epochs, change, resumed in (
        (2, before, {}),
        (last, after, {'resume': True, 'load_from': start}),
    ):
        changes_optimizer = isinstance(change, dict)
        optimizer = change if changes_optimizer else OPTIMIZER
        settings = {
            'param_scheduler': [COSINE] if changes_optimizer else change,
            'optim_wrapper': {'optimizer': optimizer},
        }
        runner = build_runner(
            folder, Toy(), epochs=epochs, **copy.deepcopy(settings), **resumed
        )
        runner.logger.warning = lambda line, *_: lines.append(line)
        runner.train()
        rates.append(runner.optim_wrapper.get_lr()['lr'][0])
    return [x for x in lines if 'not used' in x], rates


LONGER = {**COSINE, 'T_max': 4, 'end': 4}


@pytest.mark.parametrize(
    ('before', 'after', 'says'),
    [
        ([COSINE], [LONGER],
         ['param_scheduler.0 (CosineAnnealingLR) T_max=4 (the checkpoint has '
          '2)', 'end=4 (the checkpoint has 2)']),
        ([STEPS], [{**STEPS, 'milestones': [1, 3]}],
         ['milestones=[1, 3] (the checkpoint has [1])']),
        ([COSINE, STEPS], [COSINE],
         ['param_scheduler has 1 entries (the checkpoint has 2)']),
        ([COSINE], [COSINE, STEPS],
         ['param_scheduler.1: the checkpoint has no state of this Multi']),
        ([COSINE], [STEPS], ['another kind of schedule than MultiStepLR']),
        (OPTIMIZER, {**OPTIMIZER, 'lr': 0.5, 'weight_decay': 0.0},
         ['optim_wrapper.optimizer.lr=0.5 (the checkpoint has 0.01)',
          'optim_wrapper.optimizer.weight_decay=0 (the checkpoint has 0.1)']),
    ],
)  # fmt: skip
def test_values_that_are_not_used_are_named(tmp_path, before, after, says):
    (line,), rates = resume(tmp_path, before, after)
    for text in says:
        assert text in line
    assert 'load_from=' in line and 'without --resume' in line
    if after == [LONGER]:  # the learning rate is that of the checkpoint
        assert rates[1] == pytest.approx(rates[0])


@pytest.mark.parametrize(
    'scheduler',
    [
        [],
        [COSINE],
        [STEPS],
        [{**COSINE, 'convert_to_iter_based': True}],
        [{'type': 'LinearLR', 'by_epoch': False, 'end': 3}, STEPS],
        [{'type': 'ReduceOnPlateauLR', 'monitor': 'loss', 'patience': 1}],
        [{'type': 'PolyLR', 'power': 0.9, 'end': 4}],
        [{'type': 'CosineRestartLR', 'periods': [4], 'eta_min': 0}],
        [{'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 9}],
    ],
)
def test_the_same_config_gives_no_warning(tmp_path, scheduler):
    assert resume(tmp_path, scheduler, scheduler, last=2)[0] == []


def test_a_schedule_that_ends_with_the_run_ends_with_the_first_run(tmp_path):
    """The default of ``end`` is the last epoch of the config."""
    (line,), _ = resume(tmp_path, [STEPS], [STEPS])
    assert '(MultiStepLR) end=4 (the checkpoint has 2)' in line
