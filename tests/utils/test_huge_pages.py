# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Programs that train start again with huge pages, once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import ROOT, run_command, run_python

from mmext.utils.huge_pages import VALUE, VARIABLE

PROBE = """
import os, sys
print('started', os.getpid())
{before}
from mmext.utils.huge_pages import use_huge_pages
use_huge_pages()
print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:], sys.flags.dev_mode)
"""
MODE = Path('/sys/kernel/mm/transparent_hugepage/enabled')
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='Linux only')


def run_probe(folder: Path, before: str = '', **environ: str) -> list[str]:
    probe = folder / 'a probe.py'
    probe.write_text(PROBE.format(before=before))
    given = [f'{name}={value}' for name, value in environ.items()]
    start = ('env', '-u', VARIABLE, *given, sys.executable, '-X', 'dev')
    done = run_command(*start, '-W', 'ignore', probe, 'one', 'two three')
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_same_process_starts_again(tmp_path):
    first, again, last = run_probe(tmp_path)
    assert first == again and first.startswith('started')
    assert last == f"{VALUE} ['one', 'two three'] True"


def test_tunables_of_the_user_stay(tmp_path):
    given = 'glibc.malloc.perturb=0'
    _, last = run_probe(tmp_path, **{VARIABLE: given})
    assert last.startswith(given)


def test_a_program_that_has_loaded_pytorch_goes_on(tmp_path):
    _, last = run_probe(tmp_path, before="sys.modules['torch'] = None")
    assert last.startswith('None')


@pytest.mark.parametrize(
    'command',
    [
        ('train', 'a.py'),
        ('test', 'a.py', 'b.pth'),
        ('run', ROOT / 'evidence/stepnet/plan.yaml'),
        ('demo',),
    ],
    ids=lambda command: command[0],
)
def test_tools_use_them(command, tmp_path):
    """PyTorch, which they load next, is replaced by a report."""
    tmp_path.joinpath('torch.py').write_text(
        'import os, sys\n'
        f'print(os.environ[{VARIABLE!r}], file=sys.stderr)\n'
        'os._exit(7)\n'
    )
    tool, *options = command
    path = ROOT / 'tools' / f'{tool}.py'
    start = ('env', '-u', VARIABLE, sys.executable, path)
    paths = f'{tmp_path}:{ROOT}'
    done = run_command(
        *start, *options, environ={'PYTHONPATH': paths}, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (7, f'{VALUE}\n')


@pytest.mark.skipif(
    not MODE.is_file() or '[never]' in MODE.read_text(),
    reason='the system has no huge pages',
)
def test_large_arrays_are_in_huge_pages():
    """glibc asks for them; the kernel gives what it has."""
    script = """
large = bytearray(b'1') * (1 << 28)
for line in open('/proc/self/smaps_rollup'):
    if line.startswith('AnonHugePages'):
        print(line.split()[1])
"""
    plain, huge = (
        int(run_python('-c', script, environ={VARIABLE: value}).stdout)
        for value in ('', VALUE)
    )
    assert huge > 0
    if '[madvise]' in MODE.read_text():
        assert plain == 0
