# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the file that an entry means but writes differently."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Spelling(NamedTuple):
    """The name of a file that an entry writes differently."""

    name: str  # as it is on disk, relative to the image folder
    kind: str  # how the entry differs, a key of KINDS
    dropped: str = ''  # folders that are in the entry only


#: How the names of entries differ from those on disk, for a message.
KINDS = {
    'backslashes': "have Windows' backslashes, which are no separators on "
    'other systems',
    'letters': 'differ from the files only in how accented letters are '
    'encoded: as one character (NFC) or as letter and accent (NFD)',
    'case': 'differ from the files only in upper and lower case',
    'folders': 'begin with {dropped}/, and the images are in {folder} itself',
}


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


class FileNames:
    """The files of an image folder, found by names that are almost right.

    Folders are listed once, and only if a name leads to them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Spelling | None:
        """Returns what a name that does not exist means, if that is clear."""
        parts = [p for p in re.split(r'[/\\]', name) if p]
        for start in range(len(parts)):
            found = self._resolve(parts[start:])
            if found is None:
                continue
            listed = '/'.join(parts)
            kind = 'case'
            if start:
                return Spelling(found, 'folders', '/'.join(parts[:start]))
            if found == listed:
                kind = 'backslashes'
            elif _composed(found) == _composed(listed):
                kind = 'letters'
            return Spelling(found, kind)
        return None

    def _resolve(self, parts: list[str]) -> str | None:
        """Returns the path on disk if each part means one entry only."""
        found: list[str] = []
        for part in parts:
            matching = self._list(self.folder.joinpath(*found))[_folded(part)]
            if part in matching:
                matching = [part]
            if len(matching) != 1:
                return None
            found += matching
        path = self.folder.joinpath(*found)
        return '/'.join(found) if os.path.isfile(path) else None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listed:
            names: dict[str, list[str]] = defaultdict(list)
            if os.path.isdir(folder):
                for name in os.listdir(folder):
                    names[_folded(name)].append(name)
            self._listed[folder] = names
        return self._listed[folder]
