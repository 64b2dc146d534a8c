# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Changes JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    """Applies ``change`` to what a JSON file holds, and writes it again."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
