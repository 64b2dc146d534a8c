# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reading a config and what the command line changes in it."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import config
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmext.errors import UserError, did_you_mean, nearest

#: Top-level keys that somebody reads.
READ = {*inspect.signature(Runner.__init__).parameters, 'runner_type'} | {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'default_scope',
    'efficient_conv_bn_eval',
    'env_cfg',
    'find_unused_parameters',
    'memory_format',
    'model_wrapper_cfg',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


class DictAction(config.DictAction):
    """MMEngine's ``KEY=VALUE``, with a message for what is neither."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Refuses options without a value."""
        for text in values:
            if not re.match(r'[^=]+=', text):
                parser.error(
                    f'{option_string} {text}: not KEY=VALUE, e.g. '
                    'model.backbone.depth=50; a value with spaces is quoted'
                )
            try:
                self._parse_iterable(text.partition('=')[2])
            except (AssertionError, RecursionError):
                parser.error(
                    f'{option_string} {text}: the value is no number, text, '
                    'list or tuple of these; write a dict into a config file '
                    "that begins with _base_ = '...'"
                )
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Keeps the spaces inside of a text: MMEngine cuts a path's out."""
        inside = r'(?<=[^\s,(\[]) +(?=[^\s,)\]])'
        kept = re.sub(inside, '\0', val.strip('\'" '))
        return _with_spaces(config.DictAction._parse_iterable(kept))


def _with_spaces(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_with_spaces, value))
    return value.replace('\0', ' ') if isinstance(value, str) else value


def load_config(
    filename: str | Path, options: Mapping[str, Any] | None = None
) -> Config:
    """Reads a config file and merges ``--cfg-options`` into it.

    Args:
        filename: A config file.
        options: Dotted keys and their values. A key that is not in the
            config but spelt almost like one that is there is refused; to
            add such a key on purpose write ``+key=value``.

    Raises:
        UserError: No such file, one that does not load, or a misspelt key.
    """
    path = Path(filename)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        near = did_you_mean(path.name, [p.name for p in folder.glob('*.py')])
        raise UserError(
            f'config {path} does not exist',
            f'{near} (in {folder})' if near else 'Check the path.',
        )
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserError(
            f'config {path}: a file it inherits is missing: {error}',
            'Check its _base_ list.',
        ) from error
    except ImportError as error:
        # MMEngine adds the whole sys.path, line by line.
        said = str(error).partition(', the current sys.path')[0]
        raise UserError(
            f'config {path} does not load: {said}',
            'Install that module, or put its folder into PYTHONPATH.',
        ) from error
    except (
        AttributeError,
        KeyError,
        NameError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f'config {path} does not load: {type(error).__name__}: {error}',
            'MMEXT_DEBUG=1 shows where.',
        ) from error
    merge_options(cfg, options or {})
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merges dotted ``--cfg-options`` into ``cfg``, in place."""
    for key in options:
        if not key.startswith('+'):
            _check_key(cfg, key)
    try:
        cfg.merge_from_dict({k.removeprefix('+'): options[k] for k in options})
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'--cfg-options {dict(options)} cannot be merged: {error}',
            'A list is addressed by number: pipeline.0.type=...',
        ) from error


def _check_key(cfg: Config, key: str) -> None:
    here: Any = cfg._cfg_dict
    parts = key.split('.')
    for i, part in enumerate(parts):
        if isinstance(here, Sequence) and not isinstance(here, str):
            if not part.isdigit() or int(part) >= len(here):
                raise UserError(
                    f'--cfg-options {key}: {".".join(parts[:i])} is a list '
                    f'of {len(here)}, and {part!r} is not a place in it',
                    f'Give a number from 0 to {len(here) - 1}.',
                )
            here = here[int(part)]
            continue
        if not isinstance(here, Mapping):
            return
        if part not in here:
            known = set(here) | (READ if i == 0 else set())
            similar = nearest(part, known, 0.8) if part not in known else None
            if similar:
                where = '.'.join([*parts[:i], similar])
                raise UserError(
                    f'--cfg-options {key}: no such key in the config',
                    f'Did you mean {where!r}? To add a new key, write '
                    f'+{key}=...',
                )
            return
        here = here[part]
    if len(parts) == 1 and key not in READ:
        print_log(
            f'--cfg-options {key}=... changes only a variable of the config '
            'file: what the file built from it keeps the old value. Name '
            'the places that use it, e.g. train_dataloader.dataset.'
            f'{key}=...',
            'current',
            30,
        )


def set_work_dir(cfg: Config, work_dir: str | None, filename: str) -> None:
    """The command line's folder, else the config's, else by its name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(filename).stem))
    path = there = Path(cfg.work_dir)
    while not os.path.exists(there):  # False, too, where nobody may look
        there = there.parent
    problem = ''
    if not there.is_dir():
        problem = f'{there} is a file'
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f'{there} is not writable'
    if problem:
        if there != path:
            problem = f'{path} cannot be made: {problem}'
        raise UserError(
            f'work dir {problem}', 'Name a folder with --work-dir.'
        )


def set_amp(cfg: Config) -> None:
    """Turns mixed precision on; the runner picks the device's type."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def set_auto_scale_lr(cfg: Config) -> None:
    """Turns the linear scaling of the learning rate on.

    Raises:
        UserError: The config does not say for which batch its rate is.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr: the config does not say for which total batch '
            'its learning rate is meant',
            '--cfg-options +auto_scale_lr.base_batch_size=16',
        )
    cfg.auto_scale_lr.enable = True
