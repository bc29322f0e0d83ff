"""Settings: reading them, refusing them, and those of the registered experiments."""

from __future__ import annotations

import inspect
import json

import pytest
import zookeeper
from click.testing import CliRunner
from zookeeper import Field

import larq_ext as lqx
import larq_ext_recipes as recipes
import larq_ext_zoo as zoo
from larq_ext.cli import main
from larq_ext_recipes import Experiment, UsageError, get_experiment, list_experiments, register
from larq_ext_recipes._overrides import split_words


@pytest.fixture
def fda():
    return get_experiment("ResNet20FDA")


def apply(experiment: Experiment, values) -> Experiment:
    return experiment.replace(**values)


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
        ("optimizer=lion", "optimizer must be one of sgd, adam, adamw, received 'lion'"),
        ("deterministic=maybe", "deterministic must be true or false, received 'maybe'"),
        ("gradient_clip_norm=x", "gradient_clip_norm must be a number or none"),
        ("milestones=1,x", "milestones must be a list like 1,2,3, each a whole number"),
        ("dataset=mnist3", "There is no data set 'mnist3'"),
        ("label_smoothing=1", "label_smoothing must be at least 0 and below 1"),
        ("warmup_epochs=400", "warmup_epochs=400 leaves nothing of epochs=400"),
        ("crop_scale=0.1", "crop_scale must be a list like 1,2, each a number or none"),
        ("strategy=gpu", "strategy must be one of none, mirrored, multiworker, tpu"),
        ("distillation=2", "distillation must be from 0 to 1, received 2"),
        ("checkpoint_steps=0", "checkpoint_steps must be 1 or more, received 0"),
        ("weight_average=1", "weight_average must be at least 0 and below 1"),
    ],
)
def test_wrong_settings(fda, word, message):
    with pytest.raises(UsageError, match=message):
        apply(fda, split_words([word]))


def test_wrong_values_in_python(fda):
    with pytest.raises(UsageError, match="optimizer must be one of sgd, adam, adamw, received 'l"):
        fda.replace(optimizer="lion")
    with pytest.raises(UsageError, match="milestones must be a list like 1,2,3, each a whole"):
        fda.replace(milestones=("a",))
    assert fda.replace(learning_rate=1, milestones=(3,)).milestones == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizer": None, "first_step_epochs": 2}, "give a quantizer"),
        ({"optimizer": "adamw", "quantizer_learning_rate": 0.1}, "need optimizer=sgd or adam"),
        ({"binary_optimizer": "bop"}, "only the gradient of ste_sign is of use.* quantizer=fda"),
        ({"quantizer": None, "binary_optimizer": "bop"}, "received quantizer=None"),
        (
            {"quantizer": "ste_sign", "binary_optimizer": "bop", "binarize": "inputs"},
            "binarize=inputs",
        ),
        ({"optimizer": "adamw", "legacy_optimizer": True}, "no legacy adamw"),
    ],
)
def test_settings_that_exclude_each_other(fda, changes, message):
    with pytest.raises(UsageError, match=message):
        fda.replace(**changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["epochs"], "Expected key=value, received 'epochs'"), (["a=1", "a=2"], "a is given twice")],
)
def test_wrong_words(words, message):
    with pytest.raises(UsageError, match=message):
        split_words(words)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"milestones": "3"}, "milestones would do nothing without schedule=step"),
        ({"quantizer_milestones": "3"}, "without quantizer_learning_rate"),
        ({"bop_gamma": "0.1"}, "bop_gamma would do nothing without binary_optimizer=bop"),
        ({"temperature": "2", "distillation": "0.5"}, "distillation and temperature .* a teacher"),
        ({"decay_norm_and_bias": "true", "weight_decay": "0"}, "without weight_decay"),
        ({"schedule_per_step": "true", "schedule": "constant"}, "without schedule=cosine or lin"),
    ],
)
def test_settings_that_do_nothing_are_refused(tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        recipes.train("ResNet20FDA", output_dir=str(tmp_path), **given)
    if "quantizer_milestones" not in given:
        with pytest.raises(UsageError, match=message):
            recipes.compare("ResNet20FDA", output_dir=str(tmp_path), **given)
    words = [f"{field}={value}" for field, value in given.items()]
    result = CliRunner().invoke(main, ["train", "ResNet20FDA", f"output_dir={tmp_path}", *words])
    assert result.exit_code == 2 and "would do nothing without" in result.output


def test_registry():
    assert [name for name in list_experiments("resnet20*") if "Float" not in name] == [
        "ResNet20FDA",
        "ResNet20LearnableScale",
        "ResNet20MLPClassifier",
        "ResNet20SiMaN",
        "ResNet20SteSign",
        "ResNet20TwoStep",
    ]
    assert len(list_experiments("VGGSmall*")) == 5
    with pytest.raises(UsageError, match=r"no experiment 'resnet20fad'.*mean ResNet20FDA"):
        get_experiment("resnet20fad")
    with pytest.raises(ValueError, match="already is an experiment 'ResNet20FDA'"):
        register(type("ResNet20FDA", (Experiment,), {}))


def test_an_experiment_is_a_zookeeper_task_to_derive_from(fda):
    """As users of Larq Zoo's recipes know it: a class with fields, and zookeeper's command line."""
    from zookeeper import cli

    assert "ResNet20FDA" in cli.commands
    ran = []

    @zookeeper.task
    class ShortRun(type(fda)):
        """A run of five epochs."""

        epochs = Field(5)

        def run(self):
            ran.append((self.name, self.description, self.epochs, self.batch_size, self.quantizer))

    cli.main(["ShortRun", "batch_size=64"], standalone_mode=False)
    assert ran == [("ShortRun", "A run of five epochs", 5, 64, "fda")]


@pytest.mark.parametrize("network", ["ResNet20", "VGGSmall"])
def test_settings_of_the_papers(network):
    fda, siman = get_experiment(f"{network}FDA"), get_experiment(f"{network}SiMaN")
    assert (fda.optimizer, fda.learning_rate, fda.momentum) == ("sgd", 0.1, 0.9)
    assert (fda.epochs, fda.batch_size, fda.weight_decay) == (400, 128, 1e-4)
    assert (siman.epochs, siman.batch_size, siman.weight_decay) == (400, 256, 5e-4)
    assert siman.warmup_epochs == 5 and siman.decay_norm_and_bias


def test_settings_of_the_papers_on_imagenet():
    mlp, siman, fda = (
        get_experiment(f"ResNet18{name}") for name in ("MLPClassifier", "SiMaN", "FDA")
    )
    assert (mlp.optimizer, mlp.learning_rate, mlp.schedule) == ("adam", 2.5e-3, "linear")
    assert (mlp.epochs, mlp.batch_size, mlp.distillation, mlp.lighting) == (120, 256, 0.9, 0.1)
    assert (mlp.quantizer_learning_rate, mlp.quantizer_milestones) == (1e-3, (69, 89, 99, 109))
    assert (siman.epochs, siman.batch_size, siman.weight_decay) == (150, 512, 1e-4)
    assert (siman.crop_scale, siman.crop_padding) == ((0.08, 1.25), 0)
    assert (fda.optimizer, fda.learning_rate, fda.weight_decay) == ("adam", 1e-3, 0)


def test_unknown_network(fda):
    from larq_ext_recipes.datasets import digits

    with pytest.raises(UsageError, match=r"no network 'ResNet21'.*mean ResNet20"):
        apply(fda, {"network": "ResNet21"}).build_model(digits.load())


def test_options_reach_the_network(fda):
    from larq_ext_recipes.datasets import digits

    seen = {}

    def network(**arguments):
        seen.update(arguments)
        raise ValueError("that is all")

    experiment = fda.replace(network=network, network_options="a=1,b=relu,c=true,d=none,e=0.5")
    with pytest.raises(UsageError, match=r"quantizer=fda, a=1, b='relu', c=True.*that is all"):
        experiment.build_model(digits.load())
    assert {key: seen[key] for key in "abcde"} == dict(a=1, b="relu", c=True, d=None, e=0.5)
    with pytest.raises(UsageError, match="unexpected keyword argument 'nope'"):
        fda.replace(network_options="nope=1").build_model(digits.load())


def test_numbers_of_the_methods_schedules(fda):
    changed = fda.replace(epochs=10, quantizer_schedule="alpha_rest=0.5,n_end=12")
    usual = {
        each.attribute: each.schedule for each in fda.replace(epochs=10).make_quantizer_schedules()
    }
    schedules = {each.attribute: each.schedule for each in changed.make_quantizer_schedules()}
    assert [schedules["n"](epoch) for epoch in range(10)] == [9, 9, 9, 10, 10, 11, 11, 11, 12, 12]
    alphas = [schedules["alpha"](epoch) for epoch in range(10)]
    assert alphas[4:] == [0.0] * 6 and alphas[0] < usual["alpha"](0) < 0.1
    assert changed.to_dict()["quantizer_schedule"] == "alpha_rest=0.5,n_end=12"
    for text, message in (
        (
            "rest=0.5",
            r"no number 'rest'; those .* \['alpha_rest', 'alpha_start', 'n_end', 'n_start'\]",
        ),
        ("alpha_rest=2", "share of the run from 0 to 1, received 2"),
        ("alpha_rest=half", "quantizer_schedule=alpha_rest=half: .*is a number, received 'half'"),
        ("n_start=abc", "is a number, received 'abc'"),
        ("n_start=9.5", "`n` of FDA is an integer"),
        ("alpha_start=-1", "`alpha` of FDA is a number from 0"),
        ("alpha_rest", "Expected key=value"),
    ):
        with pytest.raises(UsageError, match=message):
            fda.replace(quantizer_schedule=text)
    with pytest.raises(UsageError, match=r"those that can be given are \[\]"):
        fda.replace(quantizer="ste_sign", quantizer_schedule="alpha_rest=0.5")
    with pytest.raises(UsageError, match="for binarized networks"):
        fda.replace(quantizer=None, quantizer_schedule="alpha_rest=0.5")


class Shapes:
    """What a network needs to know of a data set."""

    def __init__(self, size: int, channels: int = 3):
        self.input_shape, self.classes = (size, size, channels), tuple("0123456789")


# Not those that other tests register.
OURS = [
    name
    for name in list_experiments()
    if type(get_experiment(name)).__module__.startswith("larq_ext_recipes.")
]


@pytest.mark.parametrize("name", OURS)
def test_every_experiment_fits_its_network(name):
    """That the networks themselves can be built is tested in the zoo."""
    experiment = get_experiment(name)
    assert experiment.description and not experiment.description.endswith(".")
    assert experiment.quantizer in (*lqx.quantizers.METHODS, None)
    options = set(experiment._options)
    assert options <= set(inspect.signature(getattr(zoo, experiment.network)).parameters)
    assert float(experiment.make_learning_rate(10)(0)) > 0
    json.dumps(experiment.to_dict())


def test_an_experiment_builds_its_network():
    model = get_experiment("ResNet20SiMaN").build_model(Shapes(32))
    assert model.output_shape == (None, 10)
    with pytest.raises(UsageError, match="quantizer=nope"):
        get_experiment("ResNet20SiMaN", quantizer="nope").build_model(Shapes(32))
