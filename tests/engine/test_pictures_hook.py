# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Pictures of tools/test.py --show-dir."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_run import make_coco, write_config

from mmext.engine.launch import test as run_test
from mmext.models.build import build_model
from mmext.utils.config import load_config

IGNORED = "test_pipeline[0]['color_type'] = 'color_ignore_orientation'"


@pytest.mark.parametrize('ignored', [False, True])
def test_each_image_has_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    """Equal names in two folders, and an image that EXIF turns."""
    monkeypatch.chdir(tmp_path)
    data = make_coco(Path('coco'), 1, 3)
    file = data / 'val.json'
    content = json.loads(file.read_text())
    for image, name in zip(content['images'], 'abc', strict=True):
        (data / 'val' / name).mkdir()
        new = data / 'val' / name / '1.png'
        (data / 'val' / image['file_name']).rename(new)
        image['file_name'] = f'{name}/1.png'
    turned = data / 'val' / 'c' / '1.png'
    picture = Image.open(turned)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(turned, exif=exif)
    if not ignored:
        content['images'][2].update(width=96, height=128)
    file.write_text(json.dumps(content))
    config = write_config(
        Path('tiny.py'), data, more=IGNORED if ignored else ''
    )
    init_default_scope('mmdet')
    model = build_model(load_config(config).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, 'net.pth')
    run_test(config, 'net.pth', work_dir='work', show_dir='shown')
    (shown,) = Path('work').rglob('shown')
    found = {p.relative_to(shown).as_posix(): p for p in shown.rglob('*.png')}
    assert sorted(found) == ['a/1.png', 'b/1.png', 'c/1.png']
    sizes = {n[0]: cv2.imread(str(p)).shape[:2] for n, p in found.items()}
    # The annotations and the detections side by side.
    assert sizes['a'] == sizes['b'] == (96, 2 * 128)
    assert sizes['c'] == ((96, 2 * 128) if ignored else (128, 2 * 96))
