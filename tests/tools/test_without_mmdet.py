# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The tools where MMDetection is not installed.

Those that need it report that in one message; the others work, and import
neither torch nor what is there of the host's packages.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from coco_cases import random_detections
from commands import ROOT, run_python
from experiments import plan_of, records_of, write_runs
from PIL import Image
from tiny_run import make_coco
from trained import write_log

from mmext.experiments.plan import write_plan

#: Tool -> arguments with which it needs MMDetection.
NEED = {
    'analysis_tools/attention_ticket.py': 'a.py b --images c --out d.py',
    'analysis_tools/benchmark.py': 'a.py',
    'analysis_tools/browse_dataset.py': 'a.py',
    'analysis_tools/decision_boundary.py': '',
    'analysis_tools/filter_angles.py': 'a.py b.pth',
    'analysis_tools/get_flops.py': 'a.py',
    'analysis_tools/orthogonality_effect.py': 'a.py',
    'analysis_tools/star_vs_sum.py': 'a.py',
    'analysis_tools/stiffness.py': 'a.py b.pth --images c',
    'analysis_tools/token_mixers.py': '',
    'demo.py': '',
    'export.py': 'a.py b.pth',
    'image_demo.py': 'a.py b.pth c.jpg',
    'misc/check_backbone.py': 'a.py',
    'misc/replay_step.py': 'a.py b.pth',
    'model_converters/publish_model.py': 'a.pth b.pth',
    'model_converters/released_to_mmext.py': 'StarNet a.pth b.pth',
    'predict.py': f'a.pth {ROOT}/docs/images/compare.png --config a.py',
    'plan.py': '--baseline a.py --candidate b.py --gain 1',
    'run.py': 'plan.yaml',
    'test.py': 'a.py b.pth',
    'train.py': 'a.py',
}
#: Tool -> arguments with which it does not.
DO_NOT_NEED = {
    'analysis_tools/confusion_matrix.py': (
        'a.bbox.json --ann coco/val.json --out matrix'
    ),
    'analysis_tools/error_types.py': (
        'a.bbox.json --ann coco/val.json --out errors'
    ),
    'analysis_tools/plot_curves.py': 'run --keys=loss --out curves',
    'compare.py': (
        'a.bbox.json b.bbox.json --ann coco/val.json --resamples 100 --out out'
    ),
    'dataset_converters/coco2imagefolder.py': 'coco/val.json coco/val crops',
    'dataset_converters/convert.py': 'yolo',
    'dataset_converters/voc2coco.py': 'voc',
    'dataset_converters/yolo2coco.py': 'yolo',
    'misc/check_data.py': 'coco --fix fixed',
    'report.py': 'runs --out report',
}
# Packages that cannot be imported. An attempt to import torch is an error.
MISSING = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: (
    None if name in ('mmengine', 'mmdet') else find(name, *more)
)
"""
NO_TORCH = """
class NoTorch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'torch':
            raise AssertionError('torch is imported')

sys.meta_path.insert(0, NoTorch)
"""
# Runs tools one after the other: a new process for each would take minutes.
RUN = """
import contextlib, io, json, runpy, sys, traceback

found = {}
for tool, arguments in json.load(sys.stdin).items():
    sys.argv = [tool, *arguments]
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            status = 1
            traceback.print_exc()
    heavy = sorted({'mmcv', 'scipy.stats', 'torch'} & set(sys.modules))
    found[tool] = [status, out.getvalue(), err.getvalue(), heavy]
print(json.dumps(found))
"""
VOC = """
<annotation><filename>{name}.jpg</filename>
<size><width>64</width><height>48</height></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax>
<ymax>40</ymax></bndbox></object></annotation>
"""


def run_without(
    folder: Path,
    *command: object,
    debug: str = '0',
    torch: bool = True,
    stdin: str = '',
) -> subprocess.CompletedProcess:
    """Runs Python without MMEngine and MMDetection."""
    (folder / 'sitecustomize.py').write_text(
        MISSING if torch else MISSING + NO_TORCH
    )
    path = f'{folder}{os.pathsep}{ROOT}'
    environ = {'PYTHONPATH': path, 'MMEXT_DEBUG': debug}
    return run_python(*command, environ=environ, cwd=folder, input=stdin)


def run_tools(
    folder: Path, tools: dict[str, str], torch: bool = True
) -> dict[str, tuple[int, str, str, list[str]]]:
    """Tool -> exit status, stdout, stderr and heavy modules."""
    commands = {
        str(ROOT / 'tools' / tool): arguments.split()
        for tool, arguments in tools.items()
    }
    done = run_without(
        folder, '-c', RUN, torch=torch, stdin=json.dumps(commands)
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {tool: found[str(ROOT / 'tools' / tool)] for tool in tools}


@pytest.fixture(scope='module')
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the tools report that need MMDetection; they write nothing."""
    folder = tmp_path_factory.mktemp('refused')
    write_plan(folder / 'plan.yaml', plan_of())
    found = run_tools(folder, NEED)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ['plan.yaml', 'sitecustomize.py']
    return found


@pytest.mark.parametrize('tool', NEED)
def test_a_tool_names_what_to_install(refused, tool):
    status, _, err, _ = refused[tool]
    assert err.splitlines()[:2] == [
        '',
        'error: mmext needs mmengine, mmdet, not found in this environment',
    ]
    assert f"pip install -e '{ROOT}[onedl]'" in err
    assert 'Traceback' not in err
    assert status == 2


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64, 48), 'gray').save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The tools that need no MMDetection, run on small data of each kind."""
    folder = tmp_path_factory.mktemp('data')
    coco, voc, yolo = (folder / name for name in ('coco', 'voc', 'yolo'))
    truth = json.loads((make_coco(coco) / 'val.json').read_text())
    for seed, name in enumerate('ab'):
        found = random_detections(seed, truth)
        write(folder / f'{name}.bbox.json', json.dumps(found))
    for name in ('one', 'two', 'three', 'four', 'five', 'six'):
        save_image(voc / 'JPEGImages' / f'{name}.jpg')
        write(voc / 'Annotations' / f'{name}.xml', VOC.format(name=name))
    for split in ('train', 'val'):
        save_image(yolo / 'images' / split / 'a.jpg')
        write(yolo / 'labels' / split / 'a.txt', '0 0.5 0.5 0.25 0.25\n')
    write(yolo / 'data.yaml', 'names: [cat]\n')
    lines = [{'loss': 1 / i, 'lr': 0.1, 'iter': i, 'step': i} for i in (1, 2)]
    write_log(folder / 'run', [*lines, {'coco/bbox_mAP': 0.3, 'step': 1}])
    plan = plan_of(images=40)
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.6})
    write_runs(plan, records, folder / 'runs')
    found = run_tools(folder, DO_NOT_NEED, torch=False)
    assert (folder / 'curves/loss.png').is_file()
    return found


@pytest.mark.parametrize('tool', DO_NOT_NEED)
def test_a_tool_works_without(results, tool):
    status, out, err, heavy = results[tool]
    assert status == 0, out + err
    assert heavy == []
    assert 'Traceback' not in err


def test_each_tool_is_tested():
    tools = {
        str(p.relative_to(ROOT / 'tools'))
        for p in (ROOT / 'tools').rglob('*.py')
        if p.parent.name != 'dev' and p.stem not in ('doctor', 'dist_run')
    }
    assert tools == NEED.keys() | DO_NOT_NEED.keys()


def test_a_function_of_mmext_raises_an_import_error(tmp_path):
    script = (
        'import mmext\n'
        'try: from mmext import train\n'
        'except ImportError as error: print(type(error).__name__)\n'
        'mmext.train\n'
    )
    done = run_without(tmp_path, '-c', script)
    assert done.stdout == 'MissingPackagesError\n', done.stderr
    assert 'mmext needs mmengine, mmdet' in done.stderr


def test_the_traceback_is_shown_for_debugging(tmp_path):
    tool = ROOT / 'tools' / 'train.py'
    done = run_without(tmp_path, tool, 'a.py', debug='1')
    assert 'Traceback' in done.stderr
    assert "ModuleNotFoundError: No module named 'mmengine'" in done.stderr
