# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Annotation files too large to be parsed before every run.

hotcoco reads COCO's own 450 MB in a second or two where Python takes a
quarter of a minute, and its ``healthcheck`` covers the ids and the boxes.
What it does not look at is left to ``tools/misc/check_data.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from hotcoco import COCO

from mmext.checks.findings import ERROR, NOTE, WARNING, Finding, Split
from mmext.errors import UserError, did_you_mean
from mmext.utils.text import some

LARGE = 100 * 2**20  # bytes
# hotcoco's codes that matter to a run; it has more for curating.
CODES = {
    'duplicate_image_id': (ERROR, 'ids'),
    'duplicate_ann_id': (ERROR, 'ids'),
    'duplicate_category_id': (ERROR, 'ids'),
    'orphan_image_id': (ERROR, 'unknown ids'),
    'orphan_category_id': (ERROR, 'unknown ids'),
    'zero_dimensions': (ERROR, 'image sizes'),
    'degenerate_bbox': (WARNING, 'boxes degenerate'),
    'bbox_out_of_bounds': (WARNING, 'boxes over the edge'),
}


def is_large(split: Split) -> bool:
    """Whether parsing the split's annotations takes many seconds."""
    return split.ann_file.stat().st_size > LARGE


def check_large(split: Split) -> Iterator[Finding]:
    """The checks of ids and boxes by hotcoco, and the class names.

    Raises:
        UserError: A file that is not COCO.
    """
    try:
        coco = COCO(str(split.ann_file))
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(
            f'{split.ann_file} is not a COCO annotation file: {error}',
            'Is the file whole? tools/misc/check_data.py says more.',
        ) from error
    report = coco.healthcheck()
    for found in report['errors'] + report['warnings']:
        if found['code'] not in CODES:
            continue
        level, check = CODES[found['code']]
        ids = found['affected_ids']
        yield split.finding(
            level,
            check,
            f'{split.ann_file}: {found["message"]} The first: {some(ids)}',
            'tools/misc/check_data.py --fix writes a mended copy.',
            count=len(ids),
            mended=True,
        )
    names = [c['name'] for c in coco.load_cats(coco.get_cat_ids())]
    unknown = [n for n in split.classes if n not in names]
    if unknown:
        yield split.finding(
            ERROR,
            'class names',
            f'class {unknown[0]!r} is not a category of {split.ann_file}',
            f'{did_you_mean(unknown[0], names)} It has: {some(names, 20)}',
            count=len(unknown),
        )
    yield split.finding(
        NOTE,
        'annotations',
        f'{split.ann_file} is large: ids, boxes and class names were checked; '
        'tools/misc/check_data.py checks all, once',
    )
