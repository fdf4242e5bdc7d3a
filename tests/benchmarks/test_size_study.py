import json
from pathlib import Path

import pytest
import timm
import torch
from benchmarks import size_study

import rga_timm  # noqa: F401 - registers the models
from rga_timm.data.datasets.pedestrians import VERSION, draw
from rga_timm.hub import save_pretrained


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people") / f"pedestrians-{VERSION}"
    return draw(
        root,
        train_ids=1,
        train_images=1,
        test_ids=3,
        gallery_images=2,
        distractors=1,
        junk=0,
        progress=False,
    )


def saved(folder: Path, **kwargs: object) -> str:
    torch.manual_seed(0)
    return f"local-dir:{save_pretrained(timm.create_model('test_rga_resnet', **kwargs), folder)}"


def test_table_has_every_size_with_both_kinds_of_weights(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data-dir", str(people), "--workers", "0", "--device", "cpu"]
    output = tmp_path / "study.json"
    sizes = ["--img-size", "80", "48", "--output", str(output)]
    rows = size_study.main([saved(tmp_path / "model"), *arguments, *sizes])
    assert [(row["img_size"], row["weights"]) for row in rows] == [
        ((64, 32), "resampled"),
        ((64, 32), "drawn anew"),
        ((80, 48), "resampled"),
        ((80, 48), "drawn anew"),
    ]
    assert all(0 < row["mAP"] <= 1 for row in rows)
    table = capsys.readouterr().out
    assert "| 64x32 (trained at) |" in table
    assert f"| 80x48 | {100 * rows[2]['mAP']:.1f} | {100 * rows[2]['rank1']:.1f} |" in table
    assert [row["mAP"] for row in json.loads(output.read_text())] == [row["mAP"] for row in rows]


def test_only_weights_that_look_at_positions_are_drawn_anew() -> None:
    model = timm.create_model("test_rga_resnet")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    size_study.draw_position_weights(model, seed=1)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    names = ("spatial.relation.weight", "channel.embed.weight")
    assert changed == {f"layer{i}.rga.{name}" for i in (1, 2, 3, 4) for name in names}


def test_model_without_attention_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        size_study.main([saved(tmp_path, relation="none")])
    assert "no relation attention" in capsys.readouterr().err
