# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/train.py and tools/test.py on a tiny detector."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mmdet
import pytest
import torch
from mmengine.config import Config
from same_end import assert_same, assert_same_end
from tiny_run import CLASSES, MASK_HEADS, make_coco, write_config

from mmext.checkpoints.read import load
from mmext.utils.files import sha256

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
RUN = Callable[..., int]


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture(scope='module')
def run() -> RUN:
    """Runs a tool in this process and returns its exit status."""

    def call(tool: Path, *arguments: str | Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', [str(tool), *map(str, arguments)])
            patch.setattr(os, 'environ', os.environ.copy())
            try:
                runpy.run_path(str(tool), run_name='__main__')
            except SystemExit as end:
                return int(end.code or 0)
        return 0

    return call


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data, run) -> Path:
    """A work dir after two epochs."""
    folder = tmp_path_factory.mktemp('run')
    config = write_config(folder / 'tiny.py', data, epochs=2)
    assert run(TRAIN, config, '--work-dir', folder / 'work') == 0
    return folder / 'work'


def scalars(work_dir: Path) -> list[dict]:
    """Returns what the newest run in a work dir has logged."""
    file = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in file.read_text().splitlines()]


def ap(record: dict) -> dict:
    return {k: v for k, v in record.items() if k.startswith('coco/')}


def metrics(work_dir: Path) -> list[dict]:
    return [ap(record) for record in scalars(work_dir) if ap(record)]


def test_a_new_process_reproduces_the_logged_ap(trained, tmp_path):
    logged = metrics(trained)
    assert len(logged) == 2 and logged[0] != logged[1]
    done = subprocess.run(
        [
            sys.executable,
            TEST,
            trained / 'tiny.py',
            trained / 'epoch_2.pth',
            '--work-dir',
            tmp_path / 'test',
        ],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'RANK': '0'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / 'test' / 'predictions'
    meta = json.loads((folder / 'epoch_2.meta.json').read_text())
    assert meta['metrics'] == logged[1]
    # The result file gives the same AP.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(meta['annotation_file'])
    found = truth.loadRes(str(folder / 'epoch_2.bbox.json'))
    evaluation = COCOeval(truth, found, 'bbox')
    evaluation.params.maxDets = meta['max_dets']
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert round(evaluation.stats[0], 3) == logged[1]['coco/bbox_mAP']
    assert (
        meta['annotation_sha256']
        == sha256(truth_file := meta['annotation_file'])
        and Path(truth_file).name == 'val.json'
    )
    assert meta['categories'] == {'1': CLASSES[0], '2': CLASSES[1]}
    assert meta['checkpoint_sha256'] == sha256(trained / 'epoch_2.pth')
    assert meta['seed'] == 1 and meta['config_name'] == 'tiny'
    assert not list(folder.glob('.writing*'))
    # Two processes write the same results in the same order.
    done = script(
        'dist_test.sh',
        trained / 'tiny.py',
        trained / 'epoch_2.pth',
        2,
        *('--work-dir', tmp_path / 'two'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    both = tmp_path / 'two' / 'predictions'
    assert json.loads((both / 'epoch_2.meta.json').read_text()) == meta
    name = 'epoch_2.bbox.json'
    assert (both / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / '.dist_test').exists()


def script(name: str, *arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Runs a shell script without GPUs."""
    environ = {
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '-1',
        'PYTHON': sys.executable,
        'PYTHONPATH': str(ROOT),
    }
    return subprocess.run(
        [ROOT / 'tools' / name, *map(str, arguments)],
        env=environ,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.parametrize(
    'name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_scripts_print_their_usage(name, tmp_path):
    done = script(f'{name}.sh', 'config.py', cwd=tmp_path)
    assert done.returncode == 2 and 'usage:' in done.stderr


def test_several_processes_fail_with_one_message(tmp_path):
    done = script(
        'dist_train.sh', 'gone.py', 2, '--work-dir', 'work', cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.count('error') == 1, done.stderr
    assert 'error: config gone.py does not exist' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_resumed_run_ends_where_the_undisturbed_one_does(
    trained, data, run, tmp_path, workers
):
    options = ['--cfg-options', f'train_dataloader.num_workers={workers}']
    # With workers, also with an averaged model.
    more = "custom_hooks = [dict(type='EMAHook')]" if workers else ''
    config = write_config(
        tmp_path / f'w{workers}.py', data, epochs=2, more=more
    )
    whole = trained
    if workers:
        whole = tmp_path / 'whole'
        assert run(TRAIN, config, '--work-dir', whole, *options) == 0
    resumed = tmp_path / 'resumed'
    resumed.mkdir()
    shutil.copy(whole / 'epoch_1.pth', resumed)
    # Killed while it wrote the second checkpoint, which is truncated.
    truncated = (whole / 'epoch_2.pth').read_bytes()[:-1000]
    (resumed / 'epoch_2.pth').write_bytes(truncated)
    (resumed / 'last_checkpoint').write_text(str(resumed / 'epoch_2.pth'))
    # What this process drew before must not matter.
    torch.rand(7)
    arguments = [config, '--work-dir', resumed, '--resume', *options]
    assert run(TRAIN, *arguments) == 0
    assert_same_end(whole / 'epoch_2.pth', resumed / 'epoch_2.pth')
    log = next(resumed.glob('*/*.log')).read_text()
    assert 'checkpoint epoch_2.pth is skipped' in log
    assert f'Resuming from {resumed / "epoch_1.pth"}' in log
    assert metrics(resumed)[-1] == metrics(whole)[-1]


def test_resume_with_nothing_there_keeps_load_from(
    trained, data, run, tmp_path, capfd
):
    """The first start of a job that is always started with --resume."""
    config = write_config(tmp_path / 'tiny.py', data, epochs=1)
    arguments = [config, '--work-dir', tmp_path / 'work', '--resume']
    options = ['--cfg-options', f'load_from={trained / "epoch_2.pth"}']
    assert (
        run(TRAIN, *arguments, *options, 'optim_wrapper.optimizer.lr=0') == 0
    )
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'Nothing to resume' in log
    start, end = (
        load(folder / name)['state_dict']
        for folder, name in (
            (trained, 'epoch_2.pth'),
            (tmp_path / 'work', 'epoch_1.pth'),
        )
    )
    weight = 'rpn_head.rpn_conv.weight'
    assert torch.equal(start[weight], end[weight])
    gone = ['--cfg-options', 'load_from=gone.pth']
    capfd.readouterr()
    shutil.rmtree(tmp_path / 'work')
    assert run(TRAIN, *arguments, *gone) == 2
    assert_one_message(capfd, tmp_path, 'checkpoint gone.pth does not exist')


def test_workers_draw_other_numbers_in_every_epoch(data, run, tmp_path):
    from mmext.engine.runner import ReliableRunner

    loader = Config.fromfile(
        write_config(tmp_path / 'tiny.py', data)
    ).train_dataloader
    loader.num_workers, loader.persistent_workers = 1, True
    built = ReliableRunner.build_dataloader(loader, seed=1)
    assert not built.persistent_workers
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(
            torch.stack(
                [i.float() for batch in built for i in batch['inputs']]
            )
        )
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_amp_trains_in_bfloat16_without_a_gpu(data, run, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this is about the CPU')
    config = write_config(tmp_path / 'amp.py', data)
    work = tmp_path / 'work'
    arguments = [config, '--amp', '--auto-scale-lr', '--work-dir', work]
    assert run(TRAIN, *arguments) == 0
    records = scalars(work)
    assert all(torch.tensor(r['loss']).isfinite() for r in records[:2])
    # The config's 1e-3 is meant for 16 images a step; this is 2.
    assert records[0]['lr'] == pytest.approx(1e-3 * 2 / 16)
    log = next(work.glob('*/*.log')).read_text()
    assert 'Mixed precision on the CPU: bfloat16' in log
    saved = load(work / 'epoch_1.pth')['state_dict']
    assert all(
        v.dtype == torch.float32
        for v in saved.values()
        if v.is_floating_point()
    )


def test_published_weights_reproduce_the_logged_ap(trained, run, tmp_path):
    from mmext.checkpoints.publish import publish

    source, target = trained / 'epoch_2.pth', tmp_path / 'tiny'
    for kind in ('safetensors', 'pth'):
        path = publish(source, target, file_format=kind).path
        work = tmp_path / kind
        options = ('--work-dir', work, '--sha256', sha256(path))
        assert run(TEST, trained / 'tiny.py', path, *options) == 0
        meta = work / 'predictions' / f'{path.stem}.meta.json'
        assert (
            ap(json.loads(meta.read_text())['metrics']) == metrics(trained)[-1]
        )


def test_options_of_test(trained, run, tmp_path):
    out, shown = tmp_path / 'raw.pkl', 'shown'
    assert (
        run(
            TEST,
            trained / 'tiny.py',
            trained / 'epoch_2.pth',
            *('--work-dir', tmp_path / 'w', '--out', out),
            *('--show-dir', shown, '--tta'),
        )
        == 0
    )
    import pickle

    assert len(pickle.loads(out.read_bytes())) == 5
    # The config in the work dir can be trained and compared.
    assert 'DetTTAModel' not in (tmp_path / 'w' / 'tiny.py').read_text()
    pictures = list((tmp_path / 'w').glob(f'*/{shown}/*.png'))
    assert len(pictures) == 5
    results = tmp_path / 'w' / 'predictions' / 'epoch_2-tta.bbox.json'
    assert {r['image_id'] for r in json.loads(results.read_text())} == {
        *range(1, 6)
    }


def test_masks_are_written_too(data, run, tmp_path):
    config = write_config(
        tmp_path / 'mask.py',
        data,
        base='mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        more=f"""{MASK_HEADS}model['train_cfg']['rcnn'].update(mask_size=28)
""",
    )
    work = tmp_path / 'work'
    assert run(TRAIN, config, '--work-dir', work) == 0
    assert run(TEST, config, work / 'epoch_1.pth', '--work-dir', work) == 0
    folder = work / 'predictions'
    meta = json.loads((folder / 'epoch_1.meta.json').read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= meta['metrics'].keys()
    boxes = json.loads((folder / 'epoch_1.bbox.json').read_text())
    masks = json.loads((folder / 'epoch_1.segm.json').read_text())
    assert len(boxes) == len(masks) > 0
    assert masks[0]['segmentation']['size'] == [96, 128]


def test_tools_of_mmdet_run_our_configs(data, run, tmp_path):
    tools = Path(mmdet.__file__).parent / '.mim' / 'tools'
    config = write_config(
        tmp_path / 'host.py', data, more="runner_type = 'ReliableRunner'"
    )
    work = tmp_path / 'work'
    arguments = [config, '--amp', '--work-dir', work]
    assert run(tools / 'train.py', *arguments) == 0
    log = next(work.glob('*/*.log')).read_text()
    assert 'EpochSeedHook' in log and 'bfloat16' in log
    saved = work / 'epoch_1.pth'
    assert run(tools / 'test.py', config, saved, '--work-dir', work) == 0
    # The same config without the line uses MMEngine's runner.
    once = '_dataloader.update(persistent_workers=False)\n'
    plain = write_config(
        tmp_path / 'plain.py',
        data,
        more=f'train{once}val{once}visualizer = dict(name="plain")',
    )
    work = tmp_path / 'plain'
    assert run(tools / 'train.py', plain, '--work-dir', work) == 0
    saved = work / 'epoch_1.pth'
    assert run(tools / 'test.py', plain, saved, '--work-dir', work) == 0
    logged = metrics(work)
    assert 'EpochSeedHook' not in next(work.glob('*/*.log')).read_text()
    assert logged[-1]


def edit(file: Path, change: Callable[[dict], object]) -> Path:
    content = json.loads(file.read_text())
    content = change(content) or content
    file.write_text(json.dumps(content))
    return file


def _no_images(content: dict) -> None:
    del content['images']


def _as_results(content: dict) -> list:
    return [{'image_id': 1, 'category_id': 1, 'bbox': [], 'score': 1.0}]


def _labelme(content: dict) -> dict:
    return {'shapes': [], 'imagePath': 'a.png'}


def _xyxy(content: dict) -> None:
    for annotation in content['annotations']:
        annotation['box'] = annotation.pop('bbox')


def _other_names(content: dict) -> None:
    for category in content['categories']:
        category['name'] = category['name'].upper()


@pytest.mark.parametrize(
    'change, says',
    [
        (_no_images, "no list 'images'; its keys are annotations"),
        (_as_results, 'a list of detections (a result file)'),
        (_labelme, 'it is a LabelMe file'),
        (_xyxy, "annotations[0] has no 'bbox'"),
        (_other_names, "classes=('SQUARE', 'DISC')"),
    ],
)
def test_annotations_that_are_not_coco(
    data, run, tmp_path, capfd, change, says
):
    root = shutil.copytree(data, tmp_path / 'coco')
    edit(root / 'train.json', change)
    config = write_config(tmp_path / 'tiny.py', root)
    assert run(TRAIN, config, '--work-dir', tmp_path / 'work') == 2
    assert_one_message(capfd, tmp_path, says, 'train.json')


def assert_one_message(capfd, tmp_path: Path, *says: str) -> None:
    """Asserts one message, no traceback and no work dir."""
    seen = capfd.readouterr()
    assert seen.err.count('error:') == 1
    assert 'Traceback' not in seen.err + seen.out
    for text in says:
        assert text in seen.err
    assert '->' in seen.err  # what to do
    assert not (tmp_path / 'work').exists()


DATASET = 'train_dataloader.dataset'


@pytest.mark.parametrize(
    'options, says',
    [
        (
            [f'{DATASET}.data_root=/nowhere'],
            [f'{DATASET}.ann_file', '/nowhere/train.json does not exist'],
        ),
        (
            [f'{DATASET}.ann_file=trian.json'],
            ['trian.json does not exist', "Did you mean 'train.json'?"],
        ),
        (
            [f'{DATASET}.data_prefix.img=val2017'],
            ['data_prefix.img: folder', "Did you mean 'val'?"],
        ),
        (
            [f'{DATASET}.data_prefix.img='],
            ['data_prefix.img', '1.png does not exist'],
        ),
        (
            ['val_evaluator.ann_file=nothing.json'],
            ['val_evaluator.ann_file: file nothing.json does not exist'],
        ),
        (
            [f'{DATASET}.type=CocoDatset'],
            ["'CocoDatset' is not registered", "'CocoDataset'?"],
        ),
        (
            ['model.backbone.type=StarNett'],
            ["model.backbone.type: 'StarNett'", "mean 'StarNet'?"],
        ),
        (
            ['+model.backbone.dept=50'],
            [
                "model.backbone.dept: ResNet takes no argument 'dept'",
                "'depth'?",
            ],
        ),
        (
            ['model.backbone.depth=51'],
            ['the model cannot be built', 'invalid depth 51'],
        ),
        (
            ['optim_wraper.optimizer.lr=1'],
            ["Did you mean 'optim_wrapper'?", '+optim_wraper'],
        ),
        (
            ['model.backbone.frozen_stage=1'],
            ["Did you mean 'model.backbone.frozen_stages'?"],
        ),
        (
            ['train_pipeline.9.type=Pad'],
            ['train_pipeline is a list of 5', 'a number from 0 to 4'],
        ),
        (['load_from=nothing.pth'], ['checkpoint nothing.pth does not exist']),
        (
            ['load_from=torchvison://resnet50'],
            ['unknown scheme', "'torchvision://'?"],
        ),
    ],
)
def test_bad_config_values(data, run, tmp_path, capfd, options, says):
    config = write_config(tmp_path / 'tiny.py', data)
    status = run(
        TRAIN,
        config,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        *options,
    )
    assert status == 2
    assert_one_message(capfd, tmp_path, *says)


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['--launcher', 'pytorch'], ['--launcher pytorch needs RANK']),
        (['--launcher', 'slurm'], ['needs SLURM_PROCID']),
        (['--resume', 'gone.pth'], ['gone.pth does not exist']),
    ],
)
def test_bad_arguments(data, run, tmp_path, capfd, arguments, says):
    config = write_config(tmp_path / 'tiny.py', data)
    work = tmp_path / 'work'
    assert run(TRAIN, config, '--work-dir', work, *arguments) == 2
    assert_one_message(capfd, tmp_path, *says)


def test_auto_scale_needs_a_base(data, run, tmp_path, capfd):
    config = write_config(
        tmp_path / 'tiny.py', data, more='auto_scale_lr = dict(_delete_=True)'
    )
    arguments = ['--work-dir', tmp_path / 'work', '--auto-scale-lr']
    assert run(TRAIN, config, *arguments) == 2
    assert_one_message(capfd, tmp_path, 'auto_scale_lr.base_batch_size=16')


@pytest.mark.parametrize(
    'text, says',
    [
        ("_base_ = 'gone.py'", 'a file it inherits is missing'),
        ('model = dict(', 'does not load'),
        ("custom_imports = dict(imports=['mmxt'])", 'mmxt'),
    ],
)
def test_broken_configs(run, tmp_path, capfd, text, says):
    config = tmp_path / 'tiny.py'
    config.write_text(text)
    assert run(TRAIN, config, '--work-dir', tmp_path / 'work') == 2
    assert_one_message(capfd, tmp_path, str(config), says)


def test_a_missing_config_names_its_neighbour(run, tmp_path, capfd):
    (tmp_path / 'tiny.py').touch()
    missing = tmp_path / 'tinny.py'
    assert run(TRAIN, missing, '--work-dir', tmp_path / 'work') == 2
    assert_one_message(capfd, tmp_path, "Did you mean 'tiny.py'?")


def test_checkpoints_that_do_not_fit(trained, data, run, tmp_path, capfd):
    """For testing, every tensor must fit."""
    config = write_config(tmp_path / 'tiny.py', data)
    good = trained / 'epoch_1.pth'
    test = ['--work-dir', tmp_path / 'work']

    wider = ['--cfg-options', 'model.neck.out_channels=24']
    wider += ['model.rpn_head.in_channels=24']
    assert run(TEST, config, good, *test, *wider) == 2
    assert_one_message(
        capfd, tmp_path, 'of another architecture', 'tensors fit', "'tiny_20"
    )
    # The data checks would find the number of classes first.
    classes = ['--skip-data-checks', '--cfg-options']
    classes += ['model.roi_head.bbox_head.num_classes=3']
    assert run(TEST, config, good, *test, *classes) == 2
    assert_one_message(
        capfd,
        tmp_path,
        '4 of another shape: roi_head.bbox_head.fc_cls.weight is (3, 64), '
        'expected (4, 64)',
    )
    assert run(TRAIN, config, *test, '--resume', good, *classes) == 2
    assert_one_message(capfd, tmp_path, 'of another architecture')
    # Training may start from weights of another head.
    from mmext.checks.preflight import preflight
    from mmext.utils.config import load_config

    start = {'load_from': str(good)}
    start['model.roi_head.bbox_head.num_classes'] = 3
    preflight(load_config(config, start), ('train', 'val'), data=False)

    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes(good.read_bytes()[:5000])
    assert run(TEST, config, truncated, *test) == 2
    assert_one_message(
        capfd, tmp_path, 'truncated.pth (5000 bytes) is not a complete'
    )
    assert run(TEST, config, good, *test, '--out', 'a.json') == 2
    assert_one_message(capfd, tmp_path, '--out a.pkl')


def test_a_checkpoint_from_the_network(
    trained, data, run, tmp_path, capfd, monkeypatch
):
    """The configs for own data start from weights of MMDetection."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    config = write_config(tmp_path / 'tiny.py', data)
    test = ['--work-dir', tmp_path / 'work']
    served = partial(SimpleHTTPRequestHandler, directory=trained)
    with ThreadingHTTPServer(('127.0.0.1', 0), served) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        folder = f'http://127.0.0.1:{server.server_port}'
        assert run(TEST, config, f'{folder}/epoch_2.pth', *test) == 0
        fetched = load(f'{folder}/epoch_1.pth')
        one = load(trained / 'epoch_1.pth')
        assert_same(fetched['state_dict'], one['state_dict'])
        server.shutdown()
    (written,) = (tmp_path / 'work' / 'predictions').glob('*.meta.json')
    tested = ap(json.loads(written.read_text())['metrics'])
    assert tested == metrics(trained)[-1]
    assert (tmp_path / 'torch/hub/checkpoints/epoch_2.pth').is_file()
    shutil.rmtree(tmp_path / 'work')
    capfd.readouterr()
    assert run(TEST, config, f'{folder}/epoch_3.pth', *test) == 2
    assert_one_message(
        capfd,
        tmp_path,
        f'could not download {folder}/epoch_3.pth',
        f'Put the file at {tmp_path}/torch/hub/checkpoints/epoch_3.pth',
    )


def test_a_full_disk_leaves_the_last_good_checkpoint(
    trained, data, run, tmp_path, capfd, monkeypatch
):
    from mmengine.fileio import LocalBackend

    put = LocalBackend.put

    def full(self, content: bytes, filepath: str) -> None:
        if 'epoch_2' in str(filepath):
            put(self, content[:1000], filepath)
            raise OSError(28, 'No space left on device')
        put(self, content, filepath)

    monkeypatch.setattr(LocalBackend, 'put', full)
    config = write_config(tmp_path / 'full.py', data, epochs=2)
    work = tmp_path / 'run'
    assert run(TRAIN, config, '--work-dir', work) == 2
    error = capfd.readouterr().err
    assert 'No space left on device' in error and '--resume' in error
    assert [p.name for p in sorted(work.glob('*.pth*'))] == ['epoch_1.pth']
    monkeypatch.undo()
    assert run(TRAIN, config, '--work-dir', work, '--resume') == 0
    assert_same_end(trained / 'epoch_2.pth', work / 'epoch_2.pth')


def test_one_checkpoint_is_kept_until_the_next_is_complete(
    data, run, tmp_path
):
    config = write_config(
        tmp_path / 'keep.py',
        data,
        epochs=2,
        more='default_hooks.update(checkpoint=dict(max_keep_ckpts=1))',
    )
    work = tmp_path / 'work'
    assert run(TRAIN, config, '--work-dir', work) == 0
    assert len(list(work.glob('epoch_*.pth'))) == 2
