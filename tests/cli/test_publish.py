import json
import shlex
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from publish_runs import NAME, fails, pack, train_briefly
from safetensors.torch import load_file

from rga_timm.cli import finetune, publish
from rga_timm.data import create_dataset
from rga_timm.evaluation import Compute, ModelRecord, Report, evaluate_dataset, hash_weights
from rga_timm.hub import (
    check_checkpoint,
    check_manifest,
    list_in_manifest,
    read_manifest,
    read_reid,
    save_pretrained,
    sha256_of,
)
from rga_timm.hub.publish import evaluate as publish_evaluate
from rga_timm.hub.publish import pack as publish_pack


@pytest.fixture(scope="module")
def run(people, tmp_path_factory):
    return train_briefly(people, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def no_upload(monkeypatch):
    """A dry run asks nobody."""

    def push(*args, **kwargs):
        raise AssertionError("something was uploaded")

    monkeypatch.setattr(publish, "push_checkpoint", push)


@pytest.mark.usefixtures("no_upload")
def test_run_becomes_a_checked_and_listed_checkpoint(run, people, tmp_path, capsys):
    folder = pack(run, tmp_path)
    assert folder == tmp_path / NAME
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "curves.png", "model.safetensors", "recipe.yaml", "summary.csv",
    ]  # fmt: skip
    check_checkpoint(folder)
    check_manifest(tmp_path)
    output = capsys.readouterr().out
    assert f"rga-timm/{NAME}, v1, public" in output
    assert "licence research-use-only" in output
    assert "Nothing was uploaded" in output
    assert "checkpoints=[TAG] in its family's file makes it a tag" in output


@pytest.mark.usefixtures("no_upload")
def test_recorded_scores_are_those_of_the_weights_that_are_stored(run, people, tmp_path):
    folder = pack(run, tmp_path, "--precision", "float16")
    reid = read_reid(f"local-dir:{folder}")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    splits = create_dataset("market1501", people)
    for recorded in (reid, *reid["also_tested_on"]):
        fields = ("model", "dataset", "protocol", "metrics", "units")
        protocol = Report.from_dict({name: recorded[name] for name in fields}).protocol
        report = evaluate_dataset(
            model, splits, protocol, ModelRecord(NAME), compute=Compute(num_workers=0)
        )
        assert report.metrics["mAP"] == pytest.approx(recorded["metrics"]["mAP"], abs=1e-9)
        assert report.weights == recorded["weights"]
    ways = [one["protocol"] for one in (reid, *reid["also_tested_on"])]
    assert [(one["flip"], one["rerank"] is not None) for one in ways] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    assert load_file(folder / "model.safetensors")["conv1.weight"].dtype == torch.float16


@pytest.mark.usefixtures("no_upload")
def test_classifier_is_left_out_unless_it_is_kept(run, tmp_path):
    folder = pack(run, tmp_path)
    assert "fc.weight" not in load_file(folder / "model.safetensors")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.num_classes == 0
    trained = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True).eval()
    kept = pack(run, tmp_path / "kept", "--keep-classifier", "--precision", "float32")
    model = timm.create_model(f"local-dir:{kept}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 32)
    assert torch.equal(model(x), trained(x))


@pytest.mark.usefixtures("no_upload")
def test_recipe_trains_again_and_names_no_folder(run, people, tmp_path):
    folder = pack(run, tmp_path)
    text = (folder / "recipe.yaml").read_text()
    assert str(people) not in text
    assert "output" not in yaml.safe_load(text)
    again = tmp_path / "again"
    finetune.main(
        ["--config", str(folder / "recipe.yaml"), "--data-dir", str(people), "--output", str(again)]
    )
    first, second = (load_file(r / "model" / "model.safetensors") for r in (run, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.usefixtures("no_upload")
def test_packed_folder_is_taken_as_it_is(run, tmp_path, capsys):
    folder = pack(run, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert publish.main([str(folder), "--private", "--gated", "manual"]) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "v1, private, gated" in capsys.readouterr().out


@pytest.mark.usefixtures("no_upload")
def test_packed_folder_is_described_anew_without_testing_again(run, tmp_path, monkeypatch):
    folder = pack(run, tmp_path, "--precision", "float16")
    weights = (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"num_classes": 0, "in_chans": 3}  # as earlier versions wrote it
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(publish_pack, "evaluate_to_publish", None)
    pack(folder, tmp_path, "--recorded", "--version", "2", "--note", "Anew.")
    args = json.loads((folder / "config.json").read_text())["model_args"]
    assert not {"num_classes", "in_chans", "global_pool"} & args.keys()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert {"recipe.yaml", "summary.csv"} <= {path.name for path in folder.iterdir()}
    assert "Anew." in (folder / "README.md").read_text()
    assert read_manifest(tmp_path)[NAME]["version"] == 2
    check_manifest(tmp_path)


def test_push_uploads_the_packed_folder_under_its_version(run, tmp_path, monkeypatch, capsys):
    pushed = []
    monkeypatch.setattr(
        publish, "push_checkpoint", lambda *args, **options: pushed.append((args, options)) or "URL"
    )
    folder = pack(
        run, tmp_path, "--push", "--organisation", "someone", "--version", "3", "--gated", "auto",
        "--collection", "Zoo",
    )  # fmt: skip
    options = {"revision_tag": "v3", "private": False, "gated": "auto", "collection": "Zoo"}
    assert pushed == [((folder, f"someone/{NAME}"), options)]
    assert "Uploaded: URL" in capsys.readouterr().out


def test_another_organisation_gets_a_card_of_its_own(run, tmp_path, monkeypatch):
    folder = pack(run, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    pushed = {}

    def push(folder, repo_id, **options):
        check_checkpoint(folder)
        pushed.update({path.name: path.read_bytes() for path in folder.iterdir()})
        return repo_id

    monkeypatch.setattr(publish, "push_checkpoint", push)
    publish.main([str(folder), "--push", "--organisation", "someone"])
    assert f"hf-hub:someone/{NAME}".encode() in pushed["README.md"]
    assert pushed["model.safetensors"] == before["model.safetensors"]
    assert pushed.keys() == before.keys()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("no_upload")
def test_float16_is_left_where_it_changes_a_score(run, people, tmp_path, monkeypatch):
    monkeypatch.setattr(publish_evaluate, "MAX_CHANGE", -1.0)
    folder = pack(run, tmp_path)
    state = load_file(folder / "model.safetensors")
    trained = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(value, trained[name]) for name, value in state.items())
    reid = read_reid(f"local-dir:{folder}")
    assert reid["precision_note"].startswith("Stored in float32:")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    for report in (reid, *reid["also_tested_on"]):
        assert report["weights"] == hash_weights(model)


@pytest.mark.usefixtures("no_upload")
@pytest.mark.parametrize(("precision", "tests"), [("float32", 4), ("float16", 5), ("auto", 5)])
def test_no_model_is_tested_twice_in_one_way(run, people, tmp_path, monkeypatch, precision, tests):
    tested = []
    one, report_embeddings = publish_evaluate.evaluate_dataset, publish_evaluate.report_embeddings

    def count_one(model, parts, protocol, record, **options):
        tested.append((hash_weights(model), protocol.summary()))
        return one(model, parts, protocol, record, **options)

    def count(query, gallery, splits, protocol, record, **options):
        tested.append((record.weights, protocol.summary()))
        return report_embeddings(query, gallery, splits, protocol, record, **options)

    monkeypatch.setattr(publish_evaluate, "evaluate_dataset", count_one)
    monkeypatch.setattr(publish_evaluate, "report_embeddings", count)
    monkeypatch.setattr(publish_evaluate, "MAX_CHANGE", 1.0)
    pack(run, tmp_path, "--precision", precision)
    assert len(tested) == len(set(tested)) == tests


@pytest.mark.usefixtures("no_upload")
def test_weights_beyond_float16_are_stored_in_float32(run, tmp_path, capsys):
    model = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
    with torch.no_grad():  # the batch norm behind it undoes the factor
        model.conv1.weight.mul_(1e6)
        model.bn1.running_var.mul_(1e12)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    save_pretrained(model, copy / "model", reid=read_reid(f"local-dir:{run / 'model'}"))
    folder = pack(copy, tmp_path / "weights")
    reid = read_reid(f"local-dir:{folder}")
    assert reid["weights_dtype"] == "float32"
    assert "not finite in float16: conv1.weight" in reid["precision_note"]
    text = fails(capsys, copy, "--weights", tmp_path, "--workers", "0", "--precision", "float16")
    assert "not finite in float16: conv1.weight" in text


@pytest.mark.usefixtures("no_upload")
def test_folder_of_the_model_means_its_run(run, tmp_path):
    names = {path.name for path in pack(run / "model", tmp_path).iterdir()}
    assert {"recipe.yaml", "summary.csv", "curves.png"} <= names


@pytest.mark.usefixtures("no_upload")
def test_model_away_from_its_run_is_packed_with_its_recipe(run, people, tmp_path):
    shutil.copytree(run / "model", tmp_path / "moved")
    folder = pack(tmp_path / "moved", tmp_path / "weights", "--data-dir", str(people))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["epochs"]) == ("test_rga_resnet", 2)
    assert str(people) not in (folder / "recipe.yaml").read_text()


@pytest.mark.usefixtures("no_upload")
def test_command_names_what_the_training_started_from(run, people, tmp_path, monkeypatch):
    weights = str(run / "model" / "model.safetensors")
    data = ["--dataset", "market1501", "--data-dir", str(people), "--workers", "0"]
    sizes = ["--num-identities", "2", "--num-instances", "2", "--epochs", "1"]
    for start, expected in (
        (["--model", "test_rga_resnet", "--pretrained-path", weights], "from model.safetensors"),
        (["--model", str(run)], "from test_rga_resnet"),
    ):
        again = tmp_path / expected
        options = [*data, *sizes, *start, "--img-size", "64", "32", "--device", "cpu"]
        finetune.main([*options, "--output", str(again)])
        folder = pack(again, tmp_path / "weights", "--precision", "float32")
        card = (folder / "README.md").read_text()
        assert f"Started {expected}, weights with SHA-256 `{sha256_of(Path(weights))}`" in card
        (line,) = [line for line in card.splitlines() if "--config recipe.yaml" in line]
        filled_in = {"DIR": str(people), "STARTED_FROM": str(run), "model.safetensors": weights}
        words = [filled_in.get(word, word) for word in shlex.split(line)[2:]]
        monkeypatch.chdir(folder)
        finetune.main([*words, "--output", str(tmp_path / f"{expected} again")])
        first, second = (
            load_file(path / "model" / "model.safetensors")
            for path in (again, tmp_path / f"{expected} again")
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.usefixtures("no_upload")
def test_packing_that_was_interrupted_is_ended_by_the_next_call(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    folder = pack(run, tmp_path, "--precision", "float32")
    with monkeypatch.context() as patch:
        patch.setattr(publish_pack, "list_in_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack(run, tmp_path, "--precision", "float16")
    with pytest.raises(ValueError, match="listed with other sha256"):
        check_manifest(tmp_path)
    publish.main([str(folder)])
    check_manifest(tmp_path)


@pytest.mark.usefixtures("no_upload")
def test_converted_checkpoint_says_how_it_was_converted(people, tmp_path, capsys):
    records = {
        "converted_from": {"code": "https://x.org", "file": "600.pth.tar", "sha256": "0" * 64},
        "trained_on": [{"name": "market1501"}],
    }
    source = save_pretrained(timm.create_model("test_rga_resnet"), tmp_path / "x", reid=records)
    weights = tmp_path / "weights"
    assert "does not record its test data" in fails(capsys, source, "--weights", weights)
    folder = pack(source, weights, "--dataset", "market1501", "--data-dir", str(people))
    card = (folder / "README.md").read_text()
    assert "rga-timm convert-official 600.pth.tar --output MODEL" in card
    assert "recipe" not in card


def test_largest_change_is_of_any_score():
    metrics = {"mAP": 0.5, "mAP_trapezoid": 0.4, "mINP": 0.3, "cmc": [0.6, 0.7]}
    change = publish_evaluate.largest_change(metrics, {**metrics, "cmc": [0.6, 0.75]})
    assert change == pytest.approx(0.05)
    assert publish_evaluate.largest_change(metrics, {**metrics, "mINP": 0.2}) == pytest.approx(0.1)
    assert publish_evaluate.largest_change(metrics, metrics) == 0


@pytest.mark.usefixtures("no_upload")
class TestBadInput:
    def test_folder_without_a_model(self, tmp_path, capsys):
        assert "neither a model (config.json) nor a finished run" in fails(capsys, tmp_path)

    def test_model_that_does_not_say_on_what_it_was_trained(self, tmp_path, capsys):
        save_pretrained(timm.create_model("test_rga_resnet"), tmp_path)
        assert "has no section reid" in fails(capsys, tmp_path)

    def test_name_of_another_model(self, run, tmp_path, capsys):
        for name in ("rga_resnet50.market1501", "test_rga_resnet", "test_rga_resnet."):
            text = fails(capsys, run, "--name", name, "--weights", tmp_path)
            assert "a test_rga_resnet is test_rga_resnet.TAG" in text

    def test_data_that_are_gone(self, run, tmp_path, capsys):
        text = fails(capsys, run, "--data-dir", tmp_path / "nowhere", "--weights", tmp_path)
        assert "nowhere" in text
        assert list(tmp_path.iterdir()) == []

    def test_own_data_without_a_licence(self, run, tmp_path, capsys):
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        config = json.loads((copy / "model" / "config.json").read_text())
        config["reid"]["trained_on"] = [{"name": "folder"}]
        (copy / "model" / "config.json").write_text(json.dumps(config))
        text = fails(capsys, copy, "--weights", tmp_path / "weights")
        assert "the terms of the data set 'folder' are not known" in text
        folder = pack(copy, tmp_path / "weights", "--license", "mit")
        assert folder.name == "test_rga_resnet.folder"

    def test_packed_folder_with_a_pickle(self, run, tmp_path, capsys):
        folder = pack(run, tmp_path)
        torch.save({}, folder / "optimizer.pth")
        assert "optimizer.pth: not a kind of file" in fails(capsys, folder, "--push")

    def test_packed_folder_whose_weights_were_changed(self, run, tmp_path, capsys):
        folder = pack(run, tmp_path)
        other = timm.create_model("test_rga_resnet")
        save_pretrained(other, tmp_path / "other")
        shutil.copy(tmp_path / "other" / "model.safetensors", folder)
        assert "does not come back as it was made" in fails(capsys, folder, "--push")
        list_in_manifest(tmp_path, NAME)
        assert "does not come back as it was made" in fails(capsys, folder, "--push")

    def test_packing_options_for_a_packed_folder(self, run, tmp_path, capsys):
        folder = pack(run, tmp_path)
        for option in (["--license", "mit"], ["--version", "2"], ["--name", NAME], ["--note", "x"]):
            text = fails(capsys, folder, *option)
            assert f"is packed already: {option[0]} is for packing" in text

    def test_weights_that_are_too_large(self, run, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(publish_pack, "evaluate_to_publish", None)
        monkeypatch.setattr(publish_pack, "MAX_BYTES", 100_000)
        text = fails(capsys, run, "--precision", "float32", "--weights", tmp_path)
        assert "the weights take 0 MiB; a checkpoint has at most 0" in text
        assert list(tmp_path.iterdir()) == []

    def test_weights_without_a_record_of_how_they_were_made(self, tmp_path, capsys):
        records = {"trained_on": [{"name": "market1501"}]}
        source = save_pretrained(timm.create_model("test_rga_resnet"), tmp_path / "x", reid=records)
        assert "give it by --command" in fails(capsys, source, "--weights", tmp_path)

    def test_what_cannot_be_packed_is_told_before_anything_is_evaluated(
        self, run, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(publish_pack, "evaluate_to_publish", None)
        weights = tmp_path / "weights"
        for options, reason in (
            (["--extra", run / "last.pth.tar"], "last.pth.tar: not a kind of file"),
            (["--extra", "gone.csv"], "gone.csv: there is no such file"),
            (["--name", "test_rga_resnet.a/b"], "Repo id must be"),
            (["--name", "test_rga_resnet.a..b"], "Cannot have -- or .."),
        ):
            assert reason in fails(capsys, run, "--weights", weights, *options)
        assert not weights.exists()
        weights.write_text("")
        assert "is a file, not a folder" in fails(capsys, run, "--weights", weights)

    def test_tag_that_is_registered_for_another_image_size(self, run, people, tmp_path, capsys):
        other = tmp_path / "run"
        finetune.main(
            [
                "--config", str(run / "args.yaml"), "--data-dir", str(people), "--epochs", "1",
                "--output", str(other), "--img-size", "96", "48",
            ]
        )  # fmt: skip
        options = ["--name", "test_rga_resnet.pedestrians", "--workers", "0"]
        text = fails(capsys, other, "--weights", tmp_path / "weights", *options)
        assert "does not give the model of" in text
