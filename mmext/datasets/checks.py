# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO annotation files: reading them, and what a check says of them.

:func:`read_coco` stops at a file that is not what it should be. Everything
else that is wrong with data is a :class:`Finding`: errors stop a run,
warnings are counted, notes are told.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmext.errors import UserError, did_you_mean

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SHOWN = 5  # errors of one message


@dataclass(frozen=True)
class Finding:
    """One thing that a check found in one split.

    Args:
        level: ``'error'``, ``'warning'`` or ``'note'``.
        check: What was looked at, in two or three words.
        split: Name of the split, see :class:`Split`.
        problem: What is wrong, how often, and the first example.
        remedy: What to do about it. Default: nothing.
        count: How many entries have it. Default: 1.
        mended: Whether ``--fix`` mends it. Default: False.
    """

    level: str
    check: str
    split: str
    problem: str
    remedy: str = ''
    count: int = 1
    mended: bool = False


@dataclass(frozen=True)
class Split:
    """Annotations, their images, and what a run does with them.

    Args:
        name: For messages: ``train``, or a place in a config.
        ann_file: COCO's ``instances_*.json``.
        img_dir: Folder that ``file_name`` is relative to.
        classes: Names that are to be found. Default: all of the file.
        masks: Whether masks are learnt or evaluated. Default: False.
        training: Whether the split is trained on. Default: False.
        filter_empty: Whether training skips images without objects.
        min_size: Shorter images are skipped in training, in pixels.
        root: Folder that file names must not leave. Default: ``img_dir``.
        turned: Whether the pictures are turned as EXIF says. Default: True,
            as mmcv reads them.
    """

    name: str
    ann_file: Path
    img_dir: Path
    classes: tuple[str, ...] = ()
    masks: bool = False
    training: bool = False
    filter_empty: bool = False
    min_size: int = 0
    root: Path | None = None
    turned: bool = True

    def holds(self, file_name: str) -> bool:
        """Whether a name in the annotation file stays in the root.

        Decided by the names alone: a link that the user put there may lead
        anywhere.
        """
        root = os.path.abspath(self.root or self.img_dir)
        path = os.path.abspath(self.img_dir / file_name.replace('\\', '/'))
        return os.path.commonpath([root, path]) == root

    def finding(
        self, level: str, check: str, problem: str, *rest, **more
    ) -> Finding:
        """A finding in this split."""
        return Finding(level, check, self.name, problem, *rest, **more)


def require(findings: Iterable[Finding]) -> None:
    """Stops where there is an error among the findings.

    Raises:
        UserError: With all errors, the first few at length.
    """
    errors = [f for f in findings if f.level == ERROR]
    if not errors:
        return
    if len(errors) == 1:
        raise UserError(_line(errors[0]), errors[0].remedy)
    told = [
        f'{i}. {_line(f)}' + (f'\n   -> {f.remedy}' if f.remedy else '')
        for i, f in enumerate(errors[:SHOWN], 1)
    ]
    if len(errors) > SHOWN:
        told.append(f'and {len(errors) - SHOWN} more')
    raise UserError(
        f'{len(errors)} things are wrong with the data:\n' + '\n'.join(told),
        'tools/misc/check_data.py lists all of them; with --fix DIR it writes '
        'mended copies of the annotations.',
    )


def _line(finding: Finding) -> str:
    return f'{finding.split}: {finding.problem}'


def is_number(value: object) -> bool:
    """A finite number that is no bool and no string."""
    return type(value) in (int, float) and -1e15 < value < 1e15


def _is_id(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_name(value: object) -> bool:
    return type(value) is str and value != '' and '\0' not in value


def _is_box(value: object) -> bool:
    return (
        type(value) is list and len(value) == 4 and all(map(is_number, value))
    )


# Field -> what makes a value of it usable, and that in words.
Test = tuple[Callable[[object], bool], str]
ID: Test = (_is_id, 'a whole number')
NUMBER: Test = (is_number, 'a number')
NAME: Test = (_is_name, 'a name')
NEEDED: dict[str, dict[str, Test]] = {
    'images': {'id': ID, 'file_name': NAME, 'width': NUMBER, 'height': NUMBER},
    'categories': {'id': ID, 'name': NAME},
    'annotations': {
        'id': ID,
        'image_id': ID,
        'category_id': ID,
        'bbox': (_is_box, '[x, y, width, height] in pixels'),
    },
}
OPTIONAL: dict[str, Test] = {
    'area': NUMBER,
    'iscrowd': (lambda v: v in (0, 1) and type(v) in (int, bool), '0 or 1'),
    'segmentation': (
        lambda v: v is None or isinstance(v, list | dict),
        'polygons or RLE',
    ),
}


def read_coco(file: Path) -> dict:
    """Reads an annotation file.

    Args:
        file: COCO's ``instances_*.json``.

    Raises:
        UserError: If it is not JSON, JSON of another format, or has an entry
            without a needed field or with a value of another kind.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{file} is not JSON: {error}',
            'Is the file whole? Write or download it again.',
        ) from error
    if isinstance(content, dict) and {'images', 'categories'} <= {*content}:
        content.setdefault('annotations', [])  # as COCO's test-dev
    if problem := _not_coco(content):
        raise UserError(
            f'{file} is not a COCO annotation file: {problem}',
            'It must hold images (id, file_name, width, height), annotations '
            '(id, image_id, category_id, bbox) and categories (id, name). '
            'tools/dataset_converters writes one from VOC or YOLO files.',
        )
    return content


def write_json(file: Path, content: object) -> None:
    """Writes a file whole or not at all."""
    part = file.with_name(f'{file.name}.{os.getpid()}.tmp')
    try:
        part.write_text(json.dumps(content), encoding='utf-8')
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _not_coco(content: object) -> str | None:
    if isinstance(content, list):
        first = content[0] if content else None
        return 'it is a list' + (
            ' of detections (a result file)'
            if isinstance(first, dict) and 'score' in first
            else ''
        )
    if not isinstance(content, dict):
        return f'it is a {type(content).__name__}'
    if 'shapes' in content and 'imagePath' in content:
        return 'it is a LabelMe file'
    for key, needed in NEEDED.items():
        if not isinstance(content.get(key), list):
            return f'no list {key!r}; its keys are {some(content)}'
        if not content[key] and key != 'annotations':
            return f'{key!r} is empty'
        tests = {**needed, **(OPTIONAL if key == 'annotations' else {})}
        for i, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                return f'{key}[{i}] is {_short(entry)}'
            for field, (test, kind) in tests.items():
                if field not in entry:
                    if field in needed:
                        return (
                            f'{key}[{i}] has no {field!r}; it holds '
                            f'{some(entry)}'
                        )
                elif not test(entry[field]):
                    return (
                        f'{key}[{i}] has {field} {_short(entry[field])}, not '
                        f'{kind}'
                    )
    names = [c['name'] for c in content['categories']]
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        return (
            f'category name {twice[0]!r} is given to '
            f'{names.count(twice[0])} ids'
        )
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few of some names, for a message."""
    names = [str(name) for name in names]
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')


def check_classes(content: dict, split: Split) -> Iterator[Finding]:
    """Whether annotations can train or judge a detector of these classes.

    mmdet numbers labels by the order of the categories *in the file*: a
    ``metainfo['classes']`` in another order trains and evaluates as well,
    but every picture and every later prediction shows the wrong name.

    Args:
        content: Of the split's annotation file, see :func:`read_coco`.
        split: What it is used for.
    """
    file = split.ann_file
    names = {c['id']: c['name'] for c in content['categories']}
    have = list(names.values())
    classes = split.classes or tuple(have)
    unknown = [name for name in classes if name not in have]
    if len(unknown) == len(classes):
        yield split.finding(
            ERROR,
            'class names',
            f'none of the classes {some(classes)} is among the categories of '
            f'{file}: {some(have)}',
            f'{did_you_mean(unknown[0], have)} '
            f'metainfo=dict(classes={tuple(have)!r}), and the same number as '
            'num_classes of the heads.'.strip(),
        )
        return
    if unknown:
        near = [f'{n!r}: {did_you_mean(n, have) or "?"}' for n in unknown[1:4]]
        yield split.finding(
            ERROR,
            'class names',
            f'class {unknown[0]!r} is not a category of {file}'
            + (f', and {len(unknown) - 1} others' if near else ''),
            f'{did_you_mean(unknown[0], have)} {" ".join(near)} It has: '
            f'{some(have, 20)}'.strip(),
            count=len(unknown),
        )
    if repeated := [n for n, c in Counter(classes).items() if c > 1]:
        yield split.finding(
            ERROR,
            'class names',
            f'class {repeated[0]!r} is named twice in metainfo',
            'Name each class once.',
        )
    in_file = [name for name in have if name in classes]
    wanted = [name for name in classes if name in have]
    if not repeated and in_file != wanted:
        at = next(i for i, n in enumerate(wanted) if n != in_file[i])
        yield split.finding(
            ERROR,
            'class order',
            f'classes are in another order than the categories of {file}: '
            f'label {at} is {in_file[at]!r} there and {wanted[at]!r} in '
            'metainfo. mmdet numbers labels by the file, so every picture '
            'would show wrong names',
            f'metainfo=dict(classes={tuple(in_file)!r}), or the categories '
            'of the file in the order of metainfo.',
        )
    counts = Counter(
        names.get(a['category_id']) for a in content['annotations']
    )
    found = [name for name in in_file if counts[name]]
    absent = [name for name in in_file if not counts[name]]
    if not found and (split.training or content['annotations']):
        seen = ', '.join(f'{n} ({c})' for n, c in counts.most_common(10))
        yield split.finding(
            ERROR,
            'class names',
            f'{file} has no annotation of any chosen class '
            f'({some(classes, 10)})',
            f'It has annotations of: {seen or "nothing"}',
        )
    elif absent:
        yield split.finding(
            WARNING if split.training else NOTE,
            'class names',
            f'{len(absent)} of {len(in_file)} classes have no annotation '
            f'and {"cannot be learnt" if split.training else "get no AP"}: '
            f'{some(absent)}',
            count=len(absent),
        )
    if left := {n: c for n, c in counts.items() if n and n not in classes}:
        yield split.finding(
            NOTE,
            'class names',
            f'{sum(left.values())} annotations of other categories are left '
            f'out: {some(left)}',
            count=sum(left.values()),
        )
    if split.masks:
        yield from _check_bare(content, split, names, classes)


def _check_bare(
    content: dict, split: Split, names: dict, classes: Sequence[str]
) -> Iterator[Finding]:
    chosen = [
        a
        for a in content['annotations']
        if names.get(a['category_id']) in classes
    ]
    bare = [a for a in chosen if not a.get('segmentation')]
    if bare:
        yield split.finding(
            ERROR,
            'masks',
            f'{split.ann_file}: {len(bare)} of {len(chosen)} annotations '
            f'have a box and no mask (the first: id {bare[0]["id"]}), and '
            'this config needs masks',
            'Use a box detector (Faster R-CNN, RetinaNet), or add '
            '`segmentation` to every annotation.',
            count=len(bare),
        )
