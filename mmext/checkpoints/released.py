# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loading released checkpoints: every key accounted for, or an error.

A checkpoint is read with ``weights_only`` (or as ``.safetensors``), freed of
its wrappers, matched with the backbone key by key and only then copied, so a
checkpoint that does not fit leaves the model as it was. What the official
key names are called here is each backbone's own ``released_key``.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.checkpoints.files import replace_durably
from mmext.checkpoints.read import load
from mmext.errors import UserError, did_you_mean

# In the order of preference: averaged weights only where nothing else is.
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema')
PREFIXES = ('module.', '_orig_mod.')
BACKBONE = 'backbone.'


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a checkpoint.

    Attributes:
        source: Where the weights came from.
        filled: Entries of the backbone that were filled.
        unfilled: Entries of the backbone that the checkpoint lacks.
        renamed: Key in the checkpoint -> entry of the backbone, where they
            differ in more than a wrapper's prefix.
        dropped: Keys of the checkpoint left out on purpose: the classifier,
            stages that are not built, other parts of a detector.
    """

    source: str
    filled: list[str] = field(default_factory=list)
    unfilled: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.filled) + len(self.unfilled)
        return (
            f'loaded {len(self.filled)} of {total} backbone tensors from '
            f'{self.source} (new: {_some(self.unfilled)}; renamed: '
            f'{len(self.renamed)}; not used: {_some(self.dropped)})'
        )


def load_released_weights(
    model: nn.Module,
    checkpoint: str | Path | Mapping,
    *,
    prefix: str | None = None,
    wrapper: str | None = None,
    allow_missing: bool | Sequence[str] = False,
) -> LoadReport:
    """Fills a backbone from a released checkpoint, or leaves it as it was.

    Args:
        model: A backbone, or a model that has one as ``model.backbone``. An
            mmpretrain classifier's ``head.fc`` is filled too, where it has
            the released classifier's shape.
        checkpoint: A file (anything that ``torch.load`` reads with
            ``weights_only``, or ``.safetensors``), an http(s) address, or
            what such a file holds.
        prefix: Take only keys with this prefix, and strip it. Default: strip
            ``module.`` and, where any key has it, take ``backbone.``.
        wrapper: Entry of the file that holds the weights. Default: the first
            of ``state_dict``, ``model``, ``state_dict_ema``, ``model_ema``.
        allow_missing: Accept a checkpoint that lacks tensors of the
            backbone, all (True) or those whose names begin like this; they
            keep their values. Frozen stages may lack only what
            ``init_cfg.allow_missing`` of the backbone names.

    Returns:
        What was filled, renamed and dropped; also logged as one line.

    Raises:
        UserError: The file is not there, cannot be read or holds more than
            data; a tensor is missing, unknown, or has another shape.
    """
    backbone = getattr(model, 'backbone', model)
    if isinstance(checkpoint, Mapping):
        source, content = 'the given state dict', checkpoint
    else:
        source, content = str(checkpoint), read_checkpoint(checkpoint)
    tensors = unwrap(content, source, wrapper)
    found, dropped = strip_prefix(tensors, source, prefix)
    matched, renamed = _rename(found, backbone, source)
    dropped += [k for k in found if k not in renamed]
    expected = backbone.state_dict()
    report = LoadReport(
        source,
        filled=[k for k in expected if k in matched],
        unfilled=[
            k
            for k in expected
            # Batch norm's counter is younger than many published weights.
            if k not in matched and not k.endswith('num_batches_tracked')
        ],
        renamed={k: entry for k, entry in renamed.items() if k != entry},
        dropped=dropped,
    )
    _check(type(backbone).__name__, expected, matched, report, allow_missing)
    if hasattr(backbone, 'check_unfilled'):
        backbone.check_unfilled(report.unfilled)
    backbone.load_state_dict(matched, strict=False)
    if taken := _fill_classifier(model, found):
        report.renamed.update(taken)
        dropped[:] = [k for k in dropped if k not in taken]
    print_log(str(report), logger='current')
    return report


def named_prefixes(allow_missing: bool | str | Sequence[str]) -> tuple:
    """The names in ``allow_missing``; none in a plain yes or no."""
    if isinstance(allow_missing, bool):
        return ()
    if isinstance(allow_missing, str):
        return (allow_missing,)
    return tuple(allow_missing)


def convert_released_weights(
    backbone: dict,
    source: str | Path,
    target: str | Path,
    allow_missing: bool | Sequence[str] = False,
) -> LoadReport:
    """Writes a released checkpoint as a plain one of ours.

    Args:
        backbone: Config of the backbone, as in ``model.backbone``.
        source: What :func:`load_released_weights` reads.
        target: The ``.pth`` file to write: the tensors of the backbone that
            were filled, under ``state_dict``.
        allow_missing: As for :func:`load_released_weights`.

    Raises:
        UserError: The checkpoint does not fit; the target cannot be written.
    """
    target = Path(target)
    if target.suffix != '.pth' or not target.parent.is_dir():
        raise UserError(
            f'Cannot write {target}.',
            'Name a .pth file in a folder that exists.',
        )
    model = MODELS.build(backbone)
    report = load_released_weights(model, source, allow_missing=allow_missing)
    content = {
        'meta': {'source': str(source), 'backbone': dict(backbone)},
        'state_dict': {k: model.state_dict()[k] for k in report.filled},
    }
    temporary = target.with_suffix('.pth.part')
    torch.save(content, temporary)
    replace_durably(temporary, target)
    return report


def read_checkpoint(path: str | Path) -> Mapping:
    """Content of a checkpoint file or address; nothing in it is run."""
    # The records of a run that timm and the Swin family save beside their
    # weights: argparse's, and yacs' mapping, read as a plain one.
    records = [Namespace, (OrderedDict, 'yacs.config.CfgNode')]
    with torch.serialization.safe_globals(records):
        return load(path)


def unwrap(content: object, source: str, wrapper: str | None = None) -> dict:
    """The tensors of a checkpoint, out of ``state_dict``, ``model``, ...

    Raises:
        UserError: There are none, or something else among them.
    """
    while isinstance(content, Mapping):
        inside = [
            w
            for w in ((wrapper,) if wrapper else WRAPPERS)
            if isinstance(content.get(w), Mapping)
        ]
        if not inside:
            break
        content, wrapper = content[inside[0]], None
    if wrapper or not isinstance(content, Mapping) or not content:
        what = (
            f'the entries {_some(list(content))}'
            if isinstance(content, Mapping)
            else f'a {type(content).__name__}'
        )
        raise UserError(
            f'{source} holds {what} and no tensors'
            + (f' under {wrapper!r}.' if wrapper else '.'),
            f'Weights are a mapping of names to tensors, bare or under one '
            f'of {WRAPPERS}.',
        )
    other = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if other:
        raise UserError(
            f'{source} is not a state dict: {_some(other)} is no tensor.',
            f'Name the entry that holds the weights: wrapper=..., one of '
            f'{_some(list(content))}.',
        )
    return dict(content)


def strip_prefix(
    tensors: dict[str, Tensor], source: str, prefix: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of the backbone without prefixes, and what else there was.

    Raises:
        UserError: No key begins with ``prefix``.
    """
    while not prefix:
        shared = [p for p in PREFIXES if all(k.startswith(p) for k in tensors)]
        if not shared:
            break
        tensors = {k[len(shared[0]) :]: v for k, v in tensors.items()}
    if not prefix and any(k.startswith(BACKBONE) for k in tensors):
        prefix = BACKBONE
    if not prefix:
        return tensors, []
    found = {
        k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)
    }
    if not found:
        raise UserError(
            f'{source} has no key that begins with {prefix!r}.',
            f'Its keys begin like {_some(list(tensors))}.',
        )
    return found, [k for k in tensors if not k.startswith(prefix)]


def _rename(
    found: dict[str, Tensor], backbone: nn.Module, source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by the backbone's names, and those names by the released."""
    rename = getattr(backbone, 'released_key', _drop_head)
    names = {key: rename(key) for key in found}
    names = {key: entry for key, entry in names.items() if entry is not None}
    matched = {entry: found[key] for key, entry in names.items()}
    if len(matched) < len(names):
        twice = [e for e, n in Counter(names.values()).items() if n > 1]
        raise UserError(
            f'{source} has {_some(twice)} twice, under different names.',
            'Remove one of them.',
        )
    return matched, names


def _check(
    name: str,
    expected: dict[str, Tensor],
    matched: dict[str, Tensor],
    report: LoadReport,
    allow_missing: bool | Sequence[str],
) -> None:
    """Raises one error with all that does not fit."""
    problems = []
    allowed = named_prefixes(allow_missing)
    missing = [k for k in report.unfilled if not k.startswith(allowed)]
    missing = [] if allow_missing is True else missing
    unknown = [k for k in matched if k not in expected]
    if unknown:
        hint = did_you_mean(unknown[0], report.unfilled or expected)
        problems.append(f'unknown to it: {_some(unknown)}. {hint}'.rstrip())
    if missing:
        problems.append(f'missing: {_some(missing)}')
    for key in report.filled:
        here, there = tuple(expected[key].shape), tuple(matched[key].shape)
        if here != there:
            problems.append(f'{key} is {there}, expected {here}')
    if problems:
        listed = problems[:6] + [f'and {len(problems) - 6} more']
        raise UserError(
            f'{report.source} does not fit {name} '
            f'({len(report.filled)} of {len(expected)} tensors found); '
            'nothing was loaded:'
            + ''.join(f'\n     {p}' for p in listed[: len(problems)]),
            f'allow_missing=[{missing[0].split(".")[0]!r}] accepts a '
            'checkpoint without them.'
            if missing and len(problems) == 1
            else 'Check the arch and the channels of the backbone.',
        )


def _fill_classifier(
    model: nn.Module, found: dict[str, Tensor]
) -> dict[str, str]:
    """Fills mmpretrain's linear head if it fits; released name -> ours."""
    fc = getattr(getattr(model, 'head', None), 'fc', None)
    head = {k[5:]: v for k, v in found.items() if k.startswith('head.')}
    if not isinstance(fc, nn.Linear) or head.keys() != fc.state_dict().keys():
        return {}
    if head['weight'].shape != fc.weight.shape:
        return {}
    fc.load_state_dict(head)
    return {f'head.{k}': f'head.fc.{k}' for k in head}


def _drop_head(key: str) -> str | None:
    return None if key.startswith('head.') else key


def _some(names: list[str]) -> str:
    """'3: a, b, c', shortened."""
    shown = ', '.join(map(str, names[:4])) + (', ...' if names[4:] else '')
    return f'{len(names)}: {shown}' if names else '0'
