# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loader workers that ignore signals which are meant for the training.

Ctrl-C in a terminal and a cluster's SIGTERM reach every process of a job. If
a worker dies of it, the training cannot finish the step or the validation
before it saves.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial

from torch.utils.data import DataLoader


def shield_workers(loader: DataLoader) -> None:
    """Makes only the loader itself stop its workers."""
    loader.worker_init_fn = partial(_start, loader.worker_init_fn)


def _start(init: Callable[[int], None] | None, worker_id: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        # The loader also ends its workers with SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_loader, daemon=True).start()
    if init is not None:
        init(worker_id)


def _obey_the_loader() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
