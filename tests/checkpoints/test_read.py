# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checkpoints are read without running code; damaged ones are found."""

from __future__ import annotations

import copy
import errno
import io
import json
import os
import pickle
import shutil
import signal
import stat
import struct
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR, OneCycleParamScheduler
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file
from torch import nn

from mmext.checkpoints.files import defect, newest_complete, writing
from mmext.checkpoints.load import load
from mmext.checkpoints.match import match, require_match, require_resumable
from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.tensors import checksums, require_usable
from mmext.checkpoints.trust import trusting
from mmext.errors import UserError
from mmext.utils.files import sha256


class Call:
    """Calls a function when unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def attack(touch: Path) -> Call:
    return Call(os.system, f'touch {touch}')


def save(path: Path, **more) -> Path:
    torch.save({'state_dict': nn.Linear(2, 3).state_dict(), **more}, path)
    return path


def resumable(epoch: int, **more) -> dict:
    """Returns what a runner saves, as far as a resume needs it."""
    meta = {'epoch': epoch, 'iter': 6 * epoch, 'time': f'{epoch:08}_000000'}
    return {
        'state_dict': nn.Linear(2, 3).state_dict(),
        'meta': {**meta, **more.pop('meta', {})},
        'message_hub': {},
        'optimizer': {'state': {}, 'param_groups': []},
        **more,
    }


def save_run(path: Path, **more) -> Path:
    """Saves a checkpoint of the epoch (or iteration) in its name."""
    number = int(path.stem.rpartition('_')[2])
    torch.save(resumable(number, **more), path)
    return path


def test_what_mmengine_saves_is_read(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    hub = {'log_scalars': {'loss': buffer}, 'lr': np.float64(0.1)}
    got = load(save(tmp_path / 'a.pth', message_hub=hub))
    assert got['message_hub']['log_scalars']['loss'].mean() == 1.5
    assert got['message_hub']['lr'] == 0.1
    assert got['state_dict']['weight'].shape == (3, 2)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'pickle'])
@pytest.mark.parametrize('via', ['load', 'mmengine', 'pretrained'])
def test_a_pickle_that_runs_code_is_refused(tmp_path, via, legacy):
    touched = tmp_path / 'touched'
    path = tmp_path / 'bad.pth'
    content = {'state_dict': {}, 'x': attack(touched)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    readers = {
        'load': load,
        'mmengine': CheckpointLoader.load_checkpoint,
        'pretrained': lambda p: load_checkpoint(nn.Linear(2, 3), p),
    }
    with pytest.raises(UserError, match=r'refused.*\bsystem') as caught:
        readers[via](str(path))
    assert '--trust-checkpoint' in str(caught.value)
    assert not touched.exists()


def test_only_an_explicit_option_trusts_a_checkpoint(tmp_path, monkeypatch):
    path = save(tmp_path / 'odd.pth', meta={'args': Namespace(lr=1)})
    with pytest.raises(UserError, match='argparse.Namespace') as caught:
        load(path)
    digest = sha256(path)
    assert f'--trust-checkpoint {digest}' in str(caught.value)
    with trusting(digest.upper()):
        assert load(path)['meta']['args'].lr == 1
    with pytest.raises(UserError, match='refused'), trusting(['0' * 64]):
        load(path)
    for value in ('no', 'false', '0', '1', 'yes', '0' * 64, digest[:8]):
        monkeypatch.setenv('MMEXT_TRUST_CHECKPOINT', value)
        with pytest.raises(UserError, match='refused'):
            load(path)
    monkeypatch.setenv('MMEXT_TRUST_CHECKPOINT', f'{"0" * 64},{digest}')
    assert load(path)['meta']['args'].lr == 1
    # Trust is not about the hash in the name.
    other = path.rename(tmp_path / 'odd-00c0ffee.pth')
    with pytest.raises(UserError, match='its name says SHA-256'):
        load(other)
    with pytest.raises(UserError, match='not 64 hexadecimal'), trusting(True):
        pass


@pytest.mark.parametrize('anneal', ['cos', 'linear'])
def test_the_state_of_a_one_cycle_schedule_is_read(tmp_path, anneal):
    optimizer = torch.optim.SGD(nn.Linear(2, 3).parameters(), 0.1)
    schedule = OneCycleLR(
        optimizer, eta_max=1, total_steps=9, anneal_strategy=anneal
    )
    state = schedule.state_dict()
    got = load(save(tmp_path / 'a.pth', param_schedulers=[state]))
    assert got['param_schedulers'] == [state]


def test_getattr_reaches_only_the_log_and_schedules(tmp_path):
    for attribute in (
        (HistoryBuffer, '__init__'),
        (OneCycleParamScheduler, 'build_iter_from_epoch'),
        (HistoryBuffer, 'register_statistics'),
        (np.ndarray, 'tofile'),
    ):
        path = save(tmp_path / 'a.pth', x=Call(getattr, *attribute))
        with pytest.raises(UserError, match='refused.*getattr'):
            load(path)


@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_no_config_in_a_checkpoint_is_kept(tmp_path, kind):
    """Runner.resume() runs meta['config'], DetInferencer the others."""
    text = f'import os\nos.system("touch {tmp_path}/touched")'
    meta = {'config': text, 'cfg': text, 'epoch': 1}
    path, weights = tmp_path / f'a.{kind}', nn.Linear(2, 3).state_dict()
    if kind == 'safetensors':
        save_file(weights, path, {'mmext': json.dumps(meta)})
    else:
        hub = {'runtime_info': {'cfg': text, 'lr': 0.1}}
        save(path, meta=meta, message_hub=hub)
        assert load(path)['message_hub'] == {'runtime_info': {'lr': 0.1}}
        with trusting(sha256(path)):
            assert load(path)['meta'] == meta
    assert load(path)['meta'] == {'epoch': 1}


@pytest.mark.parametrize(
    'content',
    [
        {'meta': [1]},
        {'meta': {'dataset_meta': 'cat'}},
        {'message_hub': {'runtime_info': 'cat'}},
        {'state_dict': [torch.ones(1)]},
    ],
)
def test_parts_of_another_type_are_an_error(tmp_path, content):
    with pytest.raises(UserError, match='not a dict'):
        load(save(tmp_path / 'a.pth', **content))


@pytest.mark.parametrize('text', ['[1]', '"x"', '[' * 9000, '{"a"', '1e999'])
def test_odd_metadata_of_safetensors_is_an_error(tmp_path, text):
    weights = nn.Linear(2, 3).state_dict()
    save_file(weights, tmp_path / 'a.safetensors', {'mmext': text})
    with pytest.raises(UserError, match='a.safetensors'):
        load(tmp_path / 'a.safetensors')


def test_every_loader_of_mmengine_is_safe(tmp_path, monkeypatch):
    """s3:// gives a stream, openmmlab:// a file in a folder of MMEngine."""
    touched = tmp_path / 'touched'
    path = save(tmp_path / 'bad.pth', x=attack(touched))
    good = save(
        tmp_path / 'good.pth', meta={'epoch': 1, 'config': 'import os'}
    )
    (tmp_path / 'open_mmlab.json').write_text(
        json.dumps({'bad': 'bad.pth', 'good': 'good.pth'})
    )
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))

    class Bucket:
        def get(self, name: str) -> bytes:
            return (path if 'bad' in name else good).read_bytes()

    monkeypatch.setattr(
        'mmengine.runner.checkpoint.get_file_backend', lambda *a, **k: Bucket()
    )
    for scheme in ('s3://', 'openmmlab://'):
        with pytest.raises(UserError, match=r'refused.*\bsystem'):
            load(f'{scheme}bad')
        assert load(f'{scheme}good')['state_dict']['weight'].shape == (3, 2)
        # OpenMMLab's builds have no function of their own for torch.load.
        with monkeypatch.context() as patch:
            patch.setattr(
                'mmengine.runner.checkpoint._safe_torch_load',
                lambda file, map_location: torch.load(file, map_location),
            )
            assert load(f'{scheme}good')['meta'] == {'epoch': 1}
    assert not touched.exists()


def test_an_inferencer_needs_a_config(tmp_path):
    from mmdet.apis import DetInferencer

    text = f'import os\nos.system("touch {tmp_path}/touched")'
    hub = {'runtime_info': {'cfg': text}}
    path = save(tmp_path / 'a.pth', message_hub=hub)
    with pytest.raises(UserError, match='DetInferencer was given no config'):
        DetInferencer(weights=str(path), device='cpu')
    assert not (tmp_path / 'touched').exists()


def test_a_tensor_that_repeats_a_value_is_not_expanded(tmp_path):
    """Its copy would fill the memory; the file has 2 KB."""
    path = save(tmp_path / 'a.pth', x={'y': [torch.ones(1).expand(10**10)]})
    with pytest.raises(UserError, match='40000.* bytes of memory'):
        load(path)
    shared = torch.ones(1000)
    load(save(tmp_path / 'b.pth', tied=[shared] * 5))


def test_a_pickle_cannot_ask_for_the_memory(tmp_path):
    """weights_only allows bytearray(n) and our list NumPy's arrays."""
    reconstruct = np.zeros(0).__reduce__()[0]
    for what in (
        Call(bytearray, 2**62),
        Call(reconstruct, np.ndarray, (2**60,), b'b'),
    ):
        path = save(tmp_path / 'a.pth', x=what)
        with pytest.raises(UserError, match='refused: it needs more mem'):
            load(path)


@pytest.mark.parametrize(
    'name, refused',
    [('../../touched', True), ('slip/../../../touched', False)],
)
def test_no_member_is_written_anywhere(tmp_path, name, refused):
    """torch reads members in memory; a path in a name leads nowhere."""
    path = tmp_path / 'a' / 'b' / 'slip.pth'
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(save(path), 'a') as archive:
        archive.writestr(name, b'touched')
    before = sorted(tmp_path.rglob('*'))
    if refused:
        with pytest.raises(UserError, match='not a complete checkpoint'):
            load(path)
    else:
        assert load(path)['state_dict']['weight'].shape == (3, 2)
    assert sorted(tmp_path.rglob('*')) == before


def test_a_tar_is_not_unpacked(tmp_path):
    """torch.load's oldest format extracts an archive into a folder."""
    path, content = tmp_path / 'old.pth', tmp_path / 'content'
    content.write_bytes(pickle.dumps({'x': attack(tmp_path / 'touched')}))
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            archive.add(content, name)
        archive.add(content, '../../touched')
    with pytest.raises(UserError, match='not a complete checkpoint'):
        load(path)
    assert not (tmp_path / 'touched').exists()


def test_the_hash_in_a_name_is_checked(tmp_path):
    path = save(tmp_path / 'weights.pth')
    digest = sha256(path)
    good = path.rename(tmp_path / f'weights-{digest[:8]}.pth')
    assert load(good)['state_dict']
    bad = good.rename(tmp_path / 'weights-00c0ffee.pth')
    says = f'says SHA-256 00c0ffee.*{digest[:9]}'
    with pytest.raises(UserError, match=says):
        load(bad)
    # A date, a word or a step is not a hash.
    for name in ('a-20261122.pth', 'a-defaced.pth', 'iter-90000.pth'):
        assert load(shutil.copy(bad, tmp_path / name))['state_dict']


def test_a_hash_can_be_required(tmp_path):
    path = save(tmp_path / 'a.pth')
    digest = sha256(path)
    require_sha256(path, digest)
    require_sha256(path, digest[:8].upper())
    with pytest.raises(UserError, match=f'{digest}, and 0000000'):
        require_sha256(path, '0' * 64)
    with pytest.raises(UserError, match='8 to 64 hexadecimal'):
        require_sha256(path, digest[:7])
    with pytest.raises(UserError, match='does not exist'):
        require_sha256(tmp_path / 'b.pth', digest)


@pytest.mark.parametrize(
    'damage',
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:-10],
        lambda b: b'',
        lambda b: b'hello, world\n' * 9,
        lambda b: pickle.dumps([1, 2]),
    ],
    ids=['half', 'tail', 'empty', 'text', 'list'],
)
def test_a_damaged_file_is_an_error(tmp_path, damage):
    path = save(tmp_path / 'a.pth')
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match='not a complete checkpoint'):
        load(path)
    assert defect(path)


def test_safetensors(tmp_path):
    weights = nn.Linear(2, 3).state_dict()
    save_file(weights, tmp_path / 'a.safetensors')
    got = load(tmp_path / 'a.safetensors')['state_dict']
    assert got.keys() == weights.keys()
    assert torch.equal(got['weight'], weights['weight'])
    (tmp_path / 'b.safetensors').write_bytes(b'nothing')
    with pytest.raises(UserError, match='not a complete'):
        load(tmp_path / 'b.safetensors')


def members(path: Path) -> dict[str, int]:
    """Returns name -> position of the content of a zip file's members."""
    content, found = path.read_bytes(), {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            at = member.header_offset + 26
            lengths = struct.unpack('<HH', content[at : at + 4])
            found[member.filename] = at + 4 + sum(lengths)
    return found


def test_a_flipped_bit_of_any_member_is_found(tmp_path):
    """Whoever reads the file; torch.load compares no checksum."""
    path = save_run(tmp_path / 'epoch_1.pth')
    intact = path.read_bytes()
    for name, start in members(path).items():
        flipped = bytearray(intact)
        flipped[start] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(UserError, match='not a complete checkpoint'):
            load(path)
        assert 'checksum' in defect(path), name
        assert newest_complete(tmp_path, lambda line: None) is None
    path.write_bytes(intact)
    assert load(path) and defect(path) is None


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """One bit in every third byte."""
    path = save_run(tmp_path / 'epoch_1.pth', meta={'seed': 3})
    intact, want = path.read_bytes(), load(path)
    found = 0
    for offset in range(0, len(intact), 3):
        flipped = bytearray(intact)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        newest = newest_complete(tmp_path, lambda line: None)
        if newest is None:
            found += 1
            continue
        got = newest[1]
        assert got['meta'] == want['meta'], offset
        for key, value in want['state_dict'].items():
            assert torch.equal(got['state_dict'][key], value), offset
    assert found > len(intact) / 12


def test_a_complete_but_untrusted_checkpoint_is_not_skipped(tmp_path):
    save_run(tmp_path / 'epoch_1.pth')
    path = save_run(tmp_path / 'epoch_2.pth', meta={'args': Namespace(lr=1)})
    with pytest.raises(UserError, match='epoch_2.pth was refused'):
        newest_complete(tmp_path)
    with trusting(sha256(path)):
        assert newest(tmp_path) == path


def newest(folder: Path, **more) -> Path:
    path, content = newest_complete(folder, **more)
    assert content['state_dict'].keys() == {'weight', 'bias'}
    return path


def test_newest_complete_skips_truncated_files(tmp_path):
    for epoch in (2, 9, 10, 11):
        save_run(tmp_path / f'epoch_{epoch}.pth')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_12.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_11.pth'))
    cut = tmp_path / 'epoch_11.pth'
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / 'epoch_12.pth.tmp').write_bytes(b'half')
    logged: list[str] = []
    assert newest_complete(tmp_path, logged.append)[0].name == 'epoch_10.pth'
    assert len(logged) == 1 and 'epoch_11.pth is skipped' in logged[0]
    assert newest_complete(tmp_path / 'nowhere') is None


def test_the_content_gives_the_order_and_not_the_time_of_the_file(tmp_path):
    """A copy of a folder has any times."""
    save_run(tmp_path / 'epoch_4.pth')
    save_run(tmp_path / 'epoch_9.pth', meta={'epoch': 2, 'iter': 12})
    inside = {'epoch': 0, 'iter': 3, 'time': '99999999_000000'}
    late = save_run(tmp_path / 'iter_3.pth', meta=inside)
    os.utime(late, (2e9, 2e9))
    assert newest(tmp_path).name == 'epoch_4.pth'
    inside = {'epoch': 4, 'iter': 25}
    save_run(tmp_path / 'iter_25.pth', meta=inside)
    assert newest(tmp_path).name == 'iter_25.pth'


def test_last_checkpoint_is_not_followed_into_another_folder(tmp_path):
    run, other = tmp_path / 'run', tmp_path / 'other'
    run.mkdir()
    other.mkdir()
    saved = save_run(other / 'iter_500.pth')
    pointer = run / 'last_checkpoint'
    pointer.write_text(str(saved))
    logged: list[str] = []
    assert newest_complete(run, logged.append) is None
    assert 'iter_500.pth' in logged[0] and 'not followed' in logged[0]
    for text in (b'\xff\x00\x80' * 9, b'a' * 5000, b''):
        pointer.write_bytes(text)
        assert newest_complete(run, logged.append) is None
    # The config names the folder: CheckpointHook.out_dir.
    out = tmp_path / 'out' / 'run'
    out.mkdir(parents=True)
    saved = save_run(out / 'iter_500.pth')
    assert newest(run, out_dir=tmp_path / 'out') == saved
    # Ctrl-C saves in the work dir.
    stopped = save_run(run / 'iter_501.pth')
    assert newest(run, out_dir=tmp_path / 'out') == stopped


@pytest.mark.parametrize('last', ['whole', 'cut'])
def test_what_an_earlier_run_left_in_the_folder_is_not_the_newest(
    tmp_path, last
):
    # The next run, at second 20, writes into the same folder.
    for start, epochs in ((10, (1, 2, 12)), (30, (1, 2, 3))):
        for epoch in epochs:
            saved = {'time': f'20200101_0000{start + epoch}'}
            save_run(tmp_path / f'epoch_{epoch}.pth', meta=saved)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    logged: list[str] = []
    if last == 'cut':
        path = tmp_path / 'epoch_3.pth'
        path.write_bytes(path.read_bytes()[:-99])
    found = newest_complete(tmp_path, logged.append)[0].name
    assert found == ('epoch_3.pth' if last == 'whole' else 'epoch_2.pth')
    assert 'epoch_12.pth is skipped' in logged[-1]
    assert 'earlier run' in logged[-1]
    # Killed between writing the fourth and last_checkpoint.
    save_run(tmp_path / 'epoch_4.pth', meta={'time': '99990101_000000'})
    assert newest_complete(tmp_path)[0].name == 'epoch_4.pth'


def test_a_copied_folder_resumes_from_its_own(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    first = save_run(run / 'epoch_1.pth')
    (run / 'last_checkpoint').write_text(str(first))
    shutil.copytree(run, tmp_path / 'copy')
    save_run(run / 'epoch_2.pth')  # the original run continues
    (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
    copied = tmp_path / 'copy' / 'epoch_1.pth'
    assert newest(tmp_path / 'copy') == copied


MOMENTS = {'state': {0: {'exp_avg': torch.ones(2), 'step': torch.ones(())}}}


def change(place: str, value: object):
    """Returns a function that sets ``a.b`` of a checkpoint, or removes it."""

    def apply(content: dict) -> None:
        *parts, last = [int(p) if p.isdigit() else p for p in place.split('.')]
        for part in parts:
            content = content[part]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return apply


@pytest.mark.parametrize('summed', [True, False], ids=['ours', 'mmengine'])
@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('state_dict.weight', torch.full((3, 2), torch.nan)),
        ('state_dict.bias', torch.tensor([1.0, torch.inf, 1.0])),
        ('ema_state_dict.module.x', torch.tensor([torch.nan])),
        ('optimizer.state.0.exp_avg', torch.tensor([1.0, torch.nan])),
        ('optimizer.state.0.exp_avg', torch.full((2,), 1e30)),
        ('optimizer.state', {}),
        ('optimizer', None),
        ('optimizer', [1]),
        ('message_hub', None),
        ('meta.iter', None),
        ('meta.iter', 'x'),
        ('meta.epoch', 1.5),
    ],
)
def test_what_cannot_be_continued_is_skipped(tmp_path, place, value, summed):
    def write(epoch: int, *changes) -> None:
        groups = [{'betas': (0.9, 0.999), 'params': [0]}]
        more = {
            'ema_state_dict': {'module': {'x': torch.ones(1)}},
            'optimizer': {**copy.deepcopy(MOMENTS), 'param_groups': groups},
        }
        content = resumable(epoch, **more)
        if summed:
            content['meta']['checksums'] = checksums(content)
        for apply in changes:
            apply(content)
        torch.save(content, tmp_path / f'epoch_{epoch}.pth')

    write(1)
    write(2)
    assert newest(tmp_path).name == 'epoch_2.pth'
    if '.module.' in place:
        place, value = 'ema_state_dict.module', {'x': value}
    write(2, change(place, value))
    logged: list[str] = []
    assert newest(tmp_path, log=logged.append).name == 'epoch_1.pth'
    (line,) = logged
    assert 'epoch_2.pth is skipped' in line
    with pytest.raises(UserError):
        require_resumable(load(tmp_path / 'epoch_2.pth'), 'epoch_2.pth')


def test_weights_that_are_the_only_checkpoint_are_an_error(tmp_path):
    save(tmp_path / 'epoch_1.pth', meta={'epoch': 1, 'iter': 2})
    with pytest.raises(UserError, match='holds only weights'):
        newest_complete(tmp_path)


def test_a_changed_tensor_has_another_checksum(tmp_path):
    content = {'state_dict': nn.Linear(2, 3).state_dict()}
    content['meta'] = {'checksums': checksums(content)}
    path = tmp_path / 'a.pth'
    torch.save(content, path)
    assert load(path)['meta'] == content['meta']
    content['state_dict']['weight'][1, 1] += 1e-6
    torch.save(content, path)
    with pytest.raises(UserError, match='checksum of state_dict is wrong'):
        load(path)


def test_values_of_every_kind_of_tensor():
    """Only arrays of real numbers can be wrong; the others are not used."""
    for value in (
        torch.ones(2, dtype=torch.float16),
        torch.ones(2, dtype=torch.float8_e5m2),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to_sparse(),
        torch.ones(2, device='meta'),
        torch.ones(0),
        torch.ones(2, dtype=torch.float64) * 1e18,
    ):
        require_usable({'optimizer': {'x': [value]}}, 'a.pth')
        checksums({'optimizer': {'x': [value]}})
    for value in (torch.nan, -torch.inf, 1e30, -1e20):
        tensor = torch.tensor([1, value], dtype=torch.float64)
        with pytest.raises(UserError, match='optimizer.x.0 holds'):
            require_usable({'optimizer': {'x': [tensor]}}, 'a.pth')


@pytest.mark.parametrize(
    'value',
    [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.bool),
        torch.ones((), dtype=torch.int64),
        torch.ones(0),
        torch.ones(2, 3).t(),
        torch.ones(1).expand(3),
        torch.ones(2, requires_grad=True),
    ],
)
def test_checksums_of_every_kind_of_tensor(value):
    one = checksums({'state_dict': {'a': value}})
    assert one == checksums({'state_dict': {'a': value.detach().clone()}})
    for other in ({'b': value}, {'a': value.double()}, {'a': value[None]}):
        assert checksums({'state_dict': other}) != one


def test_a_truncated_file_never_replaces_a_complete_one(tmp_path):
    good = save(tmp_path / 'epoch_1.pth')
    before = sha256(good)
    with (
        pytest.raises(OSError, match='not written completely'),
        writing(good) as part,
    ):
        save(part)
        part.write_bytes(part.read_bytes()[:-50])
    assert sha256(good) == before
    with writing(good) as part:
        save(part)
    assert not part.exists() and sha256(good) != before


def test_a_link_does_not_lead_the_write_elsewhere(tmp_path):
    other = tmp_path / 'other.txt'
    other.write_text('mine')
    (tmp_path / 'epoch_1.pth.tmp').symlink_to(other)
    (tmp_path / 'epoch_1.pth').symlink_to(other)
    with writing(tmp_path / 'epoch_1.pth') as part:
        save(part)
    assert other.read_text() == 'mine'
    assert not (tmp_path / 'epoch_1.pth').is_symlink()
    assert defect(tmp_path / 'epoch_1.pth') is None


def test_a_file_system_that_cannot_flush_a_folder(tmp_path, monkeypatch):
    flush = os.fsync

    def refuse(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, 'Invalid argument')
        flush(number)

    monkeypatch.setattr(os, 'fsync', refuse)
    with writing(tmp_path / 'epoch_1.pth') as part:
        save(part)
    assert defect(tmp_path / 'epoch_1.pth') is None


def die(*args) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingFile(io.FileIO):
    """A file whose writer is killed at its ``last`` byte."""

    last = 0

    def write(self, content: bytes) -> int:
        room = self.last - self.tell()
        if len(content) <= room:
            return super().write(content)
        super().write(bytes(content)[:room])
        return die()


@pytest.mark.parametrize(
    'moment', [0, 500, 20_000, 79_000, 'fsync', 'replace', 'open', None]
)
def test_a_kill_at_any_moment_keeps_the_older_checkpoint(tmp_path, moment):
    def write(epoch: int, kind: type = io.FileIO) -> None:
        weights = {'weight': torch.arange(20_000.0) + epoch}
        final = tmp_path / f'epoch_{epoch}.pth'
        with writing(final) as part, kind(part, 'w') as file:
            torch.save(resumable(epoch, state_dict=weights), file)

    write(1)
    child = os.fork()
    if child == 0:
        if isinstance(moment, str):
            # On the file, before the rename, and after it (the folder).
            setattr(os, moment, die)
        DyingFile.last = moment if isinstance(moment, int) else 10**9
        write(2, DyingFile)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert killed == (moment is not None)
    done = moment in ('open', None)
    assert (tmp_path / 'epoch_2.pth').exists() == done
    path, content = newest_complete(tmp_path)
    assert path.name == ('epoch_2.pth' if done else 'epoch_1.pth')
    assert content['state_dict']['weight'][0] == 1 + done
    write(2)  # the next run overwrites what was left
    assert newest_complete(tmp_path)[0].name == 'epoch_2.pth'
    assert not list(tmp_path.glob('*.tmp'))


def test_match_counts_every_tensor():
    def net(width: int, extra: bool = False) -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))
        return model.append(nn.Linear(2, 2)) if extra else model

    wider, longer = net(5).state_dict(), net(4, extra=True).state_dict()
    same = match(net(4), {'state_dict': net(4).state_dict()})
    assert same.exact and len(same.loaded) == 7
    other = match(net(4, extra=True), wider)
    assert other.missing == ['2.weight', '2.bias']
    assert len(other.reshaped) == 6 and len(other.loaded) == 1
    assert '0.weight is (5, 3, 1, 1), expected (4, 3, 1, 1)' in str(other)
    unused = match(net(4), longer)
    assert unused.unused == ['2.weight', '2.bias']
    assert len(unused.loaded) == 7
    with pytest.raises(UserError, match='of another architecture'):
        require_match(net(4), longer, 'a.pth')
    require_match(net(4), longer, 'a.pth', 0.5)
    with pytest.raises(UserError, match='1 of 9 tensors fit'):
        require_match(net(4, extra=True), wider, 'a.pth', 0.5)


def test_old_checkpoints_without_batch_counters_fit():
    state = nn.BatchNorm2d(3).state_dict()
    del state['num_batches_tracked']
    assert match(nn.BatchNorm2d(3), state).exact


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> list[tuple]:
    """Addresses and hashes that are asked for; gives ``source.pth``."""
    asked = []

    def download(url, target, hash_prefix, progress):
        asked.append((url, hash_prefix))
        shutil.copy(tmp_path / 'source.pth', target)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return asked


def test_download_is_cached_and_its_hash_checked(tmp_path, downloads):
    digest = sha256(save(tmp_path / 'source.pth'))
    url = f'https://example.org/resnet-{digest[:8]}.pth'
    for _ in range(2):
        got = CheckpointLoader.load_checkpoint(url)
    assert got['state_dict']['weight'].shape == (3, 2)
    assert downloads == [(url, digest[:8])]


def test_torchvision_names_are_read_safely_too(tmp_path, downloads):
    save(tmp_path / 'source.pth', x=attack(tmp_path / 'touched'))
    with pytest.raises(UserError, match='refused'):
        CheckpointLoader.load_checkpoint('torchvision://resnet50')
    assert not (tmp_path / 'touched').exists()
