# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The model zoo's page, and where the metafiles' results come from."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'dev' / 'model_zoo.py'
MODELS = [
    model
    for path in sorted((ROOT / 'configs').rglob('metafile.yml'))
    for model in yaml.safe_load(path.read_text())['Models']
]


def test_the_page_is_as_new_as_the_metafiles():
    zoo = runpy.run_path(str(SCRIPT))
    assert zoo['PAGE'].read_text() == zoo['render'](), (
        'run python tools/dev/model_zoo.py'
    )


def test_every_config_has_a_row_and_a_cost():
    zoo = runpy.run_path(str(SCRIPT))
    rows = re.findall(
        r'^\| \[(\S+)\]\(\.\./(\S+)\) .*$', zoo['render'](), re.M
    )
    assert sorted(rows) == sorted((m['Name'], m['Config']) for m in MODELS)
    for _, config in rows:
        assert (ROOT / config).is_file()
    for model in MODELS:
        assert {'Parameters', 'FLOPs', 'Resolution'} <= set(model['Metadata'])


@pytest.mark.parametrize(
    'model', [m for m in MODELS if 'Results' in m], ids=lambda m: m['Name']
)
def test_every_result_has_a_source(model):
    """Ours stand in docs/results.md, others' in the config's first lines."""
    head = ''.join(
        line.lstrip('#')
        for line in (ROOT / model['Config']).read_text().splitlines()
        if line.startswith('#')
    )
    for result in model['Results']:
        ours = result['Source'] == 'docs/results.md'
        text = (ROOT / result['Source']).read_text() if ours else head
        for value in result['Metrics'].values():
            assert re.search(rf'(?<![\d.]){value}(?!\d)', text), value
