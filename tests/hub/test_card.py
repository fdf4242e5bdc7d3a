import json

import pytest
import yaml
from checkpoints import make_checkpoint, make_report
from huggingface_hub import ModelCard

from rga_timm.hub import format_card

NAME = "test_rga_resnet.market1501"


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path, NAME)


def test_hub_reads_the_metadata_and_results_of_every_test(folder):
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "timm"
    assert data["license"] == "other"
    assert data["license_name"] == "research-use-only"
    assert data["pipeline_tag"] == "image-feature-extraction"
    results = {(r.dataset_config, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert results == {
        ("64x32, embedding, cosine", "mAP"): 50.0,
        ("64x32, embedding, cosine", "mAP_trapezoid"): 45.0,
        ("64x32, embedding, cosine", "mINP"): 25.0,
        ("64x32, embedding, cosine", "rank-1"): 62.5,
        ("64x32, embedding, cosine, flip", "mAP"): 55.0,
        ("64x32, embedding, cosine, flip", "mAP_trapezoid"): 45.0,
        ("64x32, embedding, cosine, flip", "mINP"): 25.0,
        ("64x32, embedding, cosine, flip", "rank-1"): 62.5,
    }


def test_known_licence_is_named_as_the_hub_does(tmp_path):
    folder = make_checkpoint(tmp_path, NAME, license="apache-2.0")
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data["license"] == "apache-2.0"
    assert "license_name" not in data


def test_first_line_of_code_imports_the_package(folder):
    text = (folder / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert code.startswith("import rga_timm")
    assert f'timm.create_model("{NAME}", pretrained=True' in code
    assert f"hf-hub:someone/{NAME}" in code


def test_card_holds_what_a_stranger_needs(folder):
    text = (folder / "README.md").read_text()
    for expected in (
        "| test_rga_resnet.market1501 | market1501 | 64x32, embedding, cosine       | 50.0 |",
        "step AP: mean precision",
        "Fingerprint of the lists: `f0`",
        "market1501: 40 images of 10 people",
        "rga-timm finetune --config recipe.yaml",
        "rga_timm 0.1.0 (abc)",
        "Research use only",
        "identifying individuals by name",
        "zhang2020relation",
        "float16, version 1",
        "do not represent skin tones",
    ):
        assert expected in text, expected


def test_card_of_drawn_people_says_so(tmp_path):
    folder = make_checkpoint(tmp_path, NAME, trained_on=[{"name": "pedestrians"}])
    text = (folder / "README.md").read_text()
    assert "knows nothing about real\n  people" in text
    assert "skin tones" not in text


def test_card_follows_from_the_config_alone(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    size = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr("rga_timm.weights.HUB_ORGANISATION", "another")
    assert format_card(config, size) == (folder / "README.md").read_text()


def test_card_tells_what_came_before(tmp_path):
    sources = [
        {"name": "cuhk03", "train": {"images": 50, "ids": 8, "cameras": 2}},
        {"name": "market1501", "train": {"images": 40, "ids": 10, "cameras": 2}, "earlier": True},
    ]
    start = {"architecture": "test_rga_resnet", "repository": "someone/first", "sha256": "a1"}
    folder = make_checkpoint(tmp_path, NAME, trained_on=sources, started_from=start)
    text = (folder / "README.md").read_text()
    assert "trained on cuhk03." in text
    assert (
        "- market1501: 40 images of 10 people, for the checkpoint that the training started from"
        in text
    )
    assert "Started from someone/first, weights with SHA-256 `a1`." in text


def test_card_of_a_converted_checkpoint_says_from_what(tmp_path):
    source = {"code": "https://example.org/code", "file": "a.pth.tar", "sha256": "b2"}
    text = (make_checkpoint(tmp_path, NAME, converted_from=source) / "README.md").read_text()
    assert "Converted from `a.pth.tar` of https://example.org/code, SHA-256 `b2`." in text


def test_notes_on_training_and_precision_are_in_it(tmp_path):
    notes = {
        "note": "In two stages.",
        "feature_note": "Pooled.",
        "precision_note": "Stored in float16: it changes nothing.",
    }
    text = (make_checkpoint(tmp_path, NAME, **notes) / "README.md").read_text()
    assert all(note in text for note in notes.values())


def test_metadata_is_plain_yaml(folder):
    head = (folder / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["model-index"][0]["name"] == NAME


def test_images_are_said_to_be_left_out_only_where_cameras_are_known(tmp_path, folder):
    rule = "from the query's camera are left out"
    assert rule in (folder / "README.md").read_text()
    protocol = make_report(NAME, cameras=False).to_dict()["protocol"]
    folder = make_checkpoint(tmp_path / "other", NAME, protocol=protocol)
    text = (folder / "README.md").read_text()
    assert rule not in text
    assert "the cameras are not known, so no image is left out" in text


def test_recipe_is_spoken_of_only_where_the_command_takes_one(tmp_path):
    command = "rga-timm convert-official checkpoint.pth.tar --output MODEL"
    text = (make_checkpoint(tmp_path, NAME, command=command) / "README.md").read_text()
    assert command in text
    assert "The recipe is beside" not in text


@pytest.mark.parametrize("ratio", [{}, {"ratio": 1.234}])
def test_cost_is_told_with_what_it_was_measured_on(tmp_path, ratio):
    cost = {
        "parameters": 3_456_000,
        "gflops": 0.789,
        "img_size": [64, 32],
        "latency": [
            {"batch_size": 1, "ms": 12.3, **ratio},
            {"batch_size": 16, "ms": 45.6, **ratio},
        ],
        "machine": {"device": "Some CPU", "threads": "2", "torch": "2.14"},
    }
    text = (make_checkpoint(tmp_path, NAME, cost=cost) / "README.md").read_text()
    text = " ".join(text.split())
    brackets = " (1.23 times)" if ratio else ""
    assert "3.46 M parameters, 0.79 GFLOPs an image" in text
    assert f"12 ms for 1 image{brackets} and 46 ms for 16 images{brackets} (Some CPU, 2" in text
    assert "Some CPU, 2 threads, float32, torch 2.14" in text
    assert ("without attention" in text) == bool(ratio)
