# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs torchrun for dist_train.sh and dist_test.sh, without its log.

NNODES, NODE_RANK, MASTER_ADDR and PORT are environment variables for several
machines. One machine uses a free port unless PORT is set.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

#: Exit status of a tool that has printed what is wrong.
EXPLAINED = 2


def run(processes: int, arguments: Sequence[str]) -> int:
    """Runs a script in several processes and returns its exit status."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import (
        ChildFailedError,
    )
    from torch.distributed.run import main as torchrun

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
        torchrun([*meeting, *each, '--launcher', 'pytorch'])
    except ChildFailedError as error:
        if EXPLAINED not in (f.exitcode for f in error.failures.values()):
            raise
        return EXPLAINED
    except SignalException as stop:  # the tool says how to continue
        return 128 + stop.sigval
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('processes', type=int, help='on this machine')
    parser.add_argument('script', help='tools/train.py or tools/test.py')
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, help='of the script'
    )
    args = parser.parse_args(argv)
    if args.processes < 1:
        parser.error(f'processes is {args.processes}: give 1 or more')
    sys.exit(run(args.processes, [args.script, *args.arguments]))


if __name__ == '__main__':
    main()
