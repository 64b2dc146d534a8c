# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Breaks trainings on purpose and counts how many recover exactly.

    python benchmarks/faults.py [--only kill flipped] [--trials N] [--seed S]

Every trial is a training by tools/train.py (Faster R-CNN with EMA, warm-up
and a checkpoint after each epoch, on a few drawn images) that is broken once
or twice and finished with ``--resume``. It has recovered if it ends without
an error, and if a fault that a process can notice ended it with a message
(status 2). It is equal if weights, EMA, optimizer and schedules are those of
the undisturbed run, bit for bit, and so are the last loss and AP.

A training process takes 8 s to start, mostly for imports. The processes here
are forked from a server that has imported the packages and done nothing else
(the forkserver of ``multiprocessing``), and then run tools/train.py. SIGKILL
reaches them like any other process. Some trials start a new interpreter
instead, to show that it makes no difference.

Full and read-only disks are mounted, which needs root; otherwise these trials
are skipped. Finished trials are kept in --work-dir and not repeated. When all
are finished, the table is written to benchmarks/results/faults.md and
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import random
import runpy
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / 'tools' / 'train.py'
RESULT = ROOT / 'benchmarks' / 'results' / 'faults.md'
PAGE = ROOT / 'docs' / 'reliability.md'
MARKS = '<!-- faults.py: begin -->\n', '<!-- faults.py: end -->\n'

EPOCHS, ITERATIONS = 4, 3  # iterations of an epoch: 6 images, 2 a batch
CONFIG = f"""
_base_ = {str(ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py')!r}
model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(fc_out_channels=64)))
data = dict(num_train=6, num_val=2, size=(160, 160))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (96, 96)
train_dataloader = dict(
    batch_size=2, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs={EPOCHS}, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6),
    dict(type='MultiStepLR', milestones=[3], by_epoch=True)]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(max_keep_ckpts=3, save_best='auto'))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""


def run_tool(
    tool: Path, arguments: Sequence[object], log: Path, ahead: float = 0
) -> None:
    """Runs a tool in this process and redirects its output.

    The clock is ``ahead`` by so many seconds.
    """
    with log.open('ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    now, local, text = time.time, time.localtime, time.strftime
    time.time = lambda: now() + ahead
    time.localtime = lambda t=None: local(time.time() if t is None else t)
    time.strftime = lambda f, t=None: text(f, t or time.localtime())
    sys.argv = [str(tool), *map(str, arguments)]
    runpy.run_path(str(tool), run_name='__main__')


@dataclass
class Outcome:
    """The result of one trial.

    Args:
        recovered: Whether the training finished.
        lost: Iterations that were done twice.
        equal: Whether it ended with the state of the undisturbed run.
        writing: Whether the fault was while a checkpoint was written.
            Default: False.
    """

    recovered: bool
    lost: int
    equal: bool
    writing: bool = False


class Lab:
    """Starts trainings and compares them with the undisturbed one.

    Args:
        root: A folder; results of earlier trials in it are used.
    """

    def __init__(self, root: Path) -> None:
        from mmext.utils.config import load_config

        self.root = root.absolute()
        self.random = random.Random()
        self.options: tuple[str, ...] = ()
        self.config = self.root / 'tiny.py'
        self.config.write_text(CONFIG)
        load_config(self.config).dump(self.config)  # without bases: faster
        self.context = multiprocessing.get_context('forkserver')
        self.context.set_forkserver_preload(
            [
                'mmext.engine.launch',
                'mmdet.datasets',
                'mmdet.engine',
                'mmdet.evaluation',
                'mmdet.models',
                'mmdet.visualization',
            ]
        )
        self.reference = self.root / 'undisturbed'
        self.seconds = self.undisturbed()

    def folder(self, name: str = 'trial') -> Path:
        """Creates an empty work dir; the last one is removed."""
        work = self.root / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return work

    def start(
        self, work: Path, *options: str, ahead: float = 0
    ) -> multiprocessing.Process:
        """Starts a training in a forked process; see :func:`run_tool`."""
        arguments = [self.config, '--work-dir', work, *options, *self.options]
        process = self.context.Process(
            target=run_tool,
            args=(TRAIN, arguments, work / 'printed.txt', ahead),
        )
        process.start()
        return process

    def tool(self, name: str, *arguments: object, log: Path) -> int:
        """Runs a tool in a forked process and returns its exit status."""
        process = self.context.Process(
            target=run_tool, args=(ROOT / 'tools' / name, arguments, log)
        )
        process.start()
        process.join()
        return process.exitcode

    @contextmanager
    def with_options(self, name: str, *options: str) -> Iterator[None]:
        """Trains with other options; their undisturbed run is ``name``."""
        before, self.options = self.reference, options
        self.reference = self.root / name
        try:
            if not (self.reference / f'epoch_{EPOCHS}.pth').exists():
                self.start(self.folder(name)).join()
            yield
        finally:
            self.reference, self.options = before, ()

    def undisturbed(self) -> float:
        """Trains without a fault; returns the time in seconds."""
        known = self.reference / 'seconds.json'
        if known.is_file():
            return json.loads(known.read_text())
        for work in (self.folder(), self.folder('undisturbed')):
            begun = time.monotonic()  # the first run warms up
            process = self.start(work)
            process.join()
            seconds = time.monotonic() - begun
            if process.exitcode:
                raise SystemExit((work / 'printed.txt').read_text())
        known.write_text(json.dumps(seconds))
        return seconds

    def finish(
        self, work: Path, before: int = 0, writing: bool = False
    ) -> Outcome:
        """Resumes a training until its end; see :meth:`judge`."""
        process = self.start(work, '--resume')
        process.join()
        return self.judge(work, process.exitcode, before, writing)

    def judge(
        self, work: Path, status: int, before: int = 0, writing: bool = False
    ) -> Outcome:
        """Compares a finished training with the undisturbed one.

        Args:
            work: Its work dir.
            status: The exit status of its last process.
            before: Iterations before the logs of the work dir. Default: 0.
            writing: See :class:`Outcome`.
        """
        done, needed = (
            sum('loss' in record for record in records(folder))
            for folder in (work, self.reference)
        )
        equal = status == 0 and same_end(self.reference, work)
        if not equal:
            kept = self.root / f'failed-{time.strftime("%H%M%S")}'
            shutil.copytree(work, kept)
            print(f'  not equal (status {status}): see {kept}', flush=True)
        lost = before + done - needed
        return Outcome(status == 0, lost, equal, writing)


def records(work: Path) -> list[dict]:
    """Returns what the runs in a work dir have logged, oldest first."""
    found = []
    for file in sorted(work.glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the disk was full
                continue
    return found


def _epoch(file: Path) -> int:
    return int(file.stem.removeprefix('epoch_'))


def same(one: object, other: object) -> bool:
    """Compares two values of a checkpoint bit for bit."""
    import torch

    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) for key in one
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def same_end(one: Path, other: Path) -> bool:
    """Compares the files, the state, the loss and the AP of two trainings."""
    from mmext.checkpoints.load import load

    kept = [{p.name for p in work.glob('*.pth*')} for work in (one, other)]
    if kept[0] != kept[1]:
        print(f'  kept {sorted(kept[1])}, not {sorted(kept[0])}', flush=True)
        return False
    ends = [load(work / f'epoch_{EPOCHS}.pth') for work in (one, other)]
    for end in ends:
        # Times, and the history of the log, which contains times.
        end.pop('message_hub')
        end['meta'] = {k: end['meta'][k] for k in ('epoch', 'iter')}
    logged = []
    for work in (one, other):
        loss = [r for r in records(work) if 'loss' in r][-1]
        ap = [r for r in records(work) if 'coco/bbox_mAP' in r][-1]
        timeless = {**loss, **ap}
        del timeless['time'], timeless['data_time']
        logged.append(timeless)
    return same(*ends) and same(*logged)


def kill(lab: Lab, kills: int = 1) -> Outcome:
    """SIGKILL at a random moment, the start included."""
    work = lab.folder()
    for i in range(kills):
        process = lab.start(work, '--resume') if i else lab.start(work)
        process.join(lab.random.uniform(0, lab.seconds))
        if process.exitcode == 0:  # it was faster than the undisturbed run
            return kill(lab, kills)
        process.kill()
        process.join()
    return lab.finish(work)


def kill_twice(lab: Lab) -> Outcome:
    """SIGKILL at a random moment, and again at one of the resumed run."""
    return kill(lab, 2)


def kill_writing(lab: Lab) -> Outcome:
    """SIGKILL while a checkpoint's temporary file is there."""
    work = lab.folder()
    process = lab.start(work)
    name = f'epoch_{lab.random.randint(1, EPOCHS)}.pth'
    while not (work / f'{name}.tmp').exists() and process.is_alive():
        pass
    time.sleep(lab.random.uniform(0, 0.02))
    process.kill()
    process.join()
    writing = (work / f'{name}.tmp').exists()
    return lab.finish(work, writing=writing)


def kill_fresh(lab: Lab) -> Outcome:
    """SIGKILL of a new interpreter, resumed by another."""
    work = lab.folder()
    arguments = [sys.executable, TRAIN, lab.config, '--work-dir', work]
    with (work / 'printed.txt').open('ab') as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        epoch = lab.random.randint(1, EPOCHS - 1)
        _wait_for(work / f'epoch_{epoch}.pth', process)
        time.sleep(lab.random.uniform(0, lab.seconds / EPOCHS))
        process.kill()
        process.wait()
        status = subprocess.call(
            [*arguments, '--resume'], stdout=log, stderr=log
        )
    return lab.judge(work, status)


def kill_worker(lab: Lab) -> Outcome:
    """SIGKILL of one of two gloo processes; torchrun restarts both."""
    pair = lab.root / 'pair'
    if not (pair / f'epoch_{EPOCHS}.pth').exists():
        _torchrun(lab, lab.folder('pair')).wait()
    work = lab.folder()
    process = _torchrun(lab, work)
    _wait_for(work / f'epoch_{lab.random.randint(1, 2)}.pth', process)
    time.sleep(lab.random.uniform(0, lab.seconds / EPOCHS))
    workers = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    os.kill(int(lab.random.choice(workers.read_text().split())), 9)
    status = process.wait()
    reference, lab.reference = lab.reference, pair
    outcome = lab.judge(work, status)
    lab.reference = reference
    return outcome


def _torchrun(lab: Lab, work: Path) -> subprocess.Popen:
    torchrun = [sys.executable, '-m', 'torch.distributed.run']
    torchrun += ['--standalone', '--nproc_per_node=2', '--max-restarts=1']
    options = ['--launcher', 'pytorch', '--resume', '--work-dir', work]
    command = [*torchrun, TRAIN, lab.config, *options]
    # Otherwise restarted processes of torch 2.15 look for old addresses.
    environ = {**os.environ, 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}
    with (work / 'printed.txt').open('ab') as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environ)


Started = subprocess.Popen | multiprocessing.Process


def _wait_for(file: Path, process: Started) -> None:
    while not file.exists() and _runs(process):
        time.sleep(0.01)


def _runs(process: Started) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    return process.is_alive()


def full_disk(lab: Lab) -> Outcome | None:
    """A tmpfs that fills up at a random moment, then made larger."""
    work = lab.folder()
    used = sum(
        f.stat().st_size for f in lab.reference.rglob('*') if f.is_file()
    )
    size = int(used * lab.random.uniform(0.05, 0.95))
    with mounted('-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', at=work) as ok:
        if not ok:
            return None
        process = lab.start(work)
        process.join()
        if process.exitcode != 2:
            shutil.copytree(work, lab.root / 'failed-full-disk')
        grow = ['mount', '-o', 'remount,size=1g', work]
        subprocess.run(grow, check=True)
        return _refused(process.exitcode, lab.finish(work))


@contextmanager
def mounted(*mount: object, at: Path) -> Iterator[bool]:
    """Mounts something at a folder; gives whether that is allowed."""
    done = shutil.which('mount') is not None and not subprocess.call(
        ['mount', *map(str, mount), at], stderr=subprocess.DEVNULL
    )
    try:
        yield done
    finally:
        if done:
            subprocess.run(['umount', at], check=True)


def read_only(lab: Lab) -> Outcome | None:
    """The work dir becomes read-only at a random moment, then writable."""
    work = lab.folder()
    process = lab.start(work)
    _wait_for(work / 'epoch_1.pth', process)
    time.sleep(lab.random.uniform(0, lab.seconds / EPOCHS))
    with mounted('--bind', work, at=work) as allowed:
        if not allowed:
            process.kill()
            return None
        ro = ['mount', '-o', 'remount,bind,ro', work]
        subprocess.run(ro, check=True)
        process.join()
    if process.exitcode == 0:  # it had ended before
        return read_only(lab)
    return _refused(process.exitcode, lab.finish(work))


def _refused(status: int, outcome: Outcome) -> Outcome:
    """Counts a fault as recovered only if it was reported (status 2)."""
    if status != 2:
        print(f'  the fault was not reported: status {status}', flush=True)
    return replace(outcome, recovered=outcome.recovered and status == 2)


def full_disk_in_a_tool(lab: Lab) -> Outcome | None:
    """A full disk in each tool that writes, then made larger."""
    work = lab.folder()
    log, disk = work / 'printed.txt', work / 'disk'
    disk.mkdir()
    wrong = []
    for tool, arguments in _tools(lab, work, disk, log).items():
        with mounted('-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', at=disk) as ok:
            if not ok:
                return None
            log.write_text('')
            status = lab.tool(tool, *arguments, log=log)
            if status != 2 or 'Traceback' in log.read_text():
                wrong.append(f'{tool}: status {status} on a full disk')
            grow = ['mount', '-o', 'remount,size=1g', disk]
            subprocess.run(grow, check=True)
            if status := lab.tool(tool, *arguments, log=log):
                wrong.append(f'{tool}: status {status} on a larger disk')
        if wrong and tool in wrong[-1]:
            shutil.copy(log, lab.root / f'failed-{Path(tool).stem}.txt')
    print(*wrong, sep='\n', end='\n' if wrong else '')
    return Outcome(not wrong, 0, not wrong)


def _tools(lab: Lab, work: Path, disk: Path, log: Path) -> dict[str, list]:
    """Returns tools that write to a disk, with their arguments."""
    last = lab.reference / f'epoch_{EPOCHS}.pth'
    sides = [work / 'a', work / 'b']
    for side in sides:
        lab.tool('test.py', lab.config, last, '--work-dir', side, log=log)
    (file,) = sides[0].glob('predictions/*.meta.json')
    truth = Path(json.loads(file.read_text())['annotation_file'])
    images = truth.parents[1] / 'val'
    few = ['--images', '4', '--epochs', '1']
    return {
        'test.py': [lab.config, last, '--work-dir', disk / 'w'],
        'compare.py': [*sides, '--quick', '--out', disk / 'report'],
        'image_demo.py': [lab.config, last, images, '--out', disk / 'p'],
        'demo.py': ['--work-dir', disk / 'demo', *few],
        'analysis_tools/plot_curves.py': [lab.reference, '--out', disk / 'c'],
        'analysis_tools/browse_dataset.py': [lab.config, '--out', disk / 'b'],
        'misc/check_backbone.py': [lab.config, '--out', disk / 'passport'],
        'model_converters/publish_model.py': [last, disk / 'weights.pth'],
        'dataset_converters/coco2imagefolder.py': [
            *(truth, images, disk / 'crops')
        ],
    }


def kill_loader(lab: Lab) -> Outcome:
    """SIGKILL of a worker of the data loader."""
    workers = [f'{s}_dataloader.num_workers=1' for s in ('train', 'val')]
    with lab.with_options('workers', '--cfg-options', *workers):
        work = lab.folder()
        process = lab.start(work)
        _wait_for(work / f'epoch_{lab.random.randint(1, 2)}.pth', process)
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        os.kill(int(lab.random.choice(found)), 9)
        process.join()
        return _refused(process.exitcode, lab.finish(work))


def clock_set_back(lab: Lab) -> Outcome:
    """The clock set back by a day between two runs."""
    work = lab.folder()
    day = 24 * 60 * 60
    process = lab.start(work, ahead=day)
    _wait_for(work / f'epoch_{lab.random.randint(1, EPOCHS - 1)}.pth', process)
    process.kill()
    process.join()
    for path in work.rglob('*'):
        then = path.stat().st_mtime + day
        os.utime(path, (then, then))
    return lab.finish(work)


def two_at_once(lab: Lab) -> Outcome:
    """Two trainings started at once in one work dir; one is refused."""
    work = lab.folder()
    both = [lab.start(work), lab.start(work)]
    for process in both:
        process.join()
    first, second = sorted(process.exitcode for process in both)
    return _refused(second, lab.judge(work, first))


def copied(lab: Lab) -> Outcome:
    """A killed run, copied; the copy is resumed, the original unchanged."""
    original = lab.folder('original')
    process = lab.start(original)
    _wait_for(original / 'epoch_2.pth', process)
    process.kill()
    process.join()
    before = contents(original)
    work = lab.folder()
    shutil.copytree(original, work, dirs_exist_ok=True)
    outcome = lab.finish(work)
    kept = contents(original) == before
    return replace(outcome, recovered=outcome.recovered and kept)


def contents(folder: Path) -> dict[Path, str]:
    """Returns the SHA-256 of each file in a folder."""
    from mmext.utils.files import sha256

    return {p: sha256(p) for p in folder.rglob('*') if p.is_file()}


def _spoil(lab: Lab, change: Callable[[bytearray], bytes]) -> Outcome:
    """Changes the newest checkpoint of a run that had two or three."""
    work = lab.folder()
    last = lab.random.randint(3, EPOCHS)
    for file in lab.reference.glob('*.pth'):
        if file.name.startswith('best') or _epoch(file) <= last:
            shutil.copy(file, work)
    newest = work / f'epoch_{last}.pth'
    newest.write_bytes(change(bytearray(newest.read_bytes())))
    (work / 'last_checkpoint').write_text(str(newest))
    return lab.finish(work, ITERATIONS * last)


def truncated(lab: Lab) -> Outcome:
    """The newest checkpoint, cut at a random byte."""
    return _spoil(lab, lambda b: b[: lab.random.randrange(len(b))])


def flipped(lab: Lab) -> Outcome:
    """The newest checkpoint, one random bit of it flipped."""

    def flip(content: bytearray) -> bytearray:
        place = lab.random.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        return content

    return _spoil(lab, flip)


def _flip_tensor(lab: Lab, part: str) -> Outcome:
    import torch

    from mmext.checkpoints.tensors import tensors

    def flip(content: bytearray) -> bytes:
        checkpoint = torch.load(io.BytesIO(content), weights_only=False)
        values = [
            value
            for _, value in tensors(checkpoint[part])
            if value.is_contiguous() and value.numel()
        ]
        bits = lab.random.choice(values).view(-1).view(torch.uint8)
        bits[lab.random.randrange(len(bits))] ^= 1 << lab.random.randrange(8)
        changed = io.BytesIO()
        torch.save(checkpoint, changed)
        return changed.getvalue()

    return _spoil(lab, flip)


def flipped_weights(lab: Lab) -> Outcome:
    """One bit of a weight flipped, and the file saved again."""
    return _flip_tensor(lab, 'state_dict')


def flipped_average(lab: Lab) -> Outcome:
    """One bit of the EMA flipped, and the file saved again."""
    return _flip_tensor(lab, 'ema_state_dict')


def flipped_optimizer(lab: Lab) -> Outcome:
    """One bit of the optimizer's state flipped, and the file saved again."""
    return _flip_tensor(lab, 'optimizer')


#: Faults that kill a process too; those named so do it in any case.
KILLING = (clock_set_back, copied)
#: Rows of the table, and how often each is tried.
FAULTS: dict[Callable[[Lab], Outcome | None], int] = {
    kill: 36,
    kill_writing: 10,
    kill_twice: 1,
    kill_fresh: 1,
    kill_worker: 1,
    kill_loader: 2,
    truncated: 2,
    flipped: 3,
    flipped_weights: 2,
    flipped_average: 1,
    flipped_optimizer: 1,
    full_disk: 3,
    full_disk_in_a_tool: 1,
    read_only: 2,
    clock_set_back: 1,
    two_at_once: 2,
    copied: 1,
}


def row(fault: Callable, outcomes: list[Outcome]) -> tuple[str, ...]:
    """Returns a row of the table."""
    name = fault.__doc__.rstrip('.')
    if not outcomes:
        return name, '0', 'skipped: mounting is not allowed', '', ''
    lost = [o.lost for o in outcomes]
    if inside := sum(o.writing for o in outcomes):
        name += f' (certainly inside a write: {inside})'
    return (
        name,
        str(len(outcomes)),
        str(sum(o.recovered for o in outcomes)),
        f'{statistics.median(lost):g}, {max(lost)}',
        str(sum(o.equal for o in outcomes)),
    )


def table(outcomes: dict[Callable, list[Outcome]], lab: Lab) -> str:
    """Returns the table and how it was made, in Markdown."""
    from mmext.engine.predictions_hook import versions
    from mmext.evaluation.report.table import Table

    header = (
        'fault',
        'trials',
        'recovered',
        'iterations done twice: median, worst',
        'ended bit for bit as the undisturbed run',
    )
    rows = [row(fault, found) for fault, found in outcomes.items()]
    used = ', '.join(f'{k} {v}' for k, v in versions().items())
    kills = len(outcomes.get(kill_twice, ()))  # these count twice
    for fault, found in outcomes.items():
        if fault.__name__.startswith('kill') or fault in KILLING:
            kills += len(found)
    return (
        f'{Table(header, rows).markdown()}\n\n'
        f'{kills} processes were killed with SIGKILL. A training is '
        f'{EPOCHS * ITERATIONS} iterations with a checkpoint every '
        f'{ITERATIONS}; undisturbed it took {lab.seconds:.1f} s. '
        f'{platform.system()}, Python {platform.python_version()}, {used}.\n'
    )


def write(text: str, page: Path = PAGE, result: Path = RESULT) -> None:
    """Writes the table to the results and into the page."""
    result.write_text(text, encoding='utf-8')
    before, rest = page.read_text(encoding='utf-8').split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(
        before + MARKS[0] + text + MARKS[1] + after, encoding='utf-8'
    )


def trials(wanted: dict[Callable, int], lab: Lab, seed: int) -> dict:
    """Runs the trials that are missing, prints the progress, returns all.

    Args:
        wanted: Fault -> number of trials.
        lab: Starts the trainings.
        seed: Seed of the moments and places of the faults.
    """
    known = lab.root / 'outcomes.json'
    done = json.loads(known.read_text()) if known.is_file() else {}
    todo = [
        (fault, i)
        for fault, count in wanted.items()
        for i in range(len(done.get(fault.__name__, [])), count)
    ]
    begun = time.monotonic()
    for number, (fault, i) in enumerate(todo, 1):
        name = fault.__name__
        lab.random.seed(f'{seed} {name} {i}')
        outcome = fault(lab)
        if outcome is not None:
            done.setdefault(name, []).append(asdict(outcome))
            known.write_text(json.dumps(done))
        left = (time.monotonic() - begun) / number * (len(todo) - number)
        print(
            f'[{number}/{len(todo)}] {name}: {outcome or "skipped"}; '
            f'{left / 60:.0f} min left',
            flush=True,
        )
    return {
        fault: [Outcome(**o) for o in done.get(fault.__name__, [])]
        for fault in wanted
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [fault.__name__ for fault in FAULTS]
    parser.add_argument('--only', nargs='+', choices=names, default=names)
    parser.add_argument('--trials', type=int, help='of each kind of fault')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs' / 'faults'
    )
    args = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    wanted = {
        fault: min(args.trials or count, count)
        for fault, count in FAULTS.items()
        if fault.__name__ in args.only
    }
    args.work_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(args.work_dir / 'lock', timeout=0):  # one run at a time
        lab = Lab(args.work_dir)
        print(f'One undisturbed training takes {lab.seconds:.1f} s')
        text = table(trials(wanted, lab, args.seed), lab)
    print(text)
    if wanted == FAULTS:
        write(text)


if __name__ == '__main__':
    main()
