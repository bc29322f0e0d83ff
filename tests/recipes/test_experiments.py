"""Settings: reading them, refusing them, and those of the registered experiments."""

from __future__ import annotations

import dataclasses

import pytest

from larq_ext_recipes import Experiment, UsageError, get_experiment, list_experiments, register
from larq_ext_recipes._overrides import apply, split_words


@pytest.fixture
def fda():
    return get_experiment("ResNet20FDA")


def test_values_are_read_as_the_type_of_their_field(fda):
    words = split_words(
        [
            "epochs=3",
            "learning_rate=1e-2",
            "optimizer=adam",
            "deterministic=Yes",
            "milestones=10,20",
            "gradient_clip_norm=1",
            "data_dir=/tmp/a=b",
        ]
    )
    changed = apply(fda, words)
    assert (changed.epochs, changed.learning_rate, changed.optimizer) == (3, 0.01, "adam")
    assert (changed.deterministic, changed.milestones) == (True, (10, 20))
    assert (changed.gradient_clip_norm, changed.data_dir) == (1.0, "/tmp/a=b")
    assert apply(changed, {"gradient_clip_norm": "none"}).gradient_clip_norm is None
    assert changed.weight_decay == fda.weight_decay


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epoch=3", "no setting 'epoch'. Did you mean epochs"),
        ("zzz=3", "no setting 'zzz'. Known: batch_size, "),
        ("name=x", "no setting 'name'"),
        ("epochs=3.5", "epochs must be a whole number, received '3.5'"),
        ("epochs=0", "epochs must be 1 or more, received 0"),
        ("learning_rate=fast", "learning_rate must be a number, received 'fast'"),
        ("learning_rate=nan", "learning_rate must be above 0, received nan"),
        ("optimizer=lion", "optimizer must be one of sgd, adam, received 'lion'"),
        ("deterministic=maybe", "deterministic must be true or false, received 'maybe'"),
        ("gradient_clip_norm=x", "gradient_clip_norm must be a number or none"),
        ("milestones=1,x", "milestones must be a list like 1,2,3, each a whole number"),
        ("dataset=mnist3", "There is no data set 'mnist3'"),
        ("label_smoothing=1", "label_smoothing must be at least 0 and below 1"),
        ("warmup_epochs=400", "warmup_epochs=400 leaves nothing of epochs=400"),
    ],
)
def test_wrong_settings(fda, word, message):
    with pytest.raises(UsageError, match=message):
        apply(fda, split_words([word]), fixed=["name", "description"])


def test_wrong_choice_in_python(fda):
    with pytest.raises(UsageError, match="optimizer must be one of sgd, adam, received 'lion'"):
        dataclasses.replace(fda, optimizer="lion")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["epochs"], "Expected key=value, received 'epochs'"), (["a=1", "a=2"], "a is given twice")],
)
def test_wrong_words(words, message):
    with pytest.raises(UsageError, match=message):
        split_words(words)


def test_registry(fda):
    assert list_experiments("resnet20*") == [
        "ResNet20FDA",
        "ResNet20LearnableScale",
        "ResNet20MLPClassifier",
        "ResNet20SiMaN",
        "ResNet20SteSign",
    ]
    assert len(list_experiments("VGGSmall*")) == 5
    with pytest.raises(UsageError, match=r"no experiment 'resnet20fad'.*mean ResNet20FDA"):
        get_experiment("resnet20fad")
    with pytest.raises(ValueError, match="already is an experiment 'ResNet20FDA'"):
        register(dataclasses.replace(fda, seed=9))


@pytest.mark.parametrize("network", ["ResNet20", "VGGSmall"])
def test_settings_of_the_papers(network):
    fda, siman = get_experiment(f"{network}FDA"), get_experiment(f"{network}SiMaN")
    assert (fda.optimizer, fda.learning_rate, fda.momentum) == ("sgd", 0.1, 0.9)
    assert (fda.epochs, fda.batch_size, fda.weight_decay) == (400, 128, 1e-4)
    assert (siman.epochs, siman.batch_size, siman.weight_decay) == (400, 256, 5e-4)
    assert siman.warmup_epochs == 5 and siman.decay_norm_and_bias


def test_unknown_network(fda):
    from larq_ext_recipes.datasets import digits

    with pytest.raises(UsageError, match=r"no network 'ResNet21'.*mean ResNet20"):
        apply(fda, {"network": "ResNet21"}).build_model(digits.load())


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_builds_its_network(name):
    experiment: Experiment = get_experiment(name)
    import numpy as np

    from larq_ext_recipes.datasets import Dataset

    empty = np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, int)
    dataset = Dataset("cifar10", empty, empty, tuple("0123456789"), (0.0,) * 3, (1.0,) * 3)
    model = experiment.build_model(dataset)
    assert model.output_shape == (None, 10)
