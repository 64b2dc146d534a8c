# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A griffe extension that turns the docstrings' markup into Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

CHANGES = (
    # griffe knows the section by its plural only.
    (re.compile(r'^( *)Example:$', re.M), r'\1Examples:'),
    (re.compile(r':\w+:`~?([^`]+)`'), r'`\1`'),
    # A literal block; Markdown needs no second colon.
    (re.compile(r'::$', re.M), ':'),
    # A power outside of code is not bold text.
    (
        re.compile(r'^(?! *(?:>>>|\.\.\.))([^`\n]*\w)\*\*(?=[\w(])', re.M),
        r'\1\\*\\*',
    ),
)


class Markdown(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Applies `CHANGES`."""
        if obj.docstring:
            for pattern, replacement in CHANGES:
                obj.docstring.value = pattern.sub(
                    replacement, obj.docstring.value
                )
