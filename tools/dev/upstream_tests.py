# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs mmdet's and mmcv's own unit tests against the installed packages.

    python tools/dev/upstream_tests.py mmdet --source ~/mmdetection
    python tools/dev/upstream_tests.py mmcv tests/test_ops/test_nms.py

The packages on PyPI do not contain these tests, so they are taken from a
checkout: ``--source``, or a clone of the installed release. Many of them do
nothing without a GPU. Here ``torch.cuda.is_available()`` returns True and all
tensors stay on the CPU, so the tests run; ``--plain`` turns this off.

The tests import `parameterized`, which the extra `dev` installs. Prints a
table, the failures and why tests were skipped. Run it with and without
compiled ops and compare: a test that fails with both is not affected by them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

# By the name of the distribution; the installed one is used.
REPOSITORIES = {
    'mmdet': {
        'onedl-mmdetection': (
            'https://github.com/VBTI-development/onedl-mmdetection'
        ),
        'mmdet': 'https://github.com/open-mmlab/mmdetection',
    },
    'mmcv': {
        'onedl-mmcv': 'https://github.com/VBTI-development/onedl-mmcv',
        'mmcv-lite': 'https://github.com/open-mmlab/mmcv',
        'mmcv': 'https://github.com/open-mmlab/mmcv',
    },
}
MODELS = (
    'backbones necks roi_heads dense_heads detectors layers losses '
    'task_modules tta'
)
FOLDERS = {
    'mmdet': [f'tests/test_models/test_{name}' for name in MODELS.split()],
    'mmcv': ['tests/test_ops'],
}


def clone(package: str, folder: Path) -> Path:
    """Clones the release that is installed."""
    for name, url in REPOSITORIES[package].items():
        try:
            tag = f'v{version(name)}'
        except PackageNotFoundError:
            continue
        command = ['git', 'clone', '-q', '--depth', '1', '--branch', tag]
        done = subprocess.run([*command, url, str(folder)])
        if done.returncode:
            sys.exit(
                f'Could not clone {tag} of {url}. Give a checkout or an '
                'unpacked source archive that has tests: --source FOLDER'
            )
        return folder
    sys.exit(f'{package} is not installed in this environment.')


def pretend_cuda() -> None:
    """Makes code for a GPU run on the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    def on_cpu(value: object) -> object:
        named = isinstance(value, (str, torch.device))
        return 'cpu' if named and str(value).startswith('cuda') else value

    class OnCPU(TorchFunctionMode):
        """Moves tensors to the CPU instead of a GPU."""

        def __torch_function__(  # noqa: ANN204
            self, func, types, args=(), kwargs=None
        ):
            if func is torch.Tensor.cuda:
                return args[0]
            if func == torch.Tensor.is_cuda.__get__:
                return True  # mmdet and mmcv take the ops of a GPU then
            kwargs = {k: on_cpu(v) for k, v in (kwargs or {}).items()}
            return func(*[on_cpu(a) for a in args], **kwargs)

    OnCPU().__enter__()
    torch.cuda.is_available = lambda: True
    for name in ('set_device', 'synchronize', 'empty_cache'):
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 1


def pytest_configure(config: object) -> None:
    """Prepares the run: this file is also its pytest plugin."""
    # mmcv asks for a GPU when it is imported (mmcv.utils.IS_CUDA_AVAILABLE).
    if not os.environ.get('UPSTREAM_TESTS_PLAIN'):
        pretend_cuda()
    import mmext  # noqa: F401

    # isort: split
    import mmdet
    from mmdet.testing import _utils

    # The tests expect configs beside the sources; wheels contain them.
    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    _utils._get_config_directory = lambda: str(configs)


def run(
    source: Path, targets: list[str], timeout: int, plain: bool
) -> ElementTree.Element:
    """Runs the tests and returns the results as JUnit XML."""
    report = source / 'upstream_tests.xml'
    command = [sys.executable, '-m', 'pytest', '-q', '-p', Path(__file__).stem]
    command += ['-p', 'no:cacheprovider', '--rootdir', '.', '-c', os.devnull]
    command += [f'--timeout={timeout}', f'--junitxml={report}', '--tb=short']
    command += ['--continue-on-collection-errors']
    env = {**os.environ, 'UPSTREAM_TESTS_PLAIN': '1' if plain else ''}
    # The plugin is in this file's folder, and tests import `tests`. The
    # packages must be the installed ones and not those of the source.
    shadow = source / 'upstream_path'
    shadow.mkdir(exist_ok=True)
    link = shadow / 'tests'
    if not link.exists():
        link.symlink_to(source / 'tests', target_is_directory=True)
    paths = [str(Path(__file__).resolve().parent), str(shadow)]
    paths += filter(None, [os.environ.get('PYTHONPATH')])
    env['PYTHONPATH'] = os.pathsep.join(paths)
    env['PYTHONSAFEPATH'] = '1'
    subprocess.run(
        [*command, '--import-mode=importlib', *targets], cwd=source, env=env
    )
    if not report.exists():
        sys.exit('pytest ended without a report; see above.')
    return ElementTree.parse(report).getroot()


def table(results: ElementTree.Element) -> str:
    """Returns counts per folder, each failure and the reasons of skips."""
    counts: dict[str, Counter] = {}
    failures = []
    skips: Counter = Counter()
    for case in results.iter('testcase'):
        # tests.test_models.test_x.test_y.TestZ; a module that could not be
        # imported has its name here.
        parts = f'{case.get("classname")}.{case.get("name")}'.strip('.')
        parts = parts.split('.')
        folder = '/'.join(parts[1 : 3 if 'test_models' in parts else 2])
        outcome = 'passed'
        for found in case:
            if found.tag == 'skipped':
                outcome = 'skipped'
                skips[found.get('message') or 'no reason'] += 1
            elif found.tag in ('failure', 'error'):
                outcome = 'failed'
                name = '.'.join(parts[2:])
                failures.append(f'- `{name}`: {reason(found)}')
        counts.setdefault(folder, Counter())[outcome] += 1
    lines = ['| tests | passed | failed | skipped |', '|---|---|---|---|']
    total: Counter = Counter()
    for folder, count in sorted(counts.items()):
        total += count
        lines.append(_row(folder, count))
    lines += [_row('all', total), '', *failures]
    if skips:
        lines += ['', 'Skipped:', '']
        lines += [f'- {count} x {why}' for why, count in skips.most_common()]
    return '\n'.join(lines)


def reason(found: ElementTree.Element) -> str:
    """Returns the error of a failure, on one line."""
    message = (found.get('message') or '').strip()
    # These are of files that cannot be imported and of fixtures.
    if not message or message.startswith(('collection f', 'failed on')):
        raised = re.findall(r'^E\s+(\S.*)$', found.text or '', re.M)
        message = raised[-1] if raised else message or 'no message'
    return message.splitlines()[0][:150]


def _row(name: str, count: Counter) -> str:
    numbers = [str(count[k]) for k in ('passed', 'failed', 'skipped')]
    return f'| {name} | {" | ".join(numbers)} |'


def require(*modules: str) -> None:
    """Exits if modules that the tests import are not installed."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        names = ' '.join(missing).replace('_', '-')
        sys.exit(
            f'The tests need {names}, not installed in this environment. '
            f'Install: {sys.executable} -m pip install {names}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'package', choices=sorted(FOLDERS), help='whose tests run'
    )
    parser.add_argument(
        'targets',
        nargs='*',
        help='test files or folders within the source (default: those of '
        'models and ops)',
    )
    parser.add_argument(
        '--source', type=Path, help='a checkout with a tests folder'
    )
    parser.add_argument(
        '--timeout', type=int, default=300, help='seconds a test may take'
    )
    parser.add_argument(
        '--plain',
        action='store_true',
        help='do not pretend that there is a GPU',
    )
    parser.add_argument('--out', type=Path, help='also write the table here')
    args = parser.parse_intermixed_args()
    require('pytest', 'pytest_timeout', 'parameterized')
    with tempfile.TemporaryDirectory() as folder:
        source = args.source or clone(args.package, Path(folder) / 'source')
        source = source.expanduser().resolve()
        targets = args.targets or [
            f for f in FOLDERS[args.package] if (source / f).exists()
        ]
        absent = [t for t in targets if not (source / t).exists()]
        if absent or not targets:
            sys.exit(
                f'{source} has no {", ".join(absent) or "model or op tests"}.'
                ' Source archives on PyPI have none; use a checkout.'
            )
        text = table(run(source, targets, args.timeout, args.plain))
    print(text)
    if args.out:
        args.out.write_text(text + '\n', 'utf-8')


if __name__ == '__main__':
    main()
