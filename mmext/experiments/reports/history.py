# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shows whether a plan is older than its results, by records and git."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from mmext.errors import UserError
from mmext.experiments.plan import Plan, parse_plan
from mmext.experiments.records.record import Record
from mmext.utils.git import git
from mmext.utils.text import count


def plan_changes(
    path: str | Path, plan: Plan, records: Collection[Record]
) -> list[str]:
    """Returns what speaks against a plan that is older than its results.

    Every record has the SHA-256 of the plan that it was made by. The
    repository of the plan, if it is in one, has the time of every version.

    Args:
        path: The file of the plan.
        plan: Its content.
        records: Its results, perhaps none.
    """
    if not records:
        return []
    made_by = [r.plan_sha256 for r in records if r.plan_sha256 != plan.sha256]
    found = []
    if made_by:
        found.append(
            f'The plan was changed after results: {count(len(made_by), "run")}'
            f' of {len(records)} followed a plan with SHA-256 '
            f'{str(made_by[0])[:12]}, and this one has {plan.sha256[:12]}.'
        )
    begun = min(datetime.fromisoformat(r.started) for r in records)
    versions = _versions(Path(path))
    if versions is None:
        return [
            *found,
            'The plan is not in a git repository, which would show when it '
            'was written.',
        ]
    before = [
        (commit, text) for commit, when, text in versions if when <= begun
    ]
    if not before:
        return [
            *found,
            'The plan was not committed before the first training began '
            f'({begun:%Y-%m-%d %H:%M}).',
        ]
    commit, text = before[0]  # the newest
    if not _says(text, path, plan) and not made_by:
        found.append(
            'The plan was changed after the first training began '
            f'({begun:%Y-%m-%d %H:%M}): commit {commit[:12]} has another one.'
        )
    return found


def _says(text: str, path: str | Path, plan: Plan) -> bool:
    try:
        return parse_plan(text, path).sha256 == plan.sha256
    except UserError:
        return False


def _versions(path: Path) -> list[tuple[str, datetime, str]] | None:
    """(commit, time, text) of a file, the newest first; None without git."""
    log = git(
        path.absolute().parent, 'log', '--format=%H %cI', '--', path.name
    )
    if log is None:
        return None
    found = []
    for line in log.splitlines():
        commit, when = line.split()
        text = git(path.absolute().parent, 'show', f'{commit}:./{path.name}')
        if text is not None:  # it may have been deleted
            found.append((commit, datetime.fromisoformat(when), text))
    return found
