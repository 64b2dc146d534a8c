# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Package metadata; configs and tools travel in the wheel for MIM."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithMIM(build_py):
    """Adds what `mim train mmext` looks for under ``mmext/.mim``."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib, 'mmext', '.mim')
        for name in ('configs', 'tools'):
            shutil.copytree(
                ROOT / name,
                target / name,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns('__pycache__', '*.pyc'),
            )
        shutil.copy2(ROOT / 'model-index.yml', target / 'model-index.yml')


def version() -> str:
    scope: dict = {}
    exec((ROOT / 'mmext' / 'version.py').read_text(), scope)
    return scope['__version__']


EXPORT = ['onnx', 'onnxruntime', 'onnxscript']
DOCS = ['mkdocs-material>=9.6', 'mkdocstrings[python]>=1.0']
# The OpenMMLab packages are extras: both stacks install the same modules, so
# a hard requirement on one would corrupt an environment that has the other.
EXTRAS = {
    'onedl': [
        'onedl-mmengine>=0.10.12,<0.11',
        'onedl-mmcv>=2.3.6,<2.4',
        'onedl-mmdetection>=3.5.1,<3.6',
    ],
    'openmmlab': [
        'mmengine==0.10.7',
        'mmcv-lite==2.1.0',
        'mmdet==3.3.0',
        # mmengine 0.10.7 imports pkg_resources, which setuptools 82 dropped.
        'setuptools<82',
    ],
    'seg': ['onedl-mmsegmentation>=1.4.2,<1.5', 'ftfy', 'regex'],
    'cls': ['onedl-mmpretrain>=1.3.6,<1.4', 'timm'],
    'timm': ['timm>=1.0.31'],
    'analysis': ['scikit-learn'],
    'export': EXPORT,
    'openvino': [*EXPORT, 'openvino'],
    'slurm': ['submitit>=1.5'],
    'docs': DOCS,
    'dev': [
        # `make lint` builds the site.
        *DOCS,
        *EXPORT,
        'openvino',
        'hypothesis',
        'import-linter>=2.3',
        'parameterized',  # of tools/dev/upstream_tests.py
        'pytest',
        'pytest-timeout',
        'pytest-xdist',
        'ruff==0.15.*',
        'scikit-learn',
        'submitit>=1.5',
        'tensorboard',
        'timm>=1.0.31',
        'wandb',
    ],
}

setup(
    name='mmext',
    version=version(),
    description='Backbones for MMDetection, and reports of their AP',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmext', 'mmext.*']),
    include_package_data=True,
    entry_points={'console_scripts': ['mmext = mmext.cli:main']},
    install_requires=[
        'filelock>=4.1',
        'hotcoco>=1.3',
        'jinja2',
        'matplotlib',
        'numpy',
        'orjson',
        'pillow',
        'pycocotools',
        'pyyaml',
        'rich',
        'safetensors',
        'scipy>=1.11',
        # Named safe globals: checkpoints are read without running them.
        'torch>=2.6',
        'torchvision>=0.21',
    ],
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithMIM},
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
