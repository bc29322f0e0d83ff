"""Schedules and the flip ratio over a run of `fit`."""

import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
from larq_ext.callbacks import QuantizerScheduler, linear_percent, method_schedules

METHODS = ("fda", "learnable_scale", "siman", "mlp_classifier", "ste_sign")


def data(samples=16, channels=6):
    x = np.random.default_rng(0).normal(size=(samples, channels)).astype("float32")
    return x, x[:, :2]


def network(name="fda", **kwargs):
    return tf.keras.Sequential(
        [
            tf.keras.Input((6,)),
            lqx.layers.QuantDense(8, quantizer=name, name="first", **kwargs),
            lqx.layers.QuantDense(2, quantizer=name, name="second"),
        ]
    )


def run(model, callbacks, epochs=3, **kwargs):
    if not model.optimizer:
        model.compile("sgd", "mse")
    x, y = data()
    settings = {"batch_size": 4, "verbose": 0, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **settings)


class Record(tf.keras.callbacks.Callback):
    """The values that each training step sees."""

    def __init__(self, read):
        super().__init__()
        self.read, self.values = read, []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(self.read(self.model))


def test_two_schedules_of_one_attribute_are_both_in_the_logs():
    schedulers = [
        QuantizerScheduler("n", lambda epoch, n=n: n, where=lambda q, role=role: q.role == role)
        for n, role in ((10, "kernel"), (15, "input"))
    ]
    history = run(network(), schedulers, epochs=1).history
    assert (history["n"], history["n_input"]) == ([10], [15])


def test_values_by_epoch_in_all_quantizers_of_the_model():
    record = Record(
        lambda model: tuple(
            getattr(layer, f"{role}_quantizer").n
            for layer in model.layers
            for role in ("input", "kernel")
        )
    )
    history = run(network(), [QuantizerScheduler("n", lambda epoch: 9 + epoch), record])
    assert record.values == [(9 + e,) * 4 for e in range(3) for _ in range(4)]
    assert history.history["n"] == [9, 10, 11]


def test_values_of_a_constraint():
    model = network("siman")
    record = Record(lambda model: model.layers[1].kernel_constraint.percent)
    history = run(model, [QuantizerScheduler("percent", linear_percent(3)), record])
    np.testing.assert_allclose(record.values, np.repeat([15, 10, 5], 4))
    np.testing.assert_allclose(history.history["percent"], [15, 10, 5])


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_values_by_step(steps_per_execution):
    """The position is the optimizer's count of updates."""
    seen = []
    model = network()
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    scheduler = QuantizerScheduler("n", lambda step: seen.append(step) or 9 + step, by="step")
    run(model, [scheduler], epochs=2)
    assert seen == list(range(0, 8, steps_per_execution))
    assert int(model.optimizer.iterations) == 8


def test_steps_of_another_optimizer_are_not_waited_for():
    class Own(tf.keras.Model):
        def train_step(self, data):
            return {"loss": tf.reduce_sum(self(data[0], training=True))}

    plain = network()
    model = Own(plain.inputs, plain.outputs)
    model.compile()
    with pytest.raises(ValueError, match="has made no update in this epoch"):
        run(model, [QuantizerScheduler("n", lambda step: 9, by="step")])
    run(model, [QuantizerScheduler("n", lambda epoch: 9)])


def test_schedules_by_epoch_do_not_make_keras_wait_for_steps():
    """Nor are they refused where no callback may act between steps."""
    by_epoch, by_step = (
        QuantizerScheduler("n", lambda position: 9, by=by) for by in ("epoch", "step")
    )
    assert not by_epoch._implements_train_batch_hooks()
    assert by_step._implements_train_batch_hooks()


def test_steps_are_counted_inside_a_case_optimizer():
    """Its own count stays 0."""
    legacy = tf.keras.optimizers.legacy
    bop = (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop())
    seen = []
    model = network()
    model.compile(lq.optimizers.CaseOptimizer(bop, default_optimizer=legacy.SGD()), "mse")
    scheduler = QuantizerScheduler("n", lambda step: seen.append(step) or 9, by="step")
    run(model, [scheduler], epochs=2)
    assert seen == list(range(8))


def test_a_run_is_resumed_with_initial_epoch():
    record = Record(lambda model: model.layers[0].kernel_quantizer.n)
    run(network(), [QuantizerScheduler("n", lambda e: 9 + e), record], epochs=5, initial_epoch=3)
    assert record.values == [12] * 4 + [13] * 4


@pytest.mark.parametrize("restore", ["iterations", "checkpoint"])
def test_a_run_is_resumed_with_a_restored_optimizer(restore, tmp_path):
    seen = []
    scheduler = QuantizerScheduler("n", lambda step: seen.append(step) or 9 + step, by="step")
    first = network()
    run(first, [scheduler], epochs=1)
    second = network()
    second.compile("sgd", "mse")
    if restore == "iterations":
        second.optimizer.iterations.assign(4)
    else:
        path = tf.train.Checkpoint(model=first, optimizer=first.optimizer).save(tmp_path / "run")
        checkpoint = tf.train.Checkpoint(model=second, optimizer=second.optimizer)
        checkpoint.restore(path)
    run(second, [scheduler], epochs=1)
    assert seen == list(range(8))
    assert second.layers[0].kernel_quantizer.n == 16


def test_a_schedule_traces_nothing_again():
    traces = []

    class Counting(tf.keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model = Counting(network().layers)
    model.compile("sgd", "mse")
    callbacks = [
        QuantizerScheduler("n", lambda step: 9 + step % 10, by="step"),
        QuantizerScheduler("alpha", lambda epoch: 0.1 / (1 + epoch)),
    ]
    run(model, callbacks, epochs=1)
    once = len(traces)
    run(model, callbacks, epochs=4, initial_epoch=1)
    assert len(traces) == once


def test_where_chooses_some_quantizers():
    model = network()
    scheduler = QuantizerScheduler("n", lambda e: 15, where=lambda q: q.role == "kernel")
    run(model, [scheduler], epochs=1)
    assert [layer.kernel_quantizer.n for layer in model.layers] == [15, 15]
    assert [layer.input_quantizer.n for layer in model.layers] == [9, 9]


def test_quantizers_of_nested_models_and_larqs_layers_are_found():
    inner = tf.keras.Sequential(
        [tf.keras.Input((6,)), lq.layers.QuantDense(6, kernel_quantizer="fda",
                                                     kernel_constraint="weight_clip")]
    )  # fmt: skip
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inner(inputs)))
    run(model, [QuantizerScheduler("n", lambda e: 14)], epochs=1)
    assert inner.layers[0].kernel_quantizer.n == 14


@pytest.mark.parametrize(
    ("name", "known"), [("fda", ["alpha", "n"]), ("siman", ["percent"]), ("ste_sign", [])]
)
def test_an_unknown_attribute_is_an_error_that_lists_the_known_ones(name, known):
    with pytest.raises(ValueError) as error:
        run(network(name), [QuantizerScheduler("omega", lambda e: 1.0)])
    assert "'omega'" in str(error.value)
    assert str(known) in str(error.value)


def test_an_unknown_unit_is_an_error():
    with pytest.raises(ValueError, match=r"epoch.*step.*'batch'"):
        QuantizerScheduler("n", lambda e: e, by="batch")


def test_a_value_out_of_range_is_an_error():
    with pytest.raises(ValueError, match=r"`n` of FDA is an integer.*9\.5"):
        run(network(), [QuantizerScheduler("n", lambda e: 9.5)])


@pytest.mark.parametrize("name", METHODS)
def test_schedules_of_a_method(name):
    """FDA's n and alpha, SiMaN's percent; the other methods schedule nothing."""
    expected = {
        "fda": {"n": [9, 11, 13, 15, 17], "alpha": None},
        "siman": {"percent": [15, 12, 9, 6, 3]},
    }.get(name, {})
    callbacks = method_schedules(name, 5)
    assert {c.attribute for c in callbacks} == set(expected)
    history = run(network(name), callbacks, epochs=5).history
    for attribute, values in expected.items():
        if values is not None:
            np.testing.assert_allclose(history[attribute], values)
        else:
            assert history[attribute] == sorted(history[attribute], reverse=True)
            assert history[attribute][-1] == 0


def test_numbers_of_a_methods_schedules():
    (n, alpha) = method_schedules("fda", 4, n_start=1, n_end=4, alpha_rest=1.0)
    assert [n.schedule(epoch) for epoch in range(4)] == [1, 2, 3, 4]
    assert [alpha.schedule(epoch) for epoch in range(4)] == [0.0] * 4
    (percent,) = method_schedules("siman", 4, percent_start=8.0)
    assert percent.schedule(1) == 6.0
    with pytest.raises(ValueError, match=r"no number 'n_end'; .*\['percent_start'\]"):
        method_schedules("siman", 4, n_end=3)


def test_schedules_of_an_unknown_method():
    with pytest.raises(ValueError, match=r"fda.*mlp_classifier.*'fd'"):
        method_schedules("fd", 5)


SCALED = {
    "fda": lambda **k: lqx.quantizers.FDA(**k),
    "learnable_scale": lambda **k: lqx.quantizers.LearnableScale(**k),
    "siman": lambda **k: lqx.quantizers.SiMaN(**k),
    "mlp_classifier": lambda **k: lqx.quantizers.MLPClassifier(**k),
}


@pytest.mark.parametrize("name", SCALED)
def test_flip_ratio_is_the_share_of_changed_signs(name):
    """Larq's metric compares integers, where a scale below 1 would be 0 for ever."""
    quantizer = SCALED[name](metrics=["flip_ratio"], role="kernel")
    generator = np.random.default_rng(0)
    kernels = [generator.normal(0, 0.1, (5, 5, 2, 8)).astype("float32") for _ in range(3)]
    signs = [np.sign(quantizer(kernel, training=False).numpy()) for kernel in kernels]
    changed = [np.mean(a != b) for a, b in itertools.pairwise(signs)]
    assert 0.3 < np.mean(changed) < 0.7
    np.testing.assert_allclose(quantizer.flip_ratio.result(), np.mean(changed), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["argument", "scope"])
@pytest.mark.parametrize("name", SCALED)
def test_flip_ratio_in_fit(name, how):
    if how == "argument":
        model = network(name, kernel_quantizer=SCALED[name](metrics=["flip_ratio"]))
    else:
        with lq.context.metrics_scope(["flip_ratio"]):
            model = network(name)
    plain = network(name)
    assert [w.shape for w in model.get_weights()] == [w.shape for w in plain.get_weights()]
    assert not any("previous" in w.name or "flip" in w.name for w in model.weights)
    model.compile(tf.keras.optimizers.SGD(1.0), "mse")
    history = run(model, [], epochs=3).history
    keys = [k for k in history if k.startswith("flip_ratio")]
    assert len(keys) == (1 if how == "argument" else 2)
    assert all(name in key for key in keys)
    assert max(max(history[k]) for k in keys) > 0
    assert max(max(history[k]) for k in keys) <= 1


def test_flip_ratio_of_a_quantizer_that_layers_share_is_one_clear_error():
    """One metric cannot tell the kernels apart."""
    with lq.context.metrics_scope(["flip_ratio"]):
        shared = lqx.quantizers.MLPClassifier(hidden=2)
        one, other = (lqx.layers.QuantDense(4, kernel_quantizer=shared) for _ in range(2))
        x = tf.ones((2, 4))
        with pytest.raises(ValueError, match=r"of one layer.*inspection\.FlipRatio\(\)"):
            other(one(x))


def test_flip_ratio_of_inputs_only_where_asked_for():
    """The scope means kernels, as in Larq."""
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lqx.layers.QuantDense(2, quantizer="fda")
        layer(tf.ones((1, 4)))
    assert hasattr(layer.kernel_quantizer, "flip_ratio")
    assert not hasattr(layer.input_quantizer, "flip_ratio")
