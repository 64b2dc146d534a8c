# Licensed under the Apache License, Version 2.0. See LICENSE.
"""docs/evidence.md: contrasts, verdicts, and what is missing or changed."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT
from experiments import plan_of, records_of, write_runs
from PIL import Image
from scipy.stats import spearmanr, ttest_ind
from torch import nn

from mmext.analysis.loading import load_model
from mmext.analysis.stiffness_report import measure_models
from mmext.errors import UserError
from mmext.evaluation.statistics.comparison import compare_resampled
from mmext.experiments.plan import write_plan
from mmext.experiments.reports.decision import evaluate_records

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / 'benchmarks')
    EVIDENCE = runpy.run_path(str(ROOT / 'benchmarks' / 'evidence.py'))
Claim, Experiment = EVIDENCE['Claim'], EVIDENCE['Experiment']
GAIN = {'claim': 'More.', 'paper': '+5', 'contrast': {'cand 1': 1, 'base': -1}}
KEPT = {**GAIN, 'claim': 'Kept.', 'margin': 3}


def folder_of(tmp_path: Path, plan, records, claims: list[dict]) -> Path:
    folder = tmp_path / 'evidence' / 'test'
    folder.mkdir(parents=True)
    write_plan(folder / 'plan.yaml', plan)
    (folder / 'claims.yaml').write_text(yaml.safe_dump(claims))
    write_runs(plan, records, folder / 'records')
    return folder


def write_measures(folder: Path, plan, runs: list[dict]) -> None:
    content = {'command': '', 'plan_sha256': plan.sha256, 'runs': runs}
    (folder / 'measures.json').write_text(json.dumps(content))


def verdicts(tmp_path: Path, accuracy: dict, claims: list[dict], **plan):
    plan = plan_of(images=4000, scope='data set', **plan)
    folder = folder_of(tmp_path, plan, records_of(plan, accuracy), claims)
    return [row[-1] for row in Experiment.read(folder).rows()]


def test_a_contrast_of_two_sides_is_their_comparison() -> None:
    plan = plan_of(images=500)
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.65}, seed_sd=0.01)
    sides = {
        name: evaluate_records([r for j, r in records.items() if j[0] == name])
        for name in ('base', 'cand 1')
    }
    theirs = compare_resampled(sides['base'], sides['cand 1'])
    ours = EVIDENCE['contrast_of'](
        [
            (f, np.stack([run.metrics['top-1'] for run in sides[name]]))
            for f, name in ((1, 'cand 1'), (-1, 'base'))
        ],
        1000,
        500,
    )
    for scope, expected in (
        ('data set', theirs.seeds['top-1']),
        ('images', theirs.both['top-1']),
    ):
        found = ours.estimate(scope, 0.95)
        for key in ('value', 'se', 'p', 'interval'):
            assert np.allclose(getattr(found, key), getattr(expected, key))


def test_pooled_variances_are_those_of_students_test() -> None:
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(n, 1)) for n in (3, 5)]
    signed = [*zip((1, -1), sides, strict=True)]
    found = EVIDENCE['contrast_of'](signed, 0, 0, sides)
    found = found.estimate('data set', 0.95)
    theirs = ttest_ind(*(side[:, 0] for side in sides))
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx([*theirs.confidence_interval(0.95)])


def test_pooled_variances_of_many_sides_keep_the_level() -> None:
    rng = np.random.default_rng(0)
    found, runs, widths = 0, 2000, []
    for _ in range(runs):
        sides = rng.normal(size=(8, 3, 1))
        signed = [(1, sides[0]), (-1, sides[1])]
        pooled, alone = (
            EVIDENCE['contrast_of'](signed, 0, 0, pool).estimate(
                'data set', 0.95
            )
            for pool in ([*sides], ())
        )
        found += pooled.p < 0.05
        widths.append([np.diff(x.interval)[0] for x in (pooled, alone)])
    assert 0.04 < found / runs < 0.06
    pooled, alone = np.median(widths, 0)
    assert pooled < 0.85 * alone


def test_pooled_claims_wait_for_all_sides(tmp_path: Path) -> None:
    plan = plan_of(images=300, scope='data set', candidates=2)
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.7, 'cand 2': 0.7})
    del records[[job for job in records if job.side == 'cand 2'][-1]]
    claims = [GAIN, {**GAIN, 'pooled': True}]
    folder = folder_of(tmp_path, plan, records, claims)
    done, waits = Experiment.read(folder).rows()
    assert 'holds' in done[-1]
    assert waits[-1] == 'not settled: runs are missing'


def test_a_difference_of_gains() -> None:
    plan = plan_of(candidates=3, images=500)
    level = {'base': 0.5, 'cand 1': 0.6, 'cand 2': 0.55, 'cand 3': 0.58}
    records = records_of(plan, level)
    claim = Claim('', '', {'cand 1': 1, 'base': -1, 'cand 3': -1, 'cand 2': 1})
    experiment = Experiment(Path('.'), plan, [claim], records, {})
    found = experiment.estimated(claim, 3)
    top1 = {name: experiment.values(name) for name in level}
    means = {name: np.mean(values) for name, values in top1.items()}
    value = means['cand 1'] - means['base'] - means['cand 3'] + means['cand 2']
    assert 100 * found.value == pytest.approx(value)
    variance = sum(np.var(values, ddof=1) / 3 for values in top1.values())
    se = 100 * found.estimate('data set', 0.95).se
    assert se == pytest.approx(variance**0.5)


@pytest.mark.parametrize(
    ('cand', 'gain', 'kept'),
    [
        (0.66, '**holds**', '**holds**'),
        (0.61, '**holds**', '**holds**'),  # below the plan's gain of 2 points
        (0.601, '**gain below +2**', '**holds**'),
        (0.52, '**contradicted**', '**contradicted**'),
    ],
)
def test_verdicts(cand: float, gain: str, kept: str, tmp_path: Path) -> None:
    level = {'base': 0.6, 'cand 1': cand}
    found = verdicts(tmp_path, level, [GAIN, KEPT], gain=2.0)
    assert [v.split(', p ')[0] for v in found] == [gain, kept]


def test_a_loss_beyond_the_margin_is_no_gain_below_the_plans() -> None:
    claims = [Claim('', '', {'a': 1}), Claim('', '', {'b': 1}, margin=2)]
    contrasts = [
        EVIDENCE['Contrast'](
            value, np.array([se**2]), np.array([4]), np.nan, 0, 0.0, 3
        )
        for value, se in ((0.0, 0.001), (-0.035, 0.005))
    ]
    less, lost = EVIDENCE['claim_rows'](
        '', claims, contrasts, [0.05, 0.05], 'data set', gain=2.0
    )
    assert less[-1].startswith('**gain below +2**')
    assert lost[-1] == '**contradicted**, p 0.040'


def test_open_verdicts_say_how_many_seeds_are_needed(tmp_path: Path) -> None:
    plan = plan_of(images=4000, scope='data set', gain=2.0)
    level = {'base': 0.6, 'cand 1': 0.608}
    records = records_of(plan, level, seed_sd=0.02)
    folder = folder_of(tmp_path, plan, records, [GAIN])
    [row] = Experiment.read(folder).rows()
    assert row[-1].startswith('not settled: needs ')
    assert int(row[-1].split()[3]) > 3


def test_missing_runs_and_a_changed_plan_are_shown(tmp_path: Path) -> None:
    plan = plan_of(images=300, scope='data set', candidates=2)
    level = {'base': 0.6, 'cand 1': 0.7, 'cand 2': 0.7}
    records = records_of(plan, level)
    gone = [job for job in records if job.side == 'cand 2'][-1]
    del records[gone]
    of_two = {**GAIN, 'contrast': {'cand 2': 1, 'base': -1}}
    folder = folder_of(tmp_path, plan_of(candidates=2), {}, [GAIN, of_two])
    write_runs(plan, records, folder / 'records')
    (folder.parent / 'page.md').write_text('{claims}\n{experiments}\n')
    page = tmp_path / 'evidence.md'
    rows = EVIDENCE['write_page'](folder.parent, page)
    text = page.read_text()
    readme = tmp_path / 'README.md'
    begin, end = EVIDENCE['BEGIN'], EVIDENCE['END']
    readme.write_text(f'above\n{begin}\nearlier\n{end}\nbelow\n')
    for _ in range(2):  # the marks stay
        EVIDENCE['write_settled'](rows, readme)
    above, settled, below = re.split(f'{begin}|{end}', readme.read_text())
    assert (above, below) == ('above\n', '\nbelow\n')
    assert '| [test] |' in settled
    assert '\n[test]: docs/evidence.md#test\n' in settled
    assert 'holds' in settled
    assert '1 hold here' in settled
    assert 'earlier' not in settled and 'not settled' not in settled
    done, missing = (
        line for line in text.splitlines() if line.startswith('| More.')
    )
    assert '| [test] |' in done
    assert '\n[test]: #test\n' in text
    assert 'holds' in done
    assert 'not settled: runs are missing' in missing
    [side] = [x for x in text.splitlines() if x.startswith('| cand 2')]
    assert [x.strip() for x in side.split('|')][5:8] == ['2 of 3', '-', '-']
    assert '8 runs of 9' in text
    assert 'The plan was changed after results: 8 runs of 8' in text
    assert (tmp_path / 'images' / 'evidence_test.png').is_file()


def test_without_a_complete_side_there_is_no_picture(tmp_path: Path) -> None:
    plan = plan_of(images=300, scope='data set')
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.5})
    first = next(iter(records))
    folder = folder_of(tmp_path, plan, {first: records[first]}, [GAIN])
    text = Experiment.read(folder).section(tmp_path / 'images')
    assert '1 run of 6' in text
    assert '![' not in text
    assert not [*tmp_path.rglob('*.png')]


def test_measures_are_compared_between_seeds(tmp_path: Path) -> None:
    plan = plan_of(images=300, scope='data set')
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.7})
    claims = [
        {**GAIN, 'measure': 'tns'},
        {**GAIN, 'contrast': {'cand 1': -1}, 'measure': 'tns', 'margin': 10},
    ]
    folder = folder_of(tmp_path, plan, records, claims)
    rows = Experiment.read(folder).rows()
    assert [row[-1] for row in rows] == ['not settled: runs are missing'] * 2
    runs = [
        {'side': side, 'seed': seed, 'tns': value + 0.1 * (seed % 3)}
        for (side, seed), value in zip(records, [5, 8] * 3, strict=True)
    ]
    write_measures(folder, plan, runs)
    more, most = Experiment.read(folder).rows()
    assert more[3].startswith('+3.00 [+2.')
    assert more[4] == '-'
    assert 'holds' in more[-1]
    assert most[3].startswith('-8.10 [-8.')
    assert 'holds' in most[-1]  # 8.1 is at most 10


def test_the_stiffness_is_drawn_once_all_runs_have_ended(
    tmp_path: Path,
) -> None:
    plan = plan_of(images=300, scope='data set')
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.7})
    folder = folder_of(tmp_path, plan, records, [GAIN])
    nsi = {'layer1.1': 0.5, 'layer1.2': 0.1}
    runs = [
        {'side': side, 'seed': seed, 'tns': 1.0, 'nsi': nsi}
        for side, seed in [*records][:4]  # the others' checkpoints are gone
    ]
    write_measures(folder, plan, runs)
    last = plan.folder_of([*records][-1], folder / 'records')
    for expected in (3, 1):
        drawn = Experiment.read(folder).pictures(tmp_path / 'images')
        assert len(drawn) == expected
        paths = re.findall(r'\((.*?)\)', '\n'.join(drawn))
        assert all((tmp_path / path).is_file() for path in paths)
        text = Experiment.read(folder).section(tmp_path / 'images')
        runs = 6 if expected == 3 else 5
        assert f'- 4 of the {runs} runs were measured' in text
        (last / 'record.npz').unlink(missing_ok=True)


def test_a_rank_correlation_over_all_networks(tmp_path: Path) -> None:
    plan = plan_of((6,), images=300, scope='data set')
    level = {'base': 0.6, 'cand 1': 0.7}
    records = records_of(plan, level, seed_sd=0.05)
    claim = {'claim': 'Rises.', 'paper': '', 'correlation': True}
    folder = folder_of(tmp_path, plan, records, [{**claim, 'measure': 'tns'}])
    experiment = Experiment.read(folder)
    runs = dict(zip(records, experiment.evaluated.values(), strict=True))
    top1 = {j: float(run.metrics['top-1'][0]) for j, run in runs.items()}
    [row] = experiment.rows()
    assert row[-1] == 'not settled: runs are missing'

    def row_of(tns: list[float]) -> list[str]:
        runs = [
            {'side': side, 'seed': seed, 'tns': value}
            for (side, seed), value in zip(top1, tns, strict=True)
        ]
        write_measures(folder, plan, runs)
        [row] = Experiment.read(folder).rows()
        return row

    noise = np.random.default_rng(0).normal(0, 0.03, len(top1))
    close = [v + e for v, e in zip(top1.values(), noise, strict=True)]
    rho = spearmanr(close, [*top1.values()])
    assert 0.5 < rho.statistic < 1 and rho.pvalue < 0.05
    row = row_of(close)
    assert row[3].startswith(f'{rho.statistic:+.2f} [')
    assert row[4] == '-' and 'holds' in row[-1]
    assert 'contradicted' in row_of([-x for x in close])[-1]
    unclear = np.random.default_rng(2).normal(size=len(top1)).tolist()
    assert re.search(r'needs \d+ more networks', row_of(unclear)[-1])
    for wrong, says in (
        ({**GAIN, 'correlation': True}, 'a contrast and a correlation'),
        ({**claim, 'correlation': False}, 'about no contrast'),
        (claim, 'has no measure'),
    ):
        (folder / 'claims.yaml').write_text(yaml.safe_dump([wrong]))
        with pytest.raises(UserError, match=says):
            Experiment.read(folder)


def test_the_interval_of_a_rank_correlation_covers() -> None:
    rng = np.random.default_rng(0)
    true, runs = 0.6, 1000
    rank = 6 / np.pi * np.arcsin(true / 2)  # of a normal distribution
    inside = rejected = 0
    for _ in range(runs):
        x, e, other = rng.normal(size=(3, 15))
        y = true * x + (1 - true**2) ** 0.5 * e
        pairs = [*zip(x, y, strict=True)]
        found = EVIDENCE['correlation_of'](pairs).estimate('data set', 0.95)
        low, high = found.interval
        inside += low < rank < high
        pairs = [*zip(x, other, strict=True)]
        rejected += (
            EVIDENCE['correlation_of'](pairs).estimate('data set', 0.95).p
            < 0.05
        )
    assert 0.93 < inside / runs < 0.98
    assert 0.03 < rejected / runs < 0.07


def test_measures_without_a_plan(tmp_path: Path) -> None:
    folder = tmp_path / 'evidence' / 'test'
    folder.mkdir(parents=True)
    claims = [
        {**GAIN, 'contrast': {'a': 1, 'b': -1}, 'measure': 'x'},
        {**GAIN, 'contrast': {'b': 1, 'a': -1}, 'measure': 'x'},
        {**GAIN, 'contrast': {'a': 1}, 'measure': 'y'},
    ]
    (folder / 'claims.yaml').write_text(yaml.safe_dump(claims))
    runs = [
        {'side': side, 'seed': n, 'x': x + 0.1 * n, 'y': 5.0 - 3 * n}
        for n in range(4)
        for side, x in (('a', 3), ('b', 1))
    ]
    content = {'command': 'x.py', 'commit': 'c' * 40, 'begun': None}
    content['runs'] = runs
    (folder / 'measures.json').write_text(json.dumps(content))
    (folder.parent / 'page.md').write_text(
        '{summary}\n{claims}\n{experiments}\n{waiting}\n'
    )
    (folder.parent / 'later').mkdir()
    later = yaml.safe_dump([{**GAIN, 'claim': 'Later.'}])
    (folder.parent / 'later' / 'claims.yaml').write_text(later)
    EVIDENCE['write_page'](folder.parent, tmp_path / 'evidence.md')
    text = (tmp_path / 'evidence.md').read_text()
    more, less, unclear = (x for x in text.splitlines() if '| More.' in x)
    assert '+2.00 [+1.' in more
    assert '**holds**' in more
    assert '-2.00 [-2.' in less
    assert '**contradicted**' in less
    assert 'not settled: needs ' in unclear
    assert '| a    |    4 | x 3.15 ± 0.13 |' in text
    assert text.startswith(
        'Of 4 claims, 1 hold here, 1 are contradicted, 0 have a gain below '
        'that of their plan, and 2 are not settled, 1 of them not run yet.'
    )
    assert '## Not run yet' in text
    assert text.rstrip().endswith('| Later. |    +5 | later |')
    (folder.parent / 'later' / 'claims.yaml').unlink()
    EVIDENCE['write_page'](folder.parent, tmp_path / 'evidence.md')
    text = (tmp_path / 'evidence.md').read_text()
    assert '1 are not settled.\n' in text
    assert '## Not run yet' not in text
    assert text == text.rstrip() + '\n'


def test_claims_that_were_changed_are_shown(tmp_path: Path) -> None:
    (tmp_path / 'claims.yaml').write_text('[]')
    who = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    for words in (['init'], ['add', '.'], [*who, 'commit', '-m', 'claims']):
        subprocess.run(['git', *words], cwd=tmp_path, check=True)
    changed = EVIDENCE['changed_claims']
    assert changed(tmp_path, None) == []
    assert changed(tmp_path, '2100-01-01T00:00:00+00:00') == []
    [text] = changed(tmp_path, '2020-01-01T00:00:00+00:00')
    assert 'were changed at 20' in text


def test_an_unknown_side_is_an_error(tmp_path: Path) -> None:
    claim = {**GAIN, 'contrast': {'cand 1': 1, 'bse': -1}}
    folder = folder_of(tmp_path, plan_of(), {}, [claim])
    with pytest.raises(UserError, match='bse is no side of the plan') as error:
        Experiment.read(folder)
    assert "'base'" in error.value.fix
    (folder / 'claims.yaml').write_text('- {claim: More., contrasts: {}}')
    with pytest.raises(UserError, match="unexpected keyword.*'contrasts'"):
        Experiment.read(folder)


def test_checkpoints_are_measured(tmp_path: Path, capsys) -> None:
    """The share of stiff blocks and the angles of a network in its file."""
    pytest.importorskip('mmpretrain')
    config = str(ROOT / 'configs' / 'evidence' / 'resnet20_cifar10.py')
    plan = plan_of(images=30, scope='data set')
    sides = [replace(side, config=config) for side in plan.sides]
    plan = replace(plan, sides=tuple(sides))
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.5})
    folder = folder_of(tmp_path, plan, {}, [])
    done = [*records][:1]
    write_runs(plan, {done[0]: records[done[0]]}, tmp_path / 'runs')
    run = plan.folder_of(done[0], tmp_path / 'runs')
    _, model = load_model(config, 'init')
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):  # every filter is orthogonal
            nn.init.orthogonal_(layer.weight)
    torch.save({'state_dict': model.state_dict()}, run / 'epoch_1.pth')
    (run / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    (tmp_path / 'images').mkdir()
    for n in range(2):
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3))
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(tmp_path / 'images' / f'{n}.png')
    options = ['--images', tmp_path / 'images', '--layers', '.*conv[12]']
    main = runpy.run_path(str(ROOT / 'benchmarks/evidence_measures.py'))[
        'main'
    ]
    main([str(x) for x in (folder, tmp_path / 'runs', *options)])
    found = Experiment.read(folder).measures
    assert [*found] == done
    values = found[done[0]]
    assert values['angle'] == pytest.approx(90)
    assert values['spread'] == pytest.approx(0, abs=1e-3)
    assert values['tns'] > 0
    printed = capsys.readouterr().out
    assert f'base/1: tns {values["tns"]:.4g}, stiff ' in printed
    assert 'angle 90, spread ' in printed
    assert 0 <= values['stiff'] <= 100
    blocks = [
        f'layer{stage}.{block}' for stage in (1, 2, 3) for block in (1, 2)
    ]
    assert [*values['nsi']] == blocks
    [moved] = measure_models(
        [(config, str(run / 'epoch_1.pth'))], [tmp_path / 'images']
    ).values()
    assert np.allclose([*values['nsi'].values()], moved.nsi.mean(0), atol=1e-6)
    # Without the checkpoint, its values are kept.
    (run / 'last_checkpoint').unlink()
    main([str(x) for x in (folder, tmp_path / 'runs', *options)])
    assert Experiment.read(folder).measures == found
    # Values of another plan are not, and are not shown.
    text = (folder / 'measures.json').read_text()
    (folder / 'measures.json').write_text(text.replace(plan.sha256, 'other'))
    assert not Experiment.read(folder).measures
    with pytest.raises(SystemExit):
        main([str(x) for x in (folder, tmp_path / 'runs', *options)])
    assert 'runs has no finished run of' in capsys.readouterr().err
