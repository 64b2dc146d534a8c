# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The power of a plan: as a table, as sentences, and as a page."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.report.charts import Chart, line_chart
from mmext.evaluation.report.document import Document
from mmext.evaluation.report.render import render
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.power import Noise, least_gains
from mmext.experiments.design.timing import TrainingTime
from mmext.experiments.plan import Plan, write_plan
from mmext.utils.files import replacing
from mmext.utils.text import count, duration, some

#: Numbers of test images in the table, as factors of those there are.
_FACTORS = (0.5, 1, 2, 4)


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulated plans with the noise and the tests of one plan.

    Args:
        plan: Gain, power, scope, alpha and number of sides are used.
        noise: On the test images, or on groups of them.
    """

    plan: Plan
    noise: Noise

    @functools.cache  # noqa: B019
    def least_gains(
        self, looks: tuple[int, ...], images: int | None = None
    ) -> np.ndarray:
        """Returns the least gain that each of 20,000 plans would show."""
        return least_gains(
            looks[-1],
            self.noise,
            images=images,
            scope=self.plan.scope,
            levels=nominal_levels(looks, self.plan.alpha),
            looks=looks,
            candidates=len(self.plan.sides) - 1,
        )

    def power(
        self,
        looks: tuple[int, ...],
        images: int | None = None,
        gain: float | None = None,
    ) -> float:
        """Returns the share of plans that show a gain, by default planned."""
        gain = self.plan.gain / 100 if gain is None else gain
        return float(np.mean(self.least_gains(looks, images) < gain))

    def smallest_gain(self, looks: tuple[int, ...]) -> float:
        """Returns the smallest gain with the planned power, or inf."""
        least, share = self.least_gains(looks), self.plan.power
        return float(np.quantile(least, share, method='inverted_cdf'))


@dataclass(frozen=True)
class Design(Document):
    """A plan, and what it was chosen from.

    Args:
        plan: The plan.
        simulation: Its power.
        most: Largest number of seeds in the table.
        times: Side -> time of one training; empty if it was not measured.
        warnings: What the user should know before training.
    """

    plan: Plan
    simulation: Simulation
    most: int
    times: Mapping[str, TrainingTime]
    warnings: Sequence[str] = ()

    @property
    def title(self) -> str:
        return self.plan.claim

    def tables(self) -> list[Table]:
        """Returns seeds and test images -> power, smallest gain, hours."""
        plan, simulation = self.plan, self.simulation
        best = f'gain at {in_percent(simulation.plan.power)}'
        header = ['seeds', *map(self._images, self._units()), best]
        notes = [
            f'seeds: trainings of each side. {best}: the smallest gain, in '
            f'points, that {self._images(simulation.noise.images)} show with '
            'this power.'
        ]
        rows = []
        for looks in self._rows():
            power = [simulation.power(looks, n) for n in self._units()]
            row = [_numbers(looks), *map(in_percent, power)]
            row.append(in_points(simulation.smallest_gain(looks)))
            if self.times:
                row.append(self._hours(looks))
            rows.append(row)
        if self.times:
            header.append('training')
            device = next(iter(self.times.values())).device
            notes.append(
                'training: all sides one after the other, on this machine: '
                f'{device}. Validation and test are not included.'
            )
        title = f'Power: how often a gain of {in_metric(plan)} is shown'
        return [Table(header, rows, title, notes)]

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Returns the plan, its rule and what is assumed, in sentences."""
        plan = self.plan
        about = [
            f'{side.name}: seeds {_numbers(side.seeds)}' for side in plan.sides
        ]
        about = [
            f'{"; ".join(about)}.',
        ]
        if plan.looks != (1,):
            power = in_percent(self.simulation.power(plan.looks))
            about.append(
                f'A true gain of {in_metric(plan)} is shown with probability '
                f'{power}. Equal methods are called different with '
                f'probability {100 * plan.alpha:g} %.'
            )
        if self.times:
            about.append(f'Training takes {self._hours(plan.looks)} in all.')
        number = count(plan.looks[-1], 'seed')
        return [
            (f'Plan: {number} a side', about),
            ('Rule', [*_rule(plan)]),
            ('Noise', [*self._noise()]),
        ]

    def html(self) -> str:
        """Returns the page."""
        return render(
            Path(__file__).with_name('plan.html'),
            title=self.title,
            verdicts=self.verdicts(),
            warnings=[f'Warning: {w}' for w in self.warnings],
            figures=[self._over_gain(), self._over_seeds()],
            tables=self.tables(),
        )

    def write(self, path: str | Path) -> list[Path]:
        """Writes the plan and the page beside it, and returns both paths.

        Raises:
            UserError: One of them exists, or the plan is no YAML file.
        """
        plan, page = files = require_new(path)
        write_plan(plan, self.plan)
        with replacing(page) as part:
            part.write_text(self.html(), encoding='utf-8')
        return files

    def _rows(self) -> list[tuple[int, ...]]:
        rows = [(seeds,) for seeds in range(2, self.most + 1)]
        return rows if self.plan.looks in rows else [*rows, self.plan.looks]

    def _units(self) -> list[int]:
        """Numbers of images; only those there are if the claim is on them."""
        now = self.simulation.noise.images
        if self.plan.scope != 'images':
            return [now]
        return [max(2, round(factor * now)) for factor in _FACTORS]

    def _images(self, number: int) -> str:
        return f'{number} {"groups" if self.plan.data["groups"] else "images"}'

    def _hours(self, looks: tuple[int, ...]) -> str:
        once = sum(time.seconds for time in self.times.values())
        return duration(looks[-1] * once)

    def _noise(self) -> Iterator[str]:
        metric, sd, se = (
            self.plan.metric,
            self.plan.seed_sd,
            self.plan.image_se,
        )
        yield (
            f'Standard deviation between seeds: {sd["value"]:.2g} {metric} '
            f'({sd["source"]}).'
        )
        if self.plan.scope == 'images':
            yield (
                'Standard error of the difference over images: '
                f'{se["value"]:.2g} {metric} on '
                f'{self._images(self.simulation.noise.images)} '
                f'({se["source"]}).'
            )

    def _over_gain(self) -> tuple:
        """A figure: power over the true gain, one line a number of seeds."""
        plan, simulation = self.plan, self.simulation
        shown = {(2,), (3,), (5,), (self.most,), plan.looks}
        smallest = simulation.smallest_gain(plan.looks)
        most = plan.gain / 100
        if math.isfinite(smallest):
            most = max(most, smallest)
        series = {}
        for looks in filter(shown.__contains__, self._rows()):
            planned = looks == plan.looks
            # The points of a line are marked if they are few.
            gains = np.linspace(0, 2 * most, 21 if planned else 81)
            name = f'{_numbers(looks)} seeds{" (the plan)" * planned}'
            series[name] = [
                (100 * gain, 100 * simulation.power(looks, gain=gain))
                for gain in gains.tolist()
            ]
        caption = (
            'How often a true gain is shown, on '
            f'{self._images(simulation.noise.images)}.'
        )
        return _figure(series, f'true gain, {plan.metric} points', caption)

    def _over_seeds(self) -> tuple:
        """A figure: power over seeds, one line a number of test images."""
        plan, simulation = self.plan, self.simulation
        series = {
            self._images(units): [
                (n, 100 * simulation.power((n,), units))
                for n in range(2, max(3, self.most) + 1)
            ]
            for units in self._units()
        }
        power = 100 * simulation.power(plan.looks)
        series['the plan'] = [(plan.looks[-1], power)]
        caption = f'How often a true gain of {in_metric(plan)} is shown.'
        return _figure(series, 'seeds a side', caption)


def require_new(path: str | Path) -> list[Path]:
    """Returns the files that a plan is written to, which must not exist.

    Raises:
        UserError: One does, or the name is not that of a YAML file.
    """
    path = Path(path)
    if path.suffix not in ('.yaml', '.yml'):
        raise UserError(
            f'the plan {path} is not a YAML file',
            f'Name it {path.with_suffix(".yaml")}.',
        )
    files = [path, path.with_suffix('.html')]
    if there := [file for file in files if file.exists()]:
        raise UserError(
            f'{some(there)} would be overwritten',
            'Name another plan with --out. If nothing was trained by this '
            'one, remove it.',
        )
    return files


def _figure(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    caption: str,
) -> tuple[str, Chart, str, list[tuple[str, str]]]:
    chart = line_chart([*series.items()], x_label, 'power, %', (0, 100))
    key = [(f's{i % 6}', name) for i, name in enumerate(series)]
    return 'line_chart', chart, caption, key


def _rule(plan: Plan) -> Iterator[str]:
    if plan.looks == (1,):
        yield (
            'Two checkpoints are compared: with one seed a side, nothing is '
            'decided about the methods.'
        )
    else:
        yield from _decides(plan)
    yield (
        'The last checkpoint of a training is tested. A failed training is '
        f'repeated, at most {count(plan.retries, "time")}, one that diverged '
        'is not. The report names missing seeds.'
    )
    if plan.differences:
        yield f'Part of the claim, too: {"; ".join(plan.differences)}.'


def _decides(plan: Plan) -> Iterator[str]:
    levels = nominal_levels(plan.looks, plan.alpha)
    steps = [
        f'At {count(look, "seed")} a side, p < {level:.3g} shows a difference.'
        for look, level in zip(plan.looks, levels, strict=True)
    ]
    yield f'{" ".join(steps)} No other number of seeds decides.'
    about = (
        'over seeds and images: the claim is about new trainings and images '
        'like the test images'
        if plan.scope == 'images'
        else "between seeds (Welch's test): the claim is about new trainings "
        'on these test images'
    )
    yield f'p is that of {plan.metric}, {about}.'
    if (candidates := len(plan.sides) - 1) > 1:
        yield (
            f'p is corrected for {candidates} candidates (Holm). Power is '
            'that of each candidate, at the strictest of the levels.'
        )
    if plan.margin is not None:
        yield (
            'If no difference is shown, a loss of more than '
            f'{plan.margin:g} {plan.metric} may still be excluded.'
        )


def _numbers(values: Iterable[int]) -> str:
    return ', '.join(map(str, values))


def in_metric(plan: Plan) -> str:
    """Returns the gain of a plan in words: ``0.5 AP``."""
    return f'{plan.gain:g} {plan.metric}'


def in_percent(share: float) -> str:
    """Returns a power or a level: never more than it is."""
    return '>99 %' if share > 0.99 else f'{math.floor(100 * share + 1e-9)} %'


def in_points(share: float) -> str:
    """Returns a gain in points, ``-`` if it is more than there can be."""
    return f'{100 * share:.2g}' if share < 0.99 else '-'
