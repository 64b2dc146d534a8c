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
    folder: Path, before: dict[str, Any], after: dict[str, Any], last: int = 4
) -> tuple[list[str], list[float]]:
    """Trains two epochs, then others with other settings, until ``last``.

    If ``last`` is 2, the second run repeats the second epoch. Returns the
    warnings and the learning rate at the end of each run.
    """
    lines: list[str] = []
    rates: list[float] = []
    for epochs, changes in ((2, before), (last, after)):
        settings = {
            'param_scheduler': [COSINE],
            'optim_wrapper': {'optimizer': OPTIMIZER},
            **changes,
        }
        if changes is after:
            start = folder / f'epoch_{last // 2}.pth'
            settings |= {'resume': True, 'load_from': str(start)}
        runner = build_runner(
            folder, Toy(), epochs=epochs, **copy.deepcopy(settings)
        )
        runner.logger.warning = lambda line, *_: lines.append(line)
        runner.train()
        rates.append(runner.optim_wrapper.get_lr()['lr'][0])
    return [x for x in lines if 'not used' in x], rates


def changed(name: str, before: object, after: object) -> tuple[dict, dict]:
    return tuple({name: copy.deepcopy(v)} for v in (before, after))


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        (
            changed(
                'param_scheduler', [COSINE], [{**COSINE, 'T_max': 4, 'end': 4}]
            ),
            [
                'param_scheduler.0 (CosineAnnealingLR) T_max=4 (the '
                'checkpoint has 2)',
                'end=4 (the checkpoint has 2)',
            ],
        ),
        (
            changed(
                'param_scheduler', [STEPS], [{**STEPS, 'milestones': [1, 3]}]
            ),
            ['milestones=[1, 3] (the checkpoint has [1])'],
        ),
        (
            changed('param_scheduler', [COSINE, STEPS], [COSINE]),
            ['param_scheduler has 1 entries (the checkpoint has 2)'],
        ),
        (
            changed('param_scheduler', [COSINE], [COSINE, STEPS]),
            ['param_scheduler.1: the checkpoint has no state of this Multi'],
        ),
        (
            changed('param_scheduler', [COSINE], [STEPS]),
            ['another kind of schedule than MultiStepLR'],
        ),
        (
            changed(
                'optim_wrapper',
                {'optimizer': OPTIMIZER},
                {'optimizer': {**OPTIMIZER, 'lr': 0.5, 'weight_decay': 0.0}},
            ),
            [
                'optim_wrapper.optimizer.lr=0.5 (the checkpoint has 0.01)',
                'optim_wrapper.optimizer.weight_decay=0 (the checkpoint has '
                '0.1)',
            ],
        ),
    ],
)
def test_values_that_are_not_used_are_named(tmp_path, settings, says):
    (line,), _ = resume(tmp_path, *settings)
    for text in says:
        assert text in line
    assert 'load_from=' in line and 'without --resume' in line


def test_the_learning_rate_is_that_of_the_checkpoint(tmp_path):
    longer = [{**COSINE, 'T_max': 4, 'end': 4}]
    _, rates = resume(tmp_path, {}, {'param_scheduler': longer})
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
    ],
)
def test_the_same_config_gives_no_warning(tmp_path, scheduler):
    same = {'param_scheduler': scheduler}
    assert resume(tmp_path, same, {**same}, last=2)[0] == []


def test_a_schedule_that_ends_with_the_run_ends_with_the_first_run(tmp_path):
    """The default of ``end`` is the last epoch of the config."""
    same = {'param_scheduler': [STEPS]}
    (line,), _ = resume(tmp_path, same, {**same})
    assert '(MultiStepLR) end=4 (the checkpoint has 2)' in line
