"""The pages of trained models say what the entries say."""

import dataclasses

import pytest
from click.testing import CliRunner

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)

import larq_ext_zoo as zoo
from larq_ext_zoo import cards
from larq_ext_zoo._entry import Accuracy

assert lqx


def test_a_card_has_the_numbers_of_the_entry(published):
    text = cards.card(published)
    file = published.weights["deployable"]
    assert text.startswith(f"# {published.name}\n")
    assert (
        f"| deployable | to predict, to take features from and to convert | {file.bytes:,} |"
        in text
    )
    assert f"`{file.sha256}`" in text
    assert f"top-1 {published.accuracy.value:.2%} on {published.accuracy.data}" in text
    assert f"`{published.recipe['experiment']}`, {published.recipe_class}" in text
    assert f'zoo.get("{published.name}")' in text


def test_settings_that_do_nothing_are_left_out(published):
    settings = {"epochs": 30, "learning_rate": 3e-3, "warmup_epochs": 0, "teacher": None}
    settings |= {"optimizer": "adam", "momentum": 0.8, "distillation": 0.9, "milestones": []}
    settings |= {"network_options": "variant=siman", "mixup": 0.2}
    recipe = {**published.recipe, "configuration": settings}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "| learning rate | 0.003 |" in text
    assert "| epochs | 2 |" in text, "those that were trained, before a callback ended it"
    assert "| beta 1 | 0.8 |" in text and "| network options | variant=siman |" in text
    assert "| mixup | 0.2 |" in text
    unused = ("warmup", "teacher", "distillation", "milestones")
    assert not [word for word in unused if word in text]


def test_settings_without_effect_and_machines_of_an_interrupted_run(published):
    settings = {"schedule": "cosine", "schedule_per_step": True, "step_factor": 0.1}
    settings |= {
        "optimizer": "sgd",
        "momentum": 0.8,
        "decay_norm_and_bias": True,
        "binarize": "all",
    }
    settings |= {"quantizer_milestones": [3], "bop_gamma": 1e-4, "binary_optimizer": "same"}
    settings |= {"strategy": "none"}
    here, there = {"cpu": "a cpu", "cores": 1}, {"cpu": "another", "cores": 2}
    versions = {"python": "3"}
    sessions = [{"hardware": cpu, "versions": versions} for cpu in (here, there, there)]
    recipe = {**published.recipe, "configuration": settings, "sessions": sessions, "changed": []}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "| schedule per step | True |" in text and "| momentum | 0.8 |" in text
    wrong = ("step factor", "decay norm", "milestones", "bop", "binarize", "binary optimizer")
    assert not [word for word in wrong if word in text]
    machines = "a cpu, 1 core, no accelerator; then another, 2 cores, no accelerator"
    assert f"| hardware | {machines} |" in text and "| versions | python 3 |" in text
    settings |= {"schedule": "step", "weight_decay": 1e-4, "quantizer_learning_rate": 1e-3}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "| step factor | 0.1 |" in text and "| decay norm and bias | True |" in text
    assert "| quantizer milestones | [3] |" in text


def test_the_command_repeats_the_run(published):
    """With zeros and the method, which the experiment would have otherwise."""
    recipe = published.recipe
    assert f"| command | `larq-ext train {recipe['experiment']} epochs=2" in cards.card(published)
    settings = {"data_dir": "/of/somebody", "dataset": "cifar10", "weight_decay": 0.0, "epochs": 60}
    settings |= {"flip": False, "crop_scale": None, "milestones": [3, 5], "evaluate_every": 60}
    recipe = {**recipe, "configuration": settings, "changed": list(settings), "experiment": "Mine"}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    words = "data_dir=FOLDER dataset=cifar10 weight_decay=0.0 epochs=60 flip=false crop_scale=none"
    assert f"| command | `larq-ext train Mine {words} milestones=3,5` |" in text
    models = {"teacher": "runs/ResNet20Float", "initial_weights": "model.keras"}
    recipe |= {"configuration": models, "changed": list(models)}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "teacher=runs/ResNet20Float initial_weights=FOLDER/model.keras`" in text
    recipe |= {"configuration": {"teacher": "resnet20.mine"}, "changed": ["teacher"]}
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "teacher=resnet20.mine`" in text, "a model of the zoo"
    recipe["changed"] = None
    text = cards.card(dataclasses.replace(published, recipe=recipe))
    assert "| command |" not in text, "an experiment of somebody's own"


def test_a_real_network_has_no_binary_layer_to_prove(published):
    entry = dataclasses.replace(published, arguments={**published.arguments, "quantizer": None})
    assert "convert(model, allow_float=True)" in cards.card(entry)
    assert "allow_float" not in cards.card(published)


def test_several_seeds(published):
    accuracy = Accuracy(0.9, 0.91, 0.012, [0, 1, 2], "360 test images of digits", "by a test")
    recipe = {**published.recipe, "accuracies": {"0": 0.9, "1": 0.92, "2": 0.91}}
    entry = dataclasses.replace(published, accuracy=accuracy, recipe=recipe)
    assert "91.00% ± 1.20% (3 seeds); seed 0: 90.00%, seed 1: 92.00%" in cards.card(entry)
    page = cards.results([entry])
    assert f"## {entry.name.split('.')[0]} on digits" in page
    assert f"[{entry.name}]({entry.name}.md)" in page and "91.00% ± 1.20% (3 seeds)" in page


def test_weights_that_a_run_started_from_stand_beside_its_epochs(published):
    configuration = {**published.recipe["configuration"], "initial_weights": "resnet20.mine"}
    recipe = {**published.recipe, "configuration": configuration}
    entry = dataclasses.replace(published, recipe=recipe)
    assert "| 2, from resnet20.mine |" in cards.results([entry])
    assert "| 2 |" in cards.results([published])
    assert "| initial weights | resnet20.mine |" in cards.card(entry)


def test_blocks_of_another_paper_than_the_method(published):
    assert "blocks from" not in cards.card(published)
    arguments = {**published.arguments, "variant": "reactnet"}
    text = cards.card(dataclasses.replace(published, arguments=arguments))
    assert "| blocks from | *ReActNet: " in text and "arXiv:2003.03488 |" in text
    assert published.paper is not None and f"| method from | *{published.paper.title}*" in text


def test_claims_of_papers_have_a_table_of_their_own(published):
    configuration = {**published.recipe["configuration"], "dataset": "cifar10"}
    recipe = {**published.recipe, "configuration": configuration}
    entry = dataclasses.replace(published, name="resnet20.siman_cifar10", recipe=recipe)
    ours, theirs = cards.results([entry]).split("What the papers")
    assert "87.4%" not in ours and "| siman | 87.4% |" in theirs
    assert "| fda | 86.20% |" in theirs and f"| {entry.accuracy.data} |" in ours
    assert entry.name in ours and entry.name not in theirs


def test_a_pose_network_has_other_uses_and_numbers(published):
    accuracy = Accuracy(0.441, 0.441, None, [0], "634 images", "by a test", metric="AP")
    entry = dataclasses.replace(
        published, name="sbpn18.fda_small", task="pose", classes=None, accuracy=accuracy
    )
    text = cards.card(entry)
    assert "larq-ext pose sbpn18.fda_small" in text and "larq-ext predict" not in text
    assert "AP 44.10% on 634 images" in text
    page = cards.results([entry])
    assert "| model | class | AP | on |" in page and "top-1" not in page


def test_an_untrained_model_has_none():
    with pytest.raises(ValueError, match=r"resnet20\.fda is not trained"):
        cards.card(zoo.entry("resnet20.fda"))


def test_the_command(published, tmp_path):
    folder = tmp_path / "models"
    result = CliRunner().invoke(cards.main, [str(folder), "--only", published.name])
    assert result.exit_code == 0, result.output
    page = folder / f"{published.name}.md"
    assert page.read_text() == cards.card(published)
    assert not (folder / "README.md").exists(), "of some models only, so the page of all stays"
    curve = published.recipe["curve"]
    assert f"]({curve})" in page.read_text()
    assert (folder / curve).read_bytes() == (published.folder / curve).read_bytes()
    assert str(page) in result.output


def test_no_such_model(tmp_path):
    result = CliRunner().invoke(cards.main, [str(tmp_path), "--only", "resnet18.fda"])
    assert result.exit_code == 2
    assert "No trained model is called 'resnet18.fda'" in result.output
