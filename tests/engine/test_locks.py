# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two runs cannot use one work dir; a dead one is no obstacle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import environment
from tiny_run import write_config

import mmext
from mmext.demo.run import run_demo
from mmext.engine import launch
from mmext.errors import UserError
from mmext.utils import locks
from mmext.utils.config import load_config
from mmext.utils.locks import NAME, LockWatch, locked

HOLD = """
import sys, time
from mmext.utils import locks
locks.BEAT, locks.LEASE = map(float, sys.argv[2:])
with locks.locked(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(300)
"""
Hold = Callable[[Path], subprocess.Popen]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that holds the lock of a folder."""
    started = []

    def start(folder: Path) -> subprocess.Popen:
        given = (folder, locks.BEAT, locks.LEASE)
        process = subprocess.Popen(
            [sys.executable, '-c', HOLD, *map(str, given)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == 'locked\n'
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts a process of another machine as dead after two seconds."""
    monkeypatch.setattr(locks, 'BEAT', 0.2)
    monkeypatch.setattr(locks, 'LEASE', 2.0)


def of_another_machine(folder: Path) -> Path:
    """Writes the lock of process 7 of the machine node7."""
    folder.mkdir()
    fields = ['pid=7', 'host=node7', 'mode=lease', 'token=a', 'duration=2.0']
    file = folder / NAME
    file.write_text('\n'.join(['filelock/2', *fields, '']))
    return file


def test_a_process_may_lock_a_folder_repeatedly(tmp_path):
    folder = tmp_path / 'a' / 'b'
    with locked(folder):
        with locked(f'{folder}/../b'):
            assert (folder / NAME).is_file()
        assert (folder / NAME).is_file()
    assert not (tmp_path / 'a').exists()
    (tmp_path / 'c').mkdir()
    with locked(tmp_path / 'c'):
        pass
    assert [*(tmp_path / 'c').iterdir()] == []


@pytest.mark.parametrize('start', ['train', 'torchrun', 'demo'])
def test_a_second_run_is_refused(hold, tmp_path, data, start, monkeypatch):
    config = write_config(tmp_path / 'tiny.py', data)
    work = tmp_path / 'work'
    work.mkdir()
    process = hold(work)
    before = {p.name: p.read_bytes() for p in work.iterdir()}
    text = rf'work is in use by process {process.pid} of .*\n.*--work-dir'
    with pytest.raises(UserError, match=text):
        if start == 'demo':
            run_demo(work, restart=True)
        elif start == 'torchrun':  # before it waits for the second process
            for name in ('RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
                monkeypatch.setenv(name, '0')
            monkeypatch.setenv('WORLD_SIZE', '2')
            cfg = load_config(config)
            launch.train(cfg, work_dir=work, launcher='pytorch')
        else:
            mmext.train(config, work_dir=work, resume=True)
    assert {p.name: p.read_bytes() for p in work.iterdir()} == before
    assert process.poll() is None


def test_a_checkpoint_may_be_tested_while_the_training_goes_on(
    hold, tmp_path, data
):
    config = write_config(tmp_path / 'tiny.py', data)
    hold(tmp_path / 'work')
    with pytest.raises(UserError, match='a.pth does not exist'):
        mmext.test(config, 'a.pth', work_dir=tmp_path / 'work')


def test_the_lock_of_a_killed_process_is_replaced_at_once(hold, tmp_path):
    process = hold(tmp_path / 'work')
    process.kill()
    process.wait()
    assert (tmp_path / 'work' / NAME).is_file()
    begun = time.monotonic()
    with locked(tmp_path / 'work'):
        assert time.monotonic() - begun < 2
        assert f'pid={os.getpid()}\n' in (tmp_path / 'work' / NAME).read_text()


def test_a_process_that_nothing_waited_for_is_dead(hold, quick, tmp_path):
    """A container without an init process keeps such processes."""
    process = hold(tmp_path / 'work')
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with locked(tmp_path / 'work'):
        pass


def test_a_dead_process_of_another_machine(quick, tmp_path, capsys):
    file = of_another_machine(tmp_path / 'work')
    os.utime(file, (2e9, 2e9))  # its clock was wrong
    with locked(file.parent):
        assert 'node7' not in file.read_text()
    assert 'locked by process 7 of node7: waiting' in capsys.readouterr().err


def test_a_process_of_another_machine_that_is_alive(quick, tmp_path):
    file = of_another_machine(tmp_path / 'work')
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.2):
            os.utime(file)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(UserError, match='by process 7 of node7'),
            locked(file.parent),
        ):
            pass
    finally:
        stop.set()
        thread.join()


def test_a_process_that_lost_its_lock_ends(hold, quick, tmp_path):
    """Suspended, and taken for dead by another machine."""
    process = hold(tmp_path / 'work')
    process.send_signal(signal.SIGSTOP)
    other = of_another_machine(tmp_path / 'other')
    os.replace(other, tmp_path / 'work' / NAME)
    process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 2
    assert 'another process works in' in process.stderr.read()
    assert 'node7' in (tmp_path / 'work' / NAME).read_text()


def test_who_has_locked_a_folder(hold, tmp_path):
    watch = LockWatch(tmp_path)
    assert watch.owner() == ''
    process = hold(tmp_path)
    assert watch.owner().startswith(f'process {process.pid} of ')
    process.kill()
    process.wait()
    assert watch.owner() == ''
    assert not (tmp_path / NAME).exists()
