import json
import shutil

import pytest
import timm
import torch
from checkpoints import make_checkpoint, make_model, make_records
from safetensors.torch import load_file, save_file

from rga_timm.hub import check_checkpoint, check_tag, pack_checkpoint
from rga_timm.hub.publish.folder import halve

NAME = "test_rga_resnet.market1501"


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path, NAME)


def test_packed_folder_is_complete_and_passes_its_check(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    check_checkpoint(folder)


def test_matrices_are_stored_in_float16_and_come_back_in_float32(folder):
    model = make_model()
    stored = load_file(folder / "model.safetensors")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    for name, value in model.state_dict().items():
        is_matrix = value.is_floating_point() and value.ndim > 1
        assert stored[name].dtype == (torch.float16 if is_matrix else value.dtype)
        assert torch.equal(loaded[name], value.half().float() if is_matrix else value)


def test_float32_comes_back_bit_for_bit(tmp_path):
    folder = make_checkpoint(tmp_path, NAME, half=False)
    check_checkpoint(folder)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in make_model().state_dict().items())
    assert json.loads((folder / "config.json").read_text())["reid"]["weights_dtype"] == "float32"


def test_float16_weights_are_resampled_in_float32(folder):
    size = {"img_size": (96, 48)}
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, **size).state_dict()
    model = make_model()
    model.load_state_dict(halve(model.state_dict()))
    model.set_input_size((96, 48))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded[name], value)


def test_values_beyond_float16_are_refused():
    with pytest.raises(ValueError, match=r"not finite in float16: conv\.weight"):
        halve({"conv.weight": torch.full((2, 2), 7e4), "bn.running_var": torch.tensor([7e4])})
    kept = halve({"bn.running_var": torch.tensor([7e4]), "count": torch.ones(2, 2).long()})
    assert kept["bn.running_var"].dtype == torch.float32
    assert kept["count"].dtype == torch.int64


def test_config_names_tag_and_licence_of_the_checkpoint_not_of_its_backbone(tmp_path):
    model = make_model()
    model.pretrained_cfg |= {"tag": "a1_in1k", "license": "mit", "origin_url": "https://x.org"}
    folder = pack_checkpoint(model, tmp_path / NAME, reid=make_records(NAME))
    cfg = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (cfg["tag"], cfg["license"]) == ("market1501", "research-use-only")
    assert "origin_url" not in cfg


def test_packing_replaces_what_lay_there_and_adds_files(tmp_path, folder):
    (folder / "stale.csv").write_text("old")
    recipe = tmp_path / "x.yaml"
    recipe.write_text("epochs: 3\n")
    pack_checkpoint(
        make_model(), folder, reid=make_records(NAME), extra_files={"recipe.yaml": recipe}
    )
    assert not (folder / "stale.csv").exists()
    assert (folder / "recipe.yaml").read_text() == "epochs: 3\n"
    check_checkpoint(folder)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_failed_packing_leaves_what_lay_there(folder):
    with pytest.raises(ValueError, match="the records lack version, repository"):
        pack_checkpoint(make_model(), folder, reid={"name": NAME})
    model = make_model()
    with torch.no_grad():
        model.conv1.weight.mul_(1e9)
    with pytest.raises(ValueError, match=r"not finite in float16: conv1\.weight"):
        pack_checkpoint(model, folder, reid=make_records(NAME), half=True)
    check_checkpoint(folder)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def edit_config(folder, **reid):
    config = json.loads((folder / "config.json").read_text())
    config["reid"].update(reid)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}"):
        check_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "last.pth.tar", "modeling.py", ".netrc"])
def test_files_that_are_not_published_are_named(folder, name):
    (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{name}: not a kind of file that is published"):
        check_checkpoint(folder)


def test_folders_within_are_refused(folder):
    (folder / "logs").mkdir()
    (folder / "logs" / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"logs/a\.csv: not a kind"):
        check_checkpoint(folder)


@pytest.mark.parametrize("record", ["license", "metrics", "trained_on", "command"])
def test_missing_record_is_named(folder, record):
    edit_config(folder, **{record: None})
    with pytest.raises(ValueError, match=f"its section reid lacks {record}"):
        check_checkpoint(folder)


def test_name_of_another_model_is_refused(folder):
    edit_config(folder, name="rga_resnet50.market1501")
    with pytest.raises(ValueError, match=r"named rga_resnet50\.market1501, but a test_rga_resnet"):
        check_checkpoint(folder)


def test_edited_card_is_refused(folder):
    with (folder / "README.md").open("a") as card:
        card.write("The best model ever.\n")
    with pytest.raises(ValueError, match=r"README\.md is not the card of this config\.json"):
        check_checkpoint(folder)


def test_truncated_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        check_checkpoint(folder)


def test_pickle_under_the_name_of_safetensors_is_refused(folder):
    torch.save(make_model().state_dict(), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        check_checkpoint(folder)


def test_other_weights_than_recorded_are_noticed(folder, tmp_path):
    other = make_checkpoint(tmp_path / "other", NAME, seed=1)
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ValueError, match="does not come back as it was made"):
        check_checkpoint(folder)


def test_weights_that_are_not_finite_are_named(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["neck.weight"][3] = float("inf")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 values are NaN or infinite, in 1 \(neck\.weight\)"):
        check_checkpoint(folder)


def test_weights_that_are_too_large_are_refused(folder, monkeypatch):
    monkeypatch.setattr("rga_timm.hub.publish.folder.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="bytes, more than 1,000"):
        check_checkpoint(folder)


def test_all_problems_are_told_at_once(folder):
    (folder / "a.bin").write_bytes(b"")
    edit_config(folder, license="", command="")
    with pytest.raises(ValueError, match=r"(?s)a\.bin.*lacks license, command"):
        check_checkpoint(folder)


def test_all_files_may_be_read_by_the_same_users(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_ends_of_lines_do_not_make_another_card(tmp_path, end):
    folder = make_checkpoint(tmp_path, NAME, note="One line.\r\nAnother.")
    check_checkpoint(folder)
    card = folder / "README.md"
    card.write_bytes(end.join(card.read_bytes().splitlines()) + end)
    check_checkpoint(folder)


def test_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path, folder):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / NAME).symlink_to(folder)
    packed = make_checkpoint(weights, NAME, seed=1)
    check_checkpoint(packed)
    check_checkpoint(folder)
    assert not packed.is_symlink()
    assert [path.name for path in weights.iterdir()] == [NAME]


def test_interrupted_replacement_does_not_lose_what_lay_there(folder, monkeypatch):
    """However it ends, a checkpoint is there, or its replacement."""
    removed = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, *_, **__: removed.append(path))
    pack_checkpoint(make_model(), folder, reid=make_records(NAME))
    assert folder not in removed


class TestTag:
    TAG = "test_rga_resnet.pedestrians"

    def test_that_gives_the_model_of_its_folder_passes(self, tmp_path):
        check_tag(make_checkpoint(tmp_path, self.TAG))

    def test_that_timm_does_not_know_passes(self, folder):
        check_tag(folder)

    @pytest.mark.parametrize(
        "made_with", [{"global_pool": "max"}, {"img_size": (96, 48)}, {"relation": "s"}]
    )
    def test_that_is_registered_with_other_arguments_is_refused(self, tmp_path, made_with):
        model = make_model(**made_with)
        folder = pack_checkpoint(model, tmp_path / self.TAG, reid=make_records(self.TAG))
        check_checkpoint(folder)
        with pytest.raises(ValueError, match="as it is registered, does not give the model of"):
            check_tag(folder)
