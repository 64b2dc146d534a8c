# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext predict`: sources, slices and files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run_tool
from onnx_files import onnx_file
from pycocotools.coco import COCO

from mmext.errors import UserError
from mmext.export.prediction.predict import predict_files
from mmext.export.prediction.sources import find_sources


@pytest.fixture
def model(tmp_path) -> Path:
    """A file that finds label 1 at 1, 2, 3, 4 of 64 x 64 pixels, once."""
    return onnx_file(tmp_path / 'net.onnx')


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / 'images'
    for name in ('a.png', 'deep/a.png', 'b.jpg'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((128, 128, 3), np.uint8))
    return folder


def write_video(path: Path, frames: int) -> Path:
    fourcc = cv2.VideoWriter_fourcc(*'MJPG')
    video = cv2.VideoWriter(str(path), fourcc, 10, (64, 64))
    for i in range(frames):
        video.write(np.full((64, 64, 3), 20 * i, np.uint8))
    video.release()
    return path


def test_files_of_all_formats(model, images, tmp_path, capsys):
    out = tmp_path / 'out'
    options = ('--format', 'coco', 'csv', 'yolo', '--pictures')
    assert run_tool('predict.py', model, images, '--out', out, *options) == 0
    assert '3 detections in 3 images' in capsys.readouterr().out
    coco = COCO(out / 'detections.json')
    names = ['a.png', 'b.jpg', 'deep/a.png']
    assert [image['file_name'] for image in coco.imgs.values()] == names
    assert [c['name'] for c in coco.cats.values()] == ['a', 'b']
    for annotation in coco.anns.values():
        # The image is twice as large as the input.
        assert annotation['bbox'] == [2, 4, 4, 4] and annotation['area'] == 16
        assert annotation['category_id'] == 2 and annotation['score'] == 0.5
    rows = list(csv.reader((out / 'detections.csv').read_text().splitlines()))
    assert rows[0][:3] == ['image', 'class', 'score']
    assert rows[3] == [
        'deep/a.png',
        'b',
        '0.5',
        *['2.00', '4.00', '6.00', '8.00'],
    ]
    line = (out / 'labels' / 'deep' / 'a.txt').read_text().split()
    assert line[0] == '1' and float(line[5]) == 0.5
    assert [float(x) * 128 for x in line[1:5]] == pytest.approx(
        [4, 6, 4, 4], abs=1e-3
    )
    assert (out / 'labels' / 'classes.txt').read_text() == 'a\nb\n'
    for name in names:
        picture = cv2.imread(str(out / 'pictures' / name))
        assert picture.shape == (128, 128, 3) and picture.any()


def test_the_score(model, images, tmp_path):
    found = predict_files(model, [images], out=tmp_path, score_thr=0.6)
    assert [len(f.detections) for f in found] == [0, 0, 0]


def test_sources(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / 'film.avi', 3)
    names = [s.name for s in find_sources(['images/*.png', video])]
    assert sorted(names) == ['a.png', 'film.avi']
    recursive = find_sources(['images/**/*.png'])
    assert [s.path.name for s in recursive] == ['a.png', 'a.png']
    assert len({s.name for s in recursive}) == 2
    (film,) = find_sources([video])
    assert film.frames == 3
    read = list(film.read())
    assert [name for name, _ in read] == [
        f'film.avi/00000{i}.png' for i in range(3)
    ]
    assert [round(float(p.mean()) / 20) for _, p in read] == [0, 1, 2]
    with pytest.raises(UserError, match='no file has a name such as'):
        find_sources(['images/*.gif'])


def test_a_video(model, tmp_path):
    video = write_video(tmp_path / 'film.avi', 5)
    found = predict_files(model, [video], out=tmp_path / 'out')
    assert [len(f.detections) for f in found] == [1] * 5


def test_what_cannot_be_read_is_reported_at_the_end(model, images, tmp_path):
    (images / 'c.png').write_text('no image')
    shutil.copy(images / 'c.png', images / 'film.mp4')
    out = tmp_path / 'out'
    with pytest.raises(UserError, match='2 of 5 images could not be read'):
        predict_files(model, [images, images / 'film.mp4'], out=out)
    content = json.loads((out / 'detections.json').read_text())
    assert len(content['images']) == len(content['annotations']) == 3


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'formats': ['xml']}, 'format xml is unknown'),
        ({'score_thr': 30}, 'score_thr is 30'),
        ({'slices': (0, 9)}, 'slices of 0x9 pixels'),
        ({'slices': (9, 9), 'overlap': 1}, 'an overlap of 1'),
    ],
)
def test_bad_options(options, text, images, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(UserError, match=text):
        predict_files('gone.onnx', [images], out=out, **options)
    assert not out.exists()
