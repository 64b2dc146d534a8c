# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests the tables, the page, the files and the tools of a comparison."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_cases import (
    assert_stats,
    json_writer,
    pycoco,
    random_detections,
    random_truth,
)
from commands import run_command, run_tool
from PIL import Image
from rich.console import Console
from torch import nn
from trained import write_log

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
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.compare import compare
from mmext.evaluation.cost.latency import measure_latency
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
from mmext.evaluation.runs import read_run
from mmext.evaluation.statistics.comparison import (
    ImageBootstrap,
    compare_resampled,
)

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
                {'loss': 2 / s, 'time': 0.5, 'lr': 0.1, 'step': s}
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
    assert re.fullmatch(r'\+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\]', summary[1][-2])
    metrics = tables['StepNetResNet-50 against ResNet-50']
    assert [row[0] for row in metrics.rows][:3] == ['AP', 'AP50', 'AP75']
    assert 'over seeds too' in metrics.header
    classes = tables['AP by class: StepNetResNet-50']
    assert len(classes.rows) == 4
    assert classes.rows[-1][-1] == 'n/a'  # the class without objects
    assert tables['Cost'].rows[0][-1] == '10 s'
    published = tables['Published: Faster R-CNN, COCO val2017, bbox']
    assert any(
        row[0].startswith('StepNet') and row[1] == '+2.9'
        for row in published.rows
    )


def test_no_number_is_broken_in_a_narrow_terminal(report: Report) -> None:
    console = Console(width=40, file=io.StringIO())
    table = report.tables()[0]
    table.print(console)
    printed = console.file.getvalue().split()
    for row in (table.header, *table.rows):
        for cell in row:
            assert set(cell.split()) <= set(printed)


def test_verdict_of_a_much_better_candidate(report: Report) -> None:
    ((title, lines),) = report.verdicts()
    assert title == 'StepNetResNet-50 against ResNet-50'
    assert 'the candidate is better' in lines[0]
    assert '95 % over seeds and images' in lines[0]


def test_a_warning_for_a_run_given_twice(runs: Path) -> None:
    once = read_run(runs / 'ResNet_s1')
    report = compare(
        baseline=[once, once], candidates=[once], resamples=100, cost=False
    )
    (warning,) = report.warnings
    assert 'hold the same detections' in warning


def test_swapped_sides_negate(report: Report) -> None:
    bootstrap = ImageBootstrap(40, 100, seed=5)
    a, b = (
        [bootstrap.evaluate(m) for m in side.matches] for side in report.sides
    )
    matches = report.sides[0].matches[0]
    there = compare_resampled(matches, a, b)
    back = compare_resampled(matches, b, a)
    for metric in ('AP', 'AP50', 'APs', 'AR100'):
        x, y = there.differences[metric], back.differences[metric]
        assert x.value == pytest.approx(-y.value)
        low, high = y.interval
        assert x.interval == pytest.approx((-high, -low), abs=1e-6)
        assert x.p == pytest.approx(y.p)
    same = compare_resampled(matches, a, a)
    assert same.differences['AP'].value == 0
    assert same.differences['AP'].p == 1.0


def test_point_values_are_the_metrics(report: Report) -> None:
    compared = report.comparisons[0]
    values = (compared.baseline, compared.candidate)
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


@pytest.mark.parametrize('width', [390, 1200])
def test_screenshot(report: Report, tmp_path: Path, width: int) -> None:
    browsers = ('chromium', 'chromium-browser', 'google-chrome')
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        pytest.skip('no Chromium here')
    report.write(tmp_path)
    shot = tmp_path / 'shot.png'
    options = ('--no-sandbox', '--disable-gpu', '--hide-scrollbars')
    size, file = f'--window-size={width},1500', f'--screenshot={shot}'
    page = f'file://{tmp_path}/report.html'
    run_command(browser, '--headless', *options, size, file, page, check=True)
    pixels = np.asarray(Image.open(shot).convert('RGB')).astype(int)
    assert pixels.shape[1] >= width
    # Every third of the page has text, curves or cards.
    for third in np.array_split(pixels, 3):
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


def test_plots(runs: Path, tmp_path: Path) -> None:
    both = [read_run(runs / n) for n in ('ResNet_s1', 'StepNetResNet_s1')]
    written = plot_curves(both, tmp_path / 'curves')
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
    for written in plot_error_types([('a', preds)], truth, tmp_path / 'e'):
        assert written.stat().st_size > 50


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
