# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads annotations in the format of YOLO, as exporters write it.

::

    Ultralytics    data.yaml   images/train/*  labels/train/*.txt
    Roboflow       data.yaml   train/images/*  train/labels/*.txt
    Label Studio   classes.txt images/*        labels/*.txt
    CVAT, Darknet  obj.names   train.txt (paths), labels beside the images

The YAML file may have any name. Its ``train``, ``val`` and ``path`` say where
images are; without them, folders are found by their names. A line of labels
is ``class cx cy w h`` for a box, ``class x0 y0 x1 y1 x2 y2 ...`` for a
polygon; coordinates are fractions of the image's width and height.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmext.datasets.converters.common import (
    Labelled,
    LabelledImage,
    LabelledObject,
    clip_box,
    files_in,
    image_size,
    images_by_name,
    name_in,
    one_per_split,
    read_lines,
    split_of,
    usual_files,
)
from mmext.errors import UserError, did_you_mean
from mmext.utils import documents
from mmext.utils.images import is_image
from mmext.utils.text import count, sentences, short, some

SLACK = 0.01  # fraction of the image beyond its border: tools round
#: Text files beside labels that are not labels, in lower case.
OTHER = ('classes.txt', 'train.txt', 'val.txt', 'valid.txt', 'test.txt')
OTHER += ('readme.txt', 'readme.roboflow.txt', 'readme.dataset.txt')
LAYOUT = (
    'YOLO data have images/{train,val}/ and labels/{train,val}/, or '
    '{train,valid}/images/ and {train,valid}/labels/.'
)


@dataclass
class Description:
    """What a YAML file, or the files of Darknet, say about a data set."""

    file: Path
    names: dict[int, str]
    paths: dict[str, list[str]]  # split -> folders, images or lists of them
    path: str = ''  # what the paths are relative to
    skip: bool = False  # images without a label file are not used


def is_yolo(root: Path) -> bool:
    """Returns whether a folder looks as if it held labels of YOLO."""
    described = any(
        _read_yaml(file).keys() & {'names', 'nc'} for file in _yaml_files(root)
    )
    return (
        described
        or any(root.glob('*.names'))
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
    described = _describe(root)
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
    read, orphans, unlabelled, labelled = [], [], 0, 0
    for folder, chosen in _by_folder(sources):
        images = images_by_name(folder)
        if not images:
            raise UserError(f'{folder} has no images', LAYOUT)
        place, labels = _labels(root, folder, images)
        labelled += len(labels)
        orphans += [f'{n}.txt' for n in labels if n not in images]
        for name, image in images.items():
            if chosen and image not in chosen:
                continue
            file = labels.get(name)
            unlabelled += file is None
            if file or not described.skip:
                read.append(_read_file(file, image, described.names))
    if not labelled:
        raise UserError(
            f'{place} has no label files (for the images in {folder})', LAYOUT
        )
    if orphans:
        text = (
            f'{len(orphans)} of {count(labelled, "label file")} in {place} '
            f'have no image in {folder}: {some(orphans, 20)}'
        )
        if 2 * len(orphans) > labelled:
            raise UserError(text, 'Add the images, or remove the labels.')
        notes.append(f'{split}: {text}')
    if unlabelled:
        number = count(unlabelled, 'image')
        used = 'left out' if described.skip else 'background'
        notes.append(f'{split}: {number} without a label file: {used}')
    return read


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
    places = [root / 'labels' / folder.name, folder.parent / 'labels', folder]
    parts = [part.lower() for part in folder.parts]
    if 'images' in parts:
        at = max(i for i, part in enumerate(parts) if part == 'images')
        below = folder.parts[at + 1 :]
        above = Path(*folder.parts[:at], 'labels', *below)
        places = [above, Path(root, 'labels', *below), *places]
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
    labels = one_per_split(_folders(root / 'labels'))
    # Those of a split that has no images are reported.
    found = {s: root / 'images' / path.name for s, path in labels.items()}
    for place in (root, root / 'images'):
        folders = [p for p in _folders(place) if 'label' not in p.name.lower()]
        for split, folder in one_per_split(folders).items():
            found[split] = _images_in(folder) or folder
    return found


def _unsplit(root: Path) -> Path:
    """Returns the folder of all images."""
    if folder := _images_in(root):
        return folder
    for place in (root, *_folders(root)):
        if any(map(is_image, place.glob('*'))):
            return place
    raise UserError(f'{root / "images"} has no images', LAYOUT)


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.glob('*') if p.is_dir())


def _images_in(place: Path) -> Path | None:
    named = (p for p in _folders(place) if p.name.lower() == 'images')
    return next(named, None)


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
    raise UserError(
        f'{described.file} has {split}: {text}, and there is no '
        f'{os.path.normpath(places[0])}',
        sentences(
            did_you_mean(text, folders),
            f'{root} has images in: {some(folders) or "no folder"}.',
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
        line = line.replace('\\', '/')
        places = [file.parent / line, *_ends(root, line)]
        path = next((p for p in places if os.path.isfile(p)), None)
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


def _yaml_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return sorted([*root.glob('*.yaml'), *root.glob('*.yml')])


def _read_yaml(path: Path) -> dict[str, Any]:
    content = documents.parse_yaml(documents.read_bytes(path), path)
    return content if isinstance(content, dict) else {}


def _describe(root: Path) -> Description:
    """Reads the names of the classes, and where images are."""
    found = [d for path in _yaml_files(root) if (d := _from_yaml(path))]
    usual = [d for d in found if d.file.stem in ('data', 'dataset', 'config')]
    found = usual[:1] or found
    if len(found) > 1:
        first, second = found[0].file, found[1].file
        raise UserError(
            f'{first} and {second.name} both describe the data set',
            f'Name one: mmext convert yolo {first}',
        )
    if found:
        return found[0]
    root = root.parent if root.is_file() else root
    files = files_in(root)
    listing = [p for p in files if p.suffix == '.names']
    listing += [p for p in files if p.name == 'classes.txt']
    for path in sorted(listing, key=lambda p: len(p.parts)):
        lines = read_lines(path)
        while lines and not lines[-1]:
            lines.pop()
        if '' in lines:  # would shift the numbers of the following names
            raise UserError(
                f'{path}: line {lines.index("") + 1} is empty',
                'The line is the number of the class. Write its name.',
            )
        if lines:
            lists = [p for p in root.glob('*.txt') if p.name.lower() in OTHER]
            paths = {s: [p.name] for s, p in one_per_split(lists).items()}
            return Description(path, dict(enumerate(lines)), paths)
    raise UserError(
        f'{root} has no data.yaml with names: [...] and no classes.txt',
        'Write the class names in the order of their numbers to '
        f'{root / "classes.txt"}, one a line.',
    )


def _from_yaml(path: Path) -> Description | None:
    """Returns what a YAML file says, None if it has no names."""
    content = _read_yaml(path)
    if 'kpt_shape' in content:  # its lines would be read as polygons
        raise UserError(
            f'{path} describes keypoints (kpt_shape)',
            'Only boxes and polygons can be converted; remove the keypoints.',
        )
    names = _yaml_names(path, content.get('names'))
    if not names:
        return None
    number = content.get('nc')
    if isinstance(number, int) and number != len(names):
        raise UserError(
            f'{path} has nc: {number} and {count(len(names), "name")}: '
            f'{some(names.values(), 10)}',
            'Correct one of them.',
        )
    return Description(
        path,
        names,
        _yaml_paths(path, content),
        str(content.get('path') or ''),
        bool(content.get('skip_if_label_file_missing')),
    )


def _yaml_names(path: Path, names: object) -> dict[int, str]:
    """Returns number -> name in the order of the numbers."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    if odd := [key for key in names if type(key) is not int or key < 0]:
        raise UserError(
            f'{path}: the keys of names are {some(names, 10)}, and '
            f'{odd[0]!r} is not the number of a class',
            'Number the names from 0.',
        )
    for name in names.values():
        # null, no and off are no words in YAML.
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(
                f'{path}: a name is {short(name)}, not a word',
                'Put it in quotes.',
            )
    return {key: str(names[key]) for key in sorted(names)}


def _yaml_paths(path: Path, content: Mapping) -> dict[str, list[str]]:
    """Returns split -> the paths of its images."""
    found: dict[str, list[str]] = {}
    for key, value in content.items():
        word = str(key).rstrip('0123456789')  # not train_size
        split = split_of(word) if word.isalpha() else None
        if split in (None, 'test') or not value or split in found:
            continue
        texts = value if isinstance(value, list) else [value]
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise UserError(
                f'{path}: {split} is {short(odd[0])}, not a folder or a list '
                'of images',
                LAYOUT,
            )
        found[split] = texts
    return found


def _read_file(
    path: Path | None, image: Path, names: Mapping[int, str]
) -> LabelledImage:
    width, height = image_size(image)
    labelled = LabelledImage(image, width, height)
    for number, line in enumerate(read_lines(path) if path else [], 1):
        if line:
            labelled.objects.append(
                _read_line(line, f'{path}:{number}', names, width, height)
            )
    return labelled


def _read_line(
    line: str,
    where: str,
    names: Mapping[int, str],
    width: int,
    height: int,
) -> LabelledObject:
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
    box = clip_box(left, top, right, bottom, width, height)
    if box is None:
        raise UserError(
            f'{where}: the object has no area inside the image',
            'Correct or remove the line.',
        )
    return LabelledObject(names[label], box, polygon)
