# Licensed under the Apache License, Version 2.0. See LICENSE.
"""MkDocs hooks that let the site and the code host share the same pages.

The pages link to files by relative path, as a code host needs it. MkDocs sees
only the files under ``docs/``. These hooks add pages from elsewhere in the
repository, with the README as the start page, and replace links to files that
the site does not have, such as configs, by their paths.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: Pages outside docs/ that the site has too, by their path in the repository.
OUTSIDE = (
    'README.md',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'benchmarks/*.md',
    'benchmarks/results/*.md',
    'configs/*/README.md',
)
LINK = re.compile(r'(!?)\[([^][]*)\]\((?!\w+:|#)([^)#\s]*)(#[^)\s]*)?\)')
IMAGE = re.compile(r'(?<= src=")(?!\w+:)([^"]+)')
FENCE = re.compile(r'^(```.*?^```$)', re.M | re.S)


def uri_of(path: str) -> str:
    """Returns the place in the site of a path in the repository."""
    return 'index.md' if path == 'README.md' else path.removeprefix('docs/')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of `OUTSIDE`."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            uri = uri_of(path.relative_to(ROOT).as_posix())
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Points links from the repository's paths to those of the site."""
    folder = Path(page.file.abs_src_path).relative_to(ROOT).parent
    here = posixpath.dirname(page.file.src_uri)

    def repository_path(target: str) -> str:
        return posixpath.normpath(posixpath.join(folder, target))

    def link(match: re.Match) -> str:
        image, text, target, anchor = match.groups()
        path = repository_path(target)
        if files.get_file_from_path(uri_of(path)) is not None:
            uri = posixpath.relpath(uri_of(path), here or '.')
            return f'{image}[{text}]({uri}{anchor or ""})'
        if not (ROOT / path).exists():
            return match[0]  # MkDocs reports it.
        text = text.strip('`')
        if text in (path, posixpath.basename(path)):
            return f'`{path}`'
        return f'{text} (`{path}`)'

    def image(match: re.Match) -> str:
        uri = uri_of(repository_path(match[1]))
        # MkDocs does not touch HTML; pages are folders in the site.
        base = posixpath.dirname(page.url.rstrip('/') + '/x') or '.'
        return posixpath.relpath(uri, base)

    parts = FENCE.split(markdown)
    for i in range(0, len(parts), 2):
        parts[i] = IMAGE.sub(image, LINK.sub(link, parts[i]))
    return ''.join(parts)
