# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fills HTML templates: pages without scripts and network access."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from mmext.evaluation.report.charts import short_name, tick_text


def render(template: Path, **values: Any) -> str:
    """Fills a template, which may use those of this folder.

    ``base.html`` has the style of all pages, ``parts.html`` tables and
    sections, ``charts.html`` the charts.
    """
    environment = _environment(template.parent)
    return environment.get_template(template.name).render(values)


@functools.cache  # a page that is written every few seconds compiles it once
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {'tick': tick_text, 'short': short_name}
    return environment
