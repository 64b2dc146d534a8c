# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checkpoints are read without running code; damaged ones are found."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import signal
import stat
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
from mmext.checkpoints.match import match, require_match
from mmext.checkpoints.read import load, require_sha256, trusting
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
    assert sha256(path) in str(caught.value)
    with trusting():
        assert load(path)['meta']['args'].lr == 1
    with pytest.raises(UserError, match='refused'), trusting(False):
        load(path)
    monkeypatch.setenv('MMEXT_TRUST_CHECKPOINT', '1')
    assert load(path)['meta']['args'].lr == 1


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


def test_resuming_does_not_execute_the_saved_config(tmp_path):
    # Runner.resume() runs meta['config'] as Python.
    text = f'import os\nos.system("touch {tmp_path}/touched")'
    got = load(save(tmp_path / 'a.pth', meta={'config': text, 'epoch': 1}))
    assert got['meta'] == {'epoch': 1}


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


def test_every_flipped_byte_of_a_tensor_is_found(tmp_path):
    path = save(tmp_path / 'a.pth')
    intact = path.read_bytes()
    weight = torch.load(path)['state_dict']['weight'].numpy().tobytes()
    start = intact.index(weight)
    for offset in range(0, len(weight), 5):
        flipped = bytearray(intact)
        flipped[start + offset] ^= 1
        path.write_bytes(flipped)
        assert 'checksum' in defect(path)
    path.write_bytes(intact)
    assert defect(path) is None


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """One bit in every third byte."""
    path = save(tmp_path / 'epoch_1.pth', meta={'epoch': 3})
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
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth', meta={'args': Namespace(lr=1)})
    with pytest.raises(UserError, match='epoch_2.pth was refused'):
        newest_complete(tmp_path)
    with trusting():
        assert newest(tmp_path).name == 'epoch_2.pth'


def newest(folder: Path) -> Path:
    path, content = newest_complete(folder)
    assert content['state_dict'].keys() == {'weight', 'bias'}
    return path


def test_newest_complete_skips_truncated_files(tmp_path):
    for epoch in (2, 9, 10, 11):
        save(tmp_path / f'epoch_{epoch}.pth')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_12.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_11.pth'))
    cut = tmp_path / 'epoch_11.pth'
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / 'epoch_12.pth.tmp').write_bytes(b'half')
    logged: list[str] = []
    assert newest_complete(tmp_path, logged.append)[0].name == 'epoch_10.pth'
    assert len(logged) == 1 and 'epoch_11.pth is skipped' in logged[0]
    assert newest_complete(tmp_path / 'nowhere') is None


def test_newest_complete_follows_last_checkpoint(tmp_path):
    (tmp_path / 'run').mkdir()
    saved = save(tmp_path / 'iter_500.pth')
    (tmp_path / 'run/last_checkpoint').write_text(str(saved))
    assert newest(tmp_path / 'run') == saved


def test_what_an_earlier_run_left_in_the_folder_is_not_the_newest(tmp_path):
    # The next run, at second 20, writes into the same folder.
    for start, epochs in ((0, (1, 2, 12)), (20, (1, 2, 3))):
        for epoch in epochs:
            path = save(tmp_path / f'epoch_{epoch}.pth')
            os.utime(path, (start + epoch, start + epoch))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert newest_complete(tmp_path)[0].name == 'epoch_3.pth'
    # Killed between writing the fourth and last_checkpoint.
    save(tmp_path / 'epoch_4.pth')
    assert newest_complete(tmp_path)[0].name == 'epoch_4.pth'


def test_a_copied_folder_resumes_from_its_own(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    first = save(run / 'epoch_1.pth')
    (run / 'last_checkpoint').write_text(str(first))
    shutil.copytree(run, tmp_path / 'copy')
    save(run / 'epoch_2.pth')  # the original run continues
    (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
    copied = tmp_path / 'copy' / 'epoch_1.pth'
    assert newest(tmp_path / 'copy') == copied


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
            torch.save({'state_dict': weights}, file)

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
