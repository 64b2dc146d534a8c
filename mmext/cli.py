# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The command ``mmext``: every tool as a sub-command.

``mmext train CONFIG`` runs ``tools/train.py CONFIG``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from mmext.errors import UserError, command, did_you_mean
from mmext.utils.files import packaged
from mmext.version import __version__

#: Heading -> command -> script in tools/.
GROUPS = {
    'Train and compare': {
        'train': 'train.py',
        'test': 'test.py',
        'compare': 'compare.py',
        'demo': 'demo.py',
        'predict': 'predict.py',
        'image-demo': 'image_demo.py',
    },
    'Experiments with several seeds': {
        'plan': 'plan.py',
        'run': 'run.py',
        'report': 'report.py',
    },
    'Check': {
        'check-data': 'misc/check_data.py',
        'check-backbone': 'misc/check_backbone.py',
        'doctor': 'misc/doctor.py',
        'replay-step': 'misc/replay_step.py',
        'browse-dataset': 'analysis_tools/browse_dataset.py',
    },
    'Convert and publish': {
        'convert': 'dataset_converters/convert.py',
        'convert voc': 'dataset_converters/voc2coco.py',
        'convert yolo': 'dataset_converters/yolo2coco.py',
        'convert crops': 'dataset_converters/coco2imagefolder.py',
        'convert weights': 'model_converters/released_to_mmext.py',
        'publish': 'model_converters/publish_model.py',
        'export': 'export.py',
    },
    'Analyse': {
        'flops': 'analysis_tools/get_flops.py',
        **{
            name: f'analysis_tools/{name.replace("-", "_")}.py'
            for name in (
                'benchmark',
                'plot-curves',
                'confusion-matrix',
                'error-types',
                'stiffness',
                'attention-ticket',
                'filter-angles',
                'orthogonality-effect',
                'star-vs-sum',
                'decision-boundary',
                'token-mixers',
            )
        },
    },
}
COMMANDS = {k: v for group in GROUPS.values() for k, v in group.items()}


def overview() -> str:
    """Returns the help of ``mmext``; each script describes itself."""
    lines = ['usage: mmext COMMAND [options]', '']
    for heading, commands in GROUPS.items():
        lines.append(f'{heading}:')
        for name, script in commands.items():
            source = (packaged('tools') / script).read_text(encoding='utf-8')
            summary = ast.get_docstring(ast.parse(source)).splitlines()[0]
            lines.append(f'  {name:21}{summary}')
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
        print(overview())
        return
    if name == '--version':
        print(__version__)
        return
    if options and f'{name} {options[0]}' in COMMANDS:  # convert voc
        name = f'{name} {options.pop(0)}'
    elif name == 'convert' and options and options[0][:1] != '-':
        folder = options[0]
        near = did_you_mean(f'convert {folder}', COMMANDS)
        if near and not Path(folder).exists():
            raise UserError(
                f'folder {folder!r} does not exist, and mmext has no command '
                f"'convert {folder}'",
                near,
            )
    if name not in COMMANDS:
        raise UserError(
            f'mmext has no command {name!r}',
            did_you_mean(name, COMMANDS) or 'mmext --help lists them.',
        )
    script = packaged('tools') / COMMANDS[name]
    # argparse names the program by sys.argv[0].
    sys.argv = [f'mmext {name}', *options]
    spec = spec_from_file_location(script.stem, script)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main()


if __name__ == '__main__':
    main()
