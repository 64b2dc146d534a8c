# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What git knows about a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: str | Path, *arguments: str) -> str | None:
    """Returns the output of a git command in a folder, None if it fails."""
    try:
        done = subprocess.run(
            ['git', *arguments],
            cwd=folder,
            capture_output=True,
            encoding='utf-8',
            errors='replace',
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def commit(folder: str | Path) -> str | None:
    """Returns the commit of a folder's repository.

    ``-dirty`` follows if files that git knows were changed. The result is
    None without a repository or a commit.
    """
    found = git(
        folder,
        *('describe', '--always', '--dirty', '--abbrev=40'),
        *('--exclude', '*'),
    )
    return found.strip() if found else None
