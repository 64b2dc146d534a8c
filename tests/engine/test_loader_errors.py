# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A worker of a loader that dies, hangs, or gets no memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest
from toy import Numbers, build_runner, loader

from mmext.errors import UserError


class Failing(Numbers):
    """Does something instead of returning the third image."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(8)
        self.act = act

    def __getitem__(self, index: int) -> dict:
        if index == 2:
            self.act()
        return super().__getitem__(index)


def sends(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def stops() -> None:
    time.sleep(1)  # until the batch before is sent
    os.kill(os.getpid(), signal.SIGSTOP)


def no_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    'act, workers, message',
    [
        (sends(signal.SIGKILL), 1, r'a worker .*was killed: Killed\n.*memory'),
        (sends(signal.SIGBUS), 1, r'a worker .*was killed: Bus.*\n.*shm-size'),
        (lambda: os._exit(3), 1, r'a worker .*\(process \d+\) ended\n'),
        (stops, 1, r'sent no batch for 3 s\n.*timeout'),
        (no_memory, 1, r'^a worker .*\(MemoryError\)\n.*num_workers'),
        (no_memory, 0, r'^this process .*\(MemoryError\)\n.*num_workers'),
    ],
    ids=['killed', 'bus', 'exit', 'stopped', 'memory', 'memory-here'],
)
def test_what_happened_to_a_worker(tmp_path, act, workers, message):
    data = loader(Failing(act), num_workers=workers)
    runner = build_runner(
        tmp_path, train_dataloader={**data, 'timeout': 3}, epochs=1
    )
    with pytest.raises(UserError, match=message) as caught:
        runner.train()
    assert '--resume' in str(caught.value)
    if 'no batch' in message:  # or this process could not end
        assert not multiprocessing.active_children()


def test_an_error_of_the_data_set_keeps_its_traceback(tmp_path):
    def fail() -> None:
        raise RuntimeError('a bug of the data set')

    data = loader(Failing(fail), num_workers=1)
    runner = build_runner(tmp_path, train_dataloader=data)
    with pytest.raises(RuntimeError, match='a bug of the data set'):
        runner.train()
