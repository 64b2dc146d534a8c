# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads the records of a result file, in blocks of 1 MiB."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import orjson

from mmext.errors import UserError
from mmext.evaluation.coco.formats import by_image
from mmext.utils import documents
from mmext.utils.text import count, short

_BLOCK = 1 << 20  # bytes
_GAP = re.compile(r'[\s,]*')


def require_memory(path: Path) -> None:
    """Raises if a large file does not fit into the free memory.

    A box takes about half as much memory as its text; sorting takes as much
    again.
    """
    try:
        size = path.stat().st_size
        free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return  # no such file, or a system that does not report free memory
    if size > 1 << 30 and 2 * size > free:
        raise UserError(
            f'{path} has {size / 1e9:.1f} GB and this machine '
            f'{free / 1e9:.1f} GB of free memory',
            'Keep the 100 best detections of every image (COCO counts at '
            'most 100 of a class), or raise the score threshold, and test '
            'again.',
        )


def read_records(path: Path, any_object: bool = False) -> Iterator[dict]:
    """Yields the objects of a JSON array without loading the array.

    With ``any_object``, the file may be an object of images; see `by_image`.
    """
    documents.require_regular(path)
    try:
        stream = path.open(encoding='utf-8', errors='replace')
    except (OSError, ValueError):
        raise UserError(f'no prediction file {path}') from None
    decoder = json.JSONDecoder()
    with stream:
        text = stream.read(_BLOCK).removeprefix('\ufeff')
        start = _GAP.match(text).end()
        if any_object and text[start : start + 1] == '{':
            yield from by_image(text + stream.read(), path)
            return
        if text[start : start + 1] != '[':
            raise not_predictions(path, text[:100_000])
        at, number, fresh = start + 1, 0, True
        while True:
            at = _GAP.match(text, at).end()
            if text[at : at + 1] == ']':
                rest = (text[at + 1 :] + stream.read(_BLOCK)).strip()
                if rest:
                    raise UserError(
                        f'{path}: {short(rest)} follows the end of the list, '
                        f'after {count(number, "record")}',
                        'Were several files joined? Write one list of all '
                        'detections.',
                    )
                return
            records = []
            if fresh:
                records, at, fresh = *_whole_records(text, at), False
            try:
                if not records:
                    record, at = decoder.raw_decode(text, at)
                    records = [record]
            except ValueError as error:
                block = stream.read(_BLOCK)
                if not block:
                    raise UserError(
                        f'{path} is truncated or not JSON after record '
                        f'{number} ({getattr(error, "msg", error)})',
                        'Write it again: mmext test CONFIG CHECKPOINT.',
                    ) from None
                text, at, fresh = text[at:] + block, 0, True
                continue
            except RecursionError:
                raise UserError(
                    f'{path}: record {number} is nested too deeply',
                    'Write it again: mmext test CONFIG CHECKPOINT.',
                ) from None
            for record in records:
                if not isinstance(record, dict):
                    raise UserError(
                        f'{path}: record {number} is {short(record)}, not a '
                        'detection'
                    )
                yield record
                number += 1


def _whole_records(text: str, at: int) -> tuple[list, int]:
    """Parses all records from a place in a text but the last, at once.

    Returns them and the place after them. There are none if one is no JSON.
    """
    end = max(text.rfind('},', at), text.rfind('} ,', at)) + 1
    try:
        return orjson.loads(f'[{text[at:end]}]'), max(at, end)
    except ValueError:
        return [], at


def not_predictions(path: Path, text: str) -> UserError:
    """Returns an error that names the kind of a file, from its beginning."""
    text_file = '\0' not in text and '\ufffd' not in text
    if text_file and re.search(r'mAP|"AP"|precision"', text):
        return UserError(
            f'{path} holds metrics, which are averages over all images',
            'Intervals need the detections. Give the work folder, or the '
            'predictions/*.bbox.json that mmext test wrote in it.',
        )
    annotations = re.search('"(annotations|images)"', text)
    if annotations and '"score"' not in text:
        return UserError(
            f'{path} is a COCO annotation file, not detections',
            'Give it with --ann, and the detections as the run.',
        )
    begins, inside = text[:1], re.match(r'\s*\{\s*("\w+")\s*:\s*\[', text)
    what = f'it begins with {begins!r} and not with "["'
    if not text.strip():
        what = 'it is empty'
    elif begins == '\x1f':
        what = f'it is compressed (gunzip {path})'
    elif not text_file:
        what = 'it is not a text file'
    elif inside:
        what = f'it is an object that has a list as {inside[1]}'
    return UserError(
        f'{path} is not a COCO result file: {what}',
        'A result file is a JSON list of {image_id, category_id, bbox, '
        'score}. For files of other trainers there is --format.',
    )
