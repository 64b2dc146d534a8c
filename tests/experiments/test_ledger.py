"""Records of several studies, and the mean over studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiments import plan_of, records_of, write_runs
from records import make_record

from mmext.errors import UserError
from mmext.evaluation.statistics.pooling import pool
from mmext.experiments.plan import Plan
from mmext.experiments.records.record import write_record
from mmext.experiments.reports.decision import decide
from mmext.experiments.reports.ledger import report_records
from mmext.utils.text import points

#: Log risk ratios of 13 trials of a vaccine, with their variances (Colditz
#: et al. 1994), a common example of random effects.
BCG = (
    [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209]
    + [0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173],
    [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230]
    + [0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714],
)


def test_pooling_agrees_with_published_values() -> None:
    """tau^2 and the mean of DerSimonian and Laird, as metafor gives them.

    The variances above are rounded.
    """
    values, variances = BCG
    found = pool(values, np.sqrt(variances))
    assert found.tau**2 == pytest.approx(0.3088, abs=1e-3)
    assert found.mean.value == pytest.approx(-0.7141, abs=1e-3)


def test_pooling_of_equal_studies_by_hand() -> None:
    found = pool([0.01, 0.01, 0.01, 0.01], [0.002] * 4)
    assert found.tau == 0
    assert found.mean.value == pytest.approx(0.01)
    assert found.mean.se == pytest.approx(0.001)
    # Student's 97.5 % quantiles: 3.182 with 3, 4.303 with 2.
    assert found.mean.interval[1] == pytest.approx(0.01 + 0.003182, abs=1e-6)
    assert found.prediction[1] == pytest.approx(0.01 + 0.004303, abs=1e-6)


def test_the_interval_of_the_mean_covers() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        errors = rng.uniform(0.5, 2, 5)
        values = 1 + rng.normal(0, 1, 5) + rng.normal(0, errors)
        low, high = pool(values, errors).mean.interval
        inside.append(low < 1 < high)
    assert 0.94 < np.mean(inside) < 0.985


def write_study(
    folder: Path,
    data: str,
    gain: float,
    seed: int = 0,
    looks: tuple[int, ...] = (3,),
    candidates: int = 1,
) -> Plan:
    plan = plan_of(looks, candidates)
    plan = replace(plan, data={**plan.data, 'sha256': data * 64})
    accuracy = {side.name: 0.6 + gain for side in plan.sides}
    accuracy['base'] = 0.6
    records = {
        job: replace(r, data_sha256=data * 64, data_name=data, detector='Net')
        for job, r in records_of(plan, accuracy, seed=seed).items()
    }
    write_runs(plan, records, folder)
    return plan


def test_one_study_has_the_numbers_of_a_decision(tmp_path: Path) -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.6})
    write_runs(plan, records, tmp_path)
    ledger = report_records([tmp_path])
    (study,) = ledger.studies
    assert [*study.sides] == ['base', 'cand 1']
    (expected,) = decide(plan, records).comparisons
    (found,) = study.comparisons
    assert found.both == expected.both
    assert found.classes == expected.classes
    assert 'Exploratory' in ledger.warnings[0]
    assert [h for h, _ in ledger.verdicts()] == [
        'records: cand 1 against base'
    ]


def test_studies_are_pooled(tmp_path: Path) -> None:
    for n, (data, gain) in enumerate((('b', 0.08), ('c', 0.1), ('d', 0.12))):
        write_study(tmp_path / data, data, gain, n)
    ledger = report_records([tmp_path / 'b', tmp_path / 'c', tmp_path / 'd'])
    found = [s.comparisons[0].both['top-1'] for s in ledger.studies]
    mean = pool([e.value for e in found], [e.se for e in found])
    assert ledger.pooled('cand 1') == mean
    (heading, lines), *_ = ledger.verdicts()
    assert heading == 'cand 1: all studies'
    assert f'top-1 +{100 * mean.mean.value:.1f} [' in lines[0]
    rows = ledger.tables()[0].rows
    names = ['Net, b', 'Net, c', 'Net, d', 'mean']
    assert [row[0] for row in rows] == names
    assert rows[-1][4] == points(mean.mean.value)
    assert rows[-1][-1] == '3 studies'
    page, *_ = ledger.write(tmp_path / 'out')
    assert '>mean<' in page.read_text()


def test_one_training_a_side_is_not_in_the_mean(tmp_path: Path) -> None:
    write_study(tmp_path / 'b', 'b', 0.1)
    write_study(tmp_path / 'c', 'c', 0.1, 1)
    write_study(tmp_path / 'd', 'd', 0.1, 2, looks=(1,))
    ledger = report_records([tmp_path])
    lines = ledger.verdicts()[0][1]
    assert 'over 2 studies' in lines[0]
    assert lines[-1].startswith('1 study is not in the mean')


def test_the_baseline_can_be_named(tmp_path: Path) -> None:
    write_study(tmp_path, 'b', 0.1, candidates=2)
    ledger = report_records([tmp_path], 'cand 2')
    assert [*ledger.studies[0].sides] == ['cand 2', 'base', 'cand 1']
    with pytest.raises(UserError, match='cand 2'):
        report_records([tmp_path], 'cand 3')


def test_a_run_that_is_given_twice(tmp_path: Path) -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.6})
    write_runs(plan, records, tmp_path)
    write_record(tmp_path / 'copy.npz', next(iter(records.values())))
    with pytest.raises(UserError, match='are both of base, seed 1'):
        report_records([tmp_path])
    # The same file twice is one run.
    file = next(tmp_path.glob('base/*/record.npz'))
    (tmp_path / 'copy.npz').unlink()
    assert report_records([tmp_path, file]).studies[0].comparisons


def test_no_candidate_and_no_record(tmp_path: Path) -> None:
    plan = plan_of()
    records = records_of(plan, {'base': 0.5, 'cand 1': 0.6})
    only = {job: r for job, r in records.items() if job.side == 'base'}
    write_runs(plan, only, tmp_path / 'a')
    with pytest.raises(UserError, match='have the sides base; a comparison'):
        report_records([tmp_path / 'a'])
    (tmp_path / 'b').mkdir()
    with pytest.raises(UserError, match='b has no record'):
        report_records([tmp_path / 'b'])


def test_only_studies_with_a_standard_error_are_counted(
    tmp_path: Path,
) -> None:
    write_study(tmp_path / 'b', 'b', 0.1)
    write_study(tmp_path / 'c', 'c', 0.1, 1)
    # Every run is right on every image: no variance at all.
    plan = plan_of()
    plan = replace(plan, data={**plan.data, 'sha256': 'd' * 64})
    records = records_of(plan, {'base': 1.5, 'cand 1': 1.5})
    records = {j: replace(r, data_sha256='d' * 64) for j, r in records.items()}
    write_runs(plan, records, tmp_path / 'd')
    lines = report_records([tmp_path]).verdicts()[0][1]
    assert 'over 2 studies' in lines[0]
    assert lines[-1].startswith('1 study is not in the mean')


def test_studies_on_the_same_images_are_not_independent(
    tmp_path: Path,
) -> None:
    for n, name in enumerate('bc'):
        write_study(tmp_path / name, 'b', 0.1 + 0.01 * n, n, looks=(3 + n,))
    warnings = report_records([tmp_path]).warnings
    assert any('same test data' in w for w in warnings)


def test_boxes_and_masks_are_not_pooled(tmp_path: Path) -> None:
    for task in ('bbox', 'segm'):
        for n, side in enumerate(('base', 'cand')):
            for seed in (1, 2):
                record = make_record(
                    task=task,
                    side=side,
                    seed=10 * n + seed,
                    baseline=not n,
                    data_name=task,
                )
                file = tmp_path / task / f'{side}_{seed}.npz'
                file.parent.mkdir(exist_ok=True)
                write_record(file, record)
    with pytest.raises(UserError, match='AP of bbox .*AP of segm'):
        report_records([tmp_path])
    assert report_records([tmp_path / 'bbox']).studies
