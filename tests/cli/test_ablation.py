import os
import shutil
import signal

import pytest
import yaml
from finetune_runs import weights

from rga_timm.cli import ablation, finetune
from rga_timm.training.checkpoints import CheckpointSaver


@pytest.fixture
def recipe(options, tmp_path):
    """Of rga-timm finetune, without a folder for the run."""
    return [*options[:2], "--epochs", "1"]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "ablation"


def run(output, recipe, *options):
    return ablation.main([*options, "--output", str(output), *recipe])


def test_table_compares_the_relations_seed_by_seed(output, recipe, capsys):
    rows = run(output, recipe, "--relations", "sc", "none", "--seeds", "0", "1")
    none, sc = rows
    assert (none["relation"], sc["relation"]) == ("none", "sc")
    assert none["parameters"] < sc["parameters"]
    assert none["gflops"] < sc["gflops"]
    assert set(none["scores"]["mAP"]) == set(sc["scores"]["mAP"]) == {0, 1}
    for seed, gain in sc["gain"].items():
        assert gain == sc["scores"]["mAP"][seed] - none["scores"]["mAP"][seed]
    assert none["gain"] == {}
    text = (output / "ablation.md").read_text()
    assert text in capsys.readouterr().out
    first, second = (100 * sc["scores"]["rank-1"][seed] for seed in (0, 1))
    assert f"{(first + second) / 2:.1f} ({first:.1f}, {second:.1f})" in text.splitlines()[3]


def test_runs_differ_in_relation_and_seed_alone(output, recipe):
    run(output, recipe, "--relations", "none", "s", "--seeds", "3", "--model-kwargs", "reduction=4")
    one, other = (
        yaml.safe_load((output / f"{relation}-seed3" / "args.yaml").read_text())
        for relation in ("none", "s")
    )
    assert one.pop("model_kwargs") == {"reduction": 4, "relation": "none"}
    assert other.pop("model_kwargs") == {"reduction": 4, "relation": "s"}
    assert one.pop("output") != other.pop("output")
    assert one == other
    assert one["seed"] == 3
    assert one["eval_every"] == one["epochs"]


def test_what_is_finished_is_not_trained_again_and_what_was_interrupted_goes_on(
    output, recipe, monkeypatch
):
    arguments = ("--relations", "none", "sc", "--seeds", "0")
    run(output, recipe, *arguments)
    expected = weights(output / "sc-seed0")
    shutil.rmtree(output / "sc-seed0" / "model")  # as if interrupted at its end
    begun = []
    train = finetune.run
    monkeypatch.setattr(finetune, "run", lambda config: begun.append(config) or train(config))
    run(output, recipe, *arguments)
    assert [(one.output, one.resume) for one in begun] == [(str(output / "sc-seed0"), True)]
    again = weights(output / "sc-seed0")
    assert all((again[name] == value).all() for name, value in expected.items())


def test_run_that_never_came_to_a_checkpoint_takes_what_is_asked_for_now(
    output, recipe, people, monkeypatch
):
    with pytest.raises(SystemExit):
        run(output, [*recipe, "--data-dir", "nowhere"], "--relations", "none")
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSaver, "save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as killed:
            run(output, [*recipe, "--workers", "1"], "--relations", "none")
    assert killed.value.code == 130
    assert (output / "none-seed0" / "summary.csv").is_file()
    assert len(run(output, [*recipe, "--data-dir", str(people)], "--relations", "none")) == 1


def test_table_is_of_all_finished_runs_and_of_no_other_folder(output, recipe):
    run(output, recipe, "--relations", "none")
    for name in ("none-seed0-old", "none-seed00", "old-none-seed0"):
        shutil.copytree(output / "none-seed0", output / name)
    rows = run(output, recipe, "--relations", "c")
    assert [(row["relation"], len(row["scores"]["mAP"])) for row in rows] == [("none", 1), ("c", 1)]


def test_runs_of_another_recipe_are_refused_before_any_work(output, recipe, monkeypatch, capsys):
    run(output, recipe, "--relations", "s")
    monkeypatch.setattr(finetune, "run", None)
    for relations in (["none", "s"], ["none"]):  # asked for again, or in the table all the same
        with pytest.raises(SystemExit):
            run(output, [*recipe, "--lr", "0.5"], "--relations", *relations)
        said = capsys.readouterr().err
        assert "s-seed0 is a run with other options (lr: 0.0008, not 0.5)" in said
    with pytest.raises(SystemExit):
        run(output, recipe, "--relations", "s", "--model-kwargs", "reduction=4")
    assert "other options (model_kwargs: {'relation': 's'}, not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seed", "3"], "--seed is not for an ablation"),
        (["--eval-every=2"], "--eval-every is not for an ablation"),
        (["--model-kwargs", "relation=s"], "use --relations instead"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--model", "test_resnet"], "test_resnet with relation=none: "),
        (["--model", "test_rga_resnet.pedestrians", "--pretrained"], "is a checkpoint of people"),
        (["--relation", "s"], "unrecognized arguments: --relation s"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
)
def test_wrong_options_end_it_before_any_work(output, recipe, option, message, monkeypatch, capsys):
    monkeypatch.setattr(finetune, "run", None)
    with pytest.raises(SystemExit):
        run(output, [*recipe, *option])
    assert message in capsys.readouterr().err


def test_several_processes_are_refused(output, recipe, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        run(output, recipe)
    assert "not under torchrun" in capsys.readouterr().err
