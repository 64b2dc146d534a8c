# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmext: backbones and honest AP reports for MMDetection.

Importing this package is the plug-in: every class registers itself in
MMEngine's root registries, so a bare ``type='StarNet'`` resolves from mmdet,
mmseg and mmpretrain alike. A config needs one line::

    custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
"""

from importlib.util import find_spec

from mmext.version import __version__

_missing = [n for n in ('mmengine', 'mmcv', 'mmdet') if find_spec(n) is None]
if _missing:
    raise ImportError(
        f'mmext needs {", ".join(_missing)}, not found in this environment. '
        "Run: pip install 'mmext[onedl]' (the maintained builds), or "
        "pip install 'mmext[openmmlab]' (the official ones). Never both: "
        'they install the same modules.'
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
