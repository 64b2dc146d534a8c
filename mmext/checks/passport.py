# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The passport of a backbone: what it does, as measured.

``mmext check-backbone CONFIG_OR_MODULE`` prints it and saves it as JSON and
Markdown. :mod:`mmext.checks.backbone` makes the measurements.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel

from mmext.checks import backbone as measure
from mmext.checks.backbone import Property
from mmext.errors import UserError, did_you_mean
from mmext.evaluation.cost.complexity import count_complexity, input_shape
from mmext.evaluation.cost.latency import measure_latency
from mmext.evaluation.report.table import Table
from mmext.models.build import build_model
from mmext.utils.config import load_config, merge_options, parse_options
from mmext.utils.files import replacing, write_json
from mmext.utils.modules import require_device
from mmext.utils.random_state import random_state_kept, seed_everything
from mmext.utils.text import some
from mmext.version import __version__

#: Height and width of the images for all checks except the cost, in pixels.
SIZE = (128, 192)
#: Height and width at which the cost is measured without a config.
COST_SIZE = (800, 1280)
#: Seconds for each of two processes.
TIMEOUT = 120


@dataclass(frozen=True)
class Passport:
    """What was measured of a backbone.

    Args:
        name: Its class.
        source: The config or module.
        settings: What it was built from.
        levels: ``channels`` and ``stride`` of each level.
        properties: In the order of measurement.
        cost: Parameters, FLOPs and so on, by name; see :func:`cost_of`.
        versions: Of mmext and PyTorch, and the device.
    """

    name: str
    source: str
    settings: dict[str, Any]
    levels: list[dict[str, int]]
    properties: list[Property]
    cost: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[Property]:
        """The properties that the backbone does not have."""
        return [p for p in self.properties if p.ok is False]

    def tables(self) -> list[Table]:
        """Returns levels, properties and cost."""
        levels = [
            [str(i), str(level['channels']), str(level['stride'])]
            for i, level in enumerate(self.levels)
        ]
        words = {True: 'yes', False: 'NO', None: '-'}
        rows = [[p.name, words[p.ok], p.text] for p in self.properties]
        tables = [
            Table(('level', 'channels', 'stride'), levels),
            Table(('property', 'has it', 'measured'), rows),
        ]
        if self.cost:
            cost = [[k, _readable(k, v)] for k, v in self.cost.items()]
            tables.append(Table(('cost', 'value'), cost))
        return tables

    def text(self) -> str:
        """Returns the passport for a terminal."""
        levels = self.tables()[0].text().replace('\n', '\n  ')
        blocks = [f'{self.name} ({self.source})', f'  {levels}']
        marks = {True: 'ok', False: 'NO', None: '-'}
        width = max(len(p.name) for p in self.properties)
        blocks.append(
            '\n'.join(
                _wrapped(f'  {marks[p.ok]:3} {p.name:{width}}  ', p.text)
                for p in self.properties
            )
        )
        if self.cost:
            width = max(map(len, self.cost))
            blocks.append(
                '\n'.join(
                    _wrapped(f'  {key:{width}}  ', _readable(key, value))
                    for key, value in self.cost.items()
                )
            )
        return '\n\n'.join(blocks)

    def markdown(self) -> str:
        """Returns the passport as a Markdown page."""
        versions = ', '.join(f'{k} {v}' for k, v in self.versions.items())
        settings = '\n'.join(f'{k}={v!r}' for k, v in self.settings.items())
        tables = '\n'.join(table.markdown() for table in self.tables())
        return (
            f'# Passport of {self.name}\n\nFrom `{self.source}`, with '
            f'{versions}.\n\n```text\n{settings}\n```\n\n{tables}'
        )

    def save(self, folder: str | Path) -> list[Path]:
        """Writes ``NAME.json`` and ``NAME.md``; returns the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f'{self.name}.{end}' for end in ('json', 'md')]
        write_json(paths[0], asdict(self), indent=1, default=str)
        with replacing(paths[1]) as part:
            part.write_text(self.markdown(), encoding='utf-8')
        return paths


def _wrapped(start: str, text: str) -> str:
    return fill(
        text,
        79,
        initial_indent=start,
        subsequent_indent=' ' * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _readable(name: str, value: Any) -> str:
    if value is None:
        return 'not measured'
    if name == 'parameters':
        return f'{value / 1e6:.2f} M'
    if name == 'FLOPs':
        return f'{value / 1e9:.2f} G multiply-adds'
    if name.endswith('memory'):
        return f'{value / 2**20:.0f} MiB'
    if name == 'latency':
        return f'{1e3 * value:.1f} ms'
    if isinstance(value, list | tuple):
        return 'x'.join(map(str, value))
    return str(value) or '-'


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from; processes can build it from this.

    Args:
        source: A config file, a Python file or module with a class
            (``tinynet.py``, ``package.module:Class``), or a registered name.
        options: ``KEY=VALUE``: changes of the config, or arguments of the
            class.
    """

    source: str
    options: tuple[str, ...] = ()

    def read(self) -> tuple[dict[str, Any], Config | None]:
        """Returns the config of the backbone, and the config around it."""
        name, _, wanted = self.source.partition(':')
        path = Path(name)
        if path.suffix == '.py' and not (path.is_file() and _is_code(path)):
            cfg = load_config(path, self.options)
            init_default_scope(cfg.get('default_scope') or 'mmdet')
            model = cfg.get('model') or {}
            backbone = model.get('detector', model).get('backbone')
            if backbone is None:
                raise UserError(
                    f'config {path} has no model.backbone',
                    'Give the config of a detector, segmentor or classifier, '
                    'or a module with a backbone.',
                )
            return dict(backbone), cfg
        init_default_scope('mmdet')
        settings = Config({'type': self._find_class(path, name, wanted)})
        merge_options(settings, parse_options(self.options))
        return dict(settings._cfg_dict), None

    def _find_class(self, path: Path, name: str, wanted: str) -> Any:
        if path.suffix == '.py':
            sys.path.insert(0, str(path.resolve().parent))
            name = path.stem
        elif not wanted and inspect.isclass(MODELS.get(name)):
            return name
        try:
            module = import_module(name)
        except ImportError as error:
            near = did_you_mean(name, MODELS.module_dict)
            raise UserError(
                f'{self.source} is no config, no registered backbone and no '
                f'module that can be imported: {error}',
                f'{near} A module is given as FILE.py, or by its name if its '
                'folder is in PYTHONPATH.'.strip(),
            ) from error
        classes = {
            key: value
            for key, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, nn.Module)
            and value.__module__ == module.__name__
        }
        registered = [key for key in classes if key in MODELS.module_dict]
        if not wanted:
            names = registered or list(classes)
            if len(names) == 1:
                (wanted,) = names
        if wanted not in classes:
            problem = f'no class {wanted!r}' if wanted else 'several backbones'
            if not classes:
                problem = 'no torch.nn.Module'
            raise UserError(
                f'{name} has {problem}',
                f'Name one of: {some(registered or classes, 20)}, as '
                f'{self.source.partition(":")[0]}:CLASS.'
                if classes
                else 'Give the module that defines the backbone.',
            )
        return classes[wanted]

    def build(self, **changes: Any) -> nn.Module:
        """Builds the backbone, always with the same weights.

        No pre-trained weights are loaded: they change no property.
        """
        cfg, _ = self.read()
        with random_state_kept():
            seed_everything(0)
            return build_model({**copy.deepcopy(cfg), **changes})


def _is_code(path: Path) -> bool:
    """Whether a Python file defines a class, which no config does."""
    try:
        body = ast.parse(path.read_text(encoding='utf-8')).body
    except SyntaxError:
        return False
    return any(isinstance(node, ast.ClassDef) for node in body)


def make_passport(
    source: str | Path,
    options: Sequence[str] = (),
    *,
    size: tuple[int, int] = SIZE,
    shape: tuple[int, int] | None = None,
    device: str | None = None,
    quick: bool = False,
    log: Callable[[str], object] = lambda line: None,
) -> Passport:
    """Measures a backbone.

    Args:
        source: See :class:`Source`.
        options: ``KEY=VALUE``: changes of the config, or arguments of the
            class.
        size: Height and width of the images, in pixels. Default: (128, 192).
        shape: Height and width for the cost. Default: those of the config's
            test pipeline, or (800, 1280).
        device: Default: the first GPU, or the CPU.
        quick: Whether to leave out export, two processes and cost.
            Default: False.
        log: Gets the name of each step before it begins.

    Raises:
        UserError: The backbone cannot be built, or its output is not a tuple
            of maps.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    require_device(device)
    where = Source(str(source), tuple(options))
    settings, cfg = where.read()
    model = where.build().to(device)
    channels = settings.get('in_channels', 3)
    x = images(channels, size).to(device)
    log('levels')
    levels = _levels(model, x)
    found = [measure.check_promises(model, levels)]
    steps: dict[str, Callable[[], Property | list[Property]]] = {
        'gradients': partial(measure.check_gradients, model, x),
        'train and eval': partial(measure.check_modes, model, x),
        'batch invariance': partial(measure.check_batch, model, x),
        'determinism': partial(measure.check_determinism, model, x),
        'odd sizes': partial(measure.check_sizes, model, x, levels),
        'channels-last': partial(measure.check_channels_last, model, x),
        'AMP bfloat16': partial(
            measure.check_precision, model, x, torch.bfloat16
        ),
        'AMP float16': partial(
            measure.check_precision, model, x, torch.float16
        ),
    }
    if 'with_cp' in inspect.signature(type(model).__init__).parameters:
        lean = where.build(with_cp=True).to(device)
        steps['checkpointing'] = partial(
            measure.check_checkpointing, model, lean, x
        )
    if not quick:
        steps['torch.export'] = partial(measure.check_export, model, x)
        steps['two processes'] = partial(check_two_processes, where, size)
    for name, step in steps.items():
        log(name)
        result = _attempt(name, step)
        found += result if isinstance(result, list) else [result]
    cost = {}
    if not quick:
        log('cost')
        if shape is None:
            shape = input_shape(cfg) if cfg is not None else COST_SIZE
        cost = cost_of(model, channels, shape)
    return Passport(
        type(model).__name__,
        str(source),
        {k: v for k, v in settings.items() if k != 'init_cfg'},
        levels,
        found,
        cost,
        {'mmext': __version__, 'PyTorch': torch.__version__, 'device': device},
    )


def images(channels: int, size: tuple[int, int]) -> Tensor:
    """Returns two random images, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, channels, *size, generator=generator)


def _levels(model: nn.Module, x: Tensor) -> list[dict[str, int]]:
    try:
        return measure.measure_levels(model, x)
    except UserError:
        raise
    except Exception as error:  # of any backbone
        raise UserError(
            f'{type(model).__name__} fails for two images of '
            f'{x.shape[2]}x{x.shape[3]} pixels: {_short(error)}',
            '--size HEIGHT WIDTH gives images of another size. '
            'MMEXT_DEBUG=1 shows the traceback.',
        ) from error


def _attempt(
    name: str, step: Callable[[], Property | list[Property]]
) -> Property | list[Property]:
    try:
        return step()
    except Exception as error:  # of any backbone
        return Property(name, False, f'fails: {_short(error)}')


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ['']
    if isinstance(error, ProcessRaisedException):
        return lines[-1][:200]  # the others are the traceback
    return f'{type(error).__name__}: {lines[0]}'[:200]


class _AsDetector(nn.Module):
    """A backbone with the calls of a detector that the cost needs."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, *_: Any, **__: Any) -> Any:
        return self.backbone(image)

    predict = forward


def cost_of(
    model: nn.Module, channels: int, shape: tuple[int, int]
) -> dict[str, Any]:
    """Returns the cost of one image of ``shape``.

    ``training memory`` is what one image keeps for the backward pass, in
    bytes; ``inference memory`` is the peak on a GPU.
    """
    whole = _AsDetector(model)
    counted = count_complexity(whole, shape)
    cost: dict[str, Any] = {
        'image': list(shape),
        'parameters': counted.params,
        'FLOPs': counted.flops,
        'not counted': ', '.join(counted.uncounted) or counted.note,
        'latency': None,
        'inference memory': None,
        'training memory': None,
    }
    if channels != 3:
        return cost
    with suppress(RuntimeError):  # out of memory, or a size it does not take
        speed = measure_latency(whole, shape, warm_up=2, repeats=10)
        cost['latency'] = speed.seconds
        cost['inference memory'] = speed.peak_bytes
        cost['measured on'] = speed.device
        device = next(model.parameters()).device
        x = torch.rand(1, 3, *shape, device=device)
        net = copy.deepcopy(model)
        net.train()
        cost['training memory'] = measure.kept_bytes(net, x)
    return cost


def check_two_processes(where: Source, size: tuple[int, int]) -> Property:
    """Whether two processes with one image each get the gradients of one.

    Two steps on the CPU over gloo: parameters without a gradient stop the
    second one.
    """
    name = 'two processes'
    x = images(where.read()[0].get('in_channels', 3), size)
    with measure.copied(where.build(), x) as model:
        unused = measure.gradients(model, model(x)).unused
    (sum(measure.loss_of(model(x[i : i + 1])) for i in (0, 1)) / 2).backward()
    names = [n for n, p in model.named_parameters() if p.grad is not None]
    alone = [model.get_parameter(n).grad for n in names]
    with tempfile.TemporaryDirectory() as folder:
        _in_two_processes(_work, (where, size, folder, bool(unused)))
        both = torch.load(Path(folder, 'grads.pth'))
    error = measure.error_of(
        [torch.cat([both[n].flatten() for n in names])],
        [torch.cat([g.flatten() for g in alone])],
    )
    text = f'gradients differ by {error:.1e} from those of one process'
    if unused:
        text += (
            '; only with find_unused_parameters=True, because of '
            f'{some(unused, 2)}'
        )
    return Property(name, measure.equal(error) and not unused, text)


def _in_two_processes(work: Callable[..., None], args: tuple) -> None:
    """Runs ``work(rank, *args)``; raises what one of them raises."""
    # A forked process need not import everything again, which takes most of
    # the time; one that has used CUDA cannot be forked.
    forks = sys.platform == 'linux' and not torch.cuda.is_initialized()
    processes = start_processes(
        work, args, 2, join=False, start_method='fork' if forks else 'spawn'
    )
    if not processes.join(TIMEOUT) and not processes.join(TIMEOUT):
        for process in processes.processes:
            process.kill()
        raise TimeoutError(f'no end within {2 * TIMEOUT} seconds')


def _work(
    rank: int,
    where: Source,
    size: tuple[int, int],
    folder: str,
    find_unused: bool,
) -> None:
    """Trains two steps in one of two processes; the first saves gradients."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', f'file://{folder}/meet', rank=rank, world_size=2
    )
    x = images(where.read()[0].get('in_channels', 3), size)
    with measure.copied(where.build(), x) as model:
        wrapped = DistributedDataParallel(
            model, find_unused_parameters=find_unused
        )
    for _ in range(2):
        model.zero_grad()
        measure.loss_of(wrapped(x[rank : rank + 1])).backward()
    if rank == 0:
        grads = {
            n: p.grad
            for n, p in model.named_parameters()
            if p.grad is not None
        }
        torch.save(grads, Path(folder, 'grads.pth'))
    dist.barrier()
    dist.destroy_process_group()
