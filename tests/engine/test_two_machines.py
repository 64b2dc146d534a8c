# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two machines, simulated by two connected network namespaces.

Each has one process, its own loopback and one address. Only the network and
the file system connect them, as on a cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import ROOT, TORCHRUN, environment
from tiny_run import make_coco, write_config

FIRST, SECOND = '10.77.0.1', '10.77.0.2'


@pytest.fixture(scope='module')
def machines() -> Iterator[list[str]]:
    """The names of two namespaces, which are also those of their devices."""
    names = [f'mmext{os.getpid() % 10**6}{side}' for side in 'ab']
    a, b = names
    commands = [f'ip netns add {a}', f'ip netns add {b}']
    commands += [f'ip link add {a} netns {a} type veth peer {b} netns {b}']
    for name, address in zip(names, (FIRST, SECOND), strict=True):
        inside = f'ip -n {name}'
        commands += [
            f'{inside} address add {address}/24 dev {name}',
            f'{inside} link set {name} up',
            f'{inside} link set lo up',
        ]
    if shutil.which('ip') is None:
        pytest.skip('no iproute2 here')
    try:
        for command in commands:
            done = subprocess.run(
                command.split(), capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f'{command}: {done.stderr.strip()}')
        yield names
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)


def run(machines: list[str], commands: list[list], cwd: Path) -> list[str]:
    """Runs a command on each machine and returns what they print."""
    started = []
    for name, command in zip(machines, commands, strict=True):
        environ = environment(
            GLOO_SOCKET_IFNAME=name,
            # Otherwise a restarted process uses old addresses:
            # https://github.com/pytorch/pytorch/issues/135712
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1',
        )
        started.append(
            subprocess.Popen(
                ['ip', 'netns', 'exec', name, *map(str, command)],
                env=environ,
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        printed = [p.communicate(timeout=400)[0] for p in started]
    finally:
        for process in started:
            process.terminate()  # torchrun ends its workers too
    for process, text in zip(started, printed, strict=True):
        assert process.returncode == 0, text[-4000:]
    return printed


def config(folder: Path, *hooks: dict) -> Path:
    """Two epochs of two steps; each process writes its state to ``folder``."""
    imports = {'imports': ['mmext', 'rank_states']}
    hooks = ({'type': 'RankStates', 'folder': str(folder)}, *hooks)
    return write_config(
        folder / 'tiny.py',
        make_coco(folder / 'coco', train=8, val=2),
        epochs=2,
        more=f'custom_imports = {imports}\ncustom_hooks = {list(hooks)}',
    )


@pytest.fixture(scope='module')
def trained(machines, tmp_path_factory) -> Path:
    """A folder with the states of both processes after a run."""
    folder = tmp_path_factory.mktemp('two_machines')
    file = config(folder)
    commands = [
        [
            *('env', 'NNODES=2', f'NODE_RANK={rank}'),
            *(f'MASTER_ADDR={FIRST}', 'PORT=29500'),
            *(ROOT / 'tools/dist_train.sh', file, 1),
            *('--work-dir', folder / 'work'),
        ]
        for rank in (0, 1)
    ]
    run(machines, commands, folder)
    return folder


def states(folder: Path) -> list[dict]:
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


@pytest.mark.slow
def test_two_machines_train_one_model(trained):
    first, second = states(trained)
    saved = torch.load(trained / 'work/epoch_2.pth', weights_only=False)
    assert len(first) > 100 and first.keys() == second.keys()
    for name, value in saved['state_dict'].items():
        assert torch.equal(first[name], value), name
        assert torch.equal(second[name], value), name
    # Eight images, two in each process and step: two steps in an epoch.
    assert saved['meta']['iter'] == 4


@pytest.mark.slow
def test_a_killed_worker_continues_from_the_last_checkpoint(
    machines, trained, tmp_path
):
    file = config(
        tmp_path, {'type': 'Dies', 'before': 3, 'once': str(tmp_path / 'died')}
    )
    commands = [
        [
            *TORCHRUN,
            *('--nnodes=2', '--nproc-per-node=1', '--max-restarts=2'),
            *('--rdzv-backend=c10d', f'--rdzv-endpoint={FIRST}:29501'),
            # The name of this machine belongs to neither address.
            *(f'--rdzv-conf=is_host={host}', f'--local-addr={address}'),
            *(ROOT / 'tools/train.py', file, '--launcher', 'pytorch'),
            *('--work-dir', tmp_path / 'work', '--resume'),
        ]
        for host, address in ((1, FIRST), (0, SECOND))
    ]
    printed = ''.join(run(machines, commands, tmp_path))
    assert 'failed (exitcode: -9)' in printed
    assert f'Resuming from {tmp_path}/work/epoch_1.pth' in printed
    # The end state is that of the run without a killed process.
    for mine, other in zip(states(tmp_path), states(trained), strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            assert torch.equal(value, other[name]), name
