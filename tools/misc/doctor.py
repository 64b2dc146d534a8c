# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What is installed, whether it works, and the line that mends it.

    python tools/misc/doctor.py [--json] [--no-self-test]

Needs no package at all. Exit status 1 where there is a problem.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path


def load_doctor():
    """mmext's doctor, without importing mmext, which may be broken."""
    folder = Path(__file__).resolve().parents[2] / 'mmext'
    if not folder.is_dir():  # an installed wheel keeps tools elsewhere
        folder = Path(importlib.util.find_spec('mmext').origin).parent
    spec = importlib.util.spec_from_file_location(
        'mmext_doctor',
        folder / 'doctor' / '__init__.py',
        submodule_search_locations=[str(folder / 'doctor')],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--json', action='store_true', help='for programs')
    parser.add_argument(
        '--no-self-test',
        action='store_true',
        help='only look: run no op and no training step',
    )
    args = parser.parse_args()
    doctor = load_doctor()
    if not args.json:
        print('Looking at the environment...', flush=True)
    found = doctor.examine(self_test=not args.no_self_test)
    problems = [f for f in found if f.state == doctor.PROBLEM]
    if args.json:
        table = [dataclasses.asdict(f) for f in found]
        print(
            json.dumps({'problems': len(problems), 'found': table}, indent=1)
        )
    else:
        print(doctor.as_text(found))
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
