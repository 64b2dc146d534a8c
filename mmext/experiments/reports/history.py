# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shows whether a plan is older than its results, by records and git."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from mmext.errors import UserError
from mmext.experiments.plan import Plan, parse_plan
from mmext.experiments.records.record import Record
from mmext.utils.git import git
from mmext.utils.text import count

_TIME = '%Y-%m-%d %H:%M %Z'


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
    since = f'before the first training began ({begun:{_TIME}})'
    versions = _versions(Path(path).resolve())
    if not versions:
        return [
            *found,
            'No git repository has the plan in a commit, which would show '
            'when it was written.',
        ]
    before = [
        (commit, text) for commit, when, text in versions if when <= begun
    ]
    if before:
        commit, text = before[0]  # the newest
        if not _says(text, path, plan) and not made_by:
            found.append(
                'The plan was changed after the first training began '
                f'({begun:{_TIME}}): commit {commit[:12]} has another one.'
            )
    elif _is_shallow(path):
        found.append(
            f'Git does not show whether the plan was committed {since}: this '
            'clone has a part of the history. Get the rest: git fetch '
            '--unshallow.'
        )
    else:
        commit, when, _ = versions[-1]
        found.append(
            f'The plan was not committed {since}: its first commit, '
            f'{commit[:12]}, is of {when:{_TIME}}. Amending or rebasing '
            'renews that time.'
        )
    return found


def _says(text: str, path: str | Path, plan: Plan) -> bool:
    try:
        return parse_plan(text, path).sha256 == plan.sha256
    except UserError:
        return False


def _is_shallow(path: str | Path) -> bool:
    folder = Path(path).resolve().parent
    found = git(folder, 'rev-parse', '--is-shallow-repository')
    return found is not None and found.strip() == 'true'


def _versions(path: Path) -> list[tuple[str, datetime, str]]:
    """(commit, time, text) of a file and its older names, the newest first.

    The list is empty without git.
    """
    log = git(
        path.parent,
        *('--literal-pathspecs', 'log', '--follow', '-m', '--raw'),
        *('--no-abbrev', '--no-show-signature', '--format=%H %ct'),
        *('--', path.name),
    )
    found = []
    for line in (log or '').splitlines():
        words = line.split()
        if len(words) == 2:
            commit, seconds = words
        elif words:  # modes, then blobs, before and after
            text = git(path.parent, 'cat-file', 'blob', words[3])
            if text is not None:  # it may have been deleted
                when = datetime.fromtimestamp(int(seconds), timezone.utc)
                found.append((commit, when, text))
    return found
