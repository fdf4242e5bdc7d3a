from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from finetune_runs import summary
from publish_runs import train_briefly

from rga_timm.cli import finetune
from rga_timm.cli.finetune import RECIPES, parse_args
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.training import ConfigError, TrainConfig, train
from rga_timm.training.config import read_options

# As version 0.1.0 wrote it.
ARGS_YAML = """\
output: {run}
seed: 0
dataset:
- market1501
data_dir:
- {people}
skip_bad_images: false
eval_dataset: null
eval_data_dir: null
img_size:
- 64
- 32
num_identities: 2
num_instances: 2
epoch_images: identity
enlarge_prob: 0.5
flip_prob: 0.5
erase_prob: 0.5
workers: 0
cache: null
cache_on_device: false
model: test_rga_resnet
model_kwargs: {{}}
pretrained: false
pretrained_path: null
drop_rate: 0.0
smoothing: 0.1
margin: 0.3
triplet_weight: 1.0
epochs: 2
opt: adam
lr: 0.0008
weight_decay: 0.0005
momentum: 0.9
decay_norm_and_bias: true
layer_decay: null
sched: multistep
sched_on_updates: false
warmup_epochs: 20
warmup_lr: 8.0e-06
min_lr: 0.0
decay_milestones:
- 80
- 120
- 160
- 200
- 240
- 280
- 320
- 360
decay_rate: 0.5
clip_grad: null
grad_accum_steps: 1
ema_decay: 0.0
freeze_backbone_epochs: 0
freeze_bn: false
sync_bn: false
device: cpu
amp_dtype: null
channels_last: false
compile: false
eval_every: 1
feature: embedding
eval_initial: false
eval_batch_size: 128
page: false
"""


def test_a_run_that_version_0_1_0_began_is_resumed(people: Path, tmp_path: Path) -> None:
    run = train_briefly(people, tmp_path / "run")
    text = ARGS_YAML.format(run=run, people=people)
    now, then = yaml.safe_load((run / "args.yaml").read_text()), yaml.safe_load(text)
    assert {name: now[name] for name in then} == then  # there may be further options
    (run / "args.yaml").write_text(text)
    finetune.main(["--resume", str(run), "--epochs", "3"])
    assert [row["epoch"] for row in summary(run)] == ["0", "1", "2"]


def test_a_run_is_begun_and_resumed_from_python(people: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        dataset=["market1501"],
        data_dir=[people],  # type: ignore[list-item] # paths will do
        output=str(tmp_path / "run"),
        model="test_rga_resnet",
        pretrained=False,
        num_identities=2,
        num_instances=2,
        epochs=1,
        workers=0,
        device="cpu",
        page=False,
    )
    run = train(config)
    assert run == tmp_path / "run"
    assert timm.create_model(f"local-dir:{run / 'model'}", pretrained=True).num_classes == 6
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)
    train(replace(config, epochs=2, resume=True))
    assert [row["epoch"] for row in summary(run)] == ["0", "1"]


@pytest.mark.parametrize(
    "start", [["--model", "test_rga_resnet.pedestrians"], ["--no-pretrained"]], ids=str
)
def test_the_recipe_for_a_folder_of_few_people_runs_at_the_first_try(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draw(
        tmp_path / "drawn",
        train_ids=12, train_images=4, test_ids=1, gallery_images=1, distractors=0, junk=0,
        progress=False,
    )  # fmt: skip
    for image in (drawn / "bounding_box_train").iterdir():
        (tmp_path / "people" / image.name[:4]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "people" / image.name[:4])
    monkeypatch.chdir(tmp_path)
    # What the machine of a test can do with the larger model in a few seconds.
    quick = [] if "pedestrians" in start[-1] else ["--epochs", "1", "--img-size", "64", "32"]
    run = finetune.main(["--config", "own-folder", "--data-dir", "people", *start, *quick])
    best = [float(row["eval_mAP"]) for row in summary(run) if row["eval_mAP"]]
    assert best
    assert all(0 < score <= 1 for score in best)
    assert (run / "model" / "model.safetensors").is_file()


def test_options_come_from_the_command_line_then_the_file_then_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("lr: 5e-1\nepochs: 7\n")  # without a point, which YAML takes for a text
    config = parse_args(["--config", str(file), "--epochs", "9"])
    assert (config.lr, config.epochs, config.margin) == (0.5, 9, 0.3)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_read(recipe: Path) -> None:
    data = ["--data-dir", "people"]
    config = parse_args(["--config", recipe.stem, *data, "--output", "run"])
    written = yaml.safe_load(yaml.safe_dump(config.to_dict()))
    assert written.items() >= yaml.safe_load(recipe.read_text()).items()
    written["model_kwargs"] = config.model_kwargs  # tuples were read as lists
    assert TrainConfig(**written) == config


def test_a_file_may_name_one_data_set_or_several(tmp_path: Path) -> None:
    for given in ("viper", ["viper"], ["viper", "grid:split=2"]):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"dataset": given}))
        config = parse_args(["--config", str(tmp_path / "recipe.yaml")])
        assert config.dataset == ([given] if isinstance(given, str) else given)
    assert str(config.output).endswith("-viper+grid-split-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown options: epoch"),
        ("resume: true", "unknown options: resume"),
        ("sched: [", "is not YAML"),
        ("- lr", "is not a mapping"),
        (
            "amp_dtype: int8",
            "amp_dtype: Invalid enum value 'int8'; it is one of auto, bfloat16, float16",
        ),
        ("epochs: many", "epochs: Expected `int`, got `str`"),
        ("epochs: 1.5", "epochs: Expected `int`, got `float`"),
        ("freeze_bn: 'no'", "freeze_bn: Expected `bool`, got `str`"),
        ("img_size: [64]", "img_size: Expected `array` of length 2, got 1"),
        ("model_kwargs: relation=s", "model_kwargs: Expected `object`, got `str`"),
        ("epochs: 0", "--epochs must be at least 1"),
    ],
)
def test_files_of_options_that_cannot_work_are_refused_by_name(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit):
        parse_args(["--config", str(file)])
    error = capsys.readouterr().err
    assert message in error
    assert str(file) in error or message.startswith("--")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "rga_resnet51"], "no model 'rga_resnet51'"),
        (["--sync-bn", "--device", "cpu"], "needs GPUs"),
        (["--epochs", "0"], "--epochs: must be at least 1, not 0"),
        (["--workers", "-1"], "--workers: must be at least 0"),
        (["--sched", "plateau"], "needs a score every epoch"),
        (["--num-instances", "1"], "--triplet-weight 0"),
        (["--pretrained-path", "nowhere.pth"], "no file nowhere.pth"),
        (["--resume", "nowhere"], "no file nowhere"),
        (["--config", "papper"], "no built-in recipe of that name: "),
        (["--model-kwargs", "relation=s", "reduction"], "reduction: KEY=VALUE is meant"),
        (["--dataset", "viper:split=all"], "one model is trained on one partition"),
        (["--dataset", "nobody"], "unknown data set 'nobody'"),
        (["--dataset", "dukemtmc"], "withdrawn"),
        (["--dataset", "viper", "--data-dir", "a", "b"], "there are 2 for 1"),
        (["--eval-dataset", "viper", "--eval-data-dir", "a", "b"], "--eval-data-dir is one folder"),
        (["--eval-data-dir", "a"], "--eval-data-dir is for --eval-dataset"),
        (["--cache", "0"], "--cache: must be above 0"),
        (["--cache-on-device"], "--cache-on-device needs --cache GB"),
    ],
)
def test_options_that_cannot_work_end_the_program_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_args(arguments)
    assert message in capsys.readouterr().err


def test_model_arguments_are_added_to_those_of_the_recipe() -> None:
    config = parse_args(["--model-kwargs", "relation=none"])
    assert config.model_kwargs["relation"] == "none"
    assert config.model_kwargs["zero_init_attention"] is True
    assert parse_args(["--model", "resnet18"]).model_kwargs == {}


@pytest.mark.parametrize("value", ["false", "False"])
def test_truth_of_model_arguments_is_written_as_in_yaml_or_python(value: str) -> None:
    config = parse_args(["--model-kwargs", f"zero_init_attention={value}", "relation=s"])
    assert config.model_kwargs["zero_init_attention"] is False
    assert config.model_kwargs["relation"] == "s"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": float("nan")}, "--lr must be a finite number, not nan"),
        ({"lr": float("-inf")}, "--lr must be a finite number"),
        ({"lr": "fast"}, "--lr 'fast': Expected `float`, got `str`"),
        ({"epochs": True}, "--epochs True: Expected `int`, got `bool`"),
        ({"epochs": 1.5}, "--epochs 1.5: Expected `int`"),
        ({"epochs": 2**40}, "--epochs must be below 2\\^32"),
        ({"flip_prob": 1.5}, "--flip-prob must be at most 1, not 1.5"),
        ({"img_size": (64, 0)}, "--img-size must be at least 1, not 0"),
        ({"img_size": 64}, "--img-size 64: Expected `array"),
        ({"teacher_std": (1, 1, 0)}, "--teacher-std must be above 0"),
        ({"amp_dtype": "int8"}, "it is one of auto, bfloat16, float16"),
        ({"opt": "adamm"}, "--opt adamm cannot be used: "),
        ({"sched": "cosinus"}, "--sched cosinus"),
        ({"decay_milestones": (3, 2)}, "--decay-milestones must rise"),
    ],
)
def test_values_from_python_or_yaml_are_checked_as_those_of_the_command_line(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(device="cpu", **values)
    file = tmp_path / "recipe.yaml"
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    file.write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigError, match="|".join(values).replace("_", ".")):
        TrainConfig(device="cpu", **read_options(file))


def test_numbers_of_numpy_and_paths_are_plain_values(tmp_path: Path) -> None:
    config = TrainConfig(
        lr=np.float32(0.5), epochs=np.int64(3), device="cpu",
        output=tmp_path / "run",  # type: ignore[arg-type]
    )  # fmt: skip
    assert (type(config.lr), type(config.epochs), type(config.output)) == (float, int, str)
    assert yaml.safe_load(yaml.safe_dump(config.to_dict()))["lr"] == 0.5


@pytest.mark.faults
def test_a_folder_that_cannot_be_one_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"--output: .*file is a file, not a folder"):
            TrainConfig(output=str(output), device="cpu").resolved()
