# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads the config in a work folder as data: nothing in it is executed.

The folder may be someone else's, and an MMEngine config is Python code. The
runner writes it as assignments of literals and of ``dict(...)``, which is all
that is read here.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mmext.utils import documents


class _Dicts(ast.NodeTransformer):
    """Replaces ``dict(a=1)`` by ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_dict = getattr(node.func, 'id', None) == 'dict'
        names = [keyword.arg for keyword in node.keywords]
        if not is_dict or node.args or None in names:
            return node
        keys = [ast.Constant(name) for name in names]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def read_dumped_config(path: Path) -> dict[str, Any]:
    """Returns the variables of a config; those that are no literals miss."""
    found: dict[str, Any] = {}
    try:
        module = ast.parse(documents.read_bytes(path, 'config'))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    for statement in module.body:
        if not isinstance(statement, ast.Assign):
            continue
        try:
            value = ast.literal_eval(_Dicts().visit(statement.value))
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name):
                found[target.id] = value
    return found
