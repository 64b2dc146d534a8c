# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Annotations, predictions and work folders that were made to do harm.

A wrong mask ends the process in C code, without a Python error.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_cases import Write, random_detections, random_truth
from commands import run_tool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from trained import write_log

import mmext
from mmext.errors import UserError
from mmext.evaluation.coco.formats import FORMATS, read_names
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.report.plots import plot_confusion, plot_curves
from mmext.evaluation.report.report import Report
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import logged_curves, read_run
from mmext.evaluation.sides import find_ground_truth, read_sides, read_source

EXAMPLES = os.environ.get('MMEXT_FUZZ')
SIZE = [64, 64]


def square(side: float) -> list[list[float]]:
    return [[0, 0, side, 0, side, side, 0, side]]


def one_object(mask: object, **image: object) -> dict:
    return {
        'images': [{'id': 1, 'width': 64, 'height': 64, **image}],
        'categories': [{'id': 1, 'name': 'cell'}],
        'annotations': [
            {
                'id': 1,
                'image_id': 1,
                'category_id': 1,
                'bbox': [0, 0, 10, 10],
                'area': 100,
                'segmentation': mask,
            }
        ],
    }


def detection(mask: object) -> list[dict]:
    found = {'image_id': 1, 'category_id': 1, 'score': 0.9}
    return [{**found, 'segmentation': mask}]


MASKS = {
    'far': square(1e9),
    'far to the left': square(-1e9),
    'NaN': square(float('nan')),
    'text': [['1', 2, 3, 4, 5, 6]],
    'a far second polygon': [*square(10), *square(1e9)],
    'nested': [[[[0, 0, 10, 0, 10, 10]]]],
    'runs beyond the image': {'size': SIZE, 'counts': [0, 2**31]},
    'negative runs': {'size': SIZE, 'counts': [-5, 4101]},
    'true as a run': {'size': SIZE, 'counts': [True, 4095]},
    # pycocotools would read beyond the end of the text.
    'a text without an end': {'size': SIZE, 'counts': 'PP\\9To_'},
    'another size': {'size': [10**6, 10**6], 'counts': [0, 10]},
    'no size': {'size': 'x', 'counts': 5},
}


@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
def test_masks_that_c_code_cannot_draw(write: Write, mask: object) -> None:
    good = read_ground_truth(write('gt.json', one_object(square(10))))
    with pytest.raises(UserError, match='record 0 has no mask'):
        read_predictions(write('a.segm.json', detection(mask)), good)
    bad = read_ground_truth(write('gt.json', one_object(mask)))
    with pytest.raises(UserError, match=r'annotations\[0\] .* ha(s|d)'):
        bad.numbered('segm')
    assert bad.numbered('bbox')


@pytest.mark.parametrize('side', [10**6, 10**12])
def test_masks_of_images_with_too_many_pixels(write: Write, side: int) -> None:
    sized = one_object(square(10), width=side, height=side)
    truth = read_ground_truth(write('gt.json', sized))
    with pytest.raises(UserError, match='is in an image of'):
        read_predictions(write('a.json', detection(square(10))), truth)
    with pytest.raises(UserError, match='is in an image of'):
        truth.numbered('segm')


def test_good_masks_are_still_read(write: Write) -> None:
    truth = one_object(square(10))
    found = detection({'size': SIZE, 'counts': [0, 10, 4086]})
    ours = mmext.evaluate(write('a.json', found), write('gt.json', truth))
    found[0]['segmentation'] = dict(
        zip(('size', 'counts'), (SIZE, 'Pc0o0'), strict=True)
    )
    assert ours['AP'] == 0
    assert mmext.evaluate(
        write('a.json', detection(square(10))), write('gt.json', truth)
    )['AP'] == pytest.approx(1)


number = st.integers(-70, 140) | st.floats() | st.just(1e9) | st.none()
polygons = st.lists(st.lists(number, min_size=4, max_size=9), max_size=3)
runs = st.lists(st.integers(-1, 5000), max_size=4) | st.text(
    [chr(i) for i in range(48, 112)], max_size=8
)
sizes = st.just(SIZE) | st.lists(st.integers(-1, 2**33), max_size=3)
masks = polygons | st.fixed_dictionaries({'size': sizes, 'counts': runs})


def test_any_mask_is_evaluated_or_refused(write: Write) -> None:
    """An error in C code would end this test without a message."""

    @settings(
        max_examples=int(EXAMPLES or 150),
        deadline=None,
        derandomize=not EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(found=masks, true=masks)
    def check(found: object, true: object) -> None:
        gt = write('gt.json', one_object(true))
        dt = write('a.segm.json', detection(found))
        try:
            value = mmext.evaluate(dt, gt, iou_type='segm')['AP']
        except UserError:
            return
        assert 0 <= value <= 1

    check()


TRUTH = random_truth(0)
FOUND = random_detections(1, TRUTH)
#: Of a terminal: colours, a window title, a link; of a text: direction.
CODES = '\x1b[31mred\x1b]0;title\x07\x1b]8;;http://x\x9b2J\u202e\r\ud800'
HTML = '<img src=x onerror=alert(1)>[x](javascript:alert(1)) [/x] [link=x]y'
LONG = 'x' * 5000
NAMES_OF_OTHERS = {
    'codes': CODES,
    'html': HTML,
    'formula': "=cmd|' /C calc'!A0",
    'lines': 'a\n\n# b\n<script>\n\\input{/etc/passwd}',
    'mathtext': r'$\frac$',
    'long': LONG,
}


def is_obeyed(text: str) -> bool:
    """Whether a terminal does something else than to show a text."""
    return any(ord(c) < 32 and c not in '\n\t' for c in text) or bool(
        set(text) & {'\x7f', '\x9b', '\u202e', '\ud800'}
    )


@pytest.fixture(params=NAMES_OF_OTHERS)
def hostile(
    request: pytest.FixtureRequest, write: Write, tmp_path: Path
) -> Report:
    """A comparison whose classes, images and meta files have such a name."""
    name = NAMES_OF_OTHERS[request.param]
    truth = copy.deepcopy(TRUTH)
    for i, category in enumerate(truth['categories']):
        category['name'] = f'{name}{i}'
    for image in truth['images']:
        image['file_name'] = name
    gt = write('gt.json', truth)
    meta = {'checkpoint': name, 'config_name': name, 'test': {'scale': [name]}}
    for run in 'ab':
        write(f'{run}.bbox.json', FOUND)
        write(f'{run}.meta.json', meta)
    runs = [tmp_path / 'a.bbox.json', tmp_path / 'b.bbox.json']
    return mmext.compare(runs, ann=gt, resamples=100)


def test_names_in_every_form_of_a_report(
    hostile: Report, tmp_path: Path
) -> None:
    terminal = io.StringIO()
    hostile.print(Console(file=terminal, width=100))
    assert not is_obeyed(terminal.getvalue())
    assert '\x1b]8' not in terminal.getvalue()
    for path in hostile.write(tmp_path / 'report'):
        assert len(path.name) < 200
        text = path.read_text('utf-8')
        assert not is_obeyed(text) or path.suffix == '.html'
        if path.suffix == '.md':
            assert '<img' not in text and '<script' not in text
            assert '](javascript' not in text
            assert '\n# b' not in text
        elif path.suffix == '.html':
            assert '<img src=x' not in text and '<script' not in text
        elif path.suffix == '.tex':
            assert '\n\\input' not in text
        else:
            rows = csv.reader(io.StringIO(text))
            cells = [cell for row in rows for cell in row]
            assert not any(cell.startswith('=') for cell in cells)
    plot_confusion(hostile.truth, hostile.sides[0].predictions[0], tmp_path)


@pytest.mark.parametrize(
    'cell, written',
    [
        ('=1+1', "'=1+1"),
        ('+cmd', "'+cmd"),
        ('-2+3', "'-2+3"),
        ('@SUM(A1)', "'@SUM(A1)"),
        ('\t=1', "'\t=1"),
        ('-1.2', '-1.2'),
        ('+0.4', '+0.4'),
        ('-', '-'),
        ('1e-05', '1e-05'),
        ('[+0.4, +2.0]', '[+0.4, +2.0]'),
        ('a=b', 'a=b'),
    ],
)
def test_cells_that_a_spreadsheet_would_compute(
    cell: str, written: str
) -> None:
    table = Table([cell, 'b'], [['c', cell]])
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows == [[written, 'b'], ['c', written]]


def test_names_in_markdown_are_what_they_were() -> None:
    text = Table(['a'], [['[+0.4, +2.0] p <0.001 | $x$ _y_']]).markdown()
    assert r'[+0.4, +2.0] p <0.001 \| $x$ _y_' in text


@pytest.mark.parametrize(
    'name', ['../secret.png', '../images/../secret.png', '{}/secret.png', LONG]
)
def test_a_page_shows_no_files_outside_of_the_image_folder(
    write: Write, tmp_path: Path, name: str
) -> None:
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(tmp_path / 'secret.png'), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(images / 'own.png'), np.zeros((8, 8, 3), np.uint8))
    truth = copy.deepcopy(TRUTH)
    for image in truth['images']:
        image['file_name'] = name.format(tmp_path)
    gt = write('gt.json', truth)
    worse = write('b.bbox.json', FOUND[: len(FOUND) // 2])
    runs = [write('a.bbox.json', FOUND), worse]
    report = mmext.compare(runs, ann=gt, resamples=100)
    assert 'data:image' not in report.html(images)
    for image in truth['images']:
        image['file_name'] = 'own.png'
    write('gt.json', truth)
    report = mmext.compare(runs, ann=gt, resamples=100)
    assert 'data:image' in report.html(images)


@pytest.mark.parametrize(
    'meta',
    [
        {'annotation_file': 5},
        {'annotation_sha256': 5},
        {'annotation_sha256': ['a']},
        {'categories': [1]},
        {'checkpoint': {'a': 1}},
        {'checkpoint_sha256': 1.5},
        {'config_name': ['x']},
        {'metrics': [0.5]},
        {'seed': 'seven'},
        {'test': [1]},
        {'test': 'x'},
    ],
)
def test_types_in_a_meta_file(write: Write, meta: dict) -> None:
    path = write('a.bbox.json', FOUND)
    write('a.meta.json', meta)
    with pytest.raises(UserError, match=f'a.meta.json: {next(iter(meta))} is'):
        read_meta(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = ('annotation_file', 'annotation_sha256', 'categories', 'checkpoint')
KEYS += ('checkpoint_sha256', 'config_name', 'metrics', 'model', 'seed')
KEYS += ('test',)
SETTING = ('scale', 'tta', 'score_thr', 'max_per_img')
MODEL = ('detector', 'backbone', 'params', 'flops', 'shape', 'uncounted')


def test_any_meta_file_is_used_or_refused(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / 'run' / 'predictions').mkdir(parents=True)
    gt = write('gt.json', TRUTH)
    runs = [write(f'run/predictions/{x}.bbox.json', FOUND) for x in 'ab']
    large = st.sampled_from([10**400, [1, 10**400], [10**400, 1]])
    tests = st.dictionaries(st.sampled_from(SETTING), values)
    models = st.dictionaries(st.sampled_from(MODEL), values | large)
    metas = st.dictionaries(st.sampled_from(KEYS), values | tests | models)

    @settings(
        max_examples=int(EXAMPLES or 30), deadline=None, derandomize=True
    )
    @given(metas)
    def check(meta: dict) -> None:
        write('run/predictions/a.meta.json', meta)
        try:
            read_run(tmp_path / 'run')
            report = mmext.compare(runs, ann=gt, resamples=100, quick=True)
            report.print(Console(file=io.StringIO()))
            report.markdown()
        except UserError:
            pass

    check()


@pytest.mark.parametrize('shape', [[1, 10**400], ['x', [1]], [{}, None], 5])
@pytest.mark.parametrize('flops', [5, 10**400])
def test_cost_in_a_meta_file(
    write: Write, tmp_path: Path, shape: object, flops: int
) -> None:
    (tmp_path / 'run' / 'predictions').mkdir(parents=True)
    runs = [write(f'run/predictions/{x}.bbox.json', FOUND) for x in 'ab']
    cost = {'params': 5, 'flops': flops, 'shape': shape}
    write('run/predictions/a.meta.json', {'model': cost})
    gt = write('gt.json', TRUTH)
    report = mmext.compare(runs, ann=gt, resamples=100, quick=True)
    assert 'FLOPs' not in report.markdown()


def test_annotations_that_a_meta_file_names(
    write: Write, tmp_path: Path
) -> None:
    """Reading a pipe would wait, and reading a device would not end."""
    os.mkfifo(tmp_path / 'pipe')
    path = write('a.bbox.json', FOUND)
    for name in (str(tmp_path / 'pipe'), '/dev/zero', LONG, 'a\0b', '\ud800'):
        write('a.meta.json', {'annotation_file': name})
        with pytest.raises(UserError, match='pipe, a device|cannot be read'):
            find_ground_truth(read_sides([[path]]), 'bbox')


def test_pipes_among_the_files_of_a_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.bbox.json')
    with pytest.raises(UserError, match='is a pipe'):
        read_source(tmp_path / 'a.bbox.json')
    run = tmp_path / 'run'
    (run / 'predictions').mkdir(parents=True)
    write_log(run, [{'loss': 1.0, 'step': 1}])
    vis_data = next(run.glob('*/vis_data'))
    os.mkfifo(vis_data.parent / 'x.log')
    os.mkfifo(vis_data / 'config.py')
    os.mkfifo(run / 'predictions' / 'a.bbox.json')
    (run / 'predictions' / 'b.bbox.json').symlink_to('nowhere')
    found = read_run(run)
    assert not found.predictions and found.config_file is None
    (run / 'predictions' / 'c.bbox.json').write_text('[]')
    os.mkfifo(run / 'predictions' / 'c.meta.json')
    with pytest.raises(UserError, match=r'c.meta.json is a pipe'):
        read_run(run)


def test_nested_json(write: Write, tmp_path: Path) -> None:
    truth = read_ground_truth(write('gt.json', TRUTH))
    deep = '[' * 100_000
    for text in (deep, '[{"bbox": ' + deep, '{"a": ' + deep):
        path = tmp_path / 'a.bbox.json'
        path.write_text(text)
        with pytest.raises(UserError):
            read_predictions(path, truth)
        with pytest.raises(UserError):
            mmext.evaluate(path, truth.path, file_format='torchvision')
    (tmp_path / 'a.meta.json').write_text('{"test": ' + deep)
    with pytest.raises(UserError, match='nested too deeply'):
        read_meta(path)
    path.write_text(deep)
    with pytest.raises(UserError, match='nested too deeply'):
        read_ground_truth(path)


def test_records_of_a_log(tmp_path: Path) -> None:
    """Lines that are no records are skipped, as a truncated last one is."""
    write_log(tmp_path, [{'loss': 1.0, 'step': 1, 'time': 'x'}])
    [file] = tmp_path.glob('*/vis_data/scalars.json')
    good = {'loss': 0.5, 'lr': 0.1, 'step': 2, 'time': 0.5}
    odd = [{**good, 'step': 'x'}, {**good, 'step': [1]}, {'step': {}}, 5]
    odd += [{**good, 'step': 10**400}, {**good, 'step': float('nan')}]
    odd += [{'coco/bbox_mAP': 'x', 'step': 3}, {**good, 'loss': 10**400}]
    lines = [*map(json.dumps, odd), '[' * 100_000, '"\ud800"', '']
    text = '\n'.join(lines).encode('utf-8', 'surrogatepass')
    file.write_bytes(b'\xff\xfe\n' + file.read_bytes() + b'\n' + text)
    run = read_run(tmp_path)
    assert [r['step'] for r in run.train_log] == [1, 2]
    assert run.train_seconds is None
    assert logged_curves(run)['lr'] == [(2, 0.1)]
    assert plot_curves([run], tmp_path / 'out', ['lr'])


def test_names_of_categories(tmp_path: Path) -> None:
    """Eighty names are longer than any name of a file."""
    names = [f'a class named {i}' for i in range(80)]
    assert read_names(','.join(names)) == names
    data = tmp_path / 'data.yaml'
    text = f'x0: &x0 [{", ".join("abcdefghij")}]\n'
    for i in range(8):
        text += f'x{i + 1}: &x{i + 1} [{", ".join([f"*x{i}"] * 10)}]\n'
    data.write_text(f'{text}names: *x8')
    with pytest.raises(UserError, match='aliases'):
        read_names(str(data))
    data.write_text('names: ' + '[' * 5000)
    with pytest.raises(UserError, match='nested too deeply'):
        read_names(str(data))
    for wrong in ('[[a], b]', '{a: b}', '[1.5]', '5', '[null]'):
        data.write_text(f'names: {wrong}')
        with pytest.raises(UserError, match='no list of names'):
            read_names(str(data))
    data.write_bytes(b'names: [\xff]')
    with pytest.raises(UserError, match='is not YAML'):
        read_names(str(data))


odd = st.sampled_from(
    [None, True, 'x', '7', '', [], {}, -1, 1e308, 2**60, 10**400]
    + [float('nan'), float('inf'), '\ud800', LONG, [[]], {'a': []}]
)
records = st.dictionaries(
    st.sampled_from(
        ['image_id', 'file_name', 'category_id', 'category_name', 'bbox']
        + ['score', 'boxes', 'labels', 'scores', 'x_min', 'y_min', 'x_max']
        + ['y_max', 'class_id', 'class_name', 'confidence', 'segmentation']
    ),
    odd | st.sampled_from([1, 7, 0.5, [1, 2, 3, 4], [[1, 2, 3, 4]], [1]]),
)
results = st.lists(records, max_size=3) | st.dictionaries(
    st.text(max_size=3) | st.just('7'), records, max_size=2
)


def test_any_result_of_another_trainer_is_read_or_refused(
    write: Write,
) -> None:
    gt = write('gt.json', TRUTH)

    @settings(
        max_examples=int(EXAMPLES or 150), deadline=None, derandomize=True
    )
    @given(results, st.sampled_from(FORMATS))
    def check(found: object, name: str) -> None:
        try:
            mmext.evaluate(write('a.json', found), gt, file_format=name)
        except UserError as error:
            str(error).encode()

    check()


def test_what_a_terminal_shows_of_an_error(
    write: Write, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    truth = copy.deepcopy(TRUTH)
    truth['categories'][0]['name'] = CODES
    gt = write('gt.json', truth)
    path = write('a.bbox.json', FOUND)
    options = ('--ann', gt, '--classes', 'cell')
    assert run_tool('compare.py', path, path, *options) == 2
    seen = capfd.readouterr()
    assert 'is not a category' in seen.err
    assert not is_obeyed(seen.err)
