"""Learning rates at the check points of the papers and their code."""

from __future__ import annotations

import pytest

from larq_ext_recipes import get_experiment
from larq_ext_recipes._schedules import LearningRate


def at_epoch(rate, epoch, steps=10):
    return [float(rate(epoch * steps + step)) for step in (0, steps - 1)]


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0.02), (1, 0.04), (4, 0.1), (5, 0.0999984), (202, 0.05), (399, 1.573e-6)],
)
def test_siman(epoch, expected):
    rate = get_experiment("ResNet20SiMaN").make_learning_rate(10)
    assert at_epoch(rate, epoch) == pytest.approx([expected] * 2, rel=4e-4)


@pytest.mark.parametrize(("epoch", "expected"), [(1, 0.0999890), (75, 0.05), (149, 1.0966e-5)])
def test_cosine_without_warmup(epoch, expected):
    assert at_epoch(LearningRate(0.1, 150, 10), epoch) == pytest.approx([expected] * 2, rel=1e-4)


def test_fda_starts_at_its_peak():
    rate = get_experiment("ResNet20FDA").make_learning_rate(391)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(200 * 391)) == pytest.approx(0.05)


def test_linear_step_and_constant():
    linear = LearningRate(1.0, 10, 10, "linear")
    assert [float(linear(10 * epoch)) for epoch in (0, 5, 9)] == pytest.approx([1, 0.5, 0.1])
    step = LearningRate(1.0, 10, 10, "step", milestones=(3, 7))
    assert [float(step(n)) for n in (0, 29, 30, 69, 70)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert float(LearningRate(1.0, 10, 10, "constant")(99)) == 1


def test_per_step():
    rate = LearningRate(1.0, 4, 10, "linear", warmup_epochs=1, per_step=True)
    assert [float(rate(n)) for n in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert float(rate(39)) == pytest.approx(1 - 30 / 31)
