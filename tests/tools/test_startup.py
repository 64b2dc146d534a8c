# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``--help`` of each tool imports neither torch nor MMDetection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import ROOT, run_python

from mmext.cli import COMMANDS

TOOLS = ROOT / 'tools'
SCRIPTS = sorted(TOOLS.rglob('*.py'))
HELP = {
    **{str(path): f'usage: {path.name} ' for path in SCRIPTS},
    **{f'mmext {name}': f'usage: mmext {name} ' for name in COMMANDS},
    'mmext': 'usage: mmext COMMAND ',
}
# One process runs all of them; a heavy module is reported for the first tool
# that imports it.
RUN = """
import argparse, contextlib, io, json, runpy, sys
from mmext.cli import main

found = {}
unexplained = []
print_help = argparse.ArgumentParser.print_help


def check_help(self, *args):
    unexplained.extend(a.dest for a in self._actions if a.help is None)
    print_help(self, *args)


argparse.ArgumentParser.print_help = check_help
for tool in json.load(sys.stdin):
    before = set(sys.modules)
    unexplained.clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if tool.startswith('mmext'):
                sys.argv = [*tool.split(), '--help']
                main()
            else:
                sys.argv = [tool, '--help']
                runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            assert not end.code, (tool, end.code, err.getvalue())
    new = {name.partition('.')[0] for name in set(sys.modules) - before}
    heavy = sorted(new & {'mmcv', 'mmdet', 'mmengine', 'torch'})
    found[tool] = [out.getvalue(), err.getvalue(), heavy, [*unexplained]]
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def printed() -> dict[str, tuple[str, str, list[str], list[str]]]:
    """Tool -> stdout, stderr, heavy imports, options without a help text."""
    done = run_python('-c', RUN, input=json.dumps(list(HELP)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('tool', HELP, ids=lambda tool: Path(tool).stem)
def test_help(tool, printed):
    out, err, heavy, unexplained = printed[tool]
    assert out.startswith(HELP[tool])
    assert err == ''
    assert heavy == []
    assert unexplained == []


def test_each_tool_is_a_command():
    commands = {TOOLS / script for script in COMMANDS.values()}
    # A launcher, and scripts for developers.
    others = {TOOLS / 'dist_run.py', *(TOOLS / 'dev').glob('*.py')}
    assert sorted(commands | others) == SCRIPTS
