import pytest
import timm
import torch
import yaml
from publish_runs import fails, pack, train_briefly

from rga_timm.cli import finetune
from rga_timm.data import create_dataset
from rga_timm.evaluation import Compute, ModelRecord, Protocol, evaluate_dataset
from rga_timm.hub import read_reid


@pytest.fixture(scope="module")
def run(people, tmp_path_factory):
    return train_briefly(people, tmp_path_factory.mktemp("runs") / "run")


def test_pooled_feature_becomes_the_embedding(run, people, tmp_path):
    folder = pack(run, tmp_path, "--feature", "pooled", "--precision", "float32")
    trained = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True).eval()
    published = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 32)
    pooled, embedding = trained.forward_neck(trained.forward_features(x))
    torch.testing.assert_close(published(x), pooled)
    assert not torch.allclose(published(x), embedding)
    reid = read_reid(f"local-dir:{folder}")
    splits = create_dataset("market1501", people)
    config = timm.data.resolve_model_data_config(trained)
    protocol = Protocol.of_data_config(config, feature="pooled")
    expected = evaluate_dataset(
        trained, splits, protocol, ModelRecord("x"), compute=Compute(num_workers=0)
    ).metrics
    assert reid["metrics"]["mAP"] == pytest.approx(expected["mAP"])
    assert reid["protocol"]["feature"] == "embedding"
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["feature"] == "pooled"
    assert "the BN neck of these weights does not change it" in " ".join(
        (folder / "README.md").read_text().split()
    )


def test_run_that_was_tested_by_the_pooled_feature_is_published_so(run, people, tmp_path, capsys):
    other = tmp_path / "run"
    finetune.main(
        [
            "--config", str(run / "args.yaml"), "--data-dir", str(people), "--epochs", "1",
            "--output", str(other), "--feature", "pooled",
        ]
    )  # fmt: skip
    assert "--data-dir" in (said := capsys.readouterr().out)
    assert "--feature pooled" in said
    assert read_reid(f"local-dir:{other / 'model'}")["protocol"]["feature"] == "pooled"
    assert "feature_note" in read_reid(f"local-dir:{pack(other, tmp_path / 'weights')}")
    folder = pack(other, tmp_path / "weights", "--feature", "embedding")
    assert "feature_note" not in read_reid(f"local-dir:{folder}")
    text = fails(capsys, run, "--weights", tmp_path, "--recorded", "--feature", "embedding")
    assert "--feature does not go with --recorded" in text
    for option in ("--recorded", "--keep-classifier"):
        text = fails(capsys, other, "--weights", tmp_path / "weights", option)
        assert f"{option} does not go with the pooled feature" in text
