from pathlib import Path

import model_table
import pytest
import timm

import rga_timm  # noqa: F401 - registers the models


def test_readme_has_the_table_of_the_models_that_are_registered() -> None:
    assert model_table.main(["--check"]) == 0


def test_every_registered_model_stands_in_the_table_once() -> None:
    table = model_table.README.read_text().split(model_table.START)[1].split(model_table.END)[0]
    for name in timm.list_models("*rga*"):
        assert table.count(f"| `{name}` |") == (0 if name.startswith("test_") else 1)


def test_another_table_is_told_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    text = model_table.README.read_text()
    before, rest = text.split(model_table.START)
    wrong = rest.replace("| `rga_resnet50` |", "| `rga_resnet49` |", 1)
    readme.write_text(f"{before}{model_table.START}{wrong}")
    assert model_table.main(["--check", "--file", str(readme)]) == 1
    assert "out of date" in capsys.readouterr().out
    assert model_table.main(["--file", str(readme)]) == 0
    assert readme.read_text() == text


def test_cells_are_those_of_the_model() -> None:
    cells = model_table.row("rga_resnet50")
    # 29.8 M with an eighth of the positions and channels, 10.1 GFLOPs: see the benchmark's tests.
    assert cells[:2] == ["`rga_resnet50`", "29.8"]
    assert float(cells[2]) == pytest.approx(10.1, abs=0.1)
    assert cells[3:5] == ["256x128", "2048"]
    assert "timm/resnet50.tv_in1k" in cells[5]


def test_file_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(SystemExit):
        model_table.main(["--file", str(tmp_path / "README.md")])
