# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A generated COCO-format data set of drawn shapes.

docs/demo.md describes the images and annotations. An image depends only on the
seed, its split and its index.

    python -m mmext.datasets.shapes.generate --out data/shapes
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

from mmext.datasets.shapes.drawing import (
    OUTLINES,
    SAMPLES,
    area,
    coverage,
    mask_to_polygons,
    outline,
)
from mmext.errors import UserError, command
from mmext.utils.files import write_json
from mmext.utils.images import write_image
from mmext.utils.machine import cache_dir

CLASSES = tuple(OUTLINES)
SPLITS = ('train', 'val')
VERSION = 1  # increased when the same arguments give other pixels
MIN_VISIBLE = 0.6  # fraction of the pixels of every shape
USUAL_COLOUR = 0.6  # fraction of the objects of class i that have COLOURS[i]
MANIFEST = 'shapes.json'

# Square root of the area in pixels, and how many such shapes an image has.
# COCO's ranges are divided at 32 and 96. An object with hidden pixels may move
# one range down.
SIZES = (((104, 124), (0, 1)), ((38, 84), (1, 4)), ((18, 31), (1, 4)))
COLOURS = (
    (214, 69, 65),
    (242, 159, 5),
    (244, 211, 94),
    (80, 158, 47),
    (33, 145, 140),
    (56, 108, 176),
    (117, 79, 166),
    (212, 106, 159),
    (238, 234, 222),
    (60, 60, 70),
)


def _blend(image: np.ndarray, alpha: np.ndarray, paint: np.ndarray) -> None:
    """Paints on an image in place, where ``alpha`` is above 0."""
    full = SAMPLES**2
    touched = alpha > 0
    a = alpha[touched][:, None]
    paint = np.broadcast_to(paint, image.shape)[touched]
    image[touched] = (
        image[touched] * (full - a) + paint * a + full // 2
    ) // full


def _background(
    rng: np.random.Generator, width: int, height: int
) -> np.ndarray:
    """Draws a gradient of two muted colours with strokes and specks."""
    first, second = rng.integers(95, 165, (2, 3))
    ramp = np.arange(width)[None, :] * rng.integers(-4, 5)
    ramp = ramp + np.arange(height)[:, None] * rng.integers(-4, 5)
    ramp = ((ramp - ramp.min()) * 256 // max(1, np.ptp(ramp)))[..., None]
    image = (first * (256 - ramp) + second * ramp) // 256
    for _ in range(rng.integers(6, 15)):
        stroke = outline(
            'square',
            rng.integers(0, (width, height)),
            side=rng.uniform(3, 7),
            angle=rng.uniform(0, math.pi),
            stretch=rng.choice([1.0, 40.0, 80.0]),
        )
        colour = np.array(COLOURS[rng.integers(len(COLOURS))])
        _blend(image, coverage(stroke, width, height), colour)
    return image


def _paint(
    rng: np.random.Generator,
    label: int,
    width: int,
    height: int,
    ground: np.ndarray,
) -> np.ndarray:
    """Returns the usual colour of a class or another, at times in stripes."""
    colours = np.array(COLOURS)
    distance = np.abs(ground[:, None] - colours).sum(axis=2)
    similar = (distance < 90).sum(axis=0)
    free = np.flatnonzero(similar <= similar.min() + len(ground) // 50)
    usual = rng.random() < USUAL_COLOUR and label in free
    colour = colours[label if usual else rng.choice(free)]
    if rng.random() < 0.75:
        return colour
    period = rng.integers(5, 11)
    diagonal = (
        np.arange(width)[None, :] * rng.integers(0, 2)
        + np.arange(height)[:, None]
    )
    darker = (diagonal // period % 2)[..., None]
    return colour - darker * colour // 4


def draw(
    seed: int, split: str, index: int, size: tuple[int, int] = (256, 192)
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draws the image number ``index`` of a split.

    Returns the image, (h, w, 3) RGB uint8; a map, (h, w), with 0 for
    background and i + 1 where object i is visible; each object's class index.
    """
    rng = np.random.default_rng([VERSION, seed, SPLITS.index(split), index])
    width, height = size
    image = _background(rng, width, height)
    visible = np.zeros((height, width), np.int64)
    labels: list[int] = []
    areas: list[int] = []
    for (low, high), (fewest, most) in SIZES:
        for _ in range(rng.integers(fewest, most + 1)):
            for _ in range(20):  # attempts to place the object
                label = int(rng.integers(len(CLASSES)))
                side = rng.uniform(low, high)
                margin = 0.35 * side
                vertices = outline(
                    CLASSES[label],
                    rng.uniform(margin, np.array(size) - margin),
                    side,
                    angle=rng.uniform(-0.35, 0.35),
                    stretch=rng.uniform(0.8, 1.25),
                )
                pixels = area(vertices)
                alpha = coverage(vertices, width, height)
                mask = alpha * 2 >= SAMPLES**2
                after = np.where(mask, len(labels) + 1, visible)
                left = np.bincount(after.ravel(), minlength=len(labels) + 2)
                if all(left[1:] >= MIN_VISIBLE * np.array([*areas, pixels])):
                    break
            else:
                continue
            paint = _paint(rng, label, width, height, image[mask])
            _blend(image, alpha, paint)
            visible = after
            labels.append(label)
            areas.append(pixels)
    strength = int(rng.integers(2, 9))
    noise = rng.integers(-strength, strength + 1, (2, height, width, 3))
    image = np.clip(image + noise.sum(axis=0), 0, 255).astype(np.uint8)
    return image, visible, labels


def annotate(visible: np.ndarray, labels: list[int]) -> Iterator[dict]:
    """Yields the COCO annotations of one image, without their ids."""
    for i, label in enumerate(labels):
        mask = visible == i + 1
        polygons = mask_to_polygons(mask)
        xs = [x for p in polygons for x in p[::2]]
        ys = [y for p in polygons for y in p[1::2]]
        yield {
            'category_id': label + 1,
            'bbox': [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
            'area': int(mask.sum()),
            'iscrowd': 0,
            'segmentation': polygons,
        }


def _write_split(
    root: Path, split: str, count: int, seed: int, size: tuple[int, int]
) -> None:
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(count):
        image, visible, labels = draw(seed, split, index, size)
        record = {
            'id': index + 1,
            'file_name': f'{index:06d}.png',
            'width': size[0],
            'height': size[1],
        }
        images.append(record)
        for fields in annotate(visible, labels):
            ids = {'id': len(annotations) + 1, 'image_id': record['id']}
            annotations.append(ids | fields)
        classes = np.array([0, *(label + 1 for label in labels)], np.uint8)
        _write_image(root / split / record['file_name'], image[..., ::-1])
        _write_image(
            root / 'semantic' / split / record['file_name'], classes[visible]
        )
    categories = [
        {'id': i, 'name': name, 'supercategory': 'shape'}
        for i, name in enumerate(CLASSES, 1)
    ]
    (root / 'annotations').mkdir(exist_ok=True)
    write_json(
        root / 'annotations' / f'instances_{split}.json',
        {
            'info': {
                'description': 'Drawn shapes (mmext)',
                'version': str(VERSION),
            },
            'licenses': [],
            'images': images,
            'annotations': annotations,
            'categories': categories,
        },
    )


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)


def _is_complete(root: Path, spec: dict) -> bool:
    """Returns whether ``root`` holds this data set, by the sizes of files."""
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        return manifest['spec'] == spec and all(
            (root / name).stat().st_size == length
            for name, length in manifest['files'].items()
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write_shapes(
    out: str | Path,
    num_train: int = 320,
    num_val: int = 80,
    seed: int = 0,
    size: tuple[int, int] = (256, 192),
) -> Path:
    """Writes the data set to a folder if it is not there.

    The folder is written completely or not at all, also if several processes
    ask for it. It is written again if files are missing or if it was made with
    other arguments. It has ``annotations/instances_{train,val}.json``,
    ``train/``, ``val/`` and, for semantic segmentation,
    ``semantic/{train,val}/`` (0 background, class index + 1).
    """
    if min(num_train, num_val) < 1 or seed < 0 or min(size) < 160:
        raise UserError(
            f'the shapes data set cannot have num_train={num_train}, '
            f'num_val={num_val}, seed={seed}, size={tuple(size)}',
            'Use num_train >= 1, num_val >= 1, seed >= 0 and a size of '
            '160x160 or more, so that large objects fit.',
        )
    out = Path(out).expanduser().absolute()
    spec = {
        'version': VERSION,
        'num_train': num_train,
        'num_val': num_val,
        'seed': seed,
        'size': list(size),
    }
    if _is_complete(out, spec):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    # The lock ends with its process, so an incomplete folder is left over from
    # a process that was killed.
    with FileLock(out.parent / f'.{out.name}.lock'):
        if _is_complete(out, spec):
            return out
        exists = out.exists() and any(out.iterdir())
        if exists and not (out / MANIFEST).exists():
            raise UserError(
                f'{out} holds files that are not a shapes data set',
                'Give another folder, or empty this one.',
            )
        work = out.with_name(f'.{out.name}.partial')
        new = work / 'new'
        shutil.rmtree(work, ignore_errors=True)
        for split, count in zip(SPLITS, (num_train, num_val), strict=True):
            _write_split(new, split, count, seed, size)
        files = {
            str(p.relative_to(new)): p.stat().st_size
            for p in sorted(new.rglob('*'))
            if p.is_file()
        }
        write_json(new / MANIFEST, {'spec': spec, 'files': files}, indent=0)
        if out.exists():
            os.replace(out, work / 'old')
        os.replace(new, out)
        shutil.rmtree(work, ignore_errors=True)
    return out


def cached_shapes(
    num_train: int = 320,
    num_val: int = 80,
    seed: int = 0,
    size: tuple[int, int] = (256, 192),
) -> Path:
    """Calls :func:`write_shapes` for a folder in the cache."""
    width, height = size
    # With the version: an older generator keeps its own data.
    name = (
        f'shapes-v{VERSION}_{width}x{height}_{num_train}+{num_val}_seed{seed}'
    )
    try:
        return write_shapes(cache_dir() / name, num_train, num_val, seed, size)
    except OSError as error:
        raise UserError(
            f'the shapes data set could not be written to {cache_dir()}: '
            f'{error}',
            'Set the environment variable MMEXT_CACHE to a writable folder.',
        ) from error


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        description='Write the generated shapes data set in COCO format.'
    )
    parser.add_argument('--out', required=True, help='folder to make')
    parser.add_argument('--num-train', type=int, default=320)
    parser.add_argument('--num-val', type=int, default=80)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--size', type=int, nargs=2, default=(256, 192), metavar=('W', 'H')
    )
    args = parser.parse_args()
    root = write_shapes(**vars(args))
    print(f'{args.num_train} + {args.num_val} images in {root}')


if __name__ == '__main__':
    main()
