# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mIoU and top-1 of each image: equal to mmseg and mmpretrain, resampled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator

from mmext.engine.image_results import image_results_metrics
from mmext.errors import UserError
from mmext.evaluation.image_results import (
    read_image_results,
    write_image_results,
)
from mmext.evaluation.semantic import Areas
from mmext.evaluation.statistics.comparison import compare_resampled
from mmext.evaluation.statistics.resampling import ImageBootstrap
from mmext.evaluation.statistics.verdict import verdict
from mmext.evaluation.top1 import Labels

CLASSES = ('sky', 'road', 'car', 'sign', 'tree', 'bus')
IMAGES = 23


def seg_samples(images: int = IMAGES, seed: int = 0) -> list[dict]:
    """Maps with ignored pixels; class 5 is in no label, 2 in few."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(images):
        label = rng.integers(0, 5, (9, 7))
        if i % 4:
            label[label == 2] = 0
        predicted = np.where(rng.random((9, 7)) < 0.6, label, 3)
        predicted[0, 0] = 5
        label[rng.random((9, 7)) < 0.1] = 255
        samples.append(
            {
                'img_path': f'/data/{i % 3}/{i}.png',
                'pred_sem_seg': {'data': torch.tensor(predicted)[None]},
                'gt_sem_seg': {'data': torch.tensor(label)[None]},
            }
        )
    return samples


def class_samples(images: int = IMAGES, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(images, 6, generator=generator).softmax(1)
    labels = torch.randint(0, 5, (images, 1), generator=generator)
    return [
        {'pred_score': score, 'gt_label': label, 'img_path': f'/x/{i}.png'}
        for i, (score, label) in enumerate(zip(scores, labels, strict=True))
    ]


def iou_metric() -> BaseMetric:
    return pytest.importorskip('mmseg.evaluation').IoUMetric()


def accuracy(**options: object) -> BaseMetric:
    return pytest.importorskip('mmpretrain.evaluation').Accuracy(**options)


def evaluate(
    metric: BaseMetric, samples: list[dict], folder: Path
) -> tuple[dict, Path]:
    """The metrics of a host, and the file that was written beside it."""
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = {'classes': CLASSES}
    writers = image_results_metrics(evaluator.metrics)
    evaluator.metrics += writers
    for writer in writers:
        writer.outfile_prefix = str(folder / 'epoch_1')
    for start in range(0, len(samples), 4):
        evaluator.process(samples[start : start + 4])
    metrics = evaluator.evaluate(len(samples))
    return metrics, folder / f'epoch_1.{writers[0].task}.npz'


def once(results: Areas | Labels) -> tuple[dict[str, float], np.ndarray]:
    count = results.present.shape[0]
    metrics, classes = results.weighted(np.ones((1, count), np.int32))
    return {k: float(v[0]) for k, v in metrics.items()}, classes[0]


def test_segmentation_equals_mmseg(tmp_path: Path) -> None:
    metric, samples = iou_metric(), seg_samples()
    expected, file = evaluate(metric, samples, tmp_path)
    results, images = read_image_results(file)
    assert results.names == CLASSES
    assert images == tuple(f'{i % 3}/{i}.png' for i in range(IMAGES))
    found, classes = once(results)
    for name in ('mIoU', 'aAcc', 'mAcc'):
        assert round(100 * found[name], 2) == pytest.approx(expected[name])
    for sample in samples:
        metric.process(None, [sample])
    areas = [sum(x) for x in zip(*metric.results, strict=True)]
    by_class = metric.total_area_to_metrics(*areas)['IoU']
    np.testing.assert_allclose(classes, by_class, rtol=1e-6)
    # Predicted and in no label: 0, as there; it is in the mean.
    assert classes[5] == 0


def test_miou_by_image_is_that_of_its_definition() -> None:
    samples = seg_samples(6)
    samples[3]['gt_sem_seg']['data'][:] = 255  # nothing counts
    metric = iou_metric()
    metric.dataset_meta = {'classes': CLASSES}
    metric.process(None, samples)
    pixels = [torch.stack([a, p, t], 1) for a, _, p, t in metric.results]
    found, _ = once(Areas(CLASSES, torch.stack(pixels).long().numpy()))
    expected = []
    for i, sample in enumerate(samples):
        label = sample['gt_sem_seg']['data'].numpy()
        predicted = sample['pred_sem_seg']['data'].numpy()[label != 255]
        label = label[label != 255]
        ious = [
            ((label == k) & (predicted == k)).sum()
            / ((label == k) | (predicted == k)).sum()
            for k in np.unique(label)
        ]
        assert bool(ious) == (i != 3)
        expected += [np.mean(ious)] if ious else []
    assert found['mIoU-I'] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize('thrs', [0.0, 0.18, None])
def test_classification_equals_mmpretrain(
    tmp_path: Path, thrs: float | None
) -> None:
    metric = accuracy(topk=(1, 5), thrs=thrs)
    expected, file = evaluate(metric, class_samples(), tmp_path)
    results, images = read_image_results(file)
    assert images[:2] == ('0.png', '1.png')
    found, recall = once(results)
    for k in (1, 5):
        assert 100 * found[f'top-{k}'] == pytest.approx(
            expected[f'accuracy/top{k}'], rel=1e-5
        )
    right = results.predicted[:, 0] == results.label
    for k in range(5):
        of_class = right[results.label == k]
        assert recall[k] == pytest.approx(of_class.mean())
    assert np.isnan(recall[5])


def test_predictions_without_scores_and_names(tmp_path: Path) -> None:
    samples = [
        {'pred_label': torch.tensor([i % 2]), 'gt_label': torch.tensor([1])}
        for i in range(5)
    ]
    expected, file = evaluate(accuracy(), samples, tmp_path)
    results, images = read_image_results(file)
    found, _ = once(results)
    assert 100 * found['top-1'] == pytest.approx(expected['accuracy/top1'])
    assert 'top-5' not in found and images == ('0', '1', '2', '3', '4')


def areas(seed: int = 0, gain: int = 0) -> Areas:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 40, (IMAGES, 4))
    hit = np.minimum(rng.integers(0, 40, label.shape) + gain, label)
    predicted = hit + rng.integers(0, 9, label.shape)
    names = ('a', 'b', 'c', 'd')
    return Areas(names, np.stack([hit, predicted, label], 2))


def labels(seed: int = 0, right: float = 0.5) -> Labels:
    rng = np.random.default_rng(seed)
    label = np.random.default_rng(9).integers(0, 6, IMAGES)
    predicted = np.argsort(rng.random((IMAGES, 6)), 1)[:, :5]
    predicted[:, 0] = np.where(rng.random(IMAGES) < right, label, -1)
    return Labels(CLASSES, label, predicted)


@pytest.mark.parametrize('results', [areas(), labels()])
def test_a_resample_is_a_data_set_with_repeated_images(
    results: Areas | Labels,
) -> None:
    bootstrap = ImageBootstrap(IMAGES, 20, seed=2)
    found = bootstrap.evaluate(results)
    assert found.primary in found.metrics and found.names == results.names
    for row in (0, 3, 20, 25):
        drawn = np.repeat(np.arange(IMAGES), bootstrap.weights[row])
        if isinstance(results, Areas):
            again = Areas(results.names, results.pixels[drawn])
        else:
            parts = results.label[drawn], results.predicted[drawn]
            again = Labels(results.names, *parts)
        metrics, classes = once(again)
        for name, value in metrics.items():
            assert found.metrics[name][row] == pytest.approx(value)
        np.testing.assert_allclose(found.classes[row], classes)


def test_sides_are_compared_and_the_metric_is_named() -> None:
    bootstrap = ImageBootstrap(IMAGES, 200)
    better = [bootstrap.evaluate(areas(s, gain=20)) for s in (3, 4)]
    found = compare_resampled(
        [bootstrap.evaluate(areas(s)) for s in (1, 2)], better
    )
    assert found.primary == 'mIoU'
    assert found.classes[0].images == int(areas().present[:, 0].sum())
    methods, *others = verdict(found)
    assert methods.startswith('The methods') and ': mIoU +' in methods
    [claim] = [x for x in others if 'checkpoints, on images' in x]
    assert ': mIoU +' in claim
    assert claim.endswith("the candidate's checkpoints are better.")
    # Holm over the other three metrics, and none for the primary one.
    assert found.both['mIoU'].holm == found.both['mIoU'].p
    others = [found.both[m] for m in ('aAcc', 'mAcc', 'mIoU-I')]
    assert min(x.holm for x in others) >= 3 * min(x.p for x in others) - 1e-12


def test_a_classifier_that_is_not_worse() -> None:
    bootstrap = ImageBootstrap(IMAGES, 200)
    sides = [[bootstrap.evaluate(labels(s))] for s in (1, 2)]
    text = ' '.join(verdict(compare_resampled(*sides), margin=0.6))
    assert 'top-1 (one-sided 95 %), within the margin of 60.0 top-1.' in text


def test_the_writers_of_other_metrics() -> None:
    other = SimpleNamespace()
    hidden = iou_metric()
    hidden.format_only = True
    assert image_results_metrics([other, hidden]) == []
    hidden.format_only = False
    metrics = [hidden, *image_results_metrics([hidden])]
    assert len(metrics) == 2 and image_results_metrics(metrics) == []


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / 'a.mIoU.npz'
    good = areas()
    images = [str(i) for i in range(IMAGES)]
    write_image_results(file, good, images)
    found, names = read_image_results(file)
    np.testing.assert_array_equal(found.pixels, good.pixels)
    assert names == tuple(images)
    write_image_results(file, good, images[1:])
    with pytest.raises(UserError, match='pixels has shape 23 x 4 x 3, and'):
        read_image_results(file)
    more = good.pixels + [1, 0, 0]
    write_image_results(file, Areas(good.names, more), images)
    with pytest.raises(UserError, match='out of range'):
        read_image_results(file)
