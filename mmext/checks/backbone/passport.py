# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The passport of a backbone: what it does, as measured.

``mmext check-backbone CONFIG_OR_MODULE`` prints it and saves it as JSON and
Markdown.
"""

from __future__ import annotations

import copy
import inspect
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill, indent
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException

from mmext.checks.backbone import properties
from mmext.checks.backbone.measures import kept_bytes
from mmext.checks.backbone.properties import Property
from mmext.checks.backbone.source import Source
from mmext.checks.backbone.two_processes import check_two_processes
from mmext.errors import UserError
from mmext.evaluation.cost.complexity import count_complexity, input_shape
from mmext.evaluation.cost.latency import measure_latency
from mmext.evaluation.report.table import Table
from mmext.utils.files import replacing, write_json
from mmext.utils.modules import require_device
from mmext.version import __version__

#: Height and width of the images for all checks except the cost, in pixels.
SIZE = (128, 192)


#: Height and width at which the cost is measured without a config.
COST_SIZE = (800, 1280)


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
        found = [(f'{marks[p.ok]} {p.name}', p.text) for p in self.properties]
        cost = [(k, _readable(k, v)) for k, v in self.cost.items()]
        blocks = [
            f'{self.name} ({self.source})',
            indent(self.tables()[0].text(), '  '),
            _two_columns(found),
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
        levels = properties.measure_levels(model, x)
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
        'gradients': lambda: properties.check_gradients(model, x),
        'train and eval': lambda: properties.check_modes(model, x),
        'batch invariance': lambda: properties.check_batch(model, x),
        'determinism': lambda: properties.check_determinism(model, x),
        'odd sizes': lambda: (
            Property('odd sizes', None, f'{fixed[0]}x{fixed[1]} pixels only')
            if fixed
            else properties.check_sizes(model, x, levels)
        ),
        'channels-last': lambda: properties.check_channels_last(model, x),
        'AMP bfloat16': lambda: properties.check_precision(
            model, x, torch.bfloat16
        ),
        'AMP float16': lambda: properties.check_precision(
            model, x, torch.float16
        ),
    }
    if 'with_cp' in inspect.signature(type(model).__init__).parameters:
        steps['checkpointing'] = lambda: properties.check_checkpointing(
            model, where.build(with_cp=True).to(device), x
        )
    if not quick:
        steps['torch.export'] = lambda: properties.check_export(model, x)
        steps['two processes'] = lambda: check_two_processes(where, images)
    found = [properties.check_promises(model, levels)]
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
        cost['training memory'] = kept_bytes(net, x)
    return cost
