# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext check-backbone`` prints and saves what it measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from commands import run_tool
from mmengine.config import Config
from tiny_run import write_config

from mmext.checks.backbone import passport as passports
from mmext.checks.backbone.passport import Passport, make_passport
from mmext.checks.backbone.source import Source
from mmext.checks.backbone.two_processes import check_two_processes
from mmext.errors import UserError

IMAGES = torch.rand(2, 3, 64, 64)
MODULE = """
from torch import nn

def conv(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs),
        nn.GELU())

class Pyramid(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.steps = nn.ModuleList(
            conv(a, b, 2) for a, b in ((3, width), (width, 2 * width)))
        {more}

    def forward(self, x):
        outs = []
        for step in self.steps:
            x = step(x)
            outs.append(x)
        return {out}
"""


def write(
    folder: Path, stem: str, more: str = 'pass', out: str = 'tuple(outs)'
) -> Path:
    """Writes a module with the class ``Pyramid``; names are used once."""
    file = folder / f'{stem}.py'
    file.write_text(MODULE.format(more=more, out=out))
    return file


def values(passport: Passport) -> dict[str, bool | None]:
    return {p.name: p.ok for p in passport.properties}


@pytest.fixture(autouse=True)
def path_kept(monkeypatch):
    """Files are imported from their folders."""
    monkeypatch.setattr(sys, 'path', [*sys.path])


def test_a_module_with_everything(tmp_path, monkeypatch):
    """Two processes, too, and every number is saved."""
    file = write(tmp_path, 'pyramid_whole')
    monkeypatch.setattr(passports, 'COST_SIZE', (64, 96))
    passport = make_passport(file, ['width=6'])
    assert passport.problems == []
    assert set(values(passport)) == {
        'attributes', 'gradients', 'unused parameters', 'train and eval',
        'batch invariance', 'determinism', 'odd sizes', 'channels-last',
        'AMP bfloat16', 'AMP float16', 'torch.export', 'two processes',
    }  # fmt: skip
    assert [[*x.values()] for x in passport.levels] == [[6, 2], [12, 4]]
    # 3 * 9 * 6 + 6 + 12 and 6 * 9 * 12 + 12 + 24
    assert passport.cost['parameters'] == 180 + 684
    assert passport.cost['FLOPs'] == 162 * 32 * 48 + 648 * 16 * 24
    assert passport.cost['latency'] > 0
    # At least the input of each of the six layers.
    inputs = 3 * 64 * 96 + 3 * 6 * 32 * 48 + 2 * 12 * 16 * 24
    assert passport.cost['training memory'] >= 4 * inputs
    saved = passport.save(tmp_path / 'out')
    assert [p.name for p in saved] == ['Pyramid.json', 'Pyramid.md']
    content = json.loads(saved[0].read_text())
    assert content['levels'] == passport.levels
    assert content['cost']['parameters'] == 864
    assert asdict(passport.properties[-1]) == content['properties'][-1]
    page = saved[1].read_text()
    assert page.startswith('# Passport of Pyramid\n')
    assert all(f'| {p.name} ' in page for p in passport.properties)
    for line in passport.text().splitlines()[1:]:
        assert len(line) <= 80, line


def test_unused_parameters_in_two_processes(tmp_path):
    file = write(tmp_path, 'pyramid_unused', 'self.fc = nn.Linear(2, 2)')
    passport = make_passport(file, quick=True)
    assert [p.name for p in passport.problems] == ['unused parameters']
    found = check_two_processes(Source(str(file)), IMAGES)
    assert '2 of 10 (fc.weight, fc.bias)' in passport.problems[0].text
    assert not found.ok
    assert 'only with find_unused_parameters=True' in found.text


@pytest.mark.parametrize(
    ('stem', 'more', 'out', 'ok'),
    [
        ('frozen', 'self.requires_grad_(False)', 'tuple(outs)', None),
        (
            'sync',
            'self.steps[0][1] = nn.SyncBatchNorm(4)',
            'tuple(outs)',
            None,
        ),
        (
            'auxiliary',
            'self.extra = conv(8, 2, 1)',
            'tuple(outs + [self.extra(x)] * self.training)',
            True,
        ),
    ],
)
def test_two_processes(tmp_path, stem, more, out, ok):
    """What a training uses decides, and nothing to train is no mistake."""
    file = write(tmp_path, f'pyramid_{stem}', more, out)
    found = check_two_processes(Source(str(file)), IMAGES)
    assert found.ok is ok, found


def test_what_fails_is_a_problem_and_not_a_traceback(tmp_path):
    file = write(tmp_path, 'pyramid_even', out='tuple(outs)')
    picky = 'outs = []; assert x.shape[2] % 4 == 0, "no odd sizes"'
    file.write_text(file.read_text().replace('outs = []', picky))
    passport = make_passport(file, quick=True)
    (wrong,) = passport.problems
    assert wrong.text == 'fails: AssertionError: no odd sizes'
    assert 'torch.export' not in values(passport) and not passport.cost


@pytest.mark.parametrize(
    ('out', 'says'),
    [
        ('x', r'returns a Tensor of shape \(2, 8, 32, 48\)'),
        ('{"a": x}', 'returns a dict with the keys a'),
        ('(x.mean((2, 3)),)', r'returns a tuple of \(Tensor \(2, 8\)\)'),
        ('(x[..., :24],)', 'stride 4 in height and 8 in width'),
        ('1 / 0', 'fails for two images of 128x192 pixels: ZeroDiv'),
    ],
)
def test_outputs_that_are_no_maps(tmp_path, out, says):
    name = f'pyramid_{abs(hash(out))}'
    with pytest.raises(UserError, match=f'Pyramid:? {says}|Pyramid.*{says}'):
        make_passport(write(tmp_path, name, out=out), quick=True)


def test_a_config_with_its_options(tmp_path):
    config = write_config(tmp_path / 'tiny.py', tmp_path)
    passport = make_passport(
        config, ['model.backbone.base_channels=8'], quick=True
    )
    assert passport.name == 'ResNet'
    found = [[*x.values()] for x in passport.levels]
    assert found == [[8, 4], [16, 8], [32, 16], [64, 32]]
    assert passport.problems == []
    assert values(passport)['checkpointing'] is True


def test_the_same_weights_each_time():
    source = Source('mmext.models:StarNet', ('arch=s1',))
    first, second = source.build(), source.build()
    assert type(first).__name__ == 'StarNet'
    weights = zip(first.parameters(), second.parameters(), strict=True)
    assert all(a.equal(b) for a, b in weights)


def test_a_module_by_its_name(tmp_path, monkeypatch):
    write(tmp_path, 'pyramid_named')
    monkeypatch.syspath_prepend(tmp_path)
    for source in ('pyramid_named', 'pyramid_named:Pyramid'):
        assert type(Source(source).build()).__name__ == 'Pyramid'


@pytest.mark.parametrize(
    ('source', 'says', 'fix'),
    [
        ('two.py', 'several backbones', 'One, Two, as two.py:CLASS'),
        ('two.py:Three', "no class 'Three'", 'One, Two'),
        ('gone.py', 'config gone.py does not exist', ''),
        ('StarNett', 'no module that can be imported', 'Give FILE.py'),
        ('empty.py', 'has no model.backbone', 'Give the config'),
        ('nothing.py', 'no torch.nn.Module', 'defines the backbone'),
        ('two.py:One', 'no argument', ''),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, source, says, fix):
    monkeypatch.chdir(tmp_path)
    for module in ('two', 'nothing'):
        sys.modules.pop(module, None)
    one = 'class One(nn.Module):\n    pass\n'
    both = one + one.replace('One', 'Two')
    Path('two.py').write_text(f'from torch import nn\n{both}')
    Path('empty.py').write_text('x = 1\n')
    Path('nothing.py').write_text('class A:\n    pass\n')
    options = ['depth=3'] if says == 'no argument' else []
    with pytest.raises(UserError) as error:
        make_passport(source, options, quick=True)
    assert says in error.value.problem
    assert fix in error.value.fix


def test_the_tool(tmp_path, monkeypatch, capsys):
    write(tmp_path, 'pyramid_tool', 'self.fc = nn.Linear(2, 2)')
    monkeypatch.chdir(tmp_path)
    options = ('--quick', '--size', 64, 64)
    assert run_tool('misc/check_backbone.py', 'pyramid_tool.py', *options) == 1
    out = capsys.readouterr().out
    assert 'NO  unused parameters' in out
    assert 'ok  determinism' in out
    assert 'work_dirs/passports/Pyramid.json' in out
    assert Path('work_dirs/passports/Pyramid.md').is_file()


def test_the_config_around_a_semi_supervised_detector(tmp_path):
    file = tmp_path / 'semi.py'
    file.write_text(
        "model = dict(type='SoftTeacher', detector=dict(backbone=dict("
        "type='StarNet', arch='s1')))"
    )
    settings, cfg = Source(str(file)).read()
    assert settings == {'type': 'StarNet', 'arch': 's1'}
    assert isinstance(cfg, Config)


def test_a_model_of_one_size_is_measured_at_it(tmp_path: Path) -> None:
    """It failed, whatever its size was, on images of 128x192 pixels."""
    path = tmp_path / 'one_size.py'
    path.write_text(
        "model = dict(backbone=dict(type='TimmBackbone', name='test_maxvit',"
        ' img_size=160))\n'
    )
    passport = make_passport(path, quick=True)
    assert not passport.problems
    (odd,) = (p for p in passport.properties if p.name == 'odd sizes')
    assert (odd.ok, odd.text) == (None, '160x160 pixels only')
    with pytest.raises(UserError, match='takes images of 160x160 pixels only'):
        make_passport(path, size=(128, 128), quick=True)
