# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the tables, the page, the files and the tools of a comparison."""

from __future__ import annotations

import copy
import html
import io
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_cases import (
    Write,
    assert_stats,
    json_writer,
    pycoco,
    random_detections,
    random_truth,
    read_pair,
)
from commands import run_command, run_tool
from drawn import figures, legend_labels, require_readable
from json_files import edit_json
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from tiny_run import write_config
from torch import nn
from trained import write_log

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import (
    accumulate_weighted,
    summarize_classes,
)
from mmext.evaluation.coco.diagnosis import (
    class_curve,
    error_types,
    mean_curve,
    most_different,
)
from mmext.evaluation.coco.ground_truth import GroundTruth, read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.compare import compare
from mmext.evaluation.cost.complexity import Complexity, config_complexity
from mmext.evaluation.cost.latency import measure_latency
from mmext.evaluation.groups import read_groups
from mmext.evaluation.report.charts import Axis, short_name
from mmext.evaluation.report.pictures import picture, place_labels
from mmext.evaluation.report.plots import (
    plot_confusion,
    plot_curves,
    plot_error_types,
)
from mmext.evaluation.report.published import (
    published_results,
    published_table,
)
from mmext.evaluation.report.report import Report
from mmext.evaluation.report.table import Table
from mmext.evaluation.report.tables import cost_notes
from mmext.evaluation.runs import read_run
from mmext.evaluation.statistics.comparison import compare_resampled
from mmext.evaluation.statistics.resampling import ImageBootstrap
from mmext.utils.config import load_config

__all__ = ['figures']  # a fixture

CONFIG = """
model = dict(type='FasterRCNN',
             backbone=dict(type='{kind}', depth=50))
test_dataloader = dict(dataset=dict(data_root='{root}',
                                    data_prefix=dict(img='images')))
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sides of two seeds as work folders, one ground truth."""
    root = tmp_path_factory.mktemp('runs')
    write = json_writer(root)
    truth = random_truth(11, images=40)
    for image in truth['images']:
        image['file_name'] = f'{image["id"]}.jpg'
    (root / 'images').mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for image in truth['images'][:20]:
        Image.fromarray(noise).resize((640, 480)).save(
            root / 'images' / image['file_name']
        )
    gt = read_ground_truth(write('gt.json', truth))
    for kind, noise in (('ResNet', 0.3), ('StepNetResNet', 0.1)):
        for seed in (1, 2):
            folder = root / f'{kind}_s{seed}'
            found = random_detections(100 * seed + len(kind), truth, noise)
            write(f'{folder}/predictions/epoch_2.bbox.json', found)
            meta = {
                'annotation_file': str(gt.path),
                'annotation_sha256': gt.sha256,
                'seed': seed,
            }
            write(f'{folder}/predictions/epoch_2.meta.json', meta)
            losses = [
                {'loss': 2 / s, 'time': 0.5, 'lr': 0.1, 'epoch': 1, 'step': s}
                for s in range(1, 21)
            ]
            aps = [{'coco/bbox_mAP': 0.1 * e, 'step': e} for e in (1, 2)]
            write_log(folder, losses + aps)
            config = CONFIG.format(kind=kind, root=root)
            (folder / 'cfg.py').write_text(config)
    return root


@pytest.fixture(scope='module')
def report(runs: Path) -> Report:
    baseline, candidate = (
        [runs / f'{kind}_s{s}' for s in (1, 2)]
        for kind in ('ResNet', 'StepNetResNet')
    )
    return compare(
        baseline=baseline, candidates=[candidate], resamples=200, cost=False
    )


def test_tables(report: Report) -> None:
    assert report.names == ['ResNet-50', 'StepNetResNet-50']
    tables = {t.title: t for t in report.tables()}
    summary = tables['AP'].rows
    assert summary[0][1] == '2' and '±' in summary[0][2]
    (claims,) = tables['Difference to ResNet-50'].rows
    for cell in (claims[2], claims[4]):
        assert re.fullmatch(r'\[\+\d+\.\d, \+\d+\.\d\]', cell)
    metrics = tables['StepNetResNet-50 against ResNet-50']
    assert [row[0] for row in metrics.rows][:3] == ['AP', 'AP50', 'AP75']
    assert 'checkpoints' in metrics.header and 'methods' in metrics.header
    classes = tables['AP by class: StepNetResNet-50']
    assert len(classes.rows) == 4
    assert classes.rows[-1][-1] == 'n/a'  # the class without objects
    assert tables['Cost'].rows[0][-1] == '10 s'
    published = tables['Published: Faster R-CNN, COCO val2017, bbox']
    assert any(
        row[0].startswith('StepNet') and row[1] == '+2.9'
        for row in published.rows
    )


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    table.print(console)
    return console.file.getvalue()


@pytest.mark.parametrize('width', [40, 60, 80, 120])
def test_no_number_wraps_in_a_terminal(report: Report, width: int) -> None:
    """A regression: intervals and times took two lines at 80 columns."""
    cost = Table(
        ['model', 'params', 'FLOPs', 'train time', 'latency b16', 'images/s'],
        [['StepNet', '12.30 M', '2.19 G', '5 min 08 s', '1600.0 ms', '10.0']],
    )
    for table in (*report.tables(), cost):
        text = printed(table, width)
        notes = set(' '.join(table.notes).split())
        for line in text.splitlines():
            assert len(line) <= width or set(line.split()) <= notes
        for row in table.rows:
            for cell in row[1:]:
                assert len(cell) > width / 2 or cell in text, (cell, text)


def test_a_table_that_fits_has_one_line_a_row() -> None:
    header = ['model', 'delta AP', 'checkpoints 95 %', 'p']
    row = ['StepNetResNet-18', '+0.2', '[-1.5, +2.0]', '0.723']
    names, _, cells = printed(Table(header, [row]), 80).splitlines()[:3]
    assert 'checkpoints 95 %' in names and names.endswith('p')
    assert '[-1.5, +2.0]' in cells


def test_the_parts_of_a_wide_table_repeat_its_first_column() -> None:
    row = ['ResNet-50', *['44.8 ± 1.6'] * 6]
    table = Table(['model', *'abcdef'], [row], 'AP', ['A note.'])
    text = printed(table, 50)
    assert text.count('ResNet-50') == 2 and text.count('44.8 ± 1.6') == 6
    assert text.count('A note.') == 1 == text.count('AP')


def test_wide_letters_and_long_names() -> None:
    text = printed(Table(['model', ''], [['很长的名字' * 20, '27.7']]), 60)
    assert '27.7' in text
    assert max(map(cell_len, text.splitlines())) <= 60


@pytest.mark.parametrize('width', [60, 80])
def test_sentences_are_indented_in_a_terminal(
    report: Report, width: int
) -> None:
    """A regression: only the first line of a sentence was."""
    console = Console(width=width, file=io.StringIO())
    replace(report, warnings=()).print_verdicts(console)
    heading, *lines = console.file.getvalue().splitlines()
    assert heading == report.verdicts()[0][0]
    assert len(lines) > len(report.verdicts()[0][1])
    for line in lines:
        assert line.startswith('  ') and cell_len(line) <= width


@pytest.mark.parametrize('number', [1, 40])
def test_uncounted_operators_take_one_line(number: int) -> None:
    names = [f'pointwise_{i}' for i in range(number)] + ['torchvision.nms']
    cost = Complexity(1, 2, (3, 4), dict.fromkeys(names, 1))
    note = cost_notes({'a': cost, 'b': cost})[-1]
    assert note.startswith('Not counted in FLOPs: torchvision.nms, point')
    assert len(note) < 80
    assert number == 1 or re.search(r' and (\d+) more\.$', note)


def test_verdict_of_a_much_better_candidate(report: Report) -> None:
    ((title, lines),) = report.verdicts()
    assert title == 'StepNetResNet-50 against ResNet-50'
    assert lines[0].startswith('The methods, on images like these: AP +')
    assert 'the candidate is better' in lines[0]
    assert '95 % over seeds and images' in lines[0]
    assert lines[2].startswith('These 2 and 2 checkpoints, on images like the')
    assert 'One-sided' not in lines[1]


def compared(
    runs: Path, baseline: Sequence[str], candidate: Sequence[str], **options
) -> Report:
    return compare(
        baseline=[runs / name for name in baseline],
        candidates=[[runs / name for name in candidate]],
        resamples=100,
        cost=False,
        quick=True,
        **options,
    )


def test_no_form_says_that_a_method_is_better_after_one_training(
    runs: Path,
) -> None:
    found = compared(runs, ['ResNet_s1'], ['StepNetResNet_s1'])
    console = Console(width=80, file=io.StringIO())
    found.print(console)
    for text in (
        console.file.getvalue(),
        found.markdown(),
        html.unescape(found.html()),
    ):
        text = ' '.join(text.split())
        assert 'These two checkpoints, on images like these: AP +' in text
        assert "the candidate's checkpoint is better." in text
        assert 'The methods: not tested (one training each).' in text
        assert 'not tested' in text
        assert 'the candidate is' not in text


def rewritten(
    runs: Path, tmp_path: Path, names: Sequence[str], meta: dict
) -> list[Path]:
    """Copies of work folders, the meta file of the last one changed."""
    folders = [
        shutil.copytree(runs / name, tmp_path / f'{i}_{name}')
        for i, name in enumerate(names)
    ]
    file = folders[-1] / 'predictions/epoch_2.meta.json'
    edit_json(file, lambda content: content.update(meta))
    return folders


@pytest.mark.parametrize(
    'names, meta, says',
    [
        (('ResNet_s1', 'ResNet_s1'), {}, 'hold the same detections: one seed'),
        (('ResNet_s1', 'ResNet_s2'), {'seed': 1}, 'have the same seed, 1, an'),
        (('ResNet_s1', 'StepNetResNet_s2'), {}, "'ResNet' and 'StepNetRes"),
        (
            ('ResNet_s1', 'ResNet_s2'),
            {'checkpoint': 'w/epoch_3.pth'},
            'checkpoints of epoch_2 and epoch_3',
        ),
        (
            ('ResNet_s1', 'ResNet_s2'),
            {'checkpoint': 'w/best_coco_bbox_mAP_epoch_2.pth'},
            'checkpoints of epoch_2 and best_coco_bbox_mAP.',
        ),
        (
            ('ResNet_s1', 'ResNet_s2'),
            {'test': {'tta': True}},
            'were tested differently (TTA). A side is one',
        ),
    ],
)
def test_a_side_is_one_config_with_several_seeds(
    runs: Path, tmp_path: Path, names: tuple, meta: dict, says: str
) -> None:
    baseline = rewritten(runs, tmp_path, names, meta)
    first = baseline[0] / 'predictions/epoch_2.meta.json'
    known = {'checkpoint': 'w/epoch_2.pth', 'test': {'tta': False}}
    edit_json(first, lambda content: content.update(known))
    found = compared(runs, baseline, ['StepNetResNet_s1', 'StepNetResNet_s2'])
    assert any(says in w for w in found.warnings), found.warnings
    (comparison,) = found.comparisons
    assert not comparison.both and not comparison.seeds
    ((_, lines),) = found.verdicts()
    assert lines[0].startswith('These 2 and 2 checkpoints')
    assert lines[1].startswith('The methods: not tested (the runs of ')


def test_configs_that_only_meta_files_name(runs: Path, tmp_path: Path) -> None:
    files = []
    for name in ('ResNet_s1', 'ResNet_s2'):
        folder = tmp_path / name
        shutil.copytree(runs / name / 'predictions', folder)
        meta = {'config_name': name}
        edit_json(folder / 'epoch_2.meta.json', lambda x, m=meta: x.update(m))
        files.append(folder / 'epoch_2.bbox.json')
    found = compared(runs, files, ['StepNetResNet_s1'])
    # A regression: the files were named in the other order.
    says = (
        f'{files[0]} and {files[1]} are of different configs (ResNet_s1, '
        'ResNet_s2)'
    )
    assert says in found.warnings[0]


def test_a_good_comparison_has_no_warning(report: Report) -> None:
    assert report.warnings == ()


@pytest.mark.parametrize('own_validation', [False, True])
def test_the_best_checkpoint_was_chosen_on_the_test_images(
    runs: Path, tmp_path: Path, own_validation: bool
) -> None:
    meta = {'checkpoint': 'work/best_coco_bbox_mAP_epoch_8.pth'}
    (folder,) = rewritten(runs, tmp_path, ['ResNet_s1'], meta)
    if own_validation:
        with (folder / 'cfg.py').open('a') as stream:
            stream.write("val_dataloader = dict(dataset=dict(ann_file='v'))")
    found = compared(runs, [folder], ['StepNetResNet_s1'])
    if own_validation:
        assert found.warnings == ()
    else:
        (warning,) = found.warnings
        assert 'the best checkpoint was chosen by its AP' in warning
        assert 'Only ResNet-50 gains from it' in warning


def test_a_shuffled_copy_of_the_other_side(runs: Path, tmp_path: Path) -> None:
    (folder,) = rewritten(runs, tmp_path, ['ResNet_s1'], {'seed': 5})
    file = folder / 'predictions/epoch_2.bbox.json'
    edit_json(file, np.random.default_rng(0).shuffle)
    (warning,) = compared(runs, ['ResNet_s1'], [folder]).warnings
    assert 'hold the same detections. Is one a copy of the other?' in warning


@pytest.mark.parametrize('share', [0.6, 0.9, 1.0])
def test_a_test_that_was_cut_off(
    runs: Path, tmp_path: Path, share: float
) -> None:
    (folder,) = rewritten(runs, tmp_path, ['ResNet_s2'], {})
    file = folder / 'predictions/epoch_2.bbox.json'
    found = json.loads(file.read_text())
    last = share * max(d['image_id'] for d in found)
    file.write_text(json.dumps([d for d in found if d['image_id'] <= last]))
    warnings = compared(runs, ['ResNet_s1'], [folder]).warnings
    if share == 1:
        assert warnings == ()
        return
    (warning,) = warnings
    missed = 40 - len({d['image_id'] for d in found if d['image_id'] <= last})
    assert f'has no detection on {missed} of 40 images' in warning


@pytest.fixture
def grouped(runs: Path, tmp_path: Path) -> GroundTruth:
    truth = json.loads((runs / 'gt.json').read_text())
    lines = ['image,group']
    for image in truth['images']:
        image['scene'] = scene = image['id'] // 10 % 10
        image['file_name'] = f'{scene}_{image["id"]}.jpg'
        lines.append(f'{image["file_name"]},s{scene}')
    (tmp_path / 'groups.csv').write_text('\n'.join(lines))
    path = tmp_path / 'gt.json'
    path.write_text(json.dumps(truth))
    return read_ground_truth(path)


@pytest.mark.parametrize('spec', ['scene', r'^(\d)', 'groups.csv'])
def test_groups(
    grouped: GroundTruth,
    spec: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_groups(spec, grouped)
    scenes = grouped.image_ids // 10 % 10
    assert len(set(zip(found, scenes, strict=True))) == len(set(scenes)) == 10


def result_files(runs: Path, folder: Path) -> list[Path]:
    """A result file of each side, without a config beside it."""
    return [
        shutil.copy(
            runs / f'{name}_s1/predictions/epoch_2.bbox.json',
            folder / f'{name}.bbox.json',
        )
        for name in ('ResNet', 'StepNetResNet')
    ]


def test_groups_are_resampled_and_named(
    runs: Path, grouped: GroundTruth, tmp_path: Path
) -> None:
    files = result_files(runs, tmp_path)
    options = {'ann': grouped.path, 'quick': True, 'resamples': 100}
    found = compare(files, groups='scene', margin=0.01, **options)
    (comparison,) = found.comparisons
    assert comparison.groups == 10
    assert 'over 10 groups of 40 images' in found.verdicts()[0][1][0]
    assert 'margin of 1.0 AP' in found.verdicts()[0][1][0]
    assert compare(files, **options).comparisons[0].groups is None


def test_wrong_groups(grouped: GroundTruth) -> None:
    """tests/bad_inputs/bad_predictions.py has more of them."""
    with pytest.raises(UserError, match='1 group of 40 images'):
        read_groups('(_)', grouped)
    with pytest.raises(UserError, match='cannot be read'):
        read_groups('nowhere.csv', grouped)


def test_swapped_sides_negate(report: Report) -> None:
    bootstrap = ImageBootstrap(40, 100, seed=5)
    a, b = (
        [bootstrap.evaluate(m) for m in side.matches] for side in report.sides
    )
    there = compare_resampled(a, b)
    back = compare_resampled(b, a)
    for metric in ('AP', 'AP50', 'APs', 'AR100'):
        x, y = there.differences[metric], back.differences[metric]
        assert x.value == pytest.approx(-y.value)
        low, high = y.interval
        assert x.interval == pytest.approx((-high, -low), abs=1e-6)
        assert x.p == pytest.approx(y.p)
    same = compare_resampled(a, a)
    assert same.differences['AP'].value == 0
    assert same.differences['AP'].p == 1.0


def test_point_values_are_the_metrics(report: Report) -> None:
    (comparison,) = report.comparisons
    values = (comparison.baseline, comparison.candidate)
    for side, found in zip(report.sides, values, strict=True):
        for i, preds in enumerate(side.predictions):
            detections = json.loads(preds.path.read_text())
            expected = pycoco(report.truth.dataset, detections)
            assert_stats(found, expected, i)


def test_curves_average_to_ap(report: Report) -> None:
    matches = report.sides[1].matches[0]
    ones = np.ones((1, 40), int)
    cube = accumulate_weighted(matches, ones, exact=True)
    ap50 = summarize_classes(cube, 'AP50')[0]
    for k in range(3):
        assert class_curve(matches, k).mean() == pytest.approx(ap50[k])
    assert mean_curve(matches).mean() == pytest.approx(np.nanmean(ap50))


def test_most_different_images(report: Report) -> None:
    a, b = (side.matches[0] for side in report.sides)
    found = most_different(a, b, 5)
    gaps = [abs(gap) for _, gap in found]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0
    assert most_different(a, a) == []


def test_error_types(report: Report) -> None:
    rough, fine = (
        error_types(report.truth, side.predictions[0]) for side in report.sides
    )
    assert rough['location'] > fine['location']


def test_error_types_without_detections(report: Report) -> None:
    preds = report.sides[0].predictions[0]
    none = preds.select(np.zeros(len(preds), bool))
    assert error_types(report.truth, none)['missed'] == 1
    empty = {**report.truth.dataset, 'annotations': []}
    truth = replace(report.truth, dataset=empty)
    assert set(error_types(truth, none).values()) == {0.0}


def test_no_table_overwrites_another(report: Report, tmp_path: Path) -> None:
    """The names of candidates may differ only in punctuation."""
    names = ('R50', 'Net A+', 'Net A-', '模型')
    sides = [
        replace(report.sides[min(i, 1)], name=name)
        for i, name in enumerate(names)
    ]
    many = replace(
        report, sides=tuple(sides), comparisons=report.comparisons * 3
    )
    written = many.write(tmp_path)
    assert len({*written}) == len(written)
    found = [p.read_text() for p in tmp_path.glob('ap-by-class*.csv')]
    for name in names[1:]:
        assert sum(name in text for text in found) == 1


#: Tags that need no closing tag.
VOID = {'meta', 'br', 'image', 'rect', 'line', 'circle', 'polyline'}


def check_tags(html: str) -> set[str]:
    """Checks that the tags balance, and returns them."""
    tags = re.findall(r'<(/?)(\w+)', html)
    opened: list[str] = []
    for closes, tag in tags:
        if tag in VOID:
            continue
        if closes:
            assert opened.pop() == tag
        else:
            opened.append(tag)
    assert opened == []
    return {tag for _, tag in tags}


def test_files(report: Report, tmp_path: Path) -> None:
    written = report.write(tmp_path / 'out')
    assert sorted(p.name for p in written) == sorted(
        p.name for p in (tmp_path / 'out').iterdir()
    )
    text = (tmp_path / 'out/report.md').read_text()
    assert '## StepNetResNet-50 against ResNet-50' in text
    assert r'\bottomrule' in (tmp_path / 'out/ap.tex').read_text()
    html = (tmp_path / 'out/report.html').read_text()
    wanted = {'svg', 'table', 'figure', 'polyline', 'image'}
    assert wanted <= check_tags(html)
    links = re.findall(r'\b(?:src|href)="([^"]*)"', html)
    assert links and all(link.startswith('data:') for link in links)
    assert 'http' not in html.replace('https://doi', '')
    assert 'prefers-color-scheme: dark' in html
    # A regression: wide tables were cut on a phone without a hint.
    assert html.count('<table>') == html.count('<div class="scroll" tabindex')
    assert 'class="note hint">Tables scroll sideways' in html
    for heading in ('Precision and recall', 'Error types', 'Training'):
        assert heading in html


def test_names_are_escaped(report: Report) -> None:
    name = '<b>"Net" & co</b>'
    sides = (report.sides[0], replace(report.sides[1], name=name))
    page = replace(report, sides=sides).html()
    assert '&lt;b&gt;&#34;Net&#34; &amp; co&lt;/b&gt;' in page
    assert '<b>' not in page


def test_each_candidate_has_its_colour(report: Report) -> None:
    """A regression: boxes of the second candidate had the first's."""
    twice = replace(
        report,
        sides=(*report.sides, report.sides[1]),
        comparisons=report.comparisons * 2,
    )
    page = twice.html()
    first, second = page.split('differs most</h2>')[1:]
    assert 'box s1' in first and 'box s2' not in first
    assert 'box s2' in second and 'box s1' not in second
    assert page.count('<line class="s2"') == page.count('<line class="s1"')


def drawing(page: str) -> list[str]:
    """The charts and pictures of a page."""
    return re.findall(r'<figure>.*?</figure>', page, re.DOTALL)


def texts(svg: str) -> list[tuple[str, float, float, float, float]]:
    """The horizontal texts of a drawing with estimated left, right, ends."""
    found = []
    pattern = r'<text([^>]*)>([^<]*)'
    for attributes, text in re.findall(pattern, svg):
        if 'rotate' in attributes:
            continue
        x, y = (
            float(re.search(rf' {name}="([^"]+)"', attributes)[1])
            for name in 'xy'
        )
        size = re.search(r'font-size: ([0-9.]+)px', attributes)
        size = float(size[1]) if size else 10
        width = 0.55 * size * len(html.unescape(text))
        shift = {'end': width, 'middle': width / 2}
        style = re.search(r'class="(\w+)', attributes)
        x -= shift.get(style and style[1], 0)
        found.append((text, x, x + width, y - 0.8 * size, y))
    return found


@pytest.mark.parametrize('classes', [4, 40])
def test_no_label_of_a_chart_covers_another(
    report: Report, classes: int
) -> None:
    (comparison,) = report.comparisons
    many = [
        replace(comparison.classes[i % 3], name=f'a long name of a class {i}')
        for i in range(classes)
    ]
    big = [{'loss': 1e-4 * s, 'step': 50_000 * s} for s in range(1, 40)]
    sides = [
        replace(s, runs=(replace(s.runs[0], train_log=tuple(big)),))
        for s in report.sides
    ]
    changed = replace(
        report,
        sides=tuple(sides),
        comparisons=(replace(comparison, classes=many),),
    )
    figures = drawing(changed.html())
    assert len(figures) >= 8
    for svg in figures:
        width = float(re.search(r'viewBox="0 0 (\S+)', svg)[1])
        found = texts(svg)
        for text, left, right, *_ in found:
            assert left >= -0.02 * width and right <= 1.02 * width, text
        for one, other in itertools.combinations(found, 2):
            apart = one[2] <= other[1] or other[2] <= one[1]
            apart |= one[4] <= other[3] or other[4] <= one[3]
            assert apart, (one, other)


@pytest.mark.parametrize('whole', [False, True])
@pytest.mark.parametrize('high', [3, 7.9, 12.5, 20, 85, 99, 1234])
@pytest.mark.parametrize('low', [0, -2, -42])
def test_every_axis_has_three_ticks(
    low: float, high: float, whole: bool
) -> None:
    """A regression: an axis from -42 to 85 had 0 and 50."""
    ticks = Axis(low, high, 0, 360, whole).ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
    assert not whole or all(tick % 1 == 0 for tick in ticks)


def test_long_names_are_cut_in_their_middle() -> None:
    """A regression: names that differ at their end looked equal."""
    names = [f'a vehicle of the kind number {i}' for i in range(20)]
    assert len(set(map(short_name, names))) == 20
    for name in (*names, '很长的名字' * 9, 'short'):
        assert cell_len(short_name(name)) <= 20
    assert short_name('short') == 'short'


def test_every_chart_has_a_legend_and_labels(report: Report) -> None:
    for svg in drawing(report.html()):
        assert 'aria-label="' in svg and '<figcaption>' in svg
        if 'polyline' in svg or '<rect class="s1' in svg or 'box s1' in svg:
            for name in report.names:
                assert f'</span>{name}</span>' in svg
        if 'box s1' in svg:
            assert '</span>ground truth</span>' in svg


def test_a_single_validation_is_a_point(report: Report) -> None:
    """A regression: the chart was empty, as a line needs two points."""
    sides = [
        replace(s, runs=(replace(s.runs[0], val_log=s.runs[0].val_log[:1]),))
        for s in report.sides
    ]
    page = replace(report, sides=tuple(sides)).html()
    (svg,) = [s for s in drawing(page) if 'AP points over epoch' in s]
    points = re.findall(r'<circle class="s[01]" cx="(\S+)" cy="(\S+)"', svg)
    assert len(points) == 2
    for x, y in points:
        assert 40 < float(x) < 350 and 8 <= float(y) <= 206
    ticks = [text for text, *_ in texts(svg)]
    assert '1' in ticks and '1.5' not in ticks


@pytest.fixture
def layout(runs: Path, tmp_path: Path) -> Path:
    """The usual COCO layout and result files beside it, without a config."""
    truth = json.loads((runs / 'gt.json').read_text())
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val.json').write_text(json.dumps(truth))
    (tmp_path / 'val').mkdir()
    for image in truth['images']:
        file = tmp_path / 'val' / image['file_name']
        Image.new('RGB', (64, 48), 'red').save(file)
    result_files(runs, tmp_path)
    return tmp_path


def of_layout(layout: Path) -> Report:
    return compare(
        [layout / f'{name}.bbox.json' for name in ('ResNet', 'StepNetResNet')],
        ann=layout / 'annotations/instances_val.json',
        resamples=100,
        quick=True,
    )


def test_pictures_beside_the_annotation_file(layout: Path) -> None:
    """As for the generated shapes, whose config names no folder."""
    found = of_layout(layout)
    assert found.image_folder().path == layout / 'val'
    page = found.html()
    assert '<image href="data:image/jpeg' in page
    assert 'No pictures' not in page


@pytest.mark.parametrize(
    'case, says',
    [
        ('wrong', 'has none of them'),
        ('missing', 'does not exist'),
        ('two', 'have the same file names'),
        ('none', 'no config names their folder'),
    ],
)
def test_a_page_says_that_there_are_no_pictures(
    layout: Path, case: str, says: str
) -> None:
    given = {'wrong': layout / 'annotations', 'missing': layout / 'vla'}
    if case == 'two':  # one of them may be of another split
        shutil.copytree(layout / 'val', layout / 'images')
    elif case == 'none':
        shutil.rmtree(layout / 'val')
    found = of_layout(layout)
    folder = given.get(case)
    page = html.unescape(found.html(folder))
    assert '<image' not in page and 'box s1' in page
    assert 'No pictures of the test images' in page and says in page
    assert '--images FOLDER' in page
    assert found.image_folder(folder).problem in page


def test_pictures_are_as_opencv_decodes_them(layout: Path) -> None:
    """Turned by EXIF, as for the training."""
    for file in (layout / 'val').iterdir():
        image = Image.open(file)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(file, exif=exif)
    assert 'viewBox="0 0 48 64"' in of_layout(layout).html()


def test_compare_says_that_there_are_no_pictures(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = [layout / f'{n}.bbox.json' for n in ('ResNet', 'StepNetResNet')]
    folder = layout / 'annotations'
    options = ['--ann', folder / 'instances_val.json', '--images', folder]
    options += ['--no-cost', '--quick', '--resamples=100']
    out = tmp_path / 'out'
    assert run_tool('compare.py', *files, *options, '--out', out) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'Warning: No pictures of the test images' in printed


def test_labels_of_long_names_are_inside_of_a_picture(report: Report) -> None:
    """A regression: their ends, which are the scores, were cut."""
    names = {i: f'{n}, long ' * 9 for i, n in report.truth.all_names.items()}
    truth = replace(report.truth, all_names=names)
    (first, *_) = report.sides[1].predictions
    for record in truth.dataset['images'][:9]:
        found = picture(truth, record['id'], {'s1': first}, None)
        width, font = found['size'][0], found['font']
        labels = [label for *_, label in found['boxes'] if label]
        assert labels
        for text, left, _ in labels:
            assert re.search(r' \d\.\d\d$', text)
            assert left >= 0 and left + 0.62 * font * len(text) <= width


def test_labels_have_places_of_their_own() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (60, 2))
    labels = [
        (float(score), f'class {score:.2f}', (*corner, 40, 30))
        for score, corner in zip(rng.random(60), corners, strict=True)
    ]
    places = place_labels(labels, (240, 240), 8, most=16)
    shown = [i for i, place in enumerate(places) if place]
    assert 8 < len(shown) <= 16
    best = max(range(60), key=lambda i: labels[i][0])
    assert best in shown
    for i, j in itertools.combinations(shown, 2):
        (a, b), (c, d) = places[i], places[j]
        assert abs(a - c) > 40 or abs(b - d) >= 10
    assert all(0 <= places[i][0] < 240 > places[i][1] > 7 for i in shown)


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [390, 820, 1400])
def test_screenshot(
    report: Report, tmp_path: Path, width: int, dark: bool
) -> None:
    browsers = ('chromium', 'chromium-browser', 'google-chrome')
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        pytest.skip('no Chromium here')
    report.write(tmp_path)
    shot = tmp_path / 'shot.png'
    scheme = f'--blink-settings=preferredColorScheme={0 if dark else 1}'
    options = ('--no-sandbox', '--disable-gpu', '--hide-scrollbars', scheme)
    size, file = f'--window-size={width},1500', f'--screenshot={shot}'
    page = f'file://{tmp_path}/report.html'
    run_command(browser, '--headless', *options, size, file, page, check=True)
    pixels = np.asarray(Image.open(shot).convert('RGB')).astype(int)
    assert pixels.shape[1] >= width
    assert (np.median(pixels) < 128) == dark
    # Every third of the page has text, curves or cards, and of its width.
    for axis in (0, 1):
        for third in np.array_split(pixels, 3, axis):
            assert third.std() > 8
    # The last column has the colour of the page: nothing is wider.
    assert np.ptp(pixels[:, -1].sum(1)) < 60


def test_published_rows_are_differences() -> None:
    table = published_table('Faster R-CNN', 'ResNet-50')
    rows = {row[0].split(' - ')[0]: row for row in table.rows}
    assert rows['ResNet-50 + SE'][1] == '+1.3'
    assert rows['ResNet-50 + FcaNet'][1] == '+2.6'
    assert published_table('Faster R-CNN', 'ResNet-7') is None
    for group in published_results():
        assert 'values' in group['rows'][0]
        assert all(row['source'] for row in group['rows'])


def test_compare_as_a_user(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sides = ['--baseline', runs / 'ResNet_s1', runs / 'ResNet_s2']
    for seed in (1, 2):
        sides += ['--candidate', runs / f'StepNetResNet_s{seed}']
    options = ('--no-cost', '--resamples=100', '--verify=pycocotools')
    out = tmp_path / 'out'
    assert run_tool('compare.py', *sides, *options, '--out', out) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'Equal to pycocotools in every metric.' in printed
    text = (out / 'report.md').read_text()
    assert 'StepNetResNet-50 (StepNetResNet_s2)' in text


def test_a_tested_and_an_untested_run(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A regression: an error, where the page promises the logged table."""
    untested = tmp_path / 'untested'
    shutil.copytree(runs / 'ResNet_s1', untested)
    shutil.rmtree(untested / 'predictions')
    sides = (runs / 'ResNet_s2', untested)
    assert run_tool('compare.py', *sides, '--no-cost') == 0
    printed = capsys.readouterr().out
    assert 'Logged metrics only' in printed
    assert 'No predictions:' in printed and 'untested' in printed


def test_plots(runs: Path, tmp_path: Path, figures: list[Figure]) -> None:
    both = [read_run(runs / n) for n in ('ResNet_s1', 'StepNetResNet_s1')]
    written = plot_curves(both, tmp_path / 'curves')
    ap, loss = figures[1], figures[0]
    assert loss.axes[0].get_xlabel() == 'iteration'
    assert ap.axes[0].get_xlabel() == 'epoch'
    assert len([p for p in written if p.suffix == '.png']) == 2
    rows = written[0].read_text().splitlines()
    assert rows[0] == 'key,step,value' and 'loss,1,2.0' in rows
    truth = read_ground_truth(runs / 'gt.json')
    path = runs / 'StepNetResNet_s1/predictions/epoch_2.bbox.json'
    preds = read_predictions(path, truth)
    table, image = plot_confusion(truth, preds, tmp_path / 'confusion')
    rows = table.read_text().splitlines()[1:]
    matrix = np.array([row.split(',')[1:] for row in rows], float)
    objects = match(truth, preds).objects[..., 0].sum(0)
    np.testing.assert_array_equal(matrix[:4].sum(1), objects)
    assert Image.open(image).size[0] > 100
    names = ['a long name of a run', 'b', 'c', 'd']
    lost = [(name, preds) for name in names]
    for written in plot_error_types(lost, truth, tmp_path / 'e'):
        assert written.stat().st_size > 50
    assert legend_labels(figures[-1]) == names
    for figure in figures:
        require_readable(figure, tight=figure is figures[2])
    for figure in (*figures[:2], figures[-1]):
        assert legend_labels(figure) and figure.axes[0].get_xlabel()


def test_runs_of_equal_names_in_curves(
    runs: Path, tmp_path: Path, figures: list[Figure]
) -> None:
    both = [read_run(runs / f'{n}_s1') for n in ('ResNet', 'StepNetResNet')]
    plot_curves([replace(r, name='work') for r in both], tmp_path)
    assert legend_labels(figures[0]) == [str(r.path) for r in both]


def test_a_confusion_matrix_of_many_classes_says_what_it_shows(
    write: Write, tmp_path: Path, figures: list[Figure]
) -> None:
    data = random_truth(3, images=30)
    names = [f'name of class {i}' for i in range(40)]
    data['categories'] = [
        {'id': i + 1, 'name': n} for i, n in enumerate(names)
    ]
    for i, annotation in enumerate(data['annotations']):
        annotation['category_id'] = 1 + i % 40
    found = [{**a, 'score': 0.9} for a in data['annotations']]
    truth, preds = read_pair(write, data, found)
    plot_confusion(truth, preds, tmp_path / 'c')
    axes = figures[0].axes[0]
    assert '25 of 40 classes' in axes.get_title()
    for axis in (axes.xaxis, axes.yaxis):
        assert axis.get_ticklabels()[-1].get_text() == 'background'
    require_readable(figures[0], tight=True)


def test_the_cost_is_that_of_the_tested_size(tmp_path: Path) -> None:
    """Two regressions.

    The size was that of an unused ``test_pipeline`` of the base config.
    mmdet's detectors write into the config, so that after the cost the other
    seeds of a side were of "different configs".
    """
    cfg = load_config(write_config(tmp_path / 'tiny.py', tmp_path))
    cfg.test_pipeline = [{'type': 'Resize', 'scale': (1333, 800)}]
    before = copy.deepcopy(cfg._cfg_dict)
    assert config_complexity(cfg).shape == (96, 128)
    assert cfg._cfg_dict == before


def test_latency_counts_what_it_should() -> None:
    class Toy(nn.Conv2d):
        calls = 0

        def predict(self, images: torch.Tensor, samples: list) -> torch.Tensor:
            Toy.calls += 1
            assert images.shape == (2, 3, 16, 20) and len(samples) == 2
            return self(images)

    found = measure_latency(Toy(3, 4, 3), (16, 20), 2, warm_up=3, repeats=4)
    assert Toy.calls == 7
    assert found.images_per_second == pytest.approx(2 / found.seconds)
    assert found.peak_bytes is None
