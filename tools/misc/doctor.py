# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks what is installed, and names the fixes.

    python tools/misc/doctor.py [--json] [--no-self-test]

Needs the standard library only. The exit status is 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# In a clone, the doctor works before mmext is installed.
sys.path.append(str(Path(__file__).resolve().parents[2]))
from mmext.doctor import PROBLEM, as_text, examine  # noqa: E402
from mmext.errors import command  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--json', action='store_true', help='for programs')
    parser.add_argument(
        '--no-self-test',
        action='store_true',
        help='run no op and no training step',
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if not args.json:
        print('Checking the environment...', flush=True)
    results = examine(self_test=not args.no_self_test)
    problems = sum(r.state == PROBLEM for r in results)
    if args.json:
        found = [dataclasses.asdict(r) for r in results]
        print(json.dumps({'problems': problems, 'found': found}, indent=1))
    else:
        print(as_text(results))
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
