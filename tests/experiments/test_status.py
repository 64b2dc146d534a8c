# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The table and the page of a plan that runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from experiments import plan_of
from json_files import edit_json
from rich.console import Console
from trained import write_log

from mmext.errors import UserError
from mmext.experiments.plan import Plan
from mmext.experiments.runs.planned_run import Run
from mmext.experiments.runs.status import (
    PAGE,
    Row,
    Status,
    missing_table,
    time_left,
)
from mmext.experiments.state import (
    LOG,
    STATE,
    State,
    last_lines,
    read_state,
)


@pytest.fixture
def plan() -> Plan:
    return plan_of((2,), claim='<b>StepNet & co</b>')


def rows_of(plan: Plan, folder: Path, *states: dict) -> list[Row]:
    """Returns a row for each run; those without a state wait."""
    states += ({},) * (4 - len(states))
    rows = []
    for job, values in zip(plan.jobs(), states, strict=True):
        state = State(plan.sha256, **values)
        run = plan.folder_of(job, folder)
        rows.append(Row(job, run, state.status, state))
    return rows


DONE = {'status': 'done', 'share': 1.0, 'seconds': 600.0}
TRAINS = {'status': 'training', 'share': 0.25, 'seconds': 100.0, 'left': 300.0}
DIVERGED = {
    'status': 'diverged',
    'share': 0.5,
    'failures': 1,
    'error': 'the loss is not finite.\n  layer 1',
}


@pytest.mark.parametrize(
    'states, parallel, left',
    [
        ([], 1, None),  # nothing is known yet
        ([DONE], 1, 3 * 600),
        ([DONE], 3, 600),
        ([DONE, TRAINS], 1, 300 + 600 + 400),  # of each side its own
        ([DONE, TRAINS, DIVERGED], 2, 400),  # the last run alone
        ([DONE, DONE, DIVERGED, DONE], 1, 0),
    ],
)
def test_time_left(plan, tmp_path, states, parallel, left):
    rows = rows_of(plan, tmp_path, *states)
    assert time_left(rows, parallel) == left


def test_a_line_every_15_seconds_without_a_terminal(plan, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    times = iter([0, 5, 14, 16, 20, 25])
    with Status(plan, tmp_path, console, now=lambda: next(times)) as status:
        for state in ({}, TRAINS, TRAINS, TRAINS, TRAINS):
            status.show(rows_of(plan, tmp_path, DONE, state))
        status.show(rows_of(plan, tmp_path, DONE, DONE))
    lines = console.file.getvalue().splitlines()
    assert lines == [
        ' 25%: 1 done, 3 waiting (30 min 00 s left)',
        ' 31%: 1 done, 1 training, 2 waiting (21 min 40 s left)',
        ' 50%: 2 done, 2 waiting (20 min 00 s left)',  # a run has ended
    ]


def test_the_table_of_a_terminal(plan, tmp_path):
    console = Console(file=io.StringIO(), width=90, force_terminal=True)
    rows = rows_of(plan, tmp_path, DONE, TRAINS, DIVERGED)
    with Status(plan, tmp_path, console) as status:
        status.show(rows)
    text = console.export_text() if console.record else console.file.getvalue()
    for word in ('took 10 min 00 s', '5 min 00 s', 'diverged', 'all'):
        assert word in text


def test_the_page(plan, tmp_path):
    rows = rows_of(plan, tmp_path, DONE, TRAINS, DIVERGED)
    for row, loss in zip(rows, (2.0, 3.0, 4.0), strict=False):
        row.folder.mkdir(parents=True)
        steps = [{'loss': loss / n, 'step': n, 'iter': n} for n in (1, 2)]
        write_log(row.folder, [*steps, {'coco/bbox_mAP': 0.123, 'step': 1}])
    log = rows[2].folder / LOG
    log.write_text('layer <1>\n\n coco/bbox_mAP: 0.123\nstopped\n')
    console = Console(file=io.StringIO(), width=200)
    with Status(plan, tmp_path, console) as status:
        status.show(rows)
        status.report(rows[2], retried=False)
    page = (tmp_path / PAGE).read_text()
    assert '<meta http-equiv="refresh"' in page
    assert '&lt;b&gt;StepNet &amp; co' in page and '<b>StepNet' not in page
    assert page.count('class="bar"') == 4
    assert 'style="width: 25%"' in page
    assert 'layer &lt;1&gt;\nstopped</pre>' in page
    assert page.count('<polyline') == 3
    assert page.count('polyline class="s1"') == 1  # of the candidate
    # Results are shown when a look is complete.
    assert '0.123' not in page and '0.123' not in console.file.getvalue()
    said = console.file.getvalue()
    assert 'base, seed 2: diverged: the loss is not finite. Log: ' in said
    assert '    stopped' in said
    ended = [*rows[:1], rows[2]]
    with Status(plan, tmp_path, console) as status:
        status.show(ended)
    assert 'http-equiv' not in (tmp_path / PAGE).read_text()


def test_the_table_of_missing_runs(plan, tmp_path):
    _, _, *rows = rows_of(plan, tmp_path, DONE, DONE, DIVERGED)
    assert missing_table(rows).rows == [
        ['base', '2', 'diverged', '1', 'the loss is not finite'],
        ['cand 1', '4', 'waiting', '0', '-'],
    ]


def test_a_state_is_read_as_it_was_written(plan, tmp_path):
    assert read_state(tmp_path) is None
    state = State(plan.sha256, 'training', 0.5, 3.0, 10.0, host='a', pid=3)
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    (tmp_path / STATE).write_text(json.dumps({'status': 'done'}))
    with pytest.raises(UserError, match='no state of a run'):
        read_state(tmp_path)


@pytest.mark.parametrize(
    'key, value',
    [
        ('failures', '2'),
        ('share', None),
        ('error', None),
        ('status', ['done']),
        ('plan_sha256', 5),
        ('left', float('nan')),
    ],
)
def test_a_state_that_was_edited(plan, tmp_path, key, value):
    State(plan.sha256).write(tmp_path)
    edit_json(tmp_path / STATE, lambda state: state.update({key: value}))
    with pytest.raises(UserError, match=f'(?s){key} is .*Remove the f'):
        read_state(tmp_path)


def test_a_run_whose_record_was_removed(plan, tmp_path):
    job = next(plan.jobs())
    State(plan.sha256, **DONE).write(plan.folder_of(job, tmp_path))
    row = Run(plan, job, tmp_path).row()
    assert row.status == 'waiting'
    console = Console(file=io.StringIO())
    assert 'ended' not in Status(plan, tmp_path, console).line([row])


def test_the_last_lines_of_a_long_log(tmp_path):
    log = tmp_path / LOG
    assert last_lines(log) == []
    log.write_text('\n'.join(map(str, range(100_000))))
    assert last_lines(log, 2) == ['99998', '99999']
