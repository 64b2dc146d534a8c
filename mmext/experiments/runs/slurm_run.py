# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a job of Slurm does; it imports nothing that takes time."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any


class SlurmRun:
    """What a job of Slurm does; submitit stores it in a file."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command

    def __call__(self) -> None:
        # A new session: submitit obeys the signals of Slurm, not the run.
        self.process = subprocess.Popen(self.command, start_new_session=True)
        if self._ended():
            raise RuntimeError(f'exit status {self.process.returncode}')

    def _ended(self) -> int:
        while (code := self.process.poll()) is None:
            time.sleep(0.5)
        return code

    def checkpoint(self) -> Any:
        """Saves before the time limit; submitit queues the job again."""
        import submitit

        self.process.send_signal(signal.SIGINT)
        self._ended()
        return submitit.helpers.DelayedSubmission(SlurmRun(self.command))
