# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Where runs of a plan work: this machine, Slurm, or behind a command."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmext.errors import UserError, did_you_mean
from mmext.experiments.plan import slug
from mmext.experiments.runs.planned_run import Attempt, Run
from mmext.experiments.runs.slots import Slot, Slots
from mmext.experiments.runs.slurm_run import SlurmRun
from mmext.experiments.state import LOG, last_lines
from mmext.utils.text import some

_CONTINUES = 'The same command continues'
_CUT_OFF = 'cut off: its process has ended'


class Command:
    """The command that works on a run, as words.

    Args:
        plan_path: The plan file.
        work_dir: Folder of all runs.
        gpus_per_run: Processes of a run. Default: one, without torchrun.
    """

    def __init__(
        self,
        plan_path: str | Path,
        work_dir: str | Path,
        gpus_per_run: int | None = None,
    ) -> None:
        self._start = [sys.executable]
        if gpus_per_run:
            self._start += ['-m', 'torch.distributed.run', '--standalone']
            self._start += ['--nproc-per-node', str(gpus_per_run)]
        self._start += ['-m', 'mmext.cli', 'run', str(plan_path)]
        self._start += ['--work-dir', str(work_dir)]

    def of(self, run: Run) -> list[str]:
        return [*self._start, '--job', run.name]


class Place(ABC):
    """Starts runs.

    Args:
        parallel: How many work at once.
        local: Whether they end with the process that started them.
        after_interrupt: What to do after Ctrl-C.
    """

    parallel = 1
    local = False
    after_interrupt = f'The runs go on. {_CONTINUES} to show them.'

    @abstractmethod
    def start(self, runs: Sequence[Run]) -> None:
        """Starts as many runs as there is room for, in their order."""


def _begin(run: Run) -> None:
    """Marks a run as not yet begun, so that its next status is its own."""
    run.state.status = 'waiting'
    run.state.write(run.folder)


class Local(Place):
    """Runs in slots of this machine."""

    local = True
    after_interrupt = f'{_CONTINUES}.'

    def __init__(self, command: Command, slots: Slots) -> None:
        self.command, self.slots = command, slots
        self.parallel = slots.most

    def start(self, runs: Sequence[Run]) -> None:
        for run in runs:
            slot = self.slots.take()
            if slot is None:
                return
            _begin(run)
            with (run.folder / LOG).open('ab') as log:
                process = subprocess.Popen(
                    self.command.of(run),
                    env=self.slots.environment(slot),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=slot.files,
                    start_new_session=True,  # Ctrl-C reaches it once
                )
            run.attempt = _Process(process, slot)


class _Process(Attempt):
    def __init__(self, process: subprocess.Popen, slot: Slot) -> None:
        self._process, self._slot = process, slot

    def outcome(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        self._slot.release()
        if code < 0:
            return f'killed by {signal.Signals(-code).name}'
        return f'exit status {code}' if code else ''

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)


class Template(Place):
    """Runs that a command starts, such as ``sbatch --wrap "{command}"``.

    ``{command}`` as a word of its own becomes several words; inside quotes
    it becomes one line for a shell. ``{name}`` and ``{folder}`` are those of
    the run.

    Raises:
        UserError: The template has no ``{command}``.
    """

    def __init__(self, command: Command, template: str) -> None:
        self.command = command
        bare = re.sub(r'(?<!\S)\{command\}(?!\S)', '\0', template)
        try:
            self._words = shlex.split(bare)
        except ValueError as error:
            raise UserError(
                f'--launcher {template}: {error}', 'Close the quotes.'
            ) from error
        if '\0' not in bare and '{command}' not in bare:
            raise UserError(
                f'--launcher {template}: it has no {{command}}',
                "For example: --launcher 'sbatch --gres=gpu:1 --wrap "
                '"{command}"\'',
            )
        if not shutil.which(self._words[0].replace('\0', sys.executable)):
            raise UserError(
                f'--launcher: there is no command {self._words[0]!r}',
                'Run it on a machine that has it, or name its path.',
            )

    def start(self, runs: Sequence[Run]) -> None:
        for run in runs:
            _begin(run)
            with (run.folder / LOG).open('ab') as log:
                process = subprocess.Popen(
                    self.words(run),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            run.attempt = _Submitted(process, run)
        self.parallel = max(self.parallel, len(runs))

    def words(self, run: Run) -> list[str]:
        """Returns the command that starts a run."""
        command = self.command.of(run)
        values = {
            'command': shlex.join(command),
            'name': f'{slug(run.job.side)}-{run.job.seed}',
            'folder': str(run.folder),
        }
        found = []
        for word in self._words:
            if word == '\0':
                found += command
                continue
            word = word.replace('\0', '{command}')
            found.append(
                re.sub(
                    r'\{(command|name|folder)\}', lambda m: values[m[1]], word
                )
            )
        return found


class _Submitted(Attempt):
    """A command that may end before the run that it has submitted."""

    waits = 'submitted'

    def __init__(self, process: subprocess.Popen, run: Run) -> None:
        self._process, self._run = process, run

    def outcome(self) -> str | None:
        code, run = self._process.poll(), self._run
        if code:
            return f'the launcher ended with exit status {code}'
        if code is None or run.owner or run.state.status == 'waiting':
            return None
        return _CUT_OFF if run.state.active else ''


class Slurm(Place):
    """Runs in a job array of Slurm, which submitit submits.

    A run that exceeds the time limit saves and is queued again.

    Args:
        command: What works on a run.
        options: ``KEY=VALUE`` for submitit's ``SlurmExecutor``, such as
            ``partition=gpu``, ``time=600`` (minutes), ``gpus_per_node=1``.
        folder: For scripts and logs of the jobs.

    Raises:
        UserError: submitit or Slurm is not there, or an option is unknown.
    """

    def __init__(
        self, command: Command, options: Sequence[str], folder: Path
    ) -> None:
        self._options = _parameters(options)
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise UserError(
                '--slurm needs submitit', "pip install 'mmext[slurm]'"
            ) from error
        self.command, self.folder = command, folder.absolute()
        self._kind = submitit.SlurmExecutor
        known = self._kind._valid_parameters()
        for key in self._options:
            if key not in known:
                raise UserError(
                    f'--slurm {key}: submitit has no such parameter',
                    did_you_mean(key, known) or f'It has {some(known, 40)}.',
                )
        if self._kind.affinity() < 0:
            raise UserError(
                '--slurm: there is no srun on this machine',
                'Run it on a login node of the cluster.',
            )

    def start(self, runs: Sequence[Run]) -> None:
        import submitit

        new = []
        for run in runs:
            job = run.state.slurm and submitit.SlurmJob(
                folder=self.folder, job_id=run.state.slurm
            )
            if job and not job.done(force_check=True):
                run.attempt = _SlurmAttempt(job, run)
            else:
                new.append(run)
        if not new:
            return
        executor = self._kind(self.folder, max_num_timeout=1000)
        executor.update_parameters(**{'job_name': 'mmext', **self._options})
        with executor.batch():
            jobs = [
                executor.submit(SlurmRun(self.command.of(run))) for run in new
            ]
        for run, job in zip(new, jobs, strict=True):
            run.state.slurm = job.job_id
            _begin(run)
            run.attempt = _SlurmAttempt(job, run)
        self.parallel = max(self.parallel, len(runs))


def _parameters(texts: Sequence[str]) -> Mapping[str, Any]:
    found = {}
    for text in texts:
        key, equals, value = text.partition('=')
        if not (key and equals):
            raise UserError(
                f'--slurm {text}: not KEY=VALUE',
                'For example --slurm partition=gpu time=600 gpus_per_node=1',
            )
        found[key] = int(value) if value.isdigit() else value
    return found


class _SlurmAttempt(Attempt):
    waits = 'submitted'

    def __init__(self, job: Any, run: Run) -> None:
        self._job, self._run = job, run

    def outcome(self) -> str | None:
        if not self._job.done():
            # A cluster without accounting does not say that a job was killed.
            ended = self._run.state.active and not self._run.owner
            unknown = ended and self._job.state == 'UNKNOWN'
            return _CUT_OFF if unknown else None
        lines = last_lines(self._job.paths.stderr, 1)
        return f'job {self._job.job_id} of Slurm has ended: {some(lines)}'
