"""The report of a plan: verdict, deviations, files."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiments import plan_of, record_of, records_of, write_runs

from mmext.errors import UserError
from mmext.experiments.plan import Job, Plan, write_plan
from mmext.experiments.reports.report import (
    PlanReport,
    against_level,
    report_plan,
)
from mmext.experiments.state import State

BOTH = {'base': 0.5, 'cand 1': 0.7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(plan: Plan, records: dict, folder: Path) -> PlanReport:
    path = folder / 'plan.yaml'
    write_plan(path, plan)
    write_runs(plan, records, folder / 'runs')
    return report_plan(path, folder / 'runs')


def git(folder: Path, *arguments: str, when: str = '2029-12-31T00:00Z') -> str:
    name = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    times = {'GIT_AUTHOR_DATE': when, 'GIT_COMMITTER_DATE': when}
    done = subprocess.run(
        ['git', *name, *arguments],
        cwd=folder,
        env={'PATH': '/usr/bin:/bin', 'HOME': str(folder), **times},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def commit(folder: Path, when: str = '2029-12-31T00:00Z') -> None:
    git(folder, 'init', '-q')
    git(folder, 'add', 'plan.yaml')
    git(folder, 'commit', '-qm', 'plan', when=when)


def test_the_verdict(folder: Path) -> None:
    plan = plan_of()
    report = written(plan, records_of(plan, BOTH), folder)
    ((heading, lines),) = report.verdicts()
    assert heading.startswith('cand 1 is better than base, after 3 seeds a s')
    assert '< 0.05)' in heading
    assert lines[0].startswith('The methods, on images like these: top-1 +')
    assert lines[1].startswith('The methods, on these images: top-1 +')
    assert lines[2].startswith('These 3 and 3 checkpoints')


def test_nothing_is_shown_before_the_first_look(folder: Path) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    last = [*plan.jobs()][-1]
    del records[last]
    report = written(plan, records, folder)
    ((heading, lines),) = report.verdicts()
    assert heading == 'Not decided yet'
    assert lines[0] == '1 run of 6 to the first look remain: cand 1/6.'
    assert report.tables() == []
    assert '70.' not in report.markdown()


def test_a_work_dir_without_runs(folder: Path) -> None:
    write_plan(folder / 'plan.yaml', plan_of())
    with pytest.raises(UserError, match='nowhere has no run of'):
        report_plan(folder / 'plan.yaml', folder / 'nowhere')


def test_what_remains_to_be_run(folder: Path) -> None:
    plan = plan_of((2, 3))
    accuracy = {'base': 0.6, 'cand 1': 0.605}
    report = written(plan, records_of(plan, accuracy, seeds=2), folder)
    ((heading, lines),) = report.verdicts()
    assert heading.startswith('cand 1 against base is not settled, after 2 s')
    assert lines[0] == 'To the next look, 2 runs remain: base/3, cand 1/6.'
    write_runs(plan, records_of(plan, accuracy), folder / 'runs')
    report = report_plan(folder / 'plan.yaml', folder / 'runs')
    lines = report.verdicts()[0][1]
    assert lines[0].startswith('The plan ends here.')
    values = [[], []]
    for job, value in report.decision.values.items():
        values[job.side != 'base'].append(100 * value)
    sd = np.sqrt(np.mean([np.var(v, ddof=1) for v in values]))
    assert lines[1].startswith(
        f'Trainings of one side differed by {sd:.1f} top-1 (standard '
        'deviation); the plan assumed 0.5.'
    )


def test_all_seeds_are_in_the_files(folder: Path) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    report = written(plan, records, folder)
    page, text, *_ = report.write(folder / 'out')
    rows = {
        (row[0], row[1]): row[2]
        for table in report.tables()
        if table.title == 'All trainings'
        for row in table.rows
    }
    for job, record in records.items():
        right = record.results.predicted[:, 0] == record.results.label
        value = f'{100 * right.mean():.2f}'
        assert rows[job.side, str(job.seed)] == value
        assert f'{job.side}: {value}<' in page.read_text()
        assert value in text.read_text()
    assert page.read_text().count('<polyline') == 2 * len(records)
    names = {p.name for p in (folder / 'out').iterdir()}
    assert {'all-trainings.tex', 'recall-by-class-cand-1.csv'} <= names
    assert 'top-1' in (folder / 'out/cand-1-against-base.csv').read_text()


def test_failed_runs_are_deviations(folder: Path) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    job = [*plan.jobs()][-1]
    del records[job]
    run = plan.folder_of(job, folder / 'runs')
    run.mkdir(parents=True)
    state = State(plan.sha256)
    state.fail('the loss is nan', 'diverged')
    state.write(run)
    report = written(plan, records, folder)
    assert 'better than base, after 3 and 2 of 3' in report.verdicts()[0][0]
    assert 'cand 1, seed 6, has no result: the loss is nan' in report.warnings
    assert 'the loss is nan' in report.html()


def test_a_failed_run_that_will_be_retried_is_not_missing(
    folder: Path,
) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    job = [*plan.jobs()][-1]
    del records[job]
    state = State(plan.sha256)
    state.fail('killed')
    state.write(plan.folder_of(job, folder / 'runs'))
    report = written(plan, records, folder)
    assert report.verdicts()[0][0] == 'Not decided yet'
    state.fail('killed again')
    state.write(plan.folder_of(job, folder / 'runs'))
    report = report_plan(folder / 'plan.yaml', folder / 'runs')
    assert 'cand 1, seed 6, has no result: killed again' in report.warnings


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'commit': 'd' * 40}, 'different commits: ccc'),
        ({'versions': {'torch': '2.1'}}, 'different versions of torch: 2.0 ('),
        (
            {'hardware': {'device': 'GPU'}},
            'different devices: CPU (5 runs), GPU (1 run).',
        ),
        (
            {'config_sha256': 'f' * 64},
            'configs: as planned (5 runs), cand 1 f',
        ),
        ({'commit': 'c' * 40 + '-dirty'}, '1 run of 6 had changes of the cod'),
    ],
)
def test_runs_that_differ_are_deviations(
    folder: Path, change: dict, says: str
) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    job = [*plan.jobs()][-1]
    records[job] = replace(records[job], **change)
    warnings = written(plan, records, folder).warnings
    assert any(says in w for w in warnings), warnings


def test_a_plan_that_was_committed_first(folder: Path) -> None:
    plan = plan_of()
    write_plan(folder / 'plan.yaml', plan)
    commit(folder)
    text = (folder / 'plan.yaml').read_text()
    (folder / 'plan.yaml').write_text(f'# a comment\n{text}')
    write_runs(plan, records_of(plan, BOTH), folder / 'runs')
    assert report_plan(folder / 'plan.yaml', folder / 'runs').warnings == ()


def test_a_plan_that_was_committed_too_late(folder: Path) -> None:
    plan = plan_of()
    write_plan(folder / 'plan.yaml', plan)
    commit(folder, '2030-01-01T10:30Z')
    (warning,) = written(plan, records_of(plan, BOTH), folder).warnings
    assert warning.startswith('The plan was not committed before the first t')
    assert '(2030-01-01 10:00 UTC)' in warning
    assert 'is of 2030-01-01 10:30 UTC' in warning


def test_a_plan_that_was_renamed_after_the_training(folder: Path) -> None:
    plan = plan_of()
    write_plan(folder / 'plan.yaml', plan)
    commit(folder)
    (folder / 'plans').mkdir()
    git(folder, 'mv', 'plan.yaml', 'plans/[a] plan.yaml')
    git(folder, 'commit', '-qm', 'rename', when='2030-02-01T00:00Z')
    write_runs(plan, records_of(plan, BOTH), folder / 'runs')
    path = folder / 'plans/[a] plan.yaml'
    assert report_plan(path, folder / 'runs').warnings == ()
    (folder / 'link.yaml').symlink_to(path)
    assert report_plan(folder / 'link.yaml', folder / 'runs').warnings == ()


def test_a_history_that_is_cut_off(folder: Path) -> None:
    """A shallow clone does not know when the plan was committed."""
    plan = plan_of()
    full = folder / 'full'
    full.mkdir()
    write_plan(full / 'plan.yaml', plan)
    commit(full)
    git(full, 'commit', '-qm', 'x', '--allow-empty', when='2030-02-01T00:00Z')
    git(folder, 'clone', '-q', '--depth', '1', full.as_uri(), 'copy')
    write_runs(plan, records_of(plan, BOTH), folder / 'runs')
    path = folder / 'copy/plan.yaml'
    (warning,) = report_plan(path, folder / 'runs').warnings
    assert 'git fetch --unshallow' in warning
    assert 'not committed' not in warning


def test_a_plan_that_is_in_no_repository(folder: Path) -> None:
    plan = plan_of()
    (warning,) = written(plan, records_of(plan, BOTH), folder).warnings
    assert warning.startswith('No git repository has the plan')
    # One training a side decides nothing about methods.
    once = plan_of((1,))
    once_folder = folder / 'once'
    once_folder.mkdir()
    assert not written(once, records_of(once, BOTH), once_folder).warnings


def test_a_plan_that_was_changed_after_results(folder: Path) -> None:
    """By the hash in the records."""
    plan = plan_of()
    write_plan(folder / 'plan.yaml', plan)
    commit(folder)
    records = records_of(plan, BOTH)
    report = written(replace(plan, alpha=0.1), records, folder)
    (warning,) = report.warnings
    assert warning.startswith('The plan was changed after results: 6 runs of')


def test_a_plan_whose_records_were_made_to_fit(folder: Path) -> None:
    """By the history, where the records have the hash of the new plan."""
    plan = plan_of()
    write_plan(folder / 'plan.yaml', plan)
    commit(folder)
    changed = replace(plan, alpha=0.1)
    write_plan(folder / 'plan.yaml', changed)
    git(folder, 'commit', '-qam', 'again', when='2030-01-02T00:00Z')
    (warning,) = written(changed, records_of(changed, BOTH), folder).warnings
    assert warning.startswith('The plan was changed after the first training')


def test_records_of_another_plan_in_the_folder(folder: Path) -> None:
    plan = plan_of()
    records = records_of(plan, BOTH)
    job = [*plan.jobs()][0]
    for change, says in (
        ({'data_sha256': 'b' * 64}, 'tested on other data than the plan'),
        ({'side': 'cand 1'}, 'is the record of cand 1, seed 1'),
    ):
        wrong = {**records, job: replace(records[job], **change)}
        with pytest.raises(UserError, match=says):
            written(plan, wrong, folder)


def test_other_metrics_than_the_planned_one(folder: Path) -> None:
    plan = plan_of(task='mIoU')
    records = {
        job: record_of(plan, Job(*job), [True] * 300) for job in plan.jobs()
    }
    with pytest.raises(UserError, match='has top-1, and the plan decides by '):
        written(plan, records, folder)


def test_a_candidate_that_always_failed(folder: Path) -> None:
    plan = plan_of(candidates=2)
    accuracy = {'base': 0.3, 'cand 1': 0.3, 'cand 2': 0.9}
    records = records_of(plan, accuracy)
    for job in [job for job in records if job.side == 'cand 1']:
        del records[job]
        state = State(plan.sha256)
        state.fail('the loss is nan', 'diverged')
        state.write(plan.folder_of(job, folder / 'runs'))
    report = written(plan, records, folder)
    first, second = report.verdicts()
    assert first[0] == 'cand 1 against base: no run of cand 1 has a result'
    assert second[0].startswith('cand 2 is better than base')
    assert 'cand 1, seed 4, has no result: the loss is nan' in report.warnings
    assert 'Differences: cand 2' in report.html()


def test_what_remains_if_too_few_runs_are_left_at_a_look(
    folder: Path,
) -> None:
    plan = plan_of((2, 3))
    records = records_of(plan, BOTH, seeds=2)
    for job in [*records][2:]:
        del records[job]
        state = State(plan.sha256)
        state.fail('the loss is nan', 'diverged')
        state.write(plan.folder_of(job, folder / 'runs'))
    report = written(plan, records, folder)
    ((heading, lines),) = report.verdicts()
    assert heading.endswith('the methods are not tested')
    assert lines[0] == 'To the next look, 2 runs remain: base/3, cand 1/6.'


def test_the_level_is_beside_the_intervals(folder: Path) -> None:
    """Those at a look are wider than the usual ones."""
    plan = plan_of((2, 3))
    accuracy = {'base': 0.6, 'cand 1': 0.605}
    report = written(plan, records_of(plan, accuracy, seeds=2), folder)
    level = f'{100 * (1 - report.decision.candidates[0].alpha):.4g} %'
    notes = [' '.join(t.notes) for t in [*report.tables(), *report.details()]]
    assert sum(f'Intervals: {level}.' in note for note in notes) == 3


@pytest.mark.parametrize(
    ('p', 'level', 'shown'),
    [
        (0.04996, 0.05, 'p = 0.04996 < 0.05'),
        (0.05, 0.05, 'p = 0.05 >= 0.05'),
        (0.00138, 0.00136013, 'p = 0.00138 >= 0.00136'),
        (2e-9, 0.05, 'p < 0.001 < 0.05'),
        (0.12345, 0.04493, 'p = 0.123 >= 0.0449'),
    ],
)
def test_p_beside_its_level(p: float, level: float, shown: str) -> None:
    assert against_level(p, level) == shown


def test_trainings_with_the_same_results(folder: Path) -> None:
    """As if the seed did nothing, or a run was copied."""
    plan = plan_of()
    records = records_of(plan, BOTH)
    one, other = Job('base', 1), Job('base', 3)
    records[other] = replace(records[other], results=records[one].results)
    warnings = written(plan, records, folder).warnings
    assert any('base/1, base/3 have the same results' in w for w in warnings)
