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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmext.datasets.converters.common import (
    VAL_PART,
    WORDS,
    LabelledImage,
    LabelledObject,
    clip_box,
    drop_repeats,
    files_in,
    held_out_note,
    hold_out,
    image_size,
    images_by_name,
    one_per_split,
    read_lines,
    split_of,
)
from mmext.errors import UserError, did_you_mean
from mmext.utils.images import is_image
from mmext.utils.text import count, sentences, some

SLACK = 0.01  # fraction of the image beyond its border: tools round
#: Text files beside labels that are not labels, in lower case.
OTHER = ('classes.txt', 'train.txt', 'val.txt', 'valid.txt', 'test.txt')
OTHER += ('readme.txt', 'readme.roboflow.txt', 'readme.dataset.txt')
LAYOUT = (
    'YOLO data have images/{train,val}/ and labels/{train,val}/, or '
    '{train,valid}/images/ and {train,valid}/labels/.'
)


@dataclass
class YoloFolder:
    """A data set in YOLO's format.

    Args:
        splits: Split -> its images; an image without a label file has no
            objects.
        names: The classes in the order of their numbers.
        notes: What a user should know about how the folder was read.
    """

    splits: dict[str, list[LabelledImage]]
    names: list[str]
    notes: list[str]


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
    for file in _yaml_files(root):
        content = _read_yaml(file)
        if 'names' in content or 'nc' in content:
            return True
    if any(root.glob('*.names')):
        return True
    folders = [p for p in root.glob('*') if p.is_dir()]
    inside = [
        file
        for folder in folders
        if folder.name.lower() in ('labels', 'images') or split_of(folder.name)
        for file in files_in(folder)
    ]
    return any(
        file.suffix.lower() == '.txt' and _is_label_line(file)
        for file in (*root.glob('*.txt'), *inside)
        if file.name.lower() not in OTHER
    )


def _is_label_line(file: Path) -> bool:
    with open(file, 'rb') as stream:
        fields = stream.readline(2000).strip(b'\xef\xbb\xbf').split()
    try:
        return len([float(field) for field in fields]) >= 5
    except ValueError:
        return False


def read_yolo(root: Path, val_part: float = VAL_PART) -> YoloFolder:
    """Reads a train and a val split, and the names of the classes.

    ``root`` may also be the YAML file. If there is no validation split, a
    fraction ``val_part`` of the images is held out, always the same ones.
    Raises `UserError` if there are no images or labels, or if a file is
    damaged.
    """
    root = Path(os.path.abspath(root))
    described = _describe(root)
    root = root.parent if root.is_file() else root
    sources = _sources(root, described)
    notes: list[str] = []
    splits = {}
    for split in ('train', 'val'):
        if split in sources:
            splits[split] = _read_split(
                root, sources[split], described, split, notes
            )
    if sources['train'] == sources.get('val'):
        notes.append('the same images are used to train and to validate')
    if 'val' not in splits:
        train, val = hold_out(splits['train'], val_part)
        splits = {'train': train, 'val': val}
        notes.append(held_out_note(splits))
    for split, images in splits.items():
        folder = next((i.path.parent for i in images), root)
        if not folder.is_relative_to(root):
            notes.append(f'{split}: the images are read from {folder}')
        if text := drop_repeats(images):
            notes.append(f'{split}: {text}')
    return YoloFolder(splits, list(described.names.values()), notes)


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
        images = images_by_name(folder, files_in(folder))
        if not images:
            raise UserError(f'{folder} has no images', LAYOUT)
        labels, files = _labels(root, folder)
        # labelImg writes the class names beside the labels.
        files = {
            name: path
            for name, path in files.items()
            if name in images or path.name.lower() not in OTHER
        }
        labelled += len(files)
        orphans += [path for name, path in files.items() if name not in images]
        for name, image in images.items():
            if chosen is not None and image not in chosen:
                continue
            if name not in files:
                unlabelled += 1
                if described.skip:
                    continue
            read.append(_read_file(files.get(name), image, described.names))
    if not labelled:
        raise UserError(
            f'{labels} has no label files (for the images in {folder})', LAYOUT
        )
    if orphans:
        names = [path.relative_to(labels).as_posix() for path in orphans]
        text = (
            f'{len(orphans)} of {count(labelled, "label file")} in {labels} '
            f'have no image in {folder}: {some(names, 20)}'
        )
        if 2 * len(orphans) > labelled:
            raise UserError(text, 'Add the images, or remove the labels.')
        notes.append(f'{split}: {text}')
    if unlabelled:
        what = 'left out' if described.skip else 'background'
        notes.append(
            f'{split}: {count(unlabelled, "image")} without a label file: '
            + what
        )
    return read


def _by_folder(
    sources: Iterable[Path],
) -> Iterator[tuple[Path, set[Path] | None]]:
    """Yields folders, and which of their images are listed (None is all)."""
    listed: dict[Path, set[Path]] = {}
    for path in sources:
        if is_image(path):
            listed.setdefault(path.parent, set()).add(path)
        else:
            yield path, None
    yield from listed.items()


def _labels(root: Path, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Finds the label files of the images in a folder.

    As for Ultralytics, they are where ``images`` is replaced by ``labels`` in
    the path, or beside the images. Returns the folder and name -> file.
    """
    places = []
    parts = folder.parts
    at = [i for i, part in enumerate(parts) if part.lower() == 'images']
    if at:
        rest = parts[at[-1] + 1 :]
        places = [
            Path(*parts[: at[-1]], 'labels', *rest),
            Path(root, 'labels', *rest),
        ]
    places += [root / 'labels' / folder.name, folder.parent / 'labels', folder]
    for place in places:
        files = {
            p.relative_to(place).with_suffix('').as_posix(): p
            for p in files_in(place)
            if p.suffix.lower() == '.txt'
        }
        if any(p.name.lower() not in OTHER for p in files.values()):
            return place, files
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
    found = {}
    for place in (root / 'images', root):
        folders = [
            p
            for p in place.glob('*')
            if p.is_dir() and 'label' not in p.name.lower()
        ]
        for split, folder in one_per_split(folders).items():
            inside = next(
                (p for p in folder.glob('*') if p.name.lower() == 'images'),
                folder,
            )
            found.setdefault(split, inside)
    labels = [p for p in (root / 'labels').glob('*') if p.is_dir()]
    for split, folder in one_per_split(labels).items():
        # Labels of a split that has no images, which is reported.
        found.setdefault(split, root / 'images' / folder.name)
    return found


def _unsplit(root: Path) -> Path:
    """Returns the folder of all images."""
    for place in root.glob('*'):
        if place.name.lower() == 'images' and place.is_dir():
            return place
    for place in (root, *sorted(p for p in root.glob('*') if p.is_dir())):
        if any(map(is_image, place.glob('*'))):
            return place
    raise UserError(f'{root / "images"} has no images', LAYOUT)


def _resolve(
    root: Path, described: Description, split: str, text: str
) -> list[Path]:
    """Returns the folder that a text names, or the images of a list.

    Exporters write paths that were right on another machine
    (``/content/data/train/images``), or one folder too high
    (``../train/images``), so that the end of the path counts if the path is
    not in the data set.
    """
    text = text.replace('\\', '/')
    parts = [p for p in Path(text).parts if p not in ('..', '.', '/')]
    ends = ['/'.join(parts[i:]) for i in range(max(len(parts) - 1, 1))]
    start = Path(described.file.parent, described.path)
    places = [
        *([] if text.startswith('../') else [start / text]),
        described.file.parent / text.removeprefix('../'),
        *(root / end for end in ends),
        start / text,
        *(root.parent / end for end in ends[:1]),  # shared by several sets
    ]
    for place in places:
        path = _follow(Path(os.path.normpath(place)))
        if path.is_dir():
            return [path]
        if path.is_file() and path.suffix.lower() == '.txt':
            return _listed(root, path)
        if path.is_file() and is_image(path):
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


def _follow(path: Path) -> Path:
    """Follows a link that Git or an archive has written as a text file."""
    for part in path.parents:
        if part.is_file() and part.stat().st_size < 1000:
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
        parts = [p for p in Path(line).parts if p not in ('..', '.', '/')]
        places = [file.parent / line, root / line] + [
            root.joinpath(*parts[i:]) for i in range(len(parts))
        ]
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            missing.append(line)
        else:
            found.append(Path(os.path.normpath(path)))
    if missing or not found:
        raise UserError(
            f'{file} lists {count(len(missing), "image")} that '
            f'{"does" if len(missing) == 1 else "do"} not exist: '
            f'{some(missing, 10)}'
            if missing
            else f'{file} lists no images',
            f'Paths are relative to {file.parent}.',
        )
    return found


def _yaml_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return sorted([*root.glob('*.yaml'), *root.glob('*.yml')])


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise UserError(
            f'{path} is not YAML: {error}', 'Correct the file.'
        ) from error
    return content if isinstance(content, dict) else {}


def _describe(root: Path) -> Description:
    """Reads the names of the classes, and where images are."""
    found = []
    for path in _yaml_files(root):
        content = _read_yaml(path)
        if 'kpt_shape' in content:  # its lines would be read as polygons
            raise UserError(
                f'{path} describes keypoints (kpt_shape)',
                'Only boxes and polygons can be converted; remove the '
                'keypoints.',
            )
        names = _yaml_names(path, content.get('names'))
        if names:
            _check_number(path, content.get('nc'), names)
            skip = bool(content.get('skip_if_label_file_missing'))
            start = str(content.get('path') or '')
            paths = _yaml_paths(path, content)
            found.append(Description(path, names, paths, start, skip))
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
    for path in _name_files(root):
        lines = read_lines(path)
        while lines and not lines[-1]:
            lines.pop()
        if '' in lines:  # would shift the numbers of the following names
            raise UserError(
                f'{path}: line {lines.index("") + 1} is empty',
                'The line is the number of the class. Write its name.',
            )
        if names := lines:
            lists = one_per_split(
                p for p in root.glob('*.txt') if p.name.lower() in OTHER
            )
            paths = {s: [p.name] for s, p in lists.items() if s in WORDS}
            return Description(path, dict(enumerate(names)), paths)
    raise UserError(
        f'{root} has no data.yaml with names: [...] and no classes.txt',
        'Write the class names in the order of their numbers to '
        f'{root / "classes.txt"}, one a line.',
    )


def _name_files(root: Path) -> list[Path]:
    """Returns the text files that may list the classes."""
    folders = [root, root / 'labels', root / 'images']
    folders += [root / s / k for s in WORDS for k in ('', 'labels')]
    folders += [root / 'labels' / s for s in WORDS]
    return [
        path
        for folder in folders
        for path in [*sorted(folder.glob('*.names')), folder / 'classes.txt']
        if path.is_file()
    ]


def _yaml_names(path: Path, names: object) -> dict[int, str]:
    """Returns number -> name in the order of the numbers."""
    if isinstance(names, dict):
        if odd := [key for key in names if type(key) is not int or key < 0]:
            raise UserError(
                f'{path}: the keys of names are {some(names, 10)}, and '
                f'{odd[0]!r} is not the number of a class',
                'Number the names from 0.',
            )
        names = {key: names[key] for key in sorted(names)}
    elif isinstance(names, list):
        names = dict(enumerate(names))
    else:
        return {}
    # YAML reads no, off and null as False and None.
    for name in names.values():
        if type(name) in (bool, type(None)):
            raise UserError(
                f'{path}: a name is {name!r}, not a word', 'Put it in quotes.'
            )
    return {key: str(name) for key, name in names.items()}


def _check_number(path: Path, number: object, names: dict[int, str]) -> None:
    if isinstance(number, int) and number != len(names):
        raise UserError(
            f'{path} has nc: {number} and {count(len(names), "name")}: '
            f'{some(names.values(), 10)}',
            'Correct one of them.',
        )


def _yaml_paths(path: Path, content: Mapping) -> dict[str, list[str]]:
    """Returns split -> the paths of its images."""
    found: dict[str, list[str]] = {}
    for key, value in content.items():
        split = split_of(key) if isinstance(key, str) else None
        if split in (None, 'test') or not value or split in found:
            continue
        texts = value if isinstance(value, list) else [value]
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise UserError(
                f'{path}: {split} is {odd[0]!r}, not a folder or a list of '
                'images',
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
