import json

import huggingface_hub
import pytest
import timm
import torch
from checkpoints import make_model
from hub_cache import put_into_hub_cache
from torch import nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import read_reid, save_pretrained


def assert_same(model: nn.Module, other: nn.Module) -> None:
    assert type(model) is type(other)
    state = other.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for attribute in ("img_size", "native_size", "relation", "reduction", "num_classes"):
        assert getattr(model, attribute) == getattr(other, attribute), attribute
    x = torch.randn(2, model.in_chans, *model.img_size)
    assert torch.equal(model(x), other.eval()(x))


SETTINGS = [
    {},
    {"num_classes": 7},
    {"img_size": (80, 48), "num_classes": 7},
    {"img_size": (80, 48), "native_size": (96, 64)},
    {"relation": "s"},
    {"relation": "c", "num_classes": 7, "img_size": (50, 30)},
    {"relation": "parallel", "reduction": 4},
    {"relation": "none", "num_classes": 7},
    {"in_chans": 1, "num_classes": 7},
    {"global_pool": "max", "num_classes": 7},
    {"drop_rate": 0.2, "num_classes": 7},
    {"channels": (8, 8, 16, 16)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_saved_model_comes_back_bit_for_bit(tmp_path, settings):
    model = make_model(**settings)
    backbone = {name: value for name, value in settings.items() if name == "channels"}
    folder = save_pretrained(model, tmp_path / "new" / "model", model_args=backbone)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert_same(model, timm.create_model(f"local-dir:{folder}", pretrained=True))


def test_model_after_set_input_size_comes_back(tmp_path):
    model = make_model(num_classes=7)
    model.set_input_size((96, 40))
    folder = save_pretrained(model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 40]
    assert_same(model, timm.create_model(f"local-dir:{folder}", pretrained=True))


def test_model_after_reset_classifier_comes_back(tmp_path):
    model = make_model(num_classes=7)
    model.reset_classifier(4)
    folder = save_pretrained(model.eval(), tmp_path)
    assert_same(model, timm.create_model(f"local-dir:{folder}", pretrained=True))


def test_saved_model_takes_other_classes_and_sizes(tmp_path):
    model = make_model(num_classes=7, img_size=(80, 48))
    folder = save_pretrained(model, tmp_path)
    source = f"local-dir:{folder}"
    other = timm.create_model(source, pretrained=True, num_classes=3, img_size=(64, 32)).eval()
    assert other(torch.randn(2, 3, 64, 32)).shape == (2, 3)
    model.set_input_size((64, 32))
    for key, value in model.state_dict().items():
        if key != "fc.weight":
            assert torch.equal(other.state_dict()[key], value), key
    embedding = timm.create_model(source, pretrained=True, num_classes=0).eval()
    assert embedding(torch.randn(2, 3, 80, 48)).shape == (2, model.num_features)


def test_saved_model_saves_again_alike(tmp_path):
    first = save_pretrained(make_model(img_size=(80, 48), num_classes=7), tmp_path / "first")
    model = timm.create_model(f"local-dir:{first}", pretrained=True)
    second = save_pretrained(model, tmp_path / "second")
    assert (first / "config.json").read_text() == (second / "config.json").read_text()


def test_config_records_what_the_model_was_made_with(tmp_path):
    reid = {"dataset": "market1501", "mAP": 0.5}
    model = make_model(num_classes=7, img_size=(80, 48), relation="cs")
    folder = save_pretrained(model, tmp_path, reid=reid, model_args={"drop_rate": 0.25})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "test_rga_resnet"
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 7
    assert config["pretrained_cfg"]["input_size"] == [3, 80, 48]
    assert config["reid"] == reid
    args = config["model_args"]
    assert args["img_size"] == [80, 48]
    assert args["native_size"] == [64, 32]
    assert (args["relation"], args["reduction"], args["drop_rate"]) == ("cs", 8, 0.25)
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).drop_rate == 0.25


def test_saving_leaves_the_models_own_config_alone(tmp_path):
    model = make_model(num_classes=7, img_size=(80, 48))
    before = dict(model.pretrained_cfg)
    save_pretrained(model, tmp_path)
    assert model.pretrained_cfg == before


def test_plain_timm_model_comes_back(tmp_path):
    model = timm.create_model("test_resnet", num_classes=5).eval()
    folder = save_pretrained(model, tmp_path)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), other(x))


def test_model_comes_back_through_the_hub_cache(tmp_path, monkeypatch):
    model = make_model(num_classes=7, img_size=(80, 48), relation="s")
    folder = save_pretrained(model, tmp_path / "saved")
    put_into_hub_cache(folder, tmp_path / "cache", "someone/rga")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    other = timm.create_model("hf-hub:someone/rga", pretrained=True, cache_dir=tmp_path / "cache")
    assert_same(model, other)


def test_weights_by_tag_through_the_hub_cache(tmp_path, monkeypatch):
    # A registered model whose cfg names a Hub repository, as the project's own tags do.
    model = make_model(num_classes=7)
    folder = save_pretrained(model, tmp_path)
    asked = []

    def download(repo_id, filename, **kwargs):
        asked.append((repo_id, filename))
        return str(folder / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    overlay = {"hf_hub_id": "someone/rga", "num_classes": 7}
    other = timm.create_model("test_rga_resnet", pretrained=True, pretrained_cfg_overlay=overlay)
    assert asked == [("someone/rga", "model.safetensors")]
    assert_same(model, other)


@pytest.mark.parametrize("source", ["local-dir", "hf-hub"])
def test_what_a_model_records_is_read_back(tmp_path, monkeypatch, source):
    recorded = {"trained_on": [{"name": "x", "train_pids": "1..3"}]}
    folder = save_pretrained(make_model(), tmp_path / "model", reid=recorded)
    name = str(folder)
    if source == "hf-hub":
        name = "someone/rga"
        put_into_hub_cache(folder, tmp_path, name)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert read_reid(f"{source}:{name}") == recorded
    assert read_reid("resnet18") == {}
    save_pretrained(make_model(), folder)
    assert read_reid(f"local-dir:{folder}") == {}


@pytest.mark.parametrize("labels", [None, list("abcdefg")])
def test_transformers_loads_a_classifier_with_its_labels(tmp_path, labels):
    transformers = pytest.importorskip("transformers")
    model = make_model(num_classes=7, img_size=(80, 48))
    folder = save_pretrained(model, tmp_path, label_names=labels)
    loaded = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    x = torch.randn(2, 3, 80, 48)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x).logits, model(x))
    assert list(loaded.config.id2label.values()) == (labels or [f"LABEL_{i}" for i in range(7)])
    assert "num_classes" not in json.loads((folder / "config.json").read_text())["model_args"]


def test_labels_come_back_and_are_saved_again_unless_the_classes_change(tmp_path):
    folder = save_pretrained(make_model(num_classes=2), tmp_path / "first", label_names=["a", "b"])
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    again = save_pretrained(model, tmp_path / "again")
    assert (again / "config.json").read_text() == (folder / "config.json").read_text()
    model.reset_classifier(3)
    other = save_pretrained(model, tmp_path / "other")
    assert "label_names" not in (other / "config.json").read_text()


@pytest.mark.parametrize("options", [{"global_pool": "max"}, {"in_chans": 1}])
def test_transformers_gets_what_is_not_the_default(tmp_path, options):
    transformers = pytest.importorskip("transformers")
    model = make_model(**options)
    folder = save_pretrained(model, tmp_path)
    x = torch.randn(2, model.in_chans, *model.img_size)
    with torch.no_grad():
        loaded = transformers.AutoModel.from_pretrained(folder).eval()
        torch.testing.assert_close(loaded(x).pooler_output, model(x))
    assert_same(model, timm.create_model(f"local-dir:{folder}", pretrained=True))


def test_folder_of_an_earlier_version_is_read_and_saved_without_the_repetition(tmp_path):
    model = make_model(num_classes=7, global_pool="max")
    folder = save_pretrained(model, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"num_classes": 7, "in_chans": 3}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert_same(model, loaded)
    new = save_pretrained(loaded, tmp_path / "new")
    args = json.loads((new / "config.json").read_text())["model_args"]
    assert args.keys() == {"img_size", "native_size", "relation", "reduction", "global_pool"}
