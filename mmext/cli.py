# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The command ``mmext``: every tool as a sub-command.

``mmext train CONFIG`` runs ``tools/train.py CONFIG``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location

from mmext.errors import UserError, command, did_you_mean
from mmext.utils.files import packaged
from mmext.version import __version__

#: Heading -> command -> (script in tools/, one line of help).
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    'Train and compare': {
        'train': ('train.py', 'train a detector'),
        'test': ('test.py', 'test a checkpoint and write its predictions'),
        'compare': ('compare.py', 'compare runs, with intervals'),
        'demo': ('demo.py', 'train two small detectors and compare them'),
        'image-demo': ('image_demo.py', 'detect objects in images'),
    },
    'Check': {
        'check-data': ('misc/check_data.py', 'find errors in a data set'),
        'doctor': ('misc/doctor.py', 'check what is installed'),
        'replay-step': ('misc/replay_step.py', 'repeat a non-finite step'),
        'browse-dataset': (
            'analysis_tools/browse_dataset.py',
            'draw the images of a config with their annotations',
        ),
    },
    'Convert': {
        'convert-voc': (
            'dataset_converters/voc2coco.py',
            'write COCO annotations for a Pascal VOC folder',
        ),
        'convert-yolo': (
            'dataset_converters/yolo2coco.py',
            'write COCO annotations for a YOLO folder',
        ),
        'crop-objects': (
            'dataset_converters/coco2imagefolder.py',
            'cut objects out as a classification data set',
        ),
        'convert-weights': (
            'model_converters/released_to_mmext.py',
            'write released weights as a state dict of mmext',
        ),
        'publish': (
            'model_converters/publish_model.py',
            'write the weights of a checkpoint for others',
        ),
    },
    'Analyse': {
        'flops': ('analysis_tools/get_flops.py', 'count parameters, FLOPs'),
        'benchmark': ('analysis_tools/benchmark.py', 'measure latency'),
        'plot-curves': ('analysis_tools/plot_curves.py', 'draw training logs'),
        'confusion-matrix': (
            'analysis_tools/confusion_matrix.py',
            'draw which class is taken for which',
        ),
        'error-types': (
            'analysis_tools/error_types.py',
            'split the lost AP by kind of error (TIDE)',
        ),
        'stiffness': ('analysis_tools/stiffness.py', 'measure stiffness'),
        'attention-ticket': (
            'analysis_tools/attention_ticket.py',
            'rank the attention modules of a model',
        ),
        'filter-angles': (
            'analysis_tools/filter_angles.py',
            'draw the angles between filters',
        ),
        'orthogonality-effect': (
            'analysis_tools/orthogonality_effect.py',
            'train with and without orthogonality terms',
        ),
        'star-vs-sum': (
            'analysis_tools/star_vs_sum.py',
            'compare star and sum networks',
        ),
        'decision-boundary': (
            'analysis_tools/decision_boundary.py',
            'draw decision boundaries of star networks',
        ),
        'token-mixers': (
            'analysis_tools/token_mixers.py',
            'compare attention with depth-wise convolution',
        ),
    },
}
COMMANDS = {k: v for group in GROUPS.values() for k, v in group.items()}


def overview() -> str:
    """Returns the help of ``mmext`` itself."""
    lines = ['usage: mmext COMMAND [options]', '']
    for heading, commands in GROUPS.items():
        lines.append(f'{heading}:')
        lines += [f'  {k:22}{text}' for k, (_, text) in commands.items()]
        lines.append('')
    return '\n'.join([*lines, 'mmext COMMAND --help lists the options.'])


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Runs a sub-command.

    Args:
        argv: The command and its options. Default: ``sys.argv[1:]``.

    Raises:
        UserError: There is no such command.
    """
    name, *options = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help', 'help'):
        # As argparse: a reader such as `head` may have ended.
        with suppress(BrokenPipeError):
            print(overview())
        return
    if name == '--version':
        print(__version__)
        return
    if name not in COMMANDS:
        raise UserError(
            f'mmext has no command {name!r}',
            did_you_mean(name, COMMANDS) or 'mmext --help lists them.',
        )
    script = packaged('tools') / COMMANDS[name][0]
    # argparse names the program by sys.argv[0].
    sys.argv = [f'mmext {name}', *options]
    spec = spec_from_file_location(script.stem, script)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main()
