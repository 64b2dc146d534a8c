# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a user sees when something is wrong."""

from __future__ import annotations

import pytest

from mmext.errors import did_you_mean, nearest

ARCHS = ('s1', 's2', 's3', 's4', 's050', 's100', 's150')


@pytest.mark.parametrize(
    'word, choices, meant',
    [
        ('s5', ARCHS, 's4'),  # shares more letters with s150
        ('S15', ARCHS, 's150'),
        ('StarNett', ('StarNet', 'StepNetResNet'), 'StarNet'),
        ('inhomogenous', ('homogeneous', 'inhomogeneous'), 'inhomogeneous'),
        ('trian.json', ('train', 'train.json', 'val.json'), 'train.json'),
        ('DEPTH', ('depth', 'width'), 'depth'),
        ('tinny', ('base', 'tiny', 'small'), 'tiny'),
        ('xyz', ARCHS, None),
        ('s5', (), None),
    ],
)
def test_the_nearest_takes_the_fewest_edits(
    word: str, choices: tuple[str, ...], meant: str | None
) -> None:
    assert nearest(word, choices) == meant
    assert did_you_mean(word, choices) == (
        f'Did you mean {meant!r}?' if meant else ''
    )
