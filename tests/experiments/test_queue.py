# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext run`` with fake runs: order, slots, failures, looks, clusters."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import ROOT, environment
from experiments import plan_of, records_of, write_runs
from forked import in_two_processes
from rich.console import Console

from mmext.errors import UserError
from mmext.experiments.plan import Job, Plan
from mmext.experiments.runs import planned_run, queue
from mmext.experiments.runs.places import Command, Local, Slurm, Template
from mmext.experiments.runs.planned_run import Run
from mmext.experiments.runs.queue import run_plan
from mmext.experiments.runs.slots import Slots, find_slots
from mmext.experiments.state import LOG, RECORD, State, read_state

FAKE = ROOT / 'tests' / 'helpers' / 'fake_job.py'


class Fake:
    """The command of a fake run."""

    def of(self, run: Run) -> list[str]:
        plan = run.plan.sha256
        return [sys.executable, str(FAKE), str(run.folder), plan]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fake runs leave an empty record; their configs are not read."""
    path = os.environ.get('PYTHONPATH', '')
    for key, value in environment(TMPDIR=str(tmp_path)).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv('PYTHONPATH', path, prepend=os.pathsep)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr(queue, '_PAUSE', 0.05)
    monkeypatch.setattr(queue, 'checked_side', lambda plan, side: None)
    monkeypatch.setattr(
        planned_run,
        'is_finished',
        lambda p, j, folder: (folder / RECORD).exists(),
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def cpu(count: int = 1) -> Local:
    return Local(Fake(), Slots(tuple(f'cpu-{n}' for n in range(count))))


def work(
    plan: Plan, folder: Path, console: Console, place: Any = None, **more: Any
) -> bool:
    place = place or cpu(2)
    options = {'command': 'mmext run plan.yaml', 'console': console}
    return run_plan(plan, folder, place, **options, **more)


def events(folder: Path) -> list[dict[str, Any]]:
    """Returns what the runs did, in the order of their beginning."""
    lines = (folder / 'events').read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda event: event['begin'])


def todo(plan: Plan, folder: Path, job: Job, *what: str) -> Path:
    run = plan.folder_of(job, folder)
    run.mkdir(parents=True, exist_ok=True)
    (run / 'todo').write_text('\n'.join(what))
    return run


def printed(console: Console) -> str:
    return console.file.getvalue()


def test_runs_are_interleaved_and_one_at_a_time_in_a_slot(tmp_path, console):
    plan = plan_of((2,))
    assert work(plan, tmp_path / 'w', console, cpu(1))
    found = events(tmp_path / 'w')
    assert [e['run'] for e in found] == [
        'base/seed_1',
        'cand-1/seed_3',
        'base/seed_2',
        'cand-1/seed_4',
    ]
    for one, other in zip(found, found[1:], strict=False):
        assert one['end'] <= other['begin']
    assert '100%: 4 done' in printed(console)
    assert (tmp_path / 'w' / 'status.html').is_file()
    before = printed(console)
    assert work(plan, tmp_path / 'w', console, cpu(1))
    assert len(events(tmp_path / 'w')) == 4
    assert 'starting' not in printed(console)[len(before) :]


def test_it_says_that_another_plan_has_the_slots(
    tmp_path, console, monkeypatch
):
    """It waited without a word."""
    monkeypatch.setattr('mmext.experiments.runs.queue._TELL_AFTER', 0.6)
    place = cpu(1)
    slot = place.slots.take()
    threading.Timer(1.5, slot.release).start()
    assert work(plan_of((2,)), tmp_path / 'w', console, place)
    assert printed(console).count('Waiting: other plans use every slot') == 1
    monkeypatch.setattr('mmext.experiments.runs.queue._TELL_AFTER', 60.0)
    again = Console(file=io.StringIO(), width=200)
    assert work(plan_of((2,)), tmp_path / 'again', again, place)
    assert 'Waiting' not in printed(again)


def test_gpus_are_given_to_one_run_each(tmp_path, console, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5,7')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    plan = plan_of((2,))
    place = Local(Fake(), find_slots(None, None))
    assert work(plan, tmp_path / 'w', console, place)
    found = events(tmp_path / 'w')
    assert {e['CUDA_VISIBLE_DEVICES'] for e in found} <= {'2', '5', '7'}
    assert find_slots(None, 2).most == 1
    slots = find_slots(None, 2)
    slot = slots.take()
    assert slots.take() is None
    assert slots.environment(slot)['CUDA_VISIBLE_DEVICES'] == '2,5'
    slot.release()
    assert slots.take() is not None


def test_two_plans_never_share_a_slot(tmp_path, console):
    folders = tmp_path / 'one', tmp_path / 'two'

    def run(rank: int) -> bool:
        slots = Slots(('gpu-0', 'gpu-1'), gpus=True)
        plan = plan_of((2,), claim=folders[rank].name)
        return work(plan, folders[rank], console, Local(Fake(), slots))

    assert in_two_processes(tmp_path, run) == [True, True]
    found = [event for folder in folders for event in events(folder)]
    assert len(found) == 8
    for gpu in ('0', '1'):
        mine = [e for e in found if e['CUDA_VISIBLE_DEVICES'] == gpu]
        mine.sort(key=lambda e: e['begin'])
        assert mine
        for one, other in zip(mine, mine[1:], strict=False):
            assert one['end'] <= other['begin']


def test_cpu_slots(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr('mmext.experiments.runs.slots.cores', lambda: 9)
    monkeypatch.delenv('OMP_NUM_THREADS')
    assert find_slots(None, None).names == ('cpu-0', 'cpu-1')
    slots = find_slots(3, None)
    slot = slots.take()
    assert slots.environment(slot)['OMP_NUM_THREADS'] == '3'
    monkeypatch.setattr('mmext.experiments.runs.slots.cores', lambda: 2)
    assert find_slots(None, None).most == 1
    with pytest.raises(UserError, match='--gpus-per-run 2: .* 0 GPUs'):
        find_slots(None, 2)


@pytest.mark.parametrize(
    'what, why', [('fail', 'the disk is full'), ('kill', 'killed by SIGKILL')]
)
def test_a_failed_run_is_reported_and_retried(tmp_path, console, what, why):
    plan = plan_of((2,))
    folder = todo(plan, tmp_path, Job('cand 1', 3), what)
    assert work(plan, tmp_path, console)
    text = printed(console)
    assert f'cand 1, seed 3: failed: {why}. It starts again.' in text
    assert f'    working: {what}' in text
    assert read_state(folder).failures == 1
    assert 'done' in (folder / LOG).read_text()


def test_a_run_that_fails_always_is_given_up(tmp_path, console):
    plan = plan_of((2,))
    folder = todo(plan, tmp_path, Job('base', 2), 'fail', 'kill')
    assert not work(plan, tmp_path, console)
    assert read_state(folder).failures == 2
    assert len(events(tmp_path)) == 4  # a killed one writes none
    text = printed(console)
    assert 'missing' in text and 'killed by SIGKILL' in text
    assert 'mmext run plan.yaml --retry' in text
    # The count is kept.
    assert not work(plan, tmp_path, console)
    assert len(events(tmp_path)) == 4
    assert work(plan, tmp_path, console, retry=True)
    assert read_state(folder).status == 'done'


def test_a_run_without_a_record_has_failed(tmp_path, console, monkeypatch):
    monkeypatch.setattr(Fake, 'of', lambda self, run: ['true'])
    plan = plan_of((2,), retries=0)
    assert not work(plan, tmp_path, console)
    assert 'ended without a record' in printed(console)


def test_a_diverged_run_is_not_retried(tmp_path, console):
    plan = plan_of((2,), retries=3)
    folder = todo(plan, tmp_path, Job('base', 1), 'diverge')
    assert not work(plan, tmp_path, console)
    assert read_state(folder).failures == 1
    assert not work(plan, tmp_path, console, retry=True)
    assert len(events(tmp_path)) == 4


def test_a_run_of_another_process_is_waited_for(tmp_path, console):
    plan = plan_of((2,))
    run = plan.folder_of(Job('base', 1), tmp_path)
    State(plan.sha256).write(run)
    other = subprocess.Popen(
        [sys.executable, str(FAKE), str(run), plan.sha256],
        stdout=subprocess.DEVNULL,
    )
    while not read_state(run).active:
        time.sleep(0.01)
    os.kill(other.pid, signal.SIGSTOP)  # until the other runs have ended

    def go_on() -> None:
        while len((tmp_path / 'events').read_text().splitlines()) < 3:
            time.sleep(0.05)
        os.kill(other.pid, signal.SIGCONT)
        other.wait()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert work(plan, tmp_path, console)
    thread.join()
    assert [e['run'] for e in events(tmp_path)].count('base/seed_1') == 1
    assert '1 training' in printed(console)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_passed_on(tmp_path, console, number):
    plan = plan_of((2,))
    folder = todo(plan, tmp_path, Job('base', 1), 'sleep')

    def interrupt() -> None:
        while not (state := read_state(folder)) or not state.active:
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(UserError, match='of 4 runs are done') as error:
        work(plan, tmp_path, console, cpu(1))
    thread.join()
    assert 'The same command continues' in error.value.fix
    assert read_state(folder).status == 'interrupted'
    assert work(plan, tmp_path, console)
    assert read_state(folder).failures == 0


@pytest.mark.parametrize(
    'settled, everything, runs', [(1, False, 2), (2, False, 4), (1, True, 6)]
)
def test_looks(tmp_path, console, monkeypatch, settled, everything, runs):
    plan = plan_of((1, 2, 3))
    asked = []

    def decide(plan: Plan, records: dict, failed: list) -> SimpleNamespace:
        asked.append(len(records))
        assert failed == []
        return SimpleNamespace(
            settled=len(records) == 2 * settled, verdicts=('better',)
        )

    monkeypatch.setattr(queue, 'decide', decide)
    monkeypatch.setattr(queue, 'read_record', lambda path: path)
    assert work(plan, tmp_path, console, everything=everything)
    assert len(events(tmp_path)) == runs
    if everything:
        assert asked == []
    else:
        assert asked == [2, 4][:settled]
        text = printed(console)
        assert f'Settled at {settled} seed' in text
        assert 'Not needed: ' in text and 'cand 1/6' in text


def test_records_that_settle_a_plan(tmp_path, console):
    plan = plan_of((3, 5))
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.8}, seeds=3)
    write_runs(plan, records, tmp_path)
    assert work(plan, tmp_path, console)
    assert not (tmp_path / 'events').exists()
    assert 'Settled at 3 seeds a side: better. Not needed: ' in printed(
        console
    )


def test_no_look_without_a_side(tmp_path, console):
    plan = plan_of((1, 2), retries=0)
    todo(plan, tmp_path, Job('base', 1), 'fail')
    assert not work(plan, tmp_path, console)
    assert 'No run of base has a record' in printed(console)


def test_the_words_of_a_launcher(tmp_path, slurm):
    plan = plan_of((2,))
    run = Run(plan, Job('cand 1', 3), tmp_path)
    command = Command('my plan.yaml', tmp_path)
    words = command.of(run)
    assert words[-2:] == ['--job', 'cand 1/3']
    line = f"'my plan.yaml' --work-dir {tmp_path} --job 'cand 1/3'"
    quoted = Template(command, 'sbatch -J {name} --wrap "nice {command}"')
    *start, wrapped = quoted.words(run)
    assert start == ['sbatch', '-J', 'cand-1-3', '--wrap']
    assert wrapped.startswith('nice ') and wrapped.endswith(line)
    assert Template(command, 'srun {command} {folder}').words(run) == [
        'srun',
        *words,
        str(run.folder),
    ]
    torchrun = Command('p.yaml', tmp_path, 4).of(run)
    assert torchrun[1:5] == [
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
    ]
    with pytest.raises(UserError, match='no {command}'):
        Template(command, 'nice job.sh')


SBATCH = r"""#!{python}
import os, re, subprocess, sys
# A job array of submitit, or --wrap COMMAND.
root = {root!r}
number = 1
while True:  # several are submitted at the same time
    try:
        open(os.path.join(root, str(number)), 'x').close()
        break
    except FileExistsError:
        number += 1
number = str(number)
last = sys.argv[-1]
if '--wrap' in sys.argv:
    tasks, line = [None], ['sh', '-c', last]
else:
    array = re.search(r'--array=0-(\d+)', open(last).read())
    tasks, line = range(int(array[1]) + 1) if array else [None], ['sh', last]
for task in tasks:
    env = {{**os.environ, 'SLURM_JOB_ID': number}}
    if task is not None:
        env['SLURM_ARRAY_JOB_ID'] = number
        env['SLURM_ARRAY_TASK_ID'] = str(task)
    log = open(os.devnull, 'w')
    subprocess.Popen(line, env=env, stdout=log, stderr=log)
print('Submitted batch job', number)
"""
SRUN = r"""#!{python}
import os, sys
words, logs = sys.argv[1:], {{}}
while words[0].startswith('--'):
    option = words.pop(0)
    if option in ('--output', '--error'):
        path = words.pop(0).replace('%t', '0')
        for key, name in (('%A', 'ARRAY_JOB'), ('%a', 'ARRAY_TASK'),
                          ('%j', 'JOB')):
            path = path.replace(key, os.environ.get(f'SLURM_{{name}}_ID', ''))
        logs[option] = path
for option, number in (('--output', 1), ('--error', 2)):
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    os.dup2(os.open(logs[option], flags), number)
os.execvp(words[0], words)
"""
SACCT = '#!/bin/sh\necho "JobID|State|NodeList"\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that starts jobs at once; the folder has a file for each."""
    folder, jobs = tmp_path / 'bin', tmp_path / 'jobs'
    folder.mkdir()
    jobs.mkdir()
    for name, text in (('sbatch', SBATCH), ('srun', SRUN), ('sacct', SACCT)):
        path = folder / name
        if name != 'sacct':
            text = text.format(python=sys.executable, root=str(jobs))
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    return jobs


def test_a_launcher_that_submits(tmp_path, console, slurm):
    plan = plan_of((2,))
    folder = todo(plan, tmp_path / 'w', Job('base', 1), 'kill')
    place = Template(Fake(), 'sbatch --wrap "{command}"')
    assert work(plan, tmp_path / 'w', console, place)
    assert len([*slurm.iterdir()]) == 5  # one was cut off
    assert (
        'base, seed 1: failed: cut off: its process has ended. It starts again'
        in printed(console)
    )
    assert read_state(folder).failures == 1


def test_a_launcher_that_fails(tmp_path, console):
    plan = plan_of((2,), retries=0)
    place = Template(Fake(), 'sh -c "echo no such queue; exit 3" {command}')
    assert not work(plan, tmp_path, console, place)
    assert 'the launcher ended with exit status 3' in printed(console)
    assert '    no such queue' in printed(console)


def test_no_wait(tmp_path, console, slurm):
    plan = plan_of((2,))
    place = Template(Fake(), 'sbatch --wrap "{command}"')
    assert work(plan, tmp_path / 'w', console, place, wait=False)
    assert 'Submitted' in printed(console)
    assert work(plan, tmp_path / 'w', console, place)


def test_slurm_arrays(tmp_path, console, slurm):
    pytest.importorskip('submitit')
    plan = plan_of((1,))
    folder = todo(plan, tmp_path / 'w', Job('base', 1), 'fail')
    options = ['partition=gpu', 'time=60']

    def place() -> Slurm:
        return Slurm(Fake(), options, tmp_path / 'w' / 'slurm')

    assert work(plan, tmp_path / 'w', console, place(), wait=False)
    assert len([*slurm.iterdir()]) == 1  # one array
    # The same command follows the jobs of the array, and retries one.
    assert work(plan, tmp_path / 'w', console, place())
    assert len([*slurm.iterdir()]) == 2
    assert len(events(tmp_path / 'w')) == 3
    assert 'base, seed 1: failed: the disk is full' in printed(console)
    assert read_state(folder).slurm == '2'
    with pytest.raises(UserError, match="'partition'"):
        Slurm(Fake(), ['partitoin=gpu'], tmp_path)
    with pytest.raises(UserError, match='not KEY=VALUE'):
        Slurm(Fake(), ['partition'], tmp_path)


def test_a_slurm_job_saves_before_its_time_limit(tmp_path):
    pytest.importorskip('submitit')
    from mmext.experiments.runs.slurm_run import SlurmRun

    plan = plan_of((2,))
    folder = todo(plan, tmp_path, Job('base', 1), 'sleep')
    run = SlurmRun([sys.executable, str(FAKE), str(folder), plan.sha256])
    ended = threading.Thread(target=lambda: pytest.raises(RuntimeError, run))
    ended.start()
    while not (state := read_state(folder)) or not state.active:
        time.sleep(0.05)
    again = run.checkpoint()
    ended.join()
    assert read_state(folder).status == 'interrupted'
    again.function()
    assert read_state(folder).status == 'done'


def test_the_folder_of_another_plan_is_refused(tmp_path, console):
    plan, other = plan_of((2,)), plan_of((2,), gain=3.0)
    State(other.sha256).write(plan.folder_of(Job('base', 1), tmp_path))
    with pytest.raises(UserError) as error:
        work(plan, tmp_path, console)
    assert plan.sha256[:12] in error.value.problem
    assert other.sha256[:12] in error.value.problem
    assert '--work-dir' in error.value.fix
    folder = plan.folder_of(Job('cand 1', 4), tmp_path / 'w')
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').touch()
    with pytest.raises(UserError, match='is of no plan'):
        work(plan, tmp_path / 'w', console)
    assert not (tmp_path / 'w' / 'status.html').exists()
