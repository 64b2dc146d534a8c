# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stands in for a run of a plan: python fake_job.py FOLDER PLAN_SHA256.

It does what the next line of ``FOLDER/todo`` says: ``done``, ``fail``,
``kill``, ``diverge`` or ``sleep``; without a line, ``done``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from mmext.experiments.state import RECORD, State, read_state
from mmext.utils.locks import locked


def main(folder: Path, plan: str) -> None:
    todo = folder / 'todo'
    lines = todo.read_text().split() if todo.exists() else []
    todo.write_text('\n'.join(lines[1:]))
    what = lines[0] if lines else 'done'
    with locked(folder), (folder.parents[1] / 'events').open('a') as events:
        state = read_state(folder) or State(plan)
        # A shell ignores it in the background, and so do its processes.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        event = {'run': f'{folder.parent.name}/{folder.name}'}
        for key in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'):
            event[key] = os.environ.get(key)
        event['begin'] = time.time()
        print(f'working: {what}', flush=True)
        try:
            state.status, state.pid = 'training', os.getpid()
            state.write(folder)
            time.sleep(60 if what == 'sleep' else 0.2)
        except KeyboardInterrupt:
            state.status = 'interrupted'
        if what == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 'fail':
            state.fail('the disk is full')
        if what == 'diverge':
            state.fail('the loss is not finite', 'diverged')
        if what == 'done':
            state.status = 'done'
            (folder / RECORD).touch()
        state.write(folder)
        event['end'] = time.time()
        events.write(json.dumps(event) + '\n')
    sys.exit(state.status != 'done')


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2])
