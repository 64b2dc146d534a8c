# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Predictions from which AP cannot be computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bad_input import World, mistake

bad = partial(mistake, 'Predictions')


def predictions(
    title: str, change: Callable[[list[dict]], object], **meta: object
) -> None:
    """Registers a change of good predictions.

    Args:
        title: The mistake.
        change: Changes the detections; a text replaces them.
        meta: Content of the file beside the predictions. Default: none.
    """

    @bad(title)
    def _(world: World) -> None:
        truth = json.loads(Path('data/val.json').read_text())
        keys = ('image_id', 'category_id', 'bbox')
        found = [
            {**{key: a[key] for key in keys}, 'score': 0.5}
            for a in truth['annotations']
        ]
        Path('good.bbox.json').write_text(json.dumps(found))
        changed = change(found) or json.dumps(found)
        Path('bad.bbox.json').write_text(changed)
        if meta:
            Path('bad.meta.json').write_text(json.dumps(meta))
        files = ('good.bbox.json', 'bad.bbox.json', '--ann', 'data/val.json')
        world.tool('compare', *files)


def first(title: str, **values: object) -> None:
    """Registers values of the first detection."""
    predictions(title, lambda found: found[0].update(values))


def other_images(found: list[dict]) -> None:
    for entry in found:
        entry['image_id'] += 500


first('a score of NaN', score=float('nan'))
first('an infinite score', score=float('inf'))
first('a predicted box of negative size', bbox=[0, 0, -3, 5])
first('a prediction for an unknown image', image_id=99)
first('a prediction of an unknown category', category_id=0)
predictions('predictions for other images', other_images)
predictions('truncated predictions', lambda found: json.dumps(found)[:-20])
predictions(
    'a file of metrics instead of predictions',
    lambda found: '{"coco/bbox_mAP": 0.4}',
)
predictions(
    'an annotation file instead of predictions',
    lambda found: Path('data/val.json').read_text(),
)
predictions(
    'predictions made for another ground truth',
    lambda found: None,
    annotation_sha256='a' * 64,
)


@bad('predictions without a ground truth')
def _(world: World) -> None:
    Path('a.bbox.json').write_text('[]')
    world.tool('compare', 'a.bbox.json', 'a.bbox.json')


@bad('a run that does not exist')
def _(world: World) -> None:
    world.tool('compare', 'nowhere', 'data')
