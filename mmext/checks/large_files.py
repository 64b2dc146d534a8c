# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of annotation files that Python would parse too slowly.

hotcoco reads the 450 MB of COCO's training annotations in 1 to 2 seconds,
Python in about 15, and hotcoco's ``healthcheck`` covers ids and boxes.
``tools/misc/check_data.py`` makes all other checks.
"""

from __future__ import annotations

from collections.abc import Iterator

from hotcoco import COCO

from mmext.checks.findings import ERROR, WARNING, Finding, Split
from mmext.errors import UserError, did_you_mean
from mmext.utils.text import sentences, some

LARGE = 100 * 2**20  # bytes
# hotcoco's codes that matter to a run; it has others.
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
    """Returns whether parsing the split's annotations takes many seconds."""
    return split.ann_file.stat().st_size > LARGE


def check_large(split: Split) -> Iterator[Finding]:
    """Checks ids and boxes by hotcoco, and the class names."""
    try:
        coco = COCO(str(split.ann_file))
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(
            f'{split.ann_file} is not a COCO annotation file: {error}',
            'Is the file complete? tools/misc/check_data.py gives the reason.',
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
            'tools/misc/check_data.py --fix DIR writes a corrected copy.',
            count=len(ids),
            fixable=True,
        )
    names = [c['name'] for c in coco.load_cats(coco.get_cat_ids())]
    unknown = [n for n in split.classes if n not in names]
    if unknown:
        yield split.error(
            'class names',
            f'class {unknown[0]!r} is not a category of {split.ann_file}',
            sentences(
                did_you_mean(unknown[0], names),
                f'It has: {some(names, 20)}',
            ),
            count=len(unknown),
        )
    yield split.note(
        'annotations',
        f'{split.ann_file} is large: ids, boxes and class names were checked; '
        'tools/misc/check_data.py makes all checks, once',
    )
