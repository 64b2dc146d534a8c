# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs torchrun for dist_train.sh and dist_test.sh, without its log.

    python tools/dist_run.py PROCESSES SCRIPT ARGUMENTS...

``NNODES``, ``NODE_RANK``, ``MASTER_ADDR`` and ``PORT`` are for several
machines. One machine uses a free port unless ``PORT`` is set.
"""

from __future__ import annotations

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

#: Exit status of a tool that has printed what is wrong.
EXPLAINED = 2


def run(processes: int, arguments: list[str]) -> int:
    """Runs a script in several processes and returns its exit status."""
    environ = os.environ
    # torchrun gives each process one thread, which is slow without a GPU.
    share = max(1, (os.cpu_count() or 1) // processes)
    environ.setdefault('OMP_NUM_THREADS', str(share))
    if environ.get('NNODES', '1') == '1' and 'PORT' not in environ:
        meeting = ['--standalone']
    else:
        meeting = [
            f'--nnodes={environ.get("NNODES", "1")}',
            f'--node_rank={environ.get("NODE_RANK", "0")}',
            f'--master_addr={environ.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master_port={environ.get("PORT", "29500")}',
        ]
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    each = [f'--nproc_per_node={processes}', *arguments]
    try:
        main([*meeting, *each, '--launcher', 'pytorch'])
    except ChildFailedError as error:
        if EXPLAINED not in (f.exitcode for f in error.failures.values()):
            raise
        return EXPLAINED
    except SignalException as stop:  # the tool says how to continue
        return 128 + stop.sigval
    return 0


if __name__ == '__main__':
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
