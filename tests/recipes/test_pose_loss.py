"""Targets, loss and accuracy against the numbers of the parents' code and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from larq_ext_recipes._pose_loss import (
    JOINT_WEIGHTS,
    KeypointAccuracy,
    gaussian_targets,
    map_positions,
    pose_loss,
)

SIZE = (64, 48)


def labels_at(points, weights=None) -> np.ndarray:
    """One person; all keypoints that are not given are without a label."""
    labels = np.zeros((1, 17, 3), np.float32)
    labels[0, : len(points), :2] = points
    labels[0, : len(points), 2] = 1 if weights is None else weights
    return labels


def reference_targets(labels: np.ndarray, size, sigma: float):
    """The construction of the official code: a patch that is pasted, cut at the map's borders."""
    maps, weights = np.zeros((len(labels), *size, 17)), labels[..., 2].copy()
    reach = int(3 * sigma)
    line = np.arange(2 * reach + 1) - reach
    patch = np.exp(-(line[None] ** 2 + line[:, None] ** 2) / (2 * sigma**2))
    for i, k in np.ndindex(labels.shape[:2]):
        x, y = (int(value / 4 + 0.5) for value in labels[i, k, :2])
        left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
        if left >= size[1] or top >= size[0] or right < 0 or bottom < 0:
            weights[i, k] = 0
        if weights[i, k]:
            for row in range(max(0, top), min(bottom, size[0])):
                for column in range(max(0, left), min(right, size[1])):
                    maps[i, row, column, k] = patch[row - top, column - left]
    return maps, weights


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_targets_are_those_of_the_official_construction(sigma):
    generator = np.random.default_rng(0)
    labels = generator.uniform(-40, 260, (5, 17, 3)).astype(np.float32)
    labels[..., 2] = generator.integers(0, 2, (5, 17))
    maps, weights = gaussian_targets(labels, SIZE, sigma=sigma)
    expected, expected_weights = reference_targets(labels, SIZE, sigma)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    np.testing.assert_array_equal(weights, expected_weights)
    assert (labels[..., 2] - expected_weights).sum() > 0  # some windows miss the map


def test_numbers_of_a_gaussian():
    maps = gaussian_targets(labels_at([(100, 120)]), SIZE)[0].numpy()[0, :, :, 0]
    assert maps[30, 25] == 1
    assert maps[30, 26] == pytest.approx(0.8824969, abs=1e-7)
    assert maps[31, 26] == pytest.approx(0.7788008, abs=1e-7)
    assert maps[30, 31] == pytest.approx(0.0111090, abs=1e-7) and maps[30, 32] == 0
    assert maps.sum() == pytest.approx(25.0812908, rel=1e-6)
    assert (maps**2).sum() == pytest.approx(12.5663011, rel=1e-6)


def test_positions_are_cut_towards_zero():
    points = np.array([[[100.3, 57.9, 1], [1.9, 2.0, 1], [-5, -1.9, 1]]], np.float32)
    assert map_positions(points).numpy().tolist() == [[[25, 14], [0, 1], [0, 0]]]


def test_unrounded_targets_are_centred_at_the_keypoint():
    maps = gaussian_targets(labels_at([(101.2, 122.8)]), SIZE, unrounded=True)[0]
    maps = maps.numpy()[0, :, :, 0]
    rows, columns = np.mgrid[:64, :48]
    expected = np.exp(-((columns - 25.3) ** 2 + (rows - 30.7) ** 2) / 8)
    near = expected > 0.05
    np.testing.assert_allclose(maps[near], expected[near], rtol=1e-4)


def test_a_zero_prediction_of_full_gaussians():
    labels = np.full((3, 17, 3), 1, np.float32) * (96, 128, 1)
    loss = pose_loss(labels, tf.zeros((3, *SIZE, 17)))
    np.testing.assert_allclose(loss, [0.0020452964] * 3, rtol=1e-6)


def test_loss_against_loops():
    generator = np.random.default_rng(1)
    labels = generator.uniform(-20, 250, (4, 17, 3)).astype(np.float32)
    labels[..., 2] = generator.integers(0, 2, (4, 17))
    maps = generator.normal(size=(4, *SIZE, 17)).astype(np.float32)
    targets, weights = reference_targets(labels, SIZE, 2.0)

    def expected(joint_weights=1.0, hardest=17):
        each = ((maps - targets) * (weights * joint_weights)[:, None, None]) ** 2
        each = 0.5 * each.mean((1, 2))
        return np.sort(each)[:, ::-1][:, :hardest].sum(1) / hardest

    np.testing.assert_allclose(pose_loss(labels, maps), expected(), rtol=1e-5)
    np.testing.assert_allclose(pose_loss(labels, maps, hardest=8), expected(hardest=8), rtol=1e-5)
    found = pose_loss(labels, maps, joint_weights=True)
    np.testing.assert_allclose(found, expected(JOINT_WEIGHTS), rtol=1e-5)
    assert JOINT_WEIGHTS[[0, 7, 9, 13, 15]].tolist() == pytest.approx([1, 1.2, 1.5, 1.2, 1.5])


def test_accuracy_against_the_official_rule():
    """Distances of peaks in units of a tenth of the map, x by the height, y by the width."""
    generator = np.random.default_rng(2)
    labels = generator.uniform(-60, 320, (24, 17, 3)).astype(np.float32)
    labels[..., 2] = generator.integers(0, 2, (24, 17))
    labels[:, :9, :2] = generator.uniform(0, 180, (24, 9, 2))
    targets = reference_targets(labels, SIZE, 2.0)[0]
    moved = labels + generator.normal(size=labels.shape).astype(np.float32) * (12, 6, 0)
    moved[..., 2] = 1
    maps = reference_targets(moved, SIZE, 2.0)[0]
    maps[0, :, :, 3] = -1  # nowhere above 0: the peak is at (0, 0)
    right = []
    for i, k in np.ndindex(labels.shape[:2]):
        y, x = np.unravel_index(targets[i, :, :, k].argmax(), SIZE)  # 0, 0 where it misses the map
        row, column = np.unravel_index(maps[i, :, :, k].argmax(), SIZE)
        if maps[i, :, :, k].max() <= 0:
            row = column = 0
        if x > 1 and y > 1:
            right.append(np.hypot((column - x) / 6.4, (row - y) / 4.8) < 0.5)
    metric = KeypointAccuracy()
    for part in (slice(2), slice(2, None)):
        metric.update_state(labels[part], tf.constant(maps[part], tf.float32))
    assert 0.2 < np.mean(right) < 0.9
    assert float(metric.result()) == pytest.approx(np.mean(right))
