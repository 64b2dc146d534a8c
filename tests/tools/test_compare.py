# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests tools/compare.py as a user runs it, and `mmext.compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coco_cases import json_writer, random_detections, random_truth
from commands import ROOT, run_python

from mmext.errors import UserError
from mmext.evaluation.compare import compare

HEAVY = ('torch', 'mmdet', 'mmengine', 'mmcv', 'matplotlib', 'scipy.stats')
#: Runs a tool with its arguments and prints the heavy modules it imported.
RUN = f"""
import json, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
print(json.dumps([m for m in {HEAVY} if m in sys.modules]))
"""


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two result files and their annotation file."""
    write = json_writer(tmp_path_factory.mktemp('files'))
    truth = random_truth(11, images=80)
    return [
        write('a.bbox.json', random_detections(1, truth, 0.3)),
        write('b.bbox.json', random_detections(2, truth, 0.1)),
        write('gt.json', truth),
    ]


def test_result_files_need_no_torch(files: list[Path], tmp_path: Path) -> None:
    a, b, ann = files
    options = ('--ann', ann, '--resamples', 100, '--out', tmp_path / 'out')
    done = run_python('-c', RUN, ROOT / 'tools/compare.py', a, b, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    printed = ' '.join(done.stdout.split())
    assert "the candidate's checkpoint is better" in printed
    assert 'The methods: not tested (one training each).' in printed
    assert (tmp_path / 'out/report.html').is_file()


def test_sides_of_several_seeds(files: list[Path]) -> None:
    a, b, ann = files
    calls: list[tuple[str, float]] = []
    report = compare(
        baseline=[a, b],
        candidates=[[b, a], b],
        ann=ann,
        resamples=100,
        quick=True,
        progress=lambda what, share: calls.append((what, share)),
    )
    assert [len(side.runs) for side in report.sides] == [2, 2, 1]
    same, other = report.comparisons
    assert same.differences['AP'].value == 0
    assert same.both and not other.both
    assert 0 < other.differences['AP'].value < 1
    assert 'APs' not in same.differences
    shares = [share for _, share in calls]
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert calls[0][0] == 'a.bbox (1 of 5): reading'


@pytest.mark.parametrize(
    'options, message',
    [
        ({'level': 0.999}, 'Give 2000 or more for level 0.999'),
        ({'level': 95}, 'Give a share such as 0.95'),
        ({'resamples': 99}, 'Give 100 or more'),
        ({'threads': 0}, 'Give 1 or more'),
        ({'margin': 1.5}, 'between 0 and 100 points: 0.5'),
        ({'candidates': ['c']}, 'not both'),
        ({'runs': ['a']}, 'at least one candidate'),
        ({'runs': None, 'baseline': 'a'}, 'at least one candidate'),
    ],
)
def test_wrong_arguments(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(**{'runs': ['a', 'b'], **options})
