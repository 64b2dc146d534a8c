# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads checkpoints of any address, and makes MMEngine do the same.

Importing this module makes MMEngine read every checkpoint with
``weights_only``: local files, URLs and ``torchvision://`` names. The
maintained builds would otherwise unpickle anything; the official ones would
refuse the checkpoints that they wrote themselves. How a file is read safely
is in :mod:`mmext.checkpoints.read`.
"""

from __future__ import annotations

import functools
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier
from mmengine.runner import checkpoint as host
from mmengine.runner.checkpoint import CheckpointLoader

from mmext.checkpoints.read import (
    SAFE_GLOBALS,
    MapLocation,
    load_from_local,
    without_config,
)
from mmext.errors import UserError


def load(filename: str | Path, map_location: MapLocation = 'cpu') -> dict:
    """Reads a checkpoint without running the code in it.

    ``filename`` is a ``.pth`` file written by ``torch.save``, a
    ``.safetensors`` file, or a URL of a scheme that MMEngine knows. Returns
    the content; of ``.safetensors``, ``meta`` and ``state_dict``. Raises
    `UserError` if the file does not exist, is not a complete checkpoint, does
    not have the hash in its name, or would call something that is not on the
    allowlist.
    """
    return CheckpointLoader.load_checkpoint(
        str(filename), map_location, logger='silent'
    )


def load_from_http(
    filename: str,
    map_location: MapLocation = None,
    model_dir: str | None = None,
    progress: bool = True,
) -> dict:
    """Downloads to torch's cache, once for each machine, then reads."""
    folder = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'))
    path = folder / Path(urlparse(filename).path).name
    if int(os.environ.get('LOCAL_RANK', 0)) == 0 and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = torch.hub.HASH_REGEX.search(path.name)
        try:
            torch.hub.download_url_to_file(
                filename, str(path), found and found.group(1), progress
            )
        except (OSError, RuntimeError) as error:
            raise UserError(
                f'could not download {filename}: {error}',
                f'Put the file at {path}, or name a local file.',
            ) from error
    barrier()
    return load_from_local(path, map_location)


def load_from_hub(filename: str, map_location: MapLocation = None) -> dict:
    """Reads ``hf-hub:OWNER/NAME`` from the cache, or downloads it first."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
    )

    repo, _, revision = filename.removeprefix('hf-hub:').partition('@')
    name = 'model.safetensors'
    try:
        path = hf_hub_download(repo, name, revision=revision or None)
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f'could not download {filename}: {str(error).splitlines()[0]}',
            f'Download {hf_hub_url(repo, name)} elsewhere, and name the file '
            f"instead: init_cfg=dict(type='Pretrained', checkpoint={name!r}).",
        ) from error
    return load_from_local(path, map_location)


def load_from_any(
    file: str | Path | IO[bytes],
    map_location: MapLocation = None,
    weights_only: bool | None = None,
) -> dict:
    """:func:`load` for files and streams, as MMEngine's other loaders call it.

    ``weights_only`` changes nothing: only :func:`trusting` does.
    """
    if isinstance(file, str | Path):
        return load_from_local(file, map_location)
    with tempfile.NamedTemporaryFile(suffix='.pth') as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        return load_from_local(copy.name, map_location)


def _install() -> None:
    """Makes MMEngine read checkpoints through this module."""
    register = CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(('http://', 'https://'), load_from_http, force=True)
    register('hf-hub:', load_from_hub, force=True)
    # torchvision://, open-mmlab:// and mmcls:// look the URL up and call it.
    host.load_from_http = load_from_http
    # The others (s3://, openmmlab://, pavi://) call this one, which unpickles
    # what weights_only refuses. OpenMMLab's builds call torch.load instead.
    host._safe_torch_load = load_from_any
    for prefix, loader in [*CheckpointLoader._schemes.items()]:
        if loader.__module__ == host.__name__:
            register(prefix, _removing_config(loader), force=True)


def _removing_config(loader: Callable) -> Callable:
    @functools.wraps(loader)
    def load(filename: str, map_location: MapLocation = None) -> dict:
        try:
            # OpenMMLab's builds call torch.load.
            with torch.serialization.safe_globals(SAFE_GLOBALS):
                found = loader(filename, map_location)
        except pickle.UnpicklingError as error:
            wanted = re.findall(r'\bGLOBAL ([\w.]+\.[\w.]+)', str(error))
            raise UserError(
                f'checkpoint {filename} was refused: loading it would call '
                f'{", ".join(wanted) or "code"}',
                'Ask its author for only the weights, or download it and name '
                'the file.',
            ) from error
        return without_config(found, filename)

    return load


_install()
