# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of YOLO, as exporters write it.

::

    Ultralytics    data.yaml   images/train/*  labels/train/*.txt
    Roboflow       data.yaml   train/images/*  train/labels/*.txt
    Label Studio   classes.txt images/*        labels/*.txt
    CVAT, Darknet  obj.names   train.txt (paths), labels beside the images

Where its files do not say where images are, folders are found by their names;
see :mod:`~mmext.datasets.converters.yolo_data`. A line of labels
is ``class cx cy w h`` for a box, ``class x0 y0 x1 y1 x2 y2 ...`` for a
polygon; coordinates are fractions of the image's width and height.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from mmext.datasets.converters.common import (
    Labelled,
    LabelledImage,
    LabelledObject,
    entries,
    find_file,
    folders_in,
    image_size,
    images_by_name,
    name_in,
    one_per_split,
    other_formats,
    read_each,
    read_lines,
    usual_files,
)
from mmext.datasets.converters.yolo_data import (
    LAYOUT,
    OTHER,
    Description,
    describe,
    read_yaml,
    yaml_files,
)
from mmext.errors import UserError
from mmext.utils.images import files_in, is_image
from mmext.utils.text import count, sentences, some

SLACK = 0.01  # fraction of the image beyond its border: tools round


def is_yolo(root: Path) -> bool:
    """Returns whether a folder looks as if it held labels of YOLO."""
    described = any(
        read_yaml(file).keys() & {'names', 'nc'} for file in yaml_files(root)
    )
    return (
        described
        or any(p.suffix.lower() == '.names' for p in entries(root))
        or any(map(_is_label_file, usual_files(root, ('labels', 'images'))))
    )


def _is_label_file(file: Path) -> bool:
    """Returns whether a text file begins with numbers."""
    if file.suffix.lower() != '.txt' or file.name.lower() in OTHER:
        return False
    with open(file, 'rb') as stream:
        fields = stream.readline(2000).strip(b'\xef\xbb\xbf').split()
    try:
        return len([float(field) for field in fields]) >= 5
    except ValueError:
        return False


def read_yolo(root: Path) -> Labelled:
    """Reads the splits of a YOLO folder, or all images as ``'train'``.

    ``root`` may also be the YAML file. An image without a label file has no
    objects. Raises `UserError` if there are no images or labels, or if a file
    is damaged.
    """
    root = Path(os.path.abspath(root))
    described = describe(root)
    root = root.parent if root.is_file() else root
    sources = _sources(root, described)
    notes: list[str] = []
    splits = {}
    for split in ('train', 'val'):
        if split not in sources:
            continue
        images = _read_split(root, sources[split], described, split, notes)
        folder = images[0].path.parent if images else root
        if not folder.is_relative_to(root):
            notes.append(f'{split}: the images are read from {folder}')
        splits[split] = images
    if sources['train'] == sources.get('val'):
        notes.append('the same images are used to train and to validate')
    return Labelled(splits, list(described.names.values()), notes)


def _read_split(
    root: Path,
    sources: list[Path],
    described: Description,
    split: str,
    notes: list[str],
) -> list[LabelledImage]:
    """Reads the images of folders, or those that lists name."""
    wanted: dict[Path, tuple] = {}
    orphans, unlabelled, labelled, others = [], 0, 0, ''
    for folder, chosen in _by_folder(sources):
        images = images_by_name(folder)
        if not images:
            raise UserError(
                f'{folder} has no images{other_formats(folder)}', LAYOUT
            )
        place, labels = _labels(root, folder, images)
        labelled += len(labels)
        if alone := [f'{n}.txt' for n in labels if n not in images]:
            orphans += alone
            others = other_formats(folder)
        for name, image in images.items():
            if chosen and image not in chosen:
                continue
            file = labels.get(name)
            unlabelled += file is None
            if file or not described.skip:
                wanted[image] = file, image, described.names
    if not labelled:
        raise UserError(
            f'{place} has no label files (for the images in {folder})', LAYOUT
        )
    if orphans:
        text = (
            f'{len(orphans)} of {count(labelled, "label file")} in {place} '
            f'have no image in {folder}: {some(orphans, 20)}{others}'
        )
        if 2 * len(orphans) > labelled:
            raise UserError(text, 'Add the images, or remove the labels.')
        notes.append(f'{split}: {text}')
    if unlabelled:
        number = count(unlabelled, 'image')
        used = 'left out' if described.skip else 'background'
        notes.append(f'{split}: {number} without a label file: {used}')
    return read_each(_read_file, wanted.values())


def _by_folder(sources: Iterable[Path]) -> Iterable[tuple[Path, set[Path]]]:
    """Returns folders, and which of their images are listed (none is all)."""
    found: dict[Path, set[Path]] = {}
    for path in sources:
        if is_image(path):
            found.setdefault(path.parent, set()).add(path)
        else:
            found[path] = set()
    return found.items()


def _labels(
    root: Path, folder: Path, images: Collection[str]
) -> tuple[Path, dict[str, Path]]:
    """Finds the label files of the images in a folder.

    As for Ultralytics, they are where ``images`` is replaced by ``labels`` in
    the path, or beside the images. Returns the folder and name -> file.
    """
    beside = _named(folder.parent, 'labels')
    places = [_named(root, 'labels') / folder.name, beside, folder]
    parts = [part.lower() for part in folder.parts]
    if 'images' in parts:
        at = max(i for i, part in enumerate(parts) if part == 'images')
        below = folder.parts[at + 1 :]
        above = _named(Path(*folder.parts[:at]), 'labels')
        at_root = _named(root, 'labels')
        places = [p.joinpath(*below) for p in (above, at_root)] + places
    for place in places:
        # labelImg writes the class names beside the labels.
        found = {
            name: path
            for path in files_in(place)
            if path.suffix.lower() == '.txt'
            and (name := name_in(place, path))
            and (name in images or path.name.lower() not in OTHER)
        }
        if found:
            return place, found
    return places[0], {}


def _sources(root: Path, described: Description) -> dict[str, list[Path]]:
    """Returns split -> folders of images, or images."""
    sources = {
        split: [
            source
            for text in texts
            for source in _resolve(root, described, split, text)
        ]
        for split, texts in described.paths.items()
    }
    if not sources:
        sources = {s: [path] for s, path in _conventional(root).items()}
    if 'train' not in sources:
        if 'val' in sources:
            raise UserError(
                f'{root} has images to validate and none to train', LAYOUT
            )
        sources['train'] = [_unsplit(root)]
    return sources


def _conventional(root: Path) -> dict[str, Path]:
    """Finds the folders of splits by their names."""
    labels = one_per_split(folders_in(_named(root, 'labels')))
    images = _named(root, 'images')
    # Those of a split that has no images are reported.
    found = {s: images / path.name for s, path in labels.items()}
    for place in (root, images):
        inside = folders_in(place)
        folders = [p for p in inside if 'label' not in p.name.lower()]
        for split, folder in one_per_split(folders).items():
            below = _named(folder, 'images')
            found[split] = below if below.is_dir() else folder
    return found


def _unsplit(root: Path) -> Path:
    """Returns the folder of all images."""
    images = _named(root, 'images')
    if images.is_dir():
        return images
    for place in (root, *folders_in(root)):
        if any(map(is_image, entries(place))):
            return place
    raise UserError(f'{images} has no images{other_formats(root)}', LAYOUT)


def _named(place: Path, name: str) -> Path:
    """Returns the folder of a name in any case, which may not exist."""
    matching = (p for p in folders_in(place) if p.name.lower() == name)
    return next(matching, place / name)


def _resolve(
    root: Path, described: Description, split: str, text: str
) -> list[Path]:
    """Returns the folder that a text names, or the images of a list.

    Exporters write paths that were right on another machine
    (``/content/data/train/images``), or one folder too high
    (``../train/images``).
    """
    text = text.replace('\\', '/')
    ends = _ends(root, text)
    inside = ends[:-1] or ends  # images/ alone may be of another split
    named = root / described.path / text
    places = [named, *inside, root.parent / inside[0].relative_to(root)]
    if text.startswith('../'):
        places = [*inside, named, places[-1]]
    for place in places:
        path = _follow(Path(os.path.normpath(place)))
        if os.path.isfile(path) and path.suffix.lower() == '.txt':
            return _listed(root, path)
        if os.path.isdir(path) or (os.path.isfile(path) and is_image(path)):
            return [path]
    known = [p for p in files_in(root) if is_image(p)]
    folders = sorted({str(p.parent.relative_to(root)) for p in known})
    without = f'Remove {split} to hold out images of the training data.'
    raise UserError(
        f'{described.file} has {split}: {text}, and there is no '
        f'{os.path.normpath(places[0])}',
        sentences(
            f'{root} has images in: {some(folders) or "no folder"}.',
            without if split == 'val' else '',
        ),
    )


def _ends(root: Path, text: str) -> list[Path]:
    """Returns where the end of a path may be in a folder, longest first."""
    parts = [p for p in Path(text).parts if p not in ('..', '.', '/')]
    return [root.joinpath(*parts[i:]) for i in range(len(parts) or 1)]


def _follow(path: Path) -> Path:
    """Follows a link that Git or an archive has written as a text file."""
    for part in path.parents:
        if os.path.isfile(part) and part.stat().st_size < 1000:
            target = part.read_text(encoding='utf-8', errors='replace').strip()
            return Path(
                os.path.normpath(part.parent / target), path.relative_to(part)
            )
    return path


def _listed(root: Path, file: Path) -> list[Path]:
    """Returns the images that a text file lists."""
    found, missing = [], []
    for line in filter(None, read_lines(file)):
        places = file.parent / line, *_ends(root, line.replace('\\', '/'))
        files = (find_file(root, str(place)) for place in places)
        path = next(filter(None, files), None)
        if path is None:
            missing.append(line)
        else:
            found.append(Path(os.path.normpath(path)))
    fix = f'Paths are relative to {file.parent}.'
    if missing:
        verb = 'does' if len(missing) == 1 else 'do'
        raise UserError(
            f'{file} lists {count(len(missing), "image")} that {verb} not '
            f'exist: {some(missing, 10)}',
            fix,
        )
    if not found:
        raise UserError(f'{file} lists no images', fix)
    return found


def _read_file(
    path: Path | None, image: Path, names: Mapping[int, str]
) -> LabelledImage:
    labelled = LabelledImage(image, *image_size(image))
    for number, line in enumerate(read_lines(path) if path else [], 1):
        if line:
            labelled.objects.append(
                _read_line(line, f'{path}:{number}', names, labelled)
            )
    return labelled


def _read_line(
    line: str,
    where: str,
    names: Mapping[int, str],
    image: LabelledImage,
) -> LabelledObject:
    width, height = image.width, image.height
    fields = line.split()
    try:
        number, *values = map(float, fields)
        if not number.is_integer():
            raise ValueError
    except ValueError:
        raise UserError(
            f'{where}: {line!r} is not a class number and coordinates',
            'A line is `class cx cy w h`, or `class x0 y0 x1 y1 x2 y2 ...`.',
        ) from None
    label = int(number)
    if label not in names:
        raise UserError(
            f'{where}: class {label}, and there are {len(names)} names '
            f'({min(names)} to {max(names)}): {some(names.values(), 20)}',
            'Correct the line, or add the names.',
        )
    # Five points of a polygon can look like two keypoints.
    seen = values[6::3] if len(values) % 3 == 1 and len(values) != 10 else []
    if seen and {*seen} <= {0, 1, 2}:
        raise UserError(
            f'{where}: the line seems to be a box and {len(seen)} keypoints '
            'x, y, visibility',
            'Only boxes and polygons can be converted; remove the keypoints.',
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f'{where}: {len(values)} coordinates; a box has 4, a polygon an '
            'even number of 6 or more',
            'Remove the last one of each line if these are predictions with '
            'a confidence, or correct the line.',
        )
    if outside := [v for v in values if not -SLACK <= v <= 1 + SLACK]:
        raise UserError(
            f'{where}: coordinate {outside[0]:g} is not in 0..1',
            'YOLO divides by the width and the height of the image.',
        )
    polygon = None
    if len(values) == 4:
        cx, cy, w, h = values
        w, h = max(w, 0), max(h, 0)
        xs, ys = [cx - w / 2, cx + w / 2], [cy - h / 2, cy + h / 2]
    else:
        xs, ys = ([min(max(v, 0), 1) for v in values[i::2]] for i in (0, 1))
        points = zip(xs, ys, strict=True)
        polygon = [v for x, y in points for v in (x * width, y * height)]
    left, right = min(xs) * width, max(xs) * width
    top, bottom = min(ys) * height, max(ys) * height
    box = image.clip(left, top, right, bottom)
    if box is None:
        raise UserError(
            f'{where}: the object has no area inside the image',
            'Correct or remove the line.',
        )
    return LabelledObject(names[label], box, polygon)
