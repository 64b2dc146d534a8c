# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The model zoo's page is current, and every result has a source."""

from __future__ import annotations

import re
import runpy

import pytest
from commands import ROOT
from leaves import ENTRIES, header

ZOO = runpy.run_path(str(ROOT / 'tools' / 'dev' / 'model_zoo.py'))


def test_the_page_is_current() -> None:
    assert ZOO['PAGE'].read_text() == ZOO['render'](), (
        'run python tools/dev/model_zoo.py'
    )


def test_every_config_has_a_row_and_a_cost() -> None:
    rows = re.findall(
        r'^\| \[(\S+)\]\(\.\./(\S+)\) .*$', ZOO['render'](), re.M
    )
    assert sorted(rows) == sorted((m['Name'], m['Config']) for m in ENTRIES)
    for _, config in rows:
        assert (ROOT / config).is_file()
    for model in ENTRIES:
        assert {'Parameters', 'FLOPs', 'Resolution'} <= set(model['Metadata'])


@pytest.mark.parametrize(
    'model', [m for m in ENTRIES if 'Results' in m], ids=lambda m: m['Name']
)
def test_every_result_has_a_source(model: dict) -> None:
    """Ours are in docs/results.md, others' in the config's header."""
    head = ' '.join(header(model['Name']))
    for result in model['Results']:
        ours = result['Source'] == 'docs/results.md'
        text = (ROOT / result['Source']).read_text() if ours else head
        for value in result['Metrics'].values():
            assert re.search(rf'(?<![\d.]){value}(?!\d)', text), value
