"""Schedules of the quantizers' numbers over a training run."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from larq_ext.quantizers import FDA, MagnitudeClip, hyperparameters, method
from larq_ext.quantizers._base import hyperparameter_holders

__all__ = [
    "QuantizerScheduler",
    "fourier_terms",
    "linear_percent",
    "method_schedules",
    "noise_rate",
]


class QuantizerScheduler(tf.keras.callbacks.Callback):
    """Sets an attribute of all quantizers (and of their constraints) as training goes on.

    The value is a function of the epoch or the step alone, so that a run which is resumed with
    `initial_epoch`, or with a restored optimizer, continues with the right one. Graphs read the
    attribute at run time: nothing is traced again.

    !!! example
        ```python
        model.fit(..., callbacks=[lqx.callbacks.QuantizerScheduler("n", lambda epoch: 9 + epoch)])
        ```

    # Arguments
        attribute: Name of the attribute, such as `"n"` or `"alpha"` of FDA or `"percent"` of
            SiMaN's constraint.
        schedule: Function from the epoch or the step, from 0, to the value.
        by: `"epoch"` or `"step"` (the optimizer's count of updates).
        where: Optional condition on the quantizer or constraint, to schedule only some.

    # Raises
        ValueError: at the start of training, if nothing in the model has such an attribute, with
            the attributes there are; after an epoch, if by `"step"` the optimizer that the model
            was compiled with has made no update.
    """

    def __init__(
        self,
        attribute: str,
        schedule: Callable[[int], float],
        *,
        by: str = "epoch",
        where: Callable[[Any], bool] | None = None,
    ):
        super().__init__()
        if by not in ("epoch", "step"):
            raise ValueError(f"`by` is one of ['epoch', 'step'], received {by!r}.")
        self.attribute, self.schedule, self.by, self.where = attribute, schedule, by, where

    def applies_to(self, model: tf.keras.Model) -> bool:
        """Whether a model has something to schedule."""
        return bool(self._find_targets(model))

    def _find_targets(self, model: tf.keras.Model) -> list[Any]:
        return [
            holder
            for holder in hyperparameter_holders(model)
            if self.attribute in hyperparameters(holder) and (not self.where or self.where(holder))
        ]

    def on_train_begin(self, logs=None):
        self._targets = self._find_targets(self.model)
        if not self._targets:
            holders = hyperparameter_holders(self.model)
            known = sorted({name for holder in holders for name in hyperparameters(holder)})
            raise ValueError(
                f"No quantizer of the model has an attribute {self.attribute!r} to schedule. "
                f"Those that can be scheduled in this model are {known}."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._steps = False
        if self.by == "epoch":
            self._set(epoch)
        else:
            self._before = _updates(self.model.optimizer)

    def on_train_batch_begin(self, batch, logs=None):
        self._steps = True
        if self.by == "step":
            # Not counted here: `steps_per_execution` makes several updates in one call.
            self._set(_updates(self.model.optimizer))

    def _implements_train_batch_hooks(self):
        # Keras would wait for each step to end, and some strategies allow none.
        return self.by == "step"

    def on_epoch_end(self, epoch, logs=None):
        # An epoch that is resumed at its end has no step left.
        if self.by == "step" and self._steps and _updates(self.model.optimizer) == self._before:
            raise ValueError(
                "The optimizer that the model was compiled with has made no update in this epoch, "
                'so that by="step" stands still: compile the model with the one that its '
                '`train_step` uses, or schedule by="epoch".'
            )
        if logs is not None:
            target = self._targets[0]
            # Several schedulers of one attribute have targets of their own.
            role = getattr(target, "role", None) or type(target).__name__
            numbered = (f"{self.attribute}_{role}_{number}" for number in itertools.count(2))
            names = itertools.chain([self.attribute, f"{self.attribute}_{role}"], numbered)
            name = next(name for name in names if name not in logs)
            logs[name] = getattr(target, self.attribute)

    def _set(self, position: int) -> None:
        value = self.schedule(position)
        for target in self._targets:
            setattr(target, self.attribute, value)


def _updates(optimizer: Any) -> int:
    """How many updates an optimizer has made; Larq's `CaseOptimizer` leaves counting to its own."""
    if optimizer is None:
        raise ValueError('The model has no optimizer, whose updates by="step" counts: compile it.')
    counted = getattr(optimizer, "optimizers", None) or [optimizer]
    return max(int(each.iterations.numpy()) for each in counted)


def fourier_terms(epochs: int, start: int = 9, end: int = 18) -> Callable[[int], int]:
    """FDA's n over a run: equal shares of the epochs for `start`, `start + 1`, ..., `end`.

    The paper says that n grows "gradually" from 9 to 18. With `end=17` this is the schedule of
    the third-party implementation in BiBench.
    """
    return lambda epoch: min(end, start + (end - start + 1) * epoch // epochs)


def noise_rate(epochs: int, start: float = 0.1, rest: float = 0.05) -> Callable[[int], float]:
    """FDA's alpha over a run: half a cosine from `start` to 0, and the last share `rest` at 0.

    The paper says that alpha decays to 0. With `rest=0` this is the schedule of BiBench; the
    rest lets batch normalization see what the network is at inference.

    # Raises
        ValueError: if `rest` is not from 0 to 1.
    """
    if not 0 <= rest <= 1:
        raise ValueError(f"`rest` is a share of the run from 0 to 1, received {rest!r}.")
    decay = max(1, round(epochs * (1.0 - rest)))
    return lambda epoch: 0.5 * start * (1.0 + math.cos(math.pi * min(1.0, (epoch + 1) / decay)))


def linear_percent(epochs: int, start: float = 15.0) -> Callable[[int], float]:
    """SiMaN's percentile over a run: `start * (1 - epoch / epochs)`, as in its official code."""
    return lambda epoch: start * max(0.0, 1.0 - epoch / epochs)


_MAKERS: dict[str, dict[str, Callable]] = {
    "fda": {"n": fourier_terms, "alpha": noise_rate},
    "siman": {"percent": linear_percent},
}


def schedule_numbers(quantizer: str) -> dict[str, tuple[str, str]]:
    """What `method_schedules` takes for a method: each number's attribute and argument."""
    return {
        f"{name}_{argument}": (name, argument)
        for name, maker in _MAKERS.get(method(quantizer).name, {}).items()
        for argument in list(inspect.signature(maker).parameters)[1:]
    }


def method_schedules(quantizer: str, epochs: int, **options: float) -> list[QuantizerScheduler]:
    """The schedules that belong to a method.

    !!! example
        ```python
        method_schedules("fda", epochs=60, alpha_rest=0.5)  # without noise from half way on
        ```

    # Arguments
        quantizer: Name of a method.
        epochs: Length of the run.
        **options: Numbers of the schedules: `n_start`, `n_end` (`fourier_terms`), `alpha_start`,
            `alpha_rest` (`noise_rate`) for `"fda"`, `percent_start` (`linear_percent`) for
            `"siman"`.

    # Returns
        Callbacks for `fit`; an empty list for methods that schedule nothing.

    # Raises
        ValueError: for an unknown method or option, with the known ones, or if a schedule leaves
            the values that its attribute may have.
    """
    owners = {"n": FDA, "alpha": FDA, "percent": MagnitudeClip}
    known = schedule_numbers(quantizer)
    chosen = _MAKERS.get(quantizer, {})
    given: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"The schedules of {quantizer!r} have no number {option!r}; those that can be "
                f"given are {sorted(known)}."
            )
        if not isinstance(value, int | float):
            raise ValueError(f"{option!r} is a number, received {value!r}.")
        name, argument = known[option]
        given[name][argument] = value
    schedules = {name: maker(epochs, **given[name]) for name, maker in chosen.items()}
    for name, schedule in schedules.items():
        for epoch in range(epochs):  # not hours later
            getattr(owners[name], name).check(owners[name], schedule(epoch))
    return [QuantizerScheduler(name, schedule) for name, schedule in schedules.items()]
