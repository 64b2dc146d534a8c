# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/train.py and tools/test.py on a tiny detector."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mmdet
import pytest
import torch
from coco_cases import pycoco
from commands import ROOT, run_command, run_python, run_tool
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from same_end import assert_same, assert_same_end
from tiny_run import CLASSES, MASK_HEADS, MASK_RCNN, write_config
from trained import records

from mmext.checkpoints.load import load
from mmext.checkpoints.publish import publish
from mmext.checks.preflight import preflight
from mmext.engine.runner import ReliableRunner
from mmext.utils.config import load_config
from mmext.utils.files import sha256


def train(config: Path, work: Path, *options: object) -> int:
    """Runs tools/train.py and returns its exit status."""
    return run_tool('train.py', config, '--work-dir', work, *options)


def evaluate(config: Path, weights: Any, work: Path, *options: object) -> int:
    """Runs tools/test.py and returns its exit status."""
    return run_tool('test.py', config, weights, '--work-dir', work, *options)


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def log(work: Path) -> str:
    return next(work.glob('*/*.log')).read_text()


@pytest.fixture
def config(data, tmp_path) -> Path:
    return write_config(tmp_path / 'tiny.py', data)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data) -> Path:
    """A work dir after two epochs."""
    folder = tmp_path_factory.mktemp('run')
    config = write_config(folder / 'tiny.py', data, epochs=2)
    assert train(config, folder / 'work') == 0
    return folder / 'work'


def ap(record: dict) -> dict:
    return {k: v for k, v in record.items() if k.startswith('coco/')}


def metrics(work: Path) -> list[dict]:
    return [ap(record) for record in records(work) if ap(record)]


def test_a_new_process_reproduces_the_logged_ap(trained, tmp_path):
    logged = metrics(trained)
    assert len(logged) == 2 and logged[0] != logged[1]
    config, checkpoint = trained / 'tiny.py', trained / 'epoch_2.pth'
    done = run_python(
        ROOT / 'tools/test.py',
        config,
        checkpoint,
        *('--work-dir', tmp_path / 'test'),
        environ={'RANK': '0'},
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / 'test' / 'predictions'
    meta = read(folder / 'epoch_2.meta.json')
    assert meta['metrics'] == logged[1]
    # The result file gives the same AP.
    truth = Path(meta['annotation_file'])
    found = read(folder / 'epoch_2.bbox.json')
    evaluation = pycoco(read(truth), found)
    assert round(evaluation.stats[0], 3) == logged[1]['coco/bbox_mAP']
    assert meta['max_dets'] == [100, 300, 1000]
    assert truth.name == 'val.json'
    assert meta['annotation_sha256'] == sha256(truth)
    assert meta['categories'] == {'1': CLASSES[0], '2': CLASSES[1]}
    assert meta['checkpoint_sha256'] == sha256(checkpoint)
    assert meta['seed'] == 1 and meta['config_name'] == 'tiny'
    model = meta['model']
    assert model['detector'] == 'Faster R-CNN'
    assert model['backbone'] == 'ResNet-18'
    assert model['shape'] == [96, 128] and model['flops'] > 1e6
    content = load(checkpoint)['state_dict']
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    weights = {k: v for k, v in content.items() if not k.endswith(buffers)}
    assert model['params'] == sum(v.numel() for v in weights.values())
    assert not list(folder.glob('.writing*'))
    # Two processes write the same results in the same order.
    done = script(
        'dist_test.sh',
        config,
        checkpoint,
        2,
        *('--work-dir', tmp_path / 'two'),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    both = tmp_path / 'two' / 'predictions'
    assert read(both / 'epoch_2.meta.json') == meta
    name = 'epoch_2.bbox.json'
    assert (both / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / '.dist_test').exists()


def script(name: str, *arguments: object, cwd: Path):
    return run_command(ROOT / 'tools' / name, *arguments, cwd=cwd)


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
    trained, data, tmp_path, workers
):
    options = ['--cfg-options', f'train_dataloader.num_workers={workers}']
    # With workers, also with an averaged model.
    more = "custom_hooks = [dict(type='EMAHook')]" if workers else ''
    config = write_config(tmp_path / 'tiny.py', data, epochs=2, more=more)
    whole = trained
    if workers:
        whole = tmp_path / 'whole'
        assert train(config, whole, *options) == 0
    resumed = tmp_path / 'resumed'
    resumed.mkdir()
    shutil.copy(whole / 'epoch_1.pth', resumed)
    # Killed while it wrote the second checkpoint, which is truncated.
    truncated = (whole / 'epoch_2.pth').read_bytes()[:-1000]
    (resumed / 'epoch_2.pth').write_bytes(truncated)
    (resumed / 'last_checkpoint').write_text(str(resumed / 'epoch_2.pth'))
    # What this process drew before must not matter.
    torch.rand(7)
    assert train(config, resumed, '--resume', *options) == 0
    assert_same_end(whole / 'epoch_2.pth', resumed / 'epoch_2.pth')
    assert 'checkpoint epoch_2.pth is skipped' in log(resumed)
    assert f'Resuming from {resumed / "epoch_1.pth"}' in log(resumed)
    assert metrics(resumed)[-1] == metrics(whole)[-1]


def test_resume_with_nothing_there_keeps_load_from(
    trained, config, tmp_path, capfd
):
    """The first start of a job that is always started with --resume."""
    work, start = tmp_path / 'work', trained / 'epoch_2.pth'
    options = ['--resume', '--cfg-options', 'optim_wrapper.optimizer.lr=0']
    assert train(config, work, *options, f'load_from={start}') == 0
    assert 'Nothing to resume' in log(work)
    key = 'rpn_head.rpn_conv.weight'
    begin, end = (
        load(file)['state_dict'][key] for file in (start, work / 'epoch_1.pth')
    )
    assert torch.equal(begin, end)
    capfd.readouterr()
    shutil.rmtree(work)
    assert train(config, work, *options, 'load_from=gone.pth') == 2
    assert_one_message(capfd, work, 'checkpoint gone.pth does not exist')


def test_workers_draw_other_numbers_in_every_epoch(config):
    loader = Config.fromfile(config).train_dataloader
    loader.num_workers, loader.persistent_workers = 1, True
    built = ReliableRunner.build_dataloader(loader, seed=1)
    assert not built.persistent_workers
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        images = [i.float() for batch in built for i in batch['inputs']]
        drawn.append(torch.stack(images))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_amp_trains_in_bfloat16_without_a_gpu(config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this is about the CPU')
    work = tmp_path / 'work'
    assert train(config, work, '--amp', '--auto-scale-lr') == 0
    logged = records(work)
    assert all(torch.tensor(r['loss']).isfinite() for r in logged[:2])
    # The config's 1e-3 is meant for 16 images a step; this is 2.
    assert logged[0]['lr'] == pytest.approx(1e-3 * 2 / 16)
    assert 'Mixed precision on the CPU: bfloat16' in log(work)
    saved = load(work / 'epoch_1.pth')['state_dict'].values()
    kinds = {v.dtype for v in saved if v.is_floating_point()}
    assert kinds == {torch.float32}


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_published_weights_reproduce_the_logged_ap(trained, tmp_path, kind):
    path = publish(
        trained / 'epoch_2.pth', tmp_path / 'tiny', file_format=kind
    ).path
    options = ('--sha256', sha256(path))
    assert evaluate(trained / 'tiny.py', path, tmp_path, *options) == 0
    meta = read(tmp_path / 'predictions' / f'{path.stem}.meta.json')
    assert ap(meta['metrics']) == metrics(trained)[-1]


def test_options_of_test(trained, tmp_path):
    config, checkpoint = trained / 'tiny.py', trained / 'epoch_2.pth'
    work, out = tmp_path / 'w', tmp_path / 'raw.pkl'
    options = ('--out', out, '--show-dir', 'shown', '--tta')
    assert evaluate(config, checkpoint, work, *options) == 0
    assert len(pickle.loads(out.read_bytes())) == 5
    # The config in the work dir can be trained and compared.
    assert 'DetTTAModel' not in (work / 'tiny.py').read_text()
    assert len(list(work.glob('*/shown/*.png'))) == 5
    results = read(work / 'predictions' / 'epoch_2-tta.bbox.json')
    assert {r['image_id'] for r in results} == {*range(1, 6)}


def test_masks_are_written_too(data, tmp_path):
    config = write_config(
        tmp_path / 'mask.py',
        data,
        base=MASK_RCNN,
        more=f"""{MASK_HEADS}model['train_cfg']['rcnn'].update(mask_size=28)
""",
    )
    work = tmp_path / 'work'
    assert train(config, work) == 0
    assert evaluate(config, work / 'epoch_1.pth', work) == 0
    folder = work / 'predictions'
    meta = read(folder / 'epoch_1.meta.json')
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= meta['metrics'].keys()
    boxes = read(folder / 'epoch_1.bbox.json')
    masks = read(folder / 'epoch_1.segm.json')
    assert len(boxes) == len(masks) > 0
    assert masks[0]['segmentation']['size'] == [96, 128]


@pytest.mark.parametrize('ours', [True, False])
def test_tools_of_mmdet_run_our_configs(data, tmp_path, ours):
    """MMEngine's runner is used if the config does not name ours."""
    tools = Path(mmdet.__file__).parent / '.mim' / 'tools'
    more = "runner_type = 'ReliableRunner'"
    if not ours:
        once = '_dataloader.update(persistent_workers=False)\n'
        more = f'train{once}val{once}visualizer = dict(name="plain")'
    config = write_config(tmp_path / 'host.py', data, more=more)
    work = tmp_path / 'work'
    options = ['--amp'] if ours else []
    command = [tools / 'train.py', config, '--work-dir', work, *options]
    assert run_tool(*command) == 0
    assert metrics(work)[-1]
    assert ('EpochSeedHook' in log(work)) == ours
    assert ('bfloat16' in log(work)) == ours
    saved = work / 'epoch_1.pth'
    command = [tools / 'test.py', config, saved, '--work-dir', work]
    assert run_tool(*command) == 0


def assert_one_message(capfd, work: Path, *says: str) -> None:
    """Asserts one message, no traceback and no work dir."""
    seen = capfd.readouterr()
    assert seen.err.count('error:') == 1
    assert 'Traceback' not in seen.err + seen.out
    for text in says:
        assert text in seen.err
    assert '->' in seen.err  # what to do
    assert not work.exists()


def test_a_misspelt_key_below_the_first_level(config, tmp_path, capfd):
    option = ('--cfg-options', 'model.backbone.frozen_stage=1')
    assert train(config, tmp_path / 'work', *option) == 2
    says = "Did you mean 'model.backbone.frozen_stages'?"
    assert_one_message(capfd, tmp_path / 'work', says)


# Messages that quote another package: tests/bad_inputs knows only a part.
@pytest.mark.parametrize(
    'text, says',
    [
        ("_base_ = 'gone.py'", 'config {}: a file it inherits is missing'),
        ('model = dict(', 'config {} does not load'),
        ("custom_imports = dict(imports=['mmxt'])", 'config {} does not load'),
        (
            "_base_ = 'tiny.py'\nmodel = dict(backbone=dict(depth=51))",
            'the model cannot be built: KeyError: invalid depth 51',
        ),
    ],
)
def test_broken_configs(config, tmp_path, capfd, text, says):
    broken = tmp_path / 'broken.py'
    broken.write_text(text)
    assert train(broken, tmp_path / 'work') == 2
    assert_one_message(capfd, tmp_path / 'work', says.format(broken))


def test_checkpoints_that_do_not_fit(trained, config, tmp_path, capfd):
    """For testing, every tensor must fit."""
    good, work = trained / 'epoch_1.pth', tmp_path / 'work'
    wider = ['--cfg-options', 'model.neck.out_channels=24']
    wider += ['model.rpn_head.in_channels=24']
    assert evaluate(config, good, work, *wider) == 2
    says = ('of another architecture', 'tensors fit', "'tiny_20")
    assert_one_message(capfd, work, *says)
    # The data checks would find the number of classes first.
    key = 'model.roi_head.bbox_head.num_classes'
    classes = ['--skip-data-checks', '--cfg-options', f'{key}=3']
    assert evaluate(config, good, work, *classes) == 2
    assert_one_message(
        capfd,
        work,
        '4 of another shape: roi_head.bbox_head.fc_cls.weight is (3, 64), '
        'expected (4, 64)',
    )
    assert train(config, work, '--resume', good, *classes) == 2
    assert_one_message(capfd, work, 'of another architecture')
    # Training may start from weights of another head.
    start = {'load_from': str(good), key: 3}
    preflight(load_config(config, start), ('train', 'val'), data=False)
    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes(good.read_bytes()[:5000])
    assert evaluate(config, truncated, work) == 2
    says = 'truncated.pth (5000 bytes) is not a complete'
    assert_one_message(capfd, work, says)


def test_a_checkpoint_from_the_network(
    trained, config, tmp_path, capfd, monkeypatch
):
    """The configs for own data start from weights of MMDetection."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    work = tmp_path / 'work'
    served = partial(SimpleHTTPRequestHandler, directory=trained)
    with ThreadingHTTPServer(('127.0.0.1', 0), served) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        folder = f'http://127.0.0.1:{server.server_port}'
        assert evaluate(config, f'{folder}/epoch_2.pth', work) == 0
        fetched = load(f'{folder}/epoch_1.pth')
        one = load(trained / 'epoch_1.pth')
        assert_same(fetched['state_dict'], one['state_dict'])
        server.shutdown()
    (written,) = (work / 'predictions').glob('*.meta.json')
    assert ap(read(written)['metrics']) == metrics(trained)[-1]
    assert (tmp_path / 'torch/hub/checkpoints/epoch_2.pth').is_file()
    shutil.rmtree(work)
    capfd.readouterr()
    assert evaluate(config, f'{folder}/epoch_3.pth', work) == 2
    assert_one_message(
        capfd,
        work,
        f'could not download {folder}/epoch_3.pth',
        f'Put the file at {tmp_path}/torch/hub/checkpoints/epoch_3.pth',
    )


def test_a_full_disk_leaves_the_last_good_checkpoint(
    trained, data, tmp_path, capfd, monkeypatch
):
    put = LocalBackend.put

    def full(self, content: bytes, filepath: str) -> None:
        if 'epoch_2' in str(filepath):
            put(self, content[:1000], filepath)
            raise OSError(28, 'No space left on device')
        put(self, content, filepath)

    monkeypatch.setattr(LocalBackend, 'put', full)
    config = write_config(tmp_path / 'full.py', data, epochs=2)
    work = tmp_path / 'run'
    assert train(config, work) == 2
    error = capfd.readouterr().err
    assert 'No space left on device' in error and '--resume' in error
    assert [p.name for p in sorted(work.glob('*.pth*'))] == ['epoch_1.pth']
    monkeypatch.undo()
    assert train(config, work, '--resume') == 0
    assert_same_end(trained / 'epoch_2.pth', work / 'epoch_2.pth')


def test_one_checkpoint_is_kept_until_the_next_is_complete(data, tmp_path):
    more = 'default_hooks.update(checkpoint=dict(max_keep_ckpts=1))'
    config = write_config(tmp_path / 'keep.py', data, epochs=2, more=more)
    work = tmp_path / 'work'
    assert train(config, work) == 0
    assert len(list(work.glob('epoch_*.pth'))) == 2
