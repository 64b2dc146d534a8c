# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every export of the same data is read as the same objects."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from unicodedata import normalize
from zlib import crc32

import pytest
from commands import run_tool
from json_files import edit_json
from PIL import Image

from mmext.checks.data import check_data
from mmext.checks.layouts import CocoFolder, find_coco_folder
from mmext.cli import main
from mmext.datasets.converters.folder import (
    convert_folder,
    format_of,
    read_folder,
)
from mmext.datasets.converters.voc import read_voc
from mmext.datasets.converters.yolo import read_yolo
from mmext.errors import UserError

NAMES = ('square', 'unused', 'disc')
NAMES_LINE = f'names: [{", ".join(NAMES)}]\n'
WIDTH, HEIGHT = 200, 100
#: Image -> its objects: class, x, y, width, height.
DATA = {
    'train': {
        'a': [(0, 10, 20, 40, 30)],
        'b': [(2, 100, 50, 60, 40), (0, 0, 0, 20, 10)],
        'c': [],
    },
    'val': {'a': [(2, 30, 10, 50, 60)], 'd': [(0, 8, 8, 16, 32)]},
}
#: Split -> its name in an export.
SAME = {'train': 'train', 'val': 'val'}
ROBOFLOW = {'train': 'train', 'val': 'valid'}
CVAT = {'train': 'Train', 'val': 'Validation'}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(text, str):
        text = json.dumps(text)
    path.write_text(text, encoding='utf-8')


def write_image(path: Path) -> None:
    """An image that differs from those of other names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = crc32(f'{path.parent.name}/{path.name}'.encode()) % 2**24
    Image.new('RGB', (WIDTH, HEIGHT), color).save(path)


def label(objects: list[tuple]) -> str:
    lines = [
        f'{c} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} '
        f'{h / HEIGHT}'
        for c, x, y, w, h in objects
    ]
    return '\n'.join(lines)


def xml(objects: list[tuple]) -> str:
    nodes = ''.join(
        f'<object><name>{NAMES[c]}</name><bndbox><xmin>{x + 1}</xmin>'
        f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>'
        '</bndbox></object>'
        for c, x, y, w, h in objects
    )
    return f'<annotation>{nodes}</annotation>'


def coco(split: str, prefix: str = '') -> dict:
    ids = count(1)
    size = {'width': WIDTH, 'height': HEIGHT}
    return {
        'images': [
            {'id': i, 'file_name': f'{prefix}{name}.png', **size}
            for i, name in enumerate(DATA[split])
        ],
        'annotations': [
            {
                'id': next(ids),
                'image_id': i,
                'category_id': c,
                'bbox': box,
                'area': box[2] * box[3],
                'iscrowd': 0,
            }
            for i, objects in enumerate(DATA[split].values())
            for c, *box in objects
        ],
        'categories': [{'id': i, 'name': n} for i, n in enumerate(NAMES)],
    }


def write_files(
    root: Path,
    images: str,
    labels: str,
    splits: dict[str, str] = SAME,
    text: Callable[[list[tuple]], str] = label,
) -> None:
    """Writes images and their labels into folders; ``{}`` is the split."""
    for split, name in splits.items():
        for image, objects in DATA[split].items():
            file = f'{image}.xml' if text is xml else f'{image}.txt'
            write_image(root / images.format(name) / f'{image}.png')
            write(root / labels.format(name) / file, text(objects))


def write_coco(
    root: Path, images: str, file: str, splits: dict[str, str], prefix=''
) -> None:
    for split, name in splits.items():
        for image in DATA[split]:
            write_image(root / images.format(name) / f'{image}.png')
        write(root / file.format(name), coco(split, prefix.format(name)))


write_voc = partial(write_files, text=xml)


def write_lists(root: Path, folder: str, splits: dict[str, str]) -> None:
    """Lists of images, as Darknet and CVAT write them."""
    for split, name in splits.items():
        lines = [f'{folder.format(name)}/{image}.png' for image in DATA[split]]
        write(root / f'{name}.txt', '\n'.join(lines))


def ultralytics(root: Path) -> None:
    write_files(root, 'images/{}2017', 'labels/{}2017')
    names = ''.join(f'  {i}: {n}\n' for i, n in enumerate(NAMES))
    paths = 'path: .\ntrain: images/train2017\nval: images/val2017\n'
    write(root / 'config.yaml', f'{paths}train_size: 3\nnames:\n{names}')


def cvat_ultralytics(root: Path) -> None:
    write_files(root, 'images/{}', 'labels/{}', CVAT)
    write_lists(root, 'data/images/{}', CVAT)
    keys = 'Train: Train.txt\nValidation: Validation.txt\npath: .\n'
    write(root / 'data.yaml', keys + NAMES_LINE)


def roboflow_yolo(root: Path) -> None:
    write_files(root, '{}/images', '{}/labels', ROBOFLOW)
    paths = 'train: ../train/images\nval: ../valid/images\n'
    write(root / 'data.yaml', f'{paths}nc: 3\n{NAMES_LINE}')


def colab(root: Path) -> None:
    write_files(root, '{}/images', '{}/labels', ROBOFLOW)
    paths = 'train: /content/x/train/images\nval: /content/x/valid/images\n'
    write(root / 'my data.yml', paths + NAMES_LINE)


def cvat_yolo(root: Path) -> None:
    """YOLO 1.1, as Darknet reads it."""
    write_files(root, 'obj_{}_data', 'obj_{}_data', ROBOFLOW)
    write_lists(root, 'data/obj_{}_data', ROBOFLOW)
    write(root / 'obj.names', '\n'.join(NAMES) + '\n')


def cvat_subsets(root: Path) -> None:
    """YOLO 1.1 of a task whose subsets are not named as Darknet's."""
    write_files(root, 'obj_{}_data', 'obj_{}_data', CVAT)
    write_lists(root, 'data/obj_{}_data', CVAT)
    write(root / 'obj.names', '\n'.join(NAMES) + '\n')


def upper_case(root: Path) -> None:
    splits = {'train': 'Train', 'val': 'VALID'}
    write_files(root, '{}/Images', '{}/Labels', splits)
    names = {str(i): name for i, name in enumerate(NAMES)}
    write(root / 'Data.YAML', {'names': names})


def linked(root: Path) -> None:
    """A link to a folder outside, which Git has written as a text file."""
    write_files(root, '../pictures/{}', 'labels/{}')
    write(root / 'images', '../pictures')
    paths = 'train: images/train\nval: images/val\n'
    write(root / 'config.yaml', paths + NAMES_LINE)


def really_linked(root: Path) -> None:
    linked(root)
    (root / 'images').unlink()
    os.symlink(root.parent / 'pictures', root / 'images')


def beside_yolo(root: Path) -> None:
    write_files(root, '{}', '{}')
    write(root / 'classes.txt', '\n'.join(NAMES))


def cvat_voc(root: Path) -> None:
    write_voc(root, 'JPEGImages/{}', 'Annotations/{}', CVAT)
    for split, name in CVAT.items():
        lines = [f'{name}/{image}' for image in DATA[split]]
        write(root / f'ImageSets/Main/{name}.txt', '\n'.join(lines))


def voc_lists(root: Path, folder: str, line: str) -> None:
    write_voc(root, 'JPEGImages/{}', 'Annotations/{}')
    for split, images in DATA.items():
        lines = [line.format(f'{split}/{name}') for name in images]
        write(root / folder / f'{split}.txt', '\n'.join(lines))
    for split in DATA:  # names that do not give the split
        for place in ('JPEGImages', 'Annotations'):
            (root / place / split).rename(root / place / f'of {split}')
        file = root / folder / f'{split}.txt'
        write(file, file.read_text().replace(f'{split}/', f'of {split}/'))


def roboflow_coco(root: Path) -> None:
    write_coco(root, '{}', '{}/_annotations.coco.json', ROBOFLOW)


def cvat_coco(root: Path) -> None:
    write_coco(root, 'images/{}', 'annotations/instances_{}.json', CVAT)


def cvat_keypoints(root: Path) -> None:
    file = 'annotations/person_keypoints_{}.JSON'
    write_coco(root, 'images/{}', file, CVAT)


def fiftyone(root: Path) -> None:
    splits = {'train': 'train', 'val': 'validation'}
    write_coco(root, '{}/data', '{}/labels.json', splits)


def prefixed_coco(root: Path) -> None:
    write_coco(root, '{}', '{}.json', SAME, prefix='{}/')


def absolute_coco(root: Path) -> None:
    write_coco(root, '{}', '{}.json', SAME, prefix=f'{root}/{{}}/')


roboflow_voc = partial(write_voc, images='{}', labels='{}', splits=ROBOFLOW)
labelimg = partial(write_voc, images='images/{}', labels='images/{}')
fiftyone_voc = partial(write_voc, images='data/{}', labels='labels/{}')
lists_of_files = partial(voc_lists, folder='ImageSets', line='{}.png')
paddle_lists = partial(
    voc_lists,
    folder='',
    line='./JPEGImages/{0}.png ./Annotations/{0}.xml',
)
YOLO = [ultralytics, roboflow_yolo, colab, cvat_yolo, cvat_ultralytics]
YOLO += [linked, really_linked, beside_yolo, cvat_subsets, upper_case]
COCO = [roboflow_coco, cvat_coco, fiftyone, prefixed_coco, absolute_coco]
COCO += [cvat_keypoints]
VOC = [roboflow_voc, cvat_voc, labelimg, fiftyone_voc, lists_of_files]
VOC += [paddle_lists]


def objects_of(file: str | Path) -> dict[str, list[tuple]]:
    """Returns image -> its objects by class name, from an annotation file."""
    content = json.loads(Path(file).read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    return {
        Path(image['file_name']).stem: sorted(
            (names[a['category_id']], *a['bbox'])
            for a in content['annotations']
            if a['image_id'] == image['id']
        )
        for image in content['images']
    }


def require_data(root: Path) -> CocoFolder:
    """Requires the images and objects of ``DATA``."""
    folder = find_coco_folder(root)
    for split, images in DATA.items():
        assert objects_of(folder.ann_files[split]) == {
            name: sorted((NAMES[c], *box) for c, *box in objects)
            for name, objects in images.items()
        }
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / 'data'
    folder.mkdir()
    return folder


@pytest.mark.parametrize('make', [*YOLO, *COCO, *VOC])
def test_exports(root, tmp_path, make: Callable[[Path], None]):
    """In check_data, for --data, and by mmext convert."""
    make(root)
    kind = 'yolo' if make in YOLO else 'coco' if make in COCO else 'voc'
    assert format_of(root) == kind
    before = sorted(root.rglob('*'))
    assert check_data(root, workers=1).errors == ()
    folder = require_data(root)
    assert sorted(root.rglob('*')) == before  # nothing is written into it
    assert folder.classes == (('disc', 'square') if kind == 'voc' else NAMES)
    convert_folder(root, out=tmp_path / 'out')
    assert require_data(tmp_path / 'out').classes == folder.classes


@pytest.mark.parametrize('make', [*YOLO, *COCO, *VOC])
def test_files_that_macos_and_jupyter_add(root, make):
    make(root)
    for path in sorted(root.rglob('*')):
        if path.is_file():
            binary = b'\0\5\x16\x07\0\2\0\0Mac OS X\xff'
            inside = root / '__MACOSX' / path.relative_to(root)
            for folder in (path.parent, inside.parent):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f'._{path.name}').write_bytes(binary)
    (root / '.ipynb_checkpoints').mkdir()
    write_image(root / '.ipynb_checkpoints/a.png')
    write(root / '.ipynb_checkpoints/data.yaml', 'names: [a]')
    require_data(root)


@pytest.mark.parametrize('make', [ultralytics, cvat_yolo, cvat_voc, labelimg])
@pytest.mark.parametrize('suffixes', [('.png',), ('.txt', '.xml')])
def test_accents_in_another_encoding(root, make, suffixes, monkeypatch):
    """macOS writes letters with accents as two characters."""
    names = {'a': 'K\u00fche', 'd': '\u00e9'}
    data = {
        split: {names.get(n, n): objects for n, objects in images.items()}
        for split, images in DATA.items()
    }
    monkeypatch.setattr('test_export_formats.DATA', data)
    make(root)
    lists = [*CVAT.values(), *ROBOFLOW.values()]
    for path in [p for p in root.rglob('*.*') if p.stem not in lists]:
        if path.suffix in suffixes:
            path.rename(path.with_name(normalize('NFD', path.name)))
    folder = find_coco_folder(root)
    found = {s: objects_of(folder.ann_files[s]) for s in SAME}
    assert {s: sum(map(len, x.values())) for s, x in found.items()} == {
        'train': 3,
        'val': 2,
    }


def ten_images(root: Path, labels: str, text: str) -> None:
    for i in range(10):
        write_image(root / f'images/{i}.png')
        if labels:
            write(root / labels.format(i), text)


def label_studio_yolo(root: Path) -> None:
    ten_images(root, 'labels/{}.txt', label(DATA['train']['a']))
    write(root / 'classes.txt', '\n'.join(NAMES))
    write(root / 'notes.json', {'categories': [], 'info': {}})


def label_studio_coco(root: Path) -> None:
    ten_images(root, '', '')
    content = coco('train')
    for key in ('images', 'annotations'):
        content[key] = [{**content[key][0], 'id': i} for i in range(10)]
    for i in range(10):
        content['images'][i]['file_name'] = f'images/{i}.png'
        content['annotations'][i]['image_id'] = i
    write(root / 'result.json', content)


def label_studio_on_windows(root: Path) -> None:
    label_studio_coco(root)

    def change(content: dict) -> None:
        for image in content['images']:
            image['file_name'] = image['file_name'].replace('/', '\\')

    edit_json(root / 'result.json', change)


def label_studio_voc(root: Path) -> None:
    ten_images(root, 'Annotations/{}.xml', xml(DATA['train']['a']))


@pytest.mark.parametrize(
    'make',
    [
        label_studio_yolo,
        label_studio_coco,
        label_studio_on_windows,
        label_studio_voc,
    ],
)
def test_images_are_held_out(root, make, capsys):
    make(root)
    assert find_coco_folder(root).num_images == {'train': 8, 'val': 2}
    assert '2 of 10 images are held out' in capsys.readouterr().out
    kind = format_of(root)
    assert read_folder(root, kind) == read_folder(root, kind)
    convert_folder(root, val_part=0.4)
    folder = find_coco_folder(root)
    assert folder.num_images == {'train': 6, 'val': 4}
    names = [set(objects_of(file)) for file in folder.ann_files.values()]
    assert names[0] | names[1] == {str(i) for i in range(10)}


def test_images_in_folders_and_xml_files_in_one(root):
    """The folder test/ is not used for validation."""
    write_voc(root, 'Images/{}', 'xmls', {'train': 'train'})
    (root / 'Images/train/a.png').rename(root / 'Images/train/e.png')
    (root / 'xmls/a.xml').rename(root / 'xmls/e.xml')
    write_voc(root, 'Images/{}', 'xmls', {'val': 'test'})
    contents = read_folder(root, 'voc').contents
    names = [[i['file_name'] for i in c['images']] for c in contents.values()]
    assert [len(n) for n in names] == [2, 1]
    assert {Path(n).stem for n in sum(names, [])} == {*'bce'}
    (root / 'Images/train').rename(root / 'Images/cows')
    assert len(read_voc(root).splits['train']) == 3


def test_the_images_of_a_test_list_are_not_trained_on(root):
    """VOC's trainval.txt and test.txt, without train.txt."""
    label_studio_voc(root)
    names = [str(i) for i in range(10)]
    write(root / 'ImageSets/Main/trainval.txt', '\n'.join(names[:6]))
    write(root / 'ImageSets/Main/test.txt', '\n'.join(names[6:]))
    contents = read_folder(root, 'voc').contents.values()
    files = [i['file_name'] for c in contents for i in c['images']]
    assert sorted(Path(f).stem for f in files) == names[:6]


def test_other_text_files_beside_voc_folders(root):
    label_studio_voc(root)
    write(root / 'test.txt', 'Images of 2024.\n')
    (root / 'README.txt').write_bytes(b'\xff')
    assert len(read_voc(root).splits['train']) == 10


@pytest.mark.parametrize('make', [roboflow_yolo, roboflow_voc])
def test_objects_beyond_their_image_are_counted(root, make):
    make(root)
    file = next(root.glob('train/**/a.[tx]*'))
    beyond = [(0, 100, 20, 150, 30), (0, 0, 0, WIDTH, HEIGHT)]
    write(file, xml(beyond) if file.suffix == '.xml' else label(beyond))
    (note,) = read_folder(root, format_of(root)).notes
    assert note.startswith('train: 1 of 4 objects reach beyond their image')
    assert 'a.png' in note


def test_one_annotation_file_is_split(root):
    """CVAT's instances_default.json, the annotations of each image kept."""
    label_studio_coco(root)
    (root / 'annotations').mkdir()
    file = root / 'annotations/instances_default.json'
    (root / 'result.json').rename(file)
    lines = convert_folder(root)
    assert '2 of 10 images' in lines[1]
    both = {}
    for split in ('train', 'val'):
        both |= objects_of(root / f'annotations/instances_{split}.json')
    assert both == objects_of(file)


def test_the_command_finds_the_format(root, monkeypatch, capsys):
    roboflow_yolo(root)
    monkeypatch.setattr(sys, 'argv', [])
    command = ['convert', str(root)]
    main(command)
    out = capsys.readouterr().out
    assert 'YOLO annotations' in out
    assert 'instances_val.json: 2 images, 2 objects, 3 classes' in out
    # The folder has COCO annotations now; its labels are converted again.
    main(command)
    assert 'YOLO annotations' in capsys.readouterr().out
    write(root / 'annotations/instances_val.json', coco('val'))
    with pytest.raises(SystemExit):
        main(command)
    assert 'mmext did not write it' in capsys.readouterr().err


def test_changed_labels_are_reported(root, capsys):
    roboflow_yolo(root)
    convert_folder(root)
    find_coco_folder(root)
    assert 'warning' not in capsys.readouterr().out
    later = (root / 'annotations/instances_train.json').stat().st_mtime + 5
    os.utime(root / 'train/labels/a.txt', (later, later))
    find_coco_folder(root)
    assert 'a.txt is newer than' in capsys.readouterr().out


def test_coco_annotations_are_converted_again(root, capsys):
    """As those of YOLO and VOC, if they were exported again."""
    label_studio_coco(root)
    convert_folder(root)
    capsys.readouterr()
    find_coco_folder(root)
    assert capsys.readouterr().out == ''

    def remove(content: dict) -> None:
        del content['annotations'][:5]

    edit_json(root / 'result.json', remove)
    os.utime(root / 'result.json', (2e9, 2e9))
    find_coco_folder(root)
    assert 'result.json is newer than' in capsys.readouterr().out
    lines = convert_folder(root)
    ends = [line.partition('images, ')[2] for line in lines[2:]]
    number = [int(end.split()[0]) for end in ends]
    assert sum(number) == 5
    (root / 'result.json').unlink()
    assert convert_folder(root)[1] == 'There is nothing to convert.'


def test_a_run_keeps_its_annotations(root):
    """Other labels become other files."""
    roboflow_yolo(root)
    first = find_coco_folder(root).ann_files['train']
    write(root / 'train/labels/a.txt', '')
    second = find_coco_folder(root).ann_files['train']
    assert objects_of(first)['a'] and not objects_of(second)['a']


def test_a_yaml_file_may_be_given(root):
    roboflow_yolo(root)
    write(root / 'other.yaml', 'names: [x, y, z]\ntrain: train/images')
    (root / 'data.yaml').rename(root / 'mine.yaml')
    with pytest.raises(UserError, match='mine.yaml and other.yaml both'):
        find_coco_folder(root)
    assert find_coco_folder(root / 'mine.yaml').classes == NAMES


def test_names_with_gaps(root):
    """As COCO's official ids; the numbers of labels are those of the file."""
    write_files(root, 'images/{}', 'labels/{}')
    write(root / 'd.yaml', 'names: {0: square, 2: disc, 7: ring}')
    assert require_data(root).classes == ('square', 'disc', 'ring')


def test_images_without_labels_may_be_left_out(root):
    ultralytics(root)
    (root / 'labels/train2017/c.txt').unlink()
    assert find_coco_folder(root).num_images['train'] == 3
    file = root / 'config.yaml'
    file.write_text(f'skip_if_label_file_missing: true\n{file.read_text()}')
    assert find_coco_folder(root).num_images['train'] == 2


def test_labels_of_an_image_with_the_name_of_a_list(root):
    """train.txt beside labels may list images, or be the labels of one."""
    beside_yolo(root)
    write(root / 'train/classes.txt', '\n'.join(NAMES))
    assert len(read_yolo(root).splits['train']) == 3
    write_image(root / 'train/test.png')
    write(root / 'train/test.txt', label([(1, 0, 0, 50, 50)]))
    found = read_yolo(root)
    assert found.notes == []
    assert found.splits['train'][-1].objects[0].name == 'unused'


@pytest.mark.parametrize(
    ('make', 'file', 'text', 'number'),
    [
        (roboflow_yolo, 'b.txt', label(2 * DATA['train']['b']), '2 objects'),
        (roboflow_voc, 'a.xml', xml(2 * DATA['train']['a']), '1 object'),
    ],
)
def test_objects_that_are_repeated(root, make, file, text, number):
    make(root)
    (path,) = root.glob(f'train/**/{file}')
    write(path, text)
    require_data(root)
    (note,) = read_folder(root, format_of(root)).notes
    assert note.startswith(f'train: {number} listed twice')
    assert path.with_suffix('.png').name in note


def test_folders_of_voc_by_option(root, capsys):
    write_voc(root, 'photos of {}', 'boxes', {'train': 'cows'})
    with pytest.raises(
        UserError, match='XML files in boxes.*\n.*--annotations boxes'
    ):
        format_of(root)
    options = ['--annotations', 'boxes', '--images', 'photos of cows']
    assert run_tool('dataset_converters/voc2coco.py', root, *options) == 0
    assert 'instances_val.json: 1 image,' in capsys.readouterr().out
    with pytest.raises(UserError, match="--images photos: .*\n.*'photos of"):
        read_voc(root, annotations='boxes', images='photos')


def test_the_category_that_roboflow_adds(root):
    """Its id is 0, and it would be a class that cannot be learned."""
    roboflow_coco(root)

    def add(content: dict) -> None:
        for category in content['categories']:
            category.update(id=category['id'] + 1, supercategory='things')
        for annotation in content['annotations']:
            annotation['category_id'] += 1
        root_category = {'id': 0, 'name': 'things', 'supercategory': 'none'}
        content['categories'].insert(0, root_category)

    for name in ('train', 'valid'):
        edit_json(root / name / '_annotations.coco.json', add)
    assert find_coco_folder(root).classes == NAMES
    assert check_data(root, workers=1).errors == ()


@pytest.mark.parametrize(
    ('make', 'file', 'text', 'message'),
    [
        (
            roboflow_yolo,
            'data.yaml',
            'train: {images: a}\nnames: [a]',
            'train is .*, not a folder',
        ),
        (
            roboflow_yolo,
            'train/labels/a.txt',
            '0.5 .5 .5 .5 .5',
            "a.txt:1: '0.5 .5 .5 .5 .5' is not a class number",
        ),
        (
            label_studio_coco,
            'result.json',
            '{"images": [',
            'result.json is not JSON',
        ),
        (
            fiftyone,
            'train/labels.json',
            None,
            'annotations to validate .* and none to train',
        ),
        (
            id,
            'test.json',
            coco('val'),
            r'to .* test \(test.json\) and none to',
        ),
        (
            id,
            'annotations/panoptic_train2017.json',
            {},
            'has no boxes of objects: panoptic annotations',
        ),
        (
            label_studio_coco,
            'result.json',
            coco('train'),
            r'no image of .* \(images/, data/\): a.png.*\n.*data/images\.',
        ),
        (
            labelimg,
            'images/train/a.png',
            None,
            '1 of 5 XML files .*: images/train/a.xml',
        ),
        (
            roboflow_yolo,
            'data.yaml',
            'names: [{name: cat}]',
            "a name is {'name': 'cat'}, not a word",
        ),
        (
            roboflow_yolo,
            'data.yaml',
            'names: cat',
            "data.yaml: names is 'cat', not a list",
        ),
        (
            roboflow_yolo,
            'data.yaml',
            'val: valid/pictures\n' + NAMES_LINE,
            r'no .*/valid/pictures\n.*train/images.*Remove val to hold out',
        ),
        (
            roboflow_yolo,
            'train/labels/a.txt',
            '0 .5 .5 .2 .2 .5 .5 2 .6 .6 0 .6 .5 1 0 0 0',
            'a.txt:1: the line seems to be a box and 4 keypoints',
        ),
        (
            label_studio_voc,
            'Annotations/0.xml',
            '<annotation>',
            '0.xml is not XML',
        ),
        (
            partial(ten_images, labels='Annotations/{}.xml', text=xml([])),
            'notes.txt',
            '',
            'no XML file in .*Annotations has an object',
        ),
        (
            beside_yolo,
            'val/classes.txt',
            'disc\nsquare',
            'classes.txt and .*val/classes.txt number the classes differently',
        ),
        (
            roboflow_yolo,
            'train/labels/classes.txt',
            'disc\nunused\nsquare',
            'data.yaml and .*classes.txt number the classes differently: sq',
        ),
        (
            roboflow_yolo,
            'dataset.yaml',
            'names: [a]',
            'data.yaml and dataset.yaml both describe the data set',
        ),
        (id, 'a.json', {'shapes': []}, '1 JSON file of LabelMe, whose own'),
        (id, 'x/a.json', {'a': {'regions': {}}}, '1 JSON file of VIA'),
        (id, 'ds/ann/a.json', {'objects': []}, '1 JSON file of Supervisely'),
        (
            lambda root: write_image(root / 'a.png'),
            'notes.txt',
            '',
            'it holds a.png, notes.txt and 1 image\n',
        ),
    ],
)
def test_damaged_exports(root, make, file, text, message):
    make(root)
    if text is None:
        (root / file).unlink()
    else:
        write(root / file, text)
    with pytest.raises(UserError, match=message):
        find_coco_folder(root)


@pytest.mark.parametrize(
    ('make', 'text', 'message'),
    [
        (label_studio_yolo, '7 .5 .5 .2 .2', 'class 7, and there are 3 names'),
        (label_studio_voc, '', 'is not XML'),
    ],
)
def test_all_files_with_an_error_are_named(root, make, text, message):
    make(root)
    folder = next(p.parent for p in root.rglob('3.[tx]*'))
    for i in (3, 5, 8):
        write(next(folder.glob(f'{i}.*')), text)
    with pytest.raises(UserError, match=message) as error:
        read_folder(root, format_of(root))
    assert '2 more images or their annotations cannot be used: 5.png, 8' in (
        str(error.value)
    )


def test_images_of_other_formats_are_named(root):
    roboflow_yolo(root)
    (root / 'train/images/b.png').rename(root / 'train/images/b.avif')
    (note,) = read_folder(root, 'yolo').notes
    assert note.endswith('b.txt; .avif files are not read as images')
    for path in (root / 'valid/images').iterdir():
        path.rename(path.with_suffix('.gif'))
    with pytest.raises(UserError, match='has no images; .gif files are not'):
        read_folder(root, 'yolo')


def test_two_folders_of_a_split(root):
    """The labels without an image are in the first one."""
    write_files(root, 'images/{}', 'labels/{}')
    write(root / 'labels/train/x.txt', label([]))
    paths = 'train: [images/train, images/val]\nval: images/val\n'
    write(root / 'data.yaml', paths + NAMES_LINE)
    found = read_yolo(root)
    assert [len(images) for images in found.splits.values()] == [5, 2]
    assert '1 of 6 label files' in found.notes[0]
    assert found.notes[0].endswith('x.txt')
    paths = 'train: [images, images/train]\nval: images/val\n'
    write(root / 'data.yaml', paths + NAMES_LINE)
    assert len(read_yolo(root).splits['train']) == 5


def test_nothing_to_convert(root):
    write_coco(root, '{}', 'annotations/instances_{}.json', SAME)
    assert convert_folder(root)[1] == 'There is nothing to convert.'


@pytest.mark.parametrize('name', ['gone.png', '../../../outside.png'])
def test_images_that_cannot_be_copied(root, tmp_path, name):
    write_coco(root, '{}', 'annotations/instances_{}.json', SAME)
    write_image(tmp_path.parent / 'outside.png')
    edit_json(
        root / 'annotations/instances_val.json',
        lambda c: c['images'][0].update(file_name=name),
    )
    with pytest.raises(UserError, match=f'1 of 5 images .* val/{name}'):
        convert_folder(root, out=tmp_path / 'deep/out')
    assert not (tmp_path / 'deep').exists()


def test_coco128(shared):
    """Real files: a link as text, labels without images, a config.yaml."""
    data = shared('data/coco128')
    found = find_coco_folder(data / 'object_detection')
    assert found.num_images == {'train': 128, 'val': 128}
    assert len(found.classes) == 80
    found = find_coco_folder(data / 'instance_segmentation', masks=True)
    assert found.num_images == {'train': 100, 'val': 100}
    with pytest.raises(UserError, match='Give one of these: .*object_detect'):
        find_coco_folder(data)
