# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reports what happened to a data loader's worker, or to the memory."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmext.errors import UserError

#: Seconds to wait for a batch if the config sets no ``timeout``. A worker
#: that is stopped, or waits for a dead file server, would never send one.
TIMEOUT = 300

_WORKER = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) '
    r'(?:is killed by signal: ([\w ]+)|exited unexpectedly)'
)
_RESUME = (
    'To continue from the last checkpoint, add --resume to mmext train; mmext '
    'run does so by itself.'
)


@contextmanager
def loader_errors() -> Iterator[None]:
    """Raises `UserError` if a worker dies or hangs, or memory runs out."""
    try:
        yield
    except MemoryError as error:
        worker = 'DataLoader worker' in str(error)
        where = 'a worker of the data loader' if worker else 'this process'
        raise UserError(
            f'{where} could not get the memory that it needs (MemoryError)',
            'Use fewer workers, smaller batches or smaller images, such as '
            f'--cfg-options train_dataloader.num_workers=1. {_RESUME}',
        ) from error
    except RuntimeError as error:
        # The cause names the signal, if there was one.
        if found := _WORKER.search(f'{error.__cause__} {error}'):
            problem, fix = _died(found[1], found[2])
        elif 'DataLoader timed out' in str(error):
            # A stopped worker does not obey when this process ends, which
            # would wait for it.
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()
            seconds = re.search(r'[\d.]+', str(error))[0]
            problem = f'the data loader sent no batch for {seconds} s'
            fix = (
                'One of its workers is stopped or waits for a file. If it '
                'takes so long to load a batch, set train_dataloader.timeout '
                'to more seconds, or to 0 to wait without an end.'
            )
        else:
            raise
        raise UserError(problem, f'{fix} {_RESUME}') from error


def _died(process: str, signal: str | None) -> tuple[str, str]:
    who = f'worker of the data loader (process {process})'
    if signal is None:
        return f'a {who} ended', 'With num_workers=0 the error is shown.'
    fix = (
        'Usually the system kills a process that takes too much memory: use '
        'fewer workers (--cfg-options train_dataloader.num_workers=1).'
    )
    if signal.startswith('Bus'):
        fix = (
            'The shared memory (/dev/shm) is full: use fewer workers, or '
            'give a container more of it (docker run --shm-size=8g).'
        )
    return f'a {who} was killed: {signal.strip()}', fix
