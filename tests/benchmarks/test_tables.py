import inspect
from pathlib import Path

import pytest
import tables
import timm

from rga_timm.data import dataset_info, list_datasets
from rga_timm.hub import read_manifest


def part_of(page: str, name: str) -> str:
    text = (tables.ROOT / page).read_text(encoding="utf-8")
    return text.split(f"<!-- {name}: made by scripts/tables.py -->")[1].split(f"<!-- {name}: end")[
        0
    ]


def test_pages_are_up_to_date() -> None:
    assert tables.main(["--check"]) == 0


def test_every_registered_model_stands_in_the_table_once() -> None:
    table = part_of("README.md", "models")
    for name in timm.list_models("*rga*"):
        assert table.count(f"| `{name}` |") == (0 if name.startswith("test_") else 1)


def test_cells_of_a_model_are_its_own() -> None:
    cells = tables.row("rga_resnet50")
    # 29.8 M with an eighth of the positions and channels, 10.1 GFLOPs: see the benchmark's tests.
    assert cells[:2] == ["`rga_resnet50`", "29.8"]
    assert float(cells[2]) == pytest.approx(10.1, abs=0.1)
    assert cells[3:5] == ["256x128", "2048"]
    assert "timm/resnet50.tv_in1k" in cells[5]


def test_every_checkpoint_stands_in_the_table_with_its_scores() -> None:
    lines = tables.checkpoint_table().splitlines()[2:]
    for line, (name, entry) in zip(
        lines, read_manifest(tables.ROOT / "weights").items(), strict=True
    ):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert name in cells[0]
        assert cells[-4] == f"{100 * entry['metrics']['mAP']:.1f}"
        assert cells[-1] == f"{100 * entry['metrics']['rank1']:.1f}"


@pytest.mark.parametrize("name", list_datasets())
def test_every_data_set_stands_on_the_page_with_layouts_and_counts(name: str) -> None:
    page = (tables.ROOT / "DATA.md").read_text(encoding="utf-8")
    info = dataset_info(name)
    if name != "pedestrians":
        assert f"--dataset {name}" in page
    for layout in info.layouts:
        assert all(f"`{path}`" in page for path in layout.paths)
    for counts in info.published.values():
        assert f" {counts.ids:,} |" in page


@pytest.mark.parametrize("name", list_datasets())
def test_every_option_of_a_reader_is_explained(name: str) -> None:
    info = dataset_info(name)
    assert set(info.options) <= set(tables.argument_texts(info))
    assert inspect.getdoc(info.factory)


def test_a_section_says_what_the_reader_says() -> None:
    section = tables.section(dataset_info("market1501"))
    assert section.startswith("### Market-1501\n")
    assert "| gallery | 15,913 | 751 | 6 |" in section
    assert "- `bounding_box_train`, `query`, `bounding_box_test` (the archive's own)" in section
    assert "- `distractors=false`: Whether the gallery includes the authors' 500,000" in section
    assert "rga-timm finetune --dataset market1501 --data-dir DIR" in section
    assert "rga-timm evaluate output/RUN --dataset occluded_reid" in tables.section(
        dataset_info("occluded_reid")
    )


def test_page_that_is_out_of_date_is_named_and_updated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {page for _, pages in tables.PARTS.values() for page in pages}
    texts = {page: (tables.ROOT / page).read_text(encoding="utf-8") for page in pages}
    for page, text in texts.items():
        (tmp_path / page).write_text(text.replace("12,936", "12,937"), encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setitem(tables.PARTS, "checkpoints", (lambda: "none", ()))
    assert tables.main(["--check"]) == 1
    assert "DATA.md is out of date in its data sets" in capsys.readouterr().out
    assert tables.main([]) == 0
    assert (tmp_path / "DATA.md").read_text(encoding="utf-8") == texts["DATA.md"]


def test_page_without_a_place_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        tables.replace_part("nothing", "models", "table")
