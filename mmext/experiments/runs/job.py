# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains, tests and records one run of a plan, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmext.engine import launch
from mmext.engine.distributed import is_first_process, reported_once
from mmext.engine.guards.numerical_guard import DivergedError
from mmext.errors import UserError, did_you_mean
from mmext.experiments.configs import side_config
from mmext.experiments.plan import Job, Plan, PlannedSide, read_plan
from mmext.experiments.records.record import read_record, write_record
from mmext.experiments.records.recording import record_run
from mmext.experiments.state import LOG, RECORD, State, read_state
from mmext.experiments.test_data import TestData, test_data
from mmext.utils.files import naming
from mmext.utils.locks import locked
from mmext.utils.text import some

#: Share of the training in the progress of a run; the rest is the test.
TRAINING = 0.95
_WRITE_EVERY = 1.0  # seconds


def run_job(plan_path: str | Path, name: str, work_dir: str | Path) -> None:
    """Trains, tests and records a run, and continues one that was cut off.

    It does nothing if the run has a record. What libraries print is in
    ``job.log``. Under torchrun each process calls it.

    Args:
        plan_path: The plan file.
        name: ``SIDE/SEED``.
        work_dir: Folder of all runs of the plan.

    Raises:
        UserError: The plan has no such run, the config or the test data are
            not those of the plan, the folder has another plan's run, or the
            run failed.
    """
    torchrun = 'TORCHELASTIC_RUN_ID' in os.environ
    launcher = 'pytorch' if torchrun else 'none'
    with reported_once(launcher):
        plan = read_plan(plan_path)
        job = find_job(plan, name)
        folder = plan.folder_of(job, work_dir)
        if is_finished(plan, job, folder):
            print(f'{name} has a record: {folder / RECORD}')
            return
        state = own_state(plan, folder)
        cfg, data = checked_side(plan, plan.side(job.side))
    cfg.work_dir = str(folder)
    cfg.setdefault('randomness', ConfigDict()).seed = job.seed
    first = is_first_process(launcher)
    if first:
        print(f'Log: {folder / LOG}', flush=True)
    lock = locked(folder) if first else contextlib.nullcontext()
    with naming(folder), lock, _logged(folder / LOG):
        progress = _Progress(folder, state) if first else None
        hooks = [progress] if progress else []
        options: dict[str, Any] = {'launcher': launcher, 'hooks': hooks}
        with progress.reported() if progress else contextlib.nullcontext():
            if not (state.trained and (folder / 'last_checkpoint').exists()):
                launch.train(cfg, resume=True, **options)
            if progress:
                progress.enter('testing', TRAINING)
            launch.test(cfg, _last_checkpoint(folder), **options)
            if progress:
                record = record_run(
                    folder,
                    task=plan.task,
                    data=data,
                    side=job.side,
                    seed=job.seed,
                    baseline=job.side == plan.baseline.name,
                    plan_sha256=plan.sha256,
                    config_sha256=plan.side(job.side).sha256,
                    groups=plan.data.get('groups'),
                )
                write_record(folder / RECORD, record)


def job_name(job: Job) -> str:
    """Returns ``SIDE/SEED``."""
    return f'{job.side}/{job.seed}'


def find_job(plan: Plan, name: str) -> Job:
    """Returns the run ``SIDE/SEED`` of a plan."""
    jobs = {job_name(job): job for job in plan.jobs()}
    if name not in jobs:
        raise UserError(
            f'--job {name}: the plan has no such run',
            did_you_mean(name, jobs) or f'It has {some(jobs)}.',
        )
    return jobs[name]


def checked_side(plan: Plan, side: PlannedSide) -> tuple[Config, TestData]:
    """Returns the config and the test data of a side, if they are planned.

    Raises:
        UserError: Their SHA-256 are not those of the plan.
    """
    cfg = side_config(plan, side)
    data = test_data(cfg, plan.task)
    if data.sha256 != plan.data['sha256']:
        raise UserError(
            f'{side.config} ({side.name}) has other test data than the plan: '
            f'their SHA-256 is {data.sha256[:12]}, planned was '
            f'{plan.data["sha256"][:12]}',
            'Restore the annotation file and the images, or write a new plan.',
        )
    return cfg, data


def is_finished(plan: Plan, job: Job, folder: Path) -> bool:
    """Returns whether the record of a run is there.

    Raises:
        UserError: It is one of another plan, or of another run.
    """
    path = folder / RECORD
    if not path.exists():
        return False
    record = read_record(path)
    _require_plan(plan, record.plan_sha256, path)
    if (record.side, record.seed) != job:
        other = job_name(Job(record.side, record.seed))
        raise UserError(
            f'{path} is the record of {other}, and not of {job_name(job)}',
            'Move it to its own folder, or remove it.',
        )
    return True


def own_state(plan: Plan, folder: Path) -> State:
    """Returns the state of a run.

    Raises:
        UserError: The folder has a training of another plan, or of none.
    """
    state = read_state(folder)
    if state is None:
        if any(folder.glob('*.pth')):
            _require_plan(plan, None, folder)
        return State(plan.sha256)
    _require_plan(plan, state.plan_sha256, folder)
    return state


def _require_plan(plan: Plan, found: str | None, path: Path) -> None:
    if found == plan.sha256:
        return
    other = f'the plan {found[:12]}' if found else 'no plan'
    raise UserError(
        f'{path} is of {other}, and this is the plan {plan.sha256[:12]}',
        'Use another folder (--work-dir), or restore the plan file.',
    )


def _last_checkpoint(folder: Path) -> Path:
    """Returns the checkpoint that the training has written last."""
    last = (folder / 'last_checkpoint').read_text(encoding='utf-8').strip()
    here = folder / Path(last).name
    return here if here.is_file() else Path(last)


class _Progress(Hook):
    """Writes ``state.json``, at most every second while the run works."""

    priority = 'VERY_LOW'

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state
        self._before, self._begun = state.seconds, time.monotonic()
        self._written = 0.0

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Writes how the run ends."""
        state = self.state
        state.host, state.pid = socket.gethostname(), os.getpid()
        state.error = ''
        stage = ('testing', TRAINING) if state.trained else ('training', 0.0)
        self.enter(*stage)
        try:
            yield
            state.status, state.share, state.left = 'done', 1.0, 0.0
        except BaseException as error:
            shown = getattr(error, 'problem', None)
            text = shown or f'{type(error).__name__}: {error}'
            if isinstance(error, DivergedError):
                state.fail(text, 'diverged')
            elif any(
                isinstance(e, KeyboardInterrupt)
                for e in (error, error.__context__)  # the training has saved
            ):
                state.status, state.left = 'interrupted', None
            else:
                state.fail(text)
            raise
        finally:
            self.write()

    def enter(self, status: str, share: float) -> None:
        """Begins a stage; time left is measured from here."""
        self.state.trained = status == 'testing'
        self.state.status, self.state.left = status, None
        self._since = time.monotonic(), share
        self.update(share, now=True)

    def update(self, share: float, now: bool = False) -> None:
        """Sets the share that is done and estimates the time left."""
        self.state.share = share
        time_then, share_then = self._since
        passed = time.monotonic() - time_then
        if share > share_then:
            speed = passed / (share - share_then)
            self.state.left = speed * (1 - share)
        if now or time.monotonic() - self._written >= _WRITE_EVERY:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        self.state.seconds = self._before + self._written - self._begun
        self.state.write(self.folder)

    def before_train(self, runner: Runner) -> None:
        self.enter('training', TRAINING * runner.iter / runner.max_iters)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        self.update(TRAINING * (runner.iter + 1) / runner.max_iters)

    def before_test(self, runner: Runner) -> None:
        self.enter('testing', TRAINING)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, **kwargs: Any
    ) -> None:
        part = (batch_idx + 1) / len(runner.test_dataloader)
        self.update(TRAINING + (1 - TRAINING) * part)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Appends the output of this process, errors included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)  # not the first process
    with path.open('a', encoding='utf-8', buffering=1) as log:
        if os.path.sameopenfile(1, log.fileno()):  # the queue has done so
            yield
            return
        kept = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in kept:  # what C code prints
            os.dup2(log.fileno(), number)
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        except UserError as error:
            print(f'error: {error}', file=log)
            raise
        except BaseException:
            traceback.print_exc(file=log)
            raise
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
