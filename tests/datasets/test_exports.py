# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every export of the same data is read as the same objects."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmext.checks.data import check_data
from mmext.checks.layouts import find_coco_folder
from mmext.cli import main
from mmext.datasets.converters.folder import convert_folder, format_of
from mmext.datasets.converters.voc import read_voc
from mmext.datasets.converters.yolo import read_yolo
from mmext.errors import UserError

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'
NAMES = ('square', 'unused', 'disc')
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
    color = tuple(hash_of(str(path.parent.name) + path.name))
    Image.new('RGB', (WIDTH, HEIGHT), color).save(path)


def hash_of(text: str) -> bytes:
    return bytes((sum(text.encode()) * k) % 256 for k in (3, 5, 7))


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
    images, annotations = [], []
    for i, (name, objects) in enumerate(DATA[split].items()):
        images.append(
            {
                'id': i,
                'file_name': f'{prefix}{name}.png',
                'width': WIDTH,
                'height': HEIGHT,
            }
        )
        annotations += [
            {
                'id': 10 * i + k + 1,
                'image_id': i,
                'category_id': c,
                'bbox': box,
                'area': box[2] * box[3],
                'iscrowd': 0,
            }
            for k, (c, *box) in enumerate(objects)
        ]
    categories = [{'id': i, 'name': name} for i, name in enumerate(NAMES)]
    return {
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def write_yolo(
    root: Path, images: str, labels: str, splits: dict[str, str] | None = None
) -> None:
    """Writes images and labels into folders; ``{}`` is the split."""
    for split, name in (splits or {'train': 'train', 'val': 'val'}).items():
        for image, objects in DATA[split].items():
            write_image(root / images.format(name) / f'{image}.png')
            write(root / labels.format(name) / f'{image}.txt', label(objects))


def listed() -> str:
    return ', '.join(NAMES)


VALID = {'train': 'train', 'val': 'valid'}


def ultralytics(root: Path) -> None:
    write_yolo(root, 'images/{}2017', 'labels/{}2017')
    names = ''.join(f'  {i}: {n}\n' for i, n in enumerate(NAMES))
    paths = 'path: .\ntrain: images/train2017\nval: images/val2017\n'
    write(root / 'config.yaml', f'{paths}names:\n{names}')


def cvat_ultralytics(root: Path) -> None:
    names = {'train': 'Train', 'val': 'Validation'}
    write_yolo(root, 'images/{}', 'labels/{}', names)
    keys = 'Train: Train.txt\nValidation: Validation.txt\npath: .\n'
    for split, name in names.items():
        lines = [f'data/images/{name}/{image}.png' for image in DATA[split]]
        write(root / f'{name}.txt', '\n'.join(lines))
    write(root / 'data.yaml', f'{keys}names: [{listed()}]')


def roboflow_yolo(root: Path) -> None:
    write_yolo(root, '{}/images', '{}/labels', VALID)
    paths = 'train: ../train/images\nval: ../valid/images\n'
    write(root / 'data.yaml', f'{paths}nc: 3\nnames: [{listed()}]')


def colab(root: Path) -> None:
    write_yolo(root, '{}/images', '{}/labels', VALID)
    paths = 'train: /content/x/train/images\nval: /content/x/valid/images\n'
    write(root / 'my data.yml', f'{paths}names: [{listed()}]')


def cvat_yolo(root: Path) -> None:
    """YOLO 1.1, as Darknet reads it."""
    write_yolo(root, 'obj_{}_data', 'obj_{}_data', VALID)
    for split, name in VALID.items():
        lines = [f'data/obj_{name}_data/{i}.png' for i in DATA[split]]
        write(root / f'{name}.txt', '\n'.join(lines))
    write(root / 'obj.names', '\n'.join(NAMES) + '\n')


def linked(root: Path) -> None:
    """A link to a folder outside, which Git has written as a text file."""
    write_yolo(root.parent / 'shared', 'images/{}', 'labels/{}')
    (root.parent / 'shared/labels').rename(root / 'labels')
    (root.parent / 'shared/images').rename(root.parent / 'pictures')
    write(root / 'images', '../pictures')
    paths = 'train: images/train\nval: images/val\n'
    write(root / 'config.yaml', f'{paths}names: [{listed()}]')


def really_linked(root: Path) -> None:
    linked(root)
    (root / 'images').unlink()
    os.symlink(root.parent / 'pictures', root / 'images')


def beside_yolo(root: Path) -> None:
    write_yolo(root, '{}', '{}')
    write(root / 'classes.txt', '\n'.join(NAMES))


def roboflow_coco(root: Path) -> None:
    for split, name in VALID.items():
        for image in DATA[split]:
            write_image(root / name / f'{image}.png')
        write(root / name / '_annotations.coco.json', coco(split))


def cvat_coco(root: Path) -> None:
    for split, name in (('train', 'Train'), ('val', 'Validation')):
        for image in DATA[split]:
            write_image(root / 'images' / name / f'{image}.png')
        write(root / f'annotations/instances_{name}.json', coco(split))


def fiftyone(root: Path) -> None:
    for split, name in (('train', 'train'), ('val', 'validation')):
        for image in DATA[split]:
            write_image(root / name / 'data' / f'{image}.png')
        write(root / name / 'labels.json', coco(split))


def prefixed_coco(root: Path) -> None:
    for split in ('train', 'val'):
        for image in DATA[split]:
            write_image(root / split / f'{image}.png')
        write(root / f'{split}.json', coco(split, f'{split}/'))


def write_voc(
    root: Path, images: str, xmls: str, splits: dict[str, str]
) -> None:
    for split, name in splits.items():
        for image, objects in DATA[split].items():
            write_image(root / images.format(name) / f'{image}.png')
            write(root / xmls.format(name) / f'{image}.xml', xml(objects))


def roboflow_voc(root: Path) -> None:
    write_voc(root, '{}', '{}', VALID)


def cvat_voc(root: Path) -> None:
    names = {'train': 'Train', 'val': 'Validation'}
    write_voc(root, 'JPEGImages/{}', 'Annotations/{}', names)
    for split, name in names.items():
        lines = [f'{name}/{image}' for image in DATA[split]]
        write(root / f'ImageSets/Main/{name}.txt', '\n'.join(lines))


def voc_in_folders(root: Path) -> None:
    """Image folders name the splits, and XML files are in one folder."""
    write_voc(root, 'Images/{}', 'xmls', {'train': 'train'})
    (root / 'Images/train/a.png').rename(root / 'Images/train/e.png')
    (root / 'xmls/a.xml').rename(root / 'xmls/e.xml')
    write_voc(root, 'Images/{}', 'xmls', {'val': 'test'})


def labelimg(root: Path) -> None:
    write_voc(root, 'images/{}', 'images/{}', {'train': 'train', 'val': 'val'})


YOLO = (
    ultralytics,
    roboflow_yolo,
    colab,
    cvat_yolo,
    cvat_ultralytics,
    linked,
    really_linked,
    beside_yolo,
)
COCO = (roboflow_coco, cvat_coco, fiftyone, prefixed_coco)
VOC = (roboflow_voc, cvat_voc, labelimg)


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


def expected(split: str) -> dict[str, list[tuple]]:
    return {
        name: sorted((NAMES[c], *box) for c, *box in objects)
        for name, objects in DATA[split].items()
    }


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
    folder = find_coco_folder(root)
    assert sorted(root.rglob('*')) == before  # nothing is written into it
    used = NAMES if make not in VOC else ('disc', 'square')
    assert folder.classes == used
    for split in ('train', 'val'):
        assert objects_of(folder.ann_files[split]) == expected(split)
        content = json.loads(Path(folder.ann_files[split]).read_text())
        for image in content['images']:
            assert Path(folder.img_dirs[split], image['file_name']).is_file()
    out = tmp_path / 'out'
    convert_folder(root, out=out)
    assert find_coco_folder(out).classes == used
    for split in ('train', 'val'):
        file = out / f'annotations/instances_{split}.json'
        assert objects_of(file) == expected(split)


def label_studio_yolo(root: Path) -> None:
    for i in range(10):
        write_image(root / f'images/{i}.png')
        write(root / f'labels/{i}.txt', label([(i % 3, 10, 10, 50, 50)]))
    write(root / 'classes.txt', '\n'.join(NAMES))
    write(root / 'notes.json', {'categories': [], 'info': {}})


def label_studio_coco(root: Path) -> None:
    content = coco('train')
    content['images'] = [
        {**content['images'][0], 'id': i, 'file_name': f'images/{i}.png'}
        for i in range(10)
    ]
    content['annotations'] = [
        {**content['annotations'][0], 'id': i, 'image_id': i}
        for i in range(10)
    ]
    for i in range(10):
        write_image(root / f'images/{i}.png')
    write(root / 'result.json', content)


def label_studio_voc(root: Path) -> None:
    for i in range(10):
        write_image(root / f'images/{i}.png')
        write(root / f'Annotations/{i}.xml', xml([(0, 10, 10, 50, 50)]))


@pytest.mark.parametrize(
    'make', [label_studio_yolo, label_studio_coco, label_studio_voc]
)
def test_images_are_held_out(root, make, capsys):
    make(root)
    assert find_coco_folder(root).num_images == {'train': 8, 'val': 2}
    assert '2 of 10 images are held out' in capsys.readouterr().out
    convert_folder(root, val_part=0.4)
    folder = find_coco_folder(root)
    assert folder.num_images == {'train': 6, 'val': 4}
    names = [
        set(objects_of(folder.ann_files[split])) for split in ('train', 'val')
    ]
    assert names[0] | names[1] == {str(i) for i in range(10)}


def test_images_in_folders_and_xml_files_in_one(root):
    voc_in_folders(root)
    found = read_voc(root)
    # The folder test/ is not used for validation.
    assert [len(found.splits[s]) for s in ('train', 'val')] == [2, 1]
    assert {i.path.stem for s in found.splits.values() for i in s} == {*'bce'}


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
    write_yolo(root, 'images/{}', 'labels/{}')
    write(root / 'd.yaml', 'names: {0: square, 2: disc, 7: ring}')
    assert find_coco_folder(root).classes == ('square', 'disc', 'ring')
    train = find_coco_folder(root).ann_files['train']
    assert objects_of(train) == expected('train')


def test_images_without_labels_may_be_left_out(root):
    ultralytics(root)
    (root / 'labels/train2017/c.txt').unlink()
    assert find_coco_folder(root).num_images['train'] == 3
    file = root / 'config.yaml'
    file.write_text(f'skip_if_label_file_missing: true\n{file.read_text()}')
    assert find_coco_folder(root).num_images['train'] == 2


def test_labels_without_images_are_reported_at_once(root):
    ultralytics(root)
    for name in 'xy':
        write(root / f'labels/train2017/{name}.txt', label([]))
    note = read_yolo(root).notes[0]
    assert '2 of 5 label files' in note
    assert note.endswith('x.txt, y.txt')


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


def test_a_damaged_annotation_file_is_named(root):
    label_studio_coco(root)
    (root / 'result.json').write_bytes(b'{"images": [')
    with pytest.raises(UserError, match='result.json is not JSON'):
        find_coco_folder(root)


def test_lines_that_are_repeated(root):
    roboflow_yolo(root)
    file = root / 'train/labels/b.txt'
    file.write_text(f'{file.read_text()}\n{file.read_text()}')
    found = read_yolo(root)
    assert len(found.splits['train'][1].objects) == 2
    assert '2 objects listed twice' in found.notes[0]
    assert str(root / 'train/images/b.png') in found.notes[0]


def test_objects_that_are_repeated_in_xml(root):
    roboflow_voc(root)
    write(root / 'train/a.xml', xml(2 * DATA['train']['a']))
    found = read_voc(root)
    assert len(found.splits['train'][0].objects) == 1
    assert '1 object listed twice' in found.notes[0]


def test_folders_of_voc_by_option(root, capsys):
    write_voc(root, 'photos of {}', 'boxes', {'train': 'cows'})
    with pytest.raises(
        UserError, match='XML files in boxes.*\n.*--annotations boxes'
    ):
        format_of(root)
    tool = str(TOOLS / 'voc2coco.py')
    options = ['--annotations', 'boxes', '--images', 'photos of cows']
    argv, sys.argv = sys.argv, [tool, str(root), *options]
    try:
        runpy.run_path(tool, run_name='__main__')
    finally:
        sys.argv = argv
    assert 'instances_val.json: 1 images' in capsys.readouterr().out
    with pytest.raises(UserError, match="--images photos: .*\n.*'photos of"):
        read_voc(root, annotations='boxes', images='photos')


def test_the_category_that_roboflow_adds(root):
    """Its id is 0, and it would be a class that cannot be learned."""
    roboflow_coco(root)
    for name in ('train', 'valid'):
        file = root / name / '_annotations.coco.json'
        content = json.loads(file.read_text())
        for category in content['categories']:
            category.update(id=category['id'] + 1, supercategory='things')
        for annotation in content['annotations']:
            annotation['category_id'] += 1
        root_category = {'id': 0, 'name': 'things', 'supercategory': 'none'}
        content['categories'].insert(0, root_category)
        write(file, content)
    assert find_coco_folder(root).classes == NAMES
    assert check_data(root, workers=1).errors == ()


@pytest.mark.parametrize(
    ('make', 'change', 'message'),
    [
        (
            roboflow_yolo,
            lambda r: write(
                r / 'data.yaml', 'train: a/b\nval: c\nnames: [a, b, c]'
            ),
            'data.yaml has train: a/b, and there is no .*\n.*train/images',
        ),
        (
            roboflow_yolo,
            lambda r: write(r / 'data.yaml', 'nc: 80\nnames: [a, b, c]'),
            'nc: 80 and 3 names: a, b, c',
        ),
        (
            roboflow_yolo,
            lambda r: write(
                r / 'data.yaml', 'train: {images: a}\nnames: [a, b, c]'
            ),
            'train is .*, not a folder',
        ),
        (
            cvat_yolo,
            lambda r: write(r / 'train.txt', 'a.png\nb.png\n'),
            'train.txt lists 2 images that do not exist: a.png, b.png',
        ),
        (
            beside_yolo,
            lambda r: write(r / 'classes.txt', 'square\n\ndisc\n'),
            'classes.txt: line 2 is empty',
        ),
        (
            roboflow_yolo,
            lambda r: write(r / 'train/labels/a.txt', '0.5 .5 .5 .5 .5'),
            "a.txt:1: '0.5 .5 .5 .5 .5' is not a class number",
        ),
        (
            cvat_coco,
            lambda r: write(
                r / 'annotations/instances_training.json', coco('train')
            ),
            'several annotation files for train: .*training.json',
        ),
        (
            fiftyone,
            lambda r: (r / 'train/labels.json').unlink(),
            'annotations to validate .* and none to train',
        ),
        (
            labelimg,
            lambda r: [(r / f'images/train/{n}.png').unlink() for n in 'ab'],
            '2 of 5 XML files .*: images/train/a.xml, images/train/b.xml',
        ),
    ],
)
def test_damaged_exports(root, make, change, message):
    make(root)
    change(root)
    with pytest.raises(UserError, match=message):
        find_coco_folder(root)


def test_class_numbers_as_floats(root):
    roboflow_yolo(root)
    write(root / 'train/labels/a.txt', '0.0 .5 .5 .5 .5')
    assert read_yolo(root).splits['train'][0].objects[0].name == 'square'


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda r: roboflow_yolo(r / 'inner'),
            'it holds inner\n.*Give one of these: .*inner',
        ),
        (
            lambda r: [write(r / f'{i}.json', {'shapes': []}) for i in 'abc'],
            '3 JSON files of LabelMe',
        ),
        (
            lambda r: write(r / 'annotations/panoptic_train2017.json', {}),
            'has no boxes of objects: panoptic annotations',
        ),
        (lambda r: write_image(r / 'a.png'), 'it holds a.png and 1 image\n'),
    ],
)
def test_folders_without_boxes(root, make, message):
    make(root)
    with pytest.raises(UserError, match=message):
        find_coco_folder(root)


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
