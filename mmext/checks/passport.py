# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The passport of a backbone: what it does, as measured.

``mmext check-backbone CONFIG_OR_MODULE`` prints it and saves it as JSON and
Markdown. :mod:`mmext.checks.backbone` makes the measurements.
"""

from __future__ import annotations

import ast
import copy
import inspect
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from textwrap import fill, indent
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
from mmext.errors import UserError
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
    """What was measured of a backbone."""

    name: str  # of its class
    source: str  # the config or module
    settings: dict[str, Any]  # what it was built from
    levels: list[dict[str, int]]  # ``channels`` and ``stride`` of each
    properties: list[Property]  # in the order of measurement
    cost: dict[str, Any]  # by name; see :func:`cost_of`
    versions: dict[str, str]  # of mmext and PyTorch, and the device

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
        cost = [[k, _readable(k, v)] for k, v in self.cost.items()]
        tables = [
            Table(('level', 'channels', 'stride'), levels),
            Table(('property', 'has it', 'measured'), rows),
            Table(('cost', 'value'), cost),
        ]
        return [table for table in tables if table.rows]

    def text(self) -> str:
        """Returns the passport for a terminal."""
        marks = {True: 'ok ', False: 'NO ', None: '-  '}
        properties = [
            (f'{marks[p.ok]} {p.name}', p.text) for p in self.properties
        ]
        cost = [(k, _readable(k, v)) for k, v in self.cost.items()]
        blocks = [
            f'{self.name} ({self.source})',
            indent(self.tables()[0].text(), '  '),
            _two_columns(properties),
            _two_columns(cost),
        ]
        return '\n\n'.join(filter(None, blocks))

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


def _two_columns(rows: list[tuple[str, str]]) -> str:
    """Aligns texts after their names, and wraps them."""
    width = max((len(name) for name, _ in rows), default=0)
    lines = [
        fill(
            text,
            min(79, shutil.get_terminal_size().columns),
            initial_indent=f'  {name:{width}}  ',
            subsequent_indent=' ' * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in rows
    ]
    return '\n'.join(lines)


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

    ``source`` is a config file, or a Python file or module with a class
    (``tinynet.py``, ``package.module:Class``).
    ``options`` are ``KEY=VALUE``, for the config or for the class.
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
        settings = Config({'type': self._find_class(name, wanted)})
        merge_options(settings, parse_options(self.options))
        return dict(settings._cfg_dict), None

    def _find_class(self, name: str, wanted: str) -> type[nn.Module]:
        path = Path(name)
        if path.suffix == '.py':
            sys.path.insert(0, str(path.resolve().parent))
            name = path.stem
        try:
            module = import_module(name)
        except ImportError as error:
            raise UserError(
                f'{self.source} is no config and no module that can be '
                f'imported: {error}',
                'Give FILE.py, or a module whose folder is in PYTHONPATH, '
                'such as mmext.models:StarNet.',
            ) from error
        classes = {
            key: value
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, nn.Module)
        }
        own = [k for k, v in classes.items() if v.__module__ == name]
        if not (own or wanted in classes):
            raise UserError(
                f'{name} has no torch.nn.Module',
                'Give the module that defines the backbone.',
            )
        names = [key for key in own if key in MODELS.module_dict] or own
        if not wanted and len(names) == 1:
            return classes[names[0]]
        if wanted not in classes:
            found = f'no class {wanted!r}' if wanted else 'several backbones'
            raise UserError(
                f'{name} has {found}',
                f'Name one of: {some(names, 20)}, as '
                f'{self.source.partition(":")[0]}:CLASS.',
            )
        return classes[wanted]

    def build(self, **changes: Any) -> nn.Module:
        """Builds the backbone, always with the same weights.

        No pre-trained weights are loaded: they change no property.
        """
        cfg, _ = self.read()
        with random_state_kept():
            seed_everything(0)
            return build_model({**cfg, **changes})


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
    size: tuple[int, int] | None = None,
    device: str | None = None,
    quick: bool = False,
    log: Callable[[str], object] = lambda line: None,
) -> Passport:
    """Measures a backbone.

    Args:
        source: See :class:`Source`, as for ``options``.
        options: ``KEY=VALUE``. Default: none.
        size: Height and width of the images, in pixels. Default: the only
            one that the backbone takes (its ``fixed_size``), or (128, 192).
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
    fixed = getattr(model, 'fixed_size', None)
    size = size or fixed or SIZE
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, *size, generator=generator)
    x = images.to(device)
    log('levels')
    try:
        levels = measure.measure_levels(model, x)
    except UserError:
        raise
    except Exception as error:  # of any backbone
        raise UserError(
            f'{type(model).__name__} fails for two images of '
            f'{size[0]}x{size[1]} pixels: {_short(error)}',
            '--size HEIGHT WIDTH gives images of another size. '
            'MMEXT_DEBUG=1 shows the traceback.',
        ) from error
    steps: dict[str, Callable[[], Property | list[Property]]] = {
        'gradients': lambda: measure.check_gradients(model, x),
        'train and eval': lambda: measure.check_modes(model, x),
        'batch invariance': lambda: measure.check_batch(model, x),
        'determinism': lambda: measure.check_determinism(model, x),
        'odd sizes': lambda: (
            Property('odd sizes', None, f'{fixed[0]}x{fixed[1]} pixels only')
            if fixed
            else measure.check_sizes(model, x, levels)
        ),
        'channels-last': lambda: measure.check_channels_last(model, x),
        'AMP bfloat16': lambda: measure.check_precision(
            model, x, torch.bfloat16
        ),
        'AMP float16': lambda: measure.check_precision(
            model, x, torch.float16
        ),
    }
    if 'with_cp' in inspect.signature(type(model).__init__).parameters:
        steps['checkpointing'] = lambda: measure.check_checkpointing(
            model, where.build(with_cp=True).to(device), x
        )
    if not quick:
        steps['torch.export'] = lambda: measure.check_export(model, x)
        steps['two processes'] = lambda: check_two_processes(where, images)
    found = [measure.check_promises(model, levels)]
    for name, step in steps.items():
        log(name)
        try:
            result = step()
        except Exception as error:  # of any backbone
            result = Property(name, False, f'fails: {_short(error)}')
            # A model of timm that cannot save memory is not wrong.
            if name == 'checkpointing' and isinstance(error, UserError):
                result = Property(name, None, error.problem)
        found += result if isinstance(result, list) else [result]
    cost = {}
    if not quick:
        log('cost')
        shape = fixed or (COST_SIZE if cfg is None else input_shape(cfg))
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


def check_two_processes(where: Source, x: Tensor) -> Property:
    """Whether two processes with one image each get the gradients of one.

    Two steps on the CPU over gloo: parameters without a gradient stop the
    second one. ``x`` has two images.
    """
    with measure.copied(where.build(), x, True) as model:
        unused = measure.gradients(model, model(x)).unused
    with measure.copied(where.build(), x) as model:
        found = measure.gradients(model, model(x))
    why = ''
    if len(found.unused) == found.total:
        why = 'no parameter gets a gradient'
    elif any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        why = 'SyncBatchNorm needs GPUs'
    if why:
        return Property('two processes', None, why)
    (sum(measure.loss_of(model(x[i : i + 1])) for i in (0, 1)) / 2).backward()
    alone = _gradients(model)
    # A forked process need not import everything again, which takes most of
    # the time; where there is a GPU, a backward pass starts threads that
    # forbid it, on the CPU as well.
    forks = sys.platform == 'linux' and not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(
            _train_two_steps,
            (where, x, folder, bool(found.unused)),
            2,
            join=False,
            start_method='fork' if forks else 'spawn',
        )
        if not processes.join(TIMEOUT) and not processes.join(TIMEOUT):
            for process in processes.processes:
                process.kill()
            raise TimeoutError(f'no end within {2 * TIMEOUT} seconds')
        both = torch.load(Path(folder, 'grads.pth'))
    error = measure.error_of(
        *(
            [torch.cat([grads[name].flatten() for name in alone])]
            for grads in (both, alone)
        )
    )
    text = f'gradients differ by {error:.1e} from those of one process'
    if unused:
        text += (
            '; only with find_unused_parameters=True, because of '
            f'{some(unused, 2)}'
        )
    return Property('two processes', measure.equal(error) and not unused, text)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {n: p.grad for n, p in named if p.grad is not None}


def _train_two_steps(
    rank: int, where: Source, x: Tensor, folder: str, find_unused: bool
) -> None:
    """Runs in one of two processes; the first saves the gradients."""
    torch.set_num_threads(1)
    # It concerns the speed of a training on several GPUs.
    warnings.filterwarnings('ignore', 'Grad strides do not match')
    dist.init_process_group(
        'gloo', f'file://{folder}/meet', rank=rank, world_size=2
    )
    with measure.copied(where.build(), x) as model:
        wrapped = DistributedDataParallel(
            model, find_unused_parameters=find_unused
        )
    for _ in range(2):
        model.zero_grad()
        measure.loss_of(wrapped(x[rank : rank + 1])).backward()
    if rank == 0:
        torch.save(_gradients(model), Path(folder, 'grads.pth'))
    dist.barrier()
    dist.destroy_process_group()
