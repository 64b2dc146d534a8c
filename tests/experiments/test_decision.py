"""The decision of a plan: looks, levels, candidates, margins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from experiments import plan_of, record_of, records_of
from scipy.special import stdtrit

from mmext.errors import UserError
from mmext.evaluation.statistics.comparison import compare_resampled
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.resampling import ImageBootstrap
from mmext.experiments.plan import Job
from mmext.experiments.reports.decision import (
    BETTER,
    OPEN,
    UNTESTED,
    WITHIN,
    WORSE,
    decide,
    deciding,
    evaluate_records,
)


def test_a_clear_gain_is_decided() -> None:
    plan = plan_of()
    found = decide(plan, records_of(plan, {'base': 0.5, 'cand 1': 0.7}))
    assert (found.look, found.verdicts, found.settled) == (3, (BETTER,), True)
    assert found.missing == found.remaining == ()


def test_a_loss_is_decided() -> None:
    plan = plan_of()
    found = decide(plan, records_of(plan, {'base': 0.7, 'cand 1': 0.5}))
    assert found.verdicts == (WORSE,)


def test_the_numbers_are_those_of_a_comparison() -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.62})
    bootstrap = ImageBootstrap(300, 1000)
    runs = {j: bootstrap.evaluate(r.results) for j, r in records.items()}
    sides = [
        [runs[Job(side.name, seed)] for seed in side.seeds]
        for side in plan.sides
    ]
    expected = compare_resampled(*sides)
    (found,) = decide(plan, records).comparisons
    assert found.both == expected.both
    assert found.differences == expected.differences
    assert found.classes == expected.classes


def test_no_look_is_complete() -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    last = [*plan.jobs()][-1]
    del records[last]
    found = decide(plan, records)
    assert (found.look, found.comparisons) == (None, ())
    assert found.remaining == (last,)
    assert not found.settled


def test_a_run_that_failed_for_good_completes_a_look() -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    last = [*plan.jobs()][-1]
    del records[last]
    found = decide(plan, records, [last])
    assert (found.look, found.verdicts) == (3, (BETTER,))
    assert found.missing == (last,)
    (comparison,) = found.comparisons
    assert len(comparison.candidate['top-1']) == 2


def test_all_runs_of_a_side_failed() -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    failed = [job for job in records if job.side == 'base']
    for job in failed:
        del records[job]
    with pytest.raises(UserError, match='no run of base has a record'):
        decide(plan, records, failed)


def test_each_look_has_its_level() -> None:
    plan = plan_of((2, 4), images=200)
    accuracy = {'base': 0.6, 'cand 1': 0.61}
    first = decide(plan, records_of(plan, accuracy, seeds=2))
    levels = nominal_levels((2, 4))
    assert (first.look, first.verdicts) == (2, (OPEN,))
    assert first.candidates[0].alpha == levels[0] < 0.01
    assert len(first.remaining) == 4
    last = decide(plan, records_of(plan, accuracy))
    assert (last.look, last.candidates[0].alpha) == (4, levels[1])


@pytest.mark.parametrize('looks', [(2, 8), (1, 8)])
def test_a_strict_look_needs_no_millions_of_resamples(looks: tuple) -> None:
    """A regression: 45,000 for looks at 2 and 8 seeds, 10^8 for 1 and 8."""
    plan = plan_of(looks, images=200)
    accuracy = {'base': 0.6, 'cand 1': 0.62}
    found = decide(plan, records_of(plan, accuracy, seeds=looks[0]))
    (comparison,) = found.comparisons
    assert comparison.resamples == 5000
    over_images = comparison.differences['top-1']
    low, high = over_images.interval
    # Beyond what the resamples reach: Student's, with 199 degrees of freedom.
    reach = -stdtrit(199, found.candidates[0].alpha / 2) * over_images.se
    assert (high - low) / 2 == pytest.approx(reach)
    assert low < over_images.least < over_images.value


def test_the_first_look_that_decides_counts() -> None:
    """Later runs do not reopen what an earlier look has settled."""
    plan = plan_of((3, 4), images=200)
    good = records_of(plan, {'base': 0.3, 'cand 1': 0.9})
    bad = records_of(plan, {'base': 0.9, 'cand 1': 0.3})
    jobs = [*plan.jobs()]
    mixed = {job: (good if job in jobs[:6] else bad)[job] for job in jobs}
    found = decide(plan, mixed)
    assert (found.look, found.verdicts) == (3, (BETTER,))


def test_a_margin_settles_that_little_is_lost() -> None:
    records_plan = plan_of(images=2000)
    records = records_of(records_plan, {'base': 0.6, 'cand 1': 0.6}, 0.001)
    assert decide(records_plan, records).verdicts == (OPEN,)
    plan = replace(records_plan, margin=5.0)
    found = decide(plan, records)
    assert (found.verdicts, found.settled) == ((WITHIN,), True)
    assert decide(replace(plan, margin=0.01), records).verdicts == (OPEN,)


def test_a_margin_does_not_end_a_plan_early() -> None:
    """Stopping for it at a look cost half of the power for a gain."""
    plan = plan_of((3, 4), images=2000, margin=5.0)
    records = records_of(plan, {'base': 0.6, 'cand 1': 0.6}, 0.001)
    first = {j: r for j, r in records.items() if j in [*plan.jobs(3)]}
    assert decide(plan, first).verdicts == (OPEN,)
    assert decide(plan, records).verdicts == (WITHIN,)


def test_a_candidate_stays_decided_while_another_goes_on() -> None:
    plan = plan_of((3, 4), 2, images=200)
    accuracy = {'base': 0.3, 'cand 1': 0.9, 'cand 2': 0.31}
    good = records_of(plan, accuracy)
    bad = records_of(plan, {**accuracy, 'cand 1': 0.1})
    early = [*plan.jobs(3)]
    mixed = {job: (good if job in early else bad)[job] for job in good}
    found = decide(plan, mixed)
    assert found.verdicts == (BETTER, OPEN)
    assert [verdict.look for verdict in found.candidates] == [3, 4]
    assert len(found.values) == 12


def test_one_training_a_side_tests_no_method() -> None:
    plan = plan_of((1,))
    found = decide(plan, records_of(plan, {'base': 0.3, 'cand 1': 0.9}))
    assert found.verdicts == (UNTESTED,)
    assert not found.settled


def test_the_scope_chooses_the_test() -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    (comparison,) = decide(plan, records).comparisons
    over_both = deciding(plan, comparison)
    between = deciding(replace(plan, scope='data set'), comparison)
    assert over_both is comparison.both['top-1']
    assert between is comparison.seeds['top-1']
    assert between.se < over_both.se


def test_candidates_are_corrected_for_their_number() -> None:
    plan = plan_of(candidates=2)
    accuracy = {'base': 0.6, 'cand 1': 0.63, 'cand 2': 0.6}
    found = decide(plan, records_of(plan, accuracy))
    tests = [deciding(plan, c) for c in found.comparisons]
    smaller, larger = sorted(tests, key=lambda e: e.p)
    assert smaller.holm == pytest.approx(min(1, 2 * smaller.p))
    between = [
        deciding(replace(plan, scope='data set'), c) for c in found.comparisons
    ]
    assert min(between, key=lambda e: e.p).holm == pytest.approx(
        min(1, 2 * min(e.p for e in between))
    )


def test_groups_are_drawn_together() -> None:
    plan = plan_of()
    rng = np.random.default_rng(1)
    scene = np.repeat(np.arange(30), 10)
    records = {}
    for job in plan.jobs():
        right = (rng.uniform(0, 1, 30) < 0.6)[scene]
        records[job] = record_of(plan, job, right, groups=scene)
    alone = [replace(r, groups=None) for r in records.values()]
    spreads = [
        evaluate_records(runs)[0].metrics['top-1'][1:1001].std()
        for runs in ([*records.values()], alone)
    ]
    assert spreads[0] == pytest.approx(spreads[1] * 10**0.5, rel=0.15)


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'images': tuple(map(str, range(300)))}, 'other images'),
        ({'data_sha256': 'b' * 64}, 'other test data'),
        ({'groups': np.arange(300) // 2}, 'other groups'),
    ],
)
def test_records_of_other_data(change: dict, what: str) -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    job = [*records][2]
    records[job] = replace(records[job], **change)
    with pytest.raises(UserError, match=f'{job.side}, .*{job.seed}, .*{what}'):
        decide(plan, records)


def test_a_candidate_without_any_run_does_not_stop_the_others() -> None:
    plan = plan_of((2, 3), 2)
    accuracy = {'base': 0.3, 'cand 1': 0.3, 'cand 2': 0.9}
    records = records_of(plan, accuracy)
    failed = [job for job in records if job.side == 'cand 1']
    for job in failed:
        del records[job]
    found = decide(plan, records, failed)
    assert [v.name for v in found.candidates] == ['cand 2']
    assert (found.verdicts, found.settled) == ((BETTER,), True)
    assert found.comparisons[0].candidates == 1


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'task': 'bbox'}, 'other metrics'),
        ({'groups': np.arange(300)}, 'other groups'),
    ],
)
def test_records_that_are_not_comparable(change: dict, what: str) -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.7})
    job = [*records][2]
    records[job] = replace(records[job], **change)
    with pytest.raises(UserError, match=what):
        decide(plan, records)
