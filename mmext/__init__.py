# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmext: backbones and honest AP reports for MMDetection.

Importing this package is the plug-in: every class registers itself in
MMEngine's root registries, so a bare ``type='StarNet'`` resolves from mmdet,
mmseg and mmpretrain alike. A config needs one line::

    custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from mmext.errors import MissingPackagesError, told_alone
from mmext.version import __version__

_missing = [n for n in ('mmengine', 'mmcv', 'mmdet') if find_spec(n) is None]
if _missing:
    _clone = Path(__file__).resolve().parents[1]
    # pip knows the extras of an installed wheel by name.
    _this = f"-e '{_clone}" if (_clone / 'setup.py').is_file() else "'mmext"
    sys.excepthook = told_alone
    raise MissingPackagesError(
        f'mmext needs {", ".join(_missing)}, not found in this environment',
        f"pip install {_this}[onedl]' (the maintained builds), or "
        f"pip install {_this}[openmmlab]' (the official ones). Never both: "
        'they install the same modules. More: python tools/misc/doctor.py',
    )

# Before anything imports mmcv.ops: it needs a `mmcv._ext` to import from.
from mmext import mmcv_ext  # noqa: E402

mmcv_ext.install()

from mmext import (  # noqa: E402
    datasets,
    engine,
    evaluation,
    models,
    regularizers,
)

__all__ = [
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'mmcv_ext',
    'models',
    'regularizers',
]
