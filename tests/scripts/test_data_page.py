from pathlib import Path

import data_page
import pytest

from rga_timm.data import dataset_info, list_datasets


def test_the_page_is_that_of_the_readers() -> None:
    assert data_page.main(["--check"]) == 0


@pytest.mark.parametrize("name", list_datasets())
def test_every_data_set_stands_on_the_page_with_layouts_counts_and_command(name: str) -> None:
    page = data_page.PAGE.read_text(encoding="utf-8")
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
    assert set(info.options) <= set(data_page.argument_texts(info))


def test_another_page_is_told_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "DATA.md"
    text = data_page.PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("12,936", "12,937"), encoding="utf-8")
    assert data_page.main(["--check", "--file", str(page)]) == 1
    assert "out of date" in capsys.readouterr().out
    assert data_page.main(["--file", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


def test_a_section_says_what_the_reader_says() -> None:
    section = data_page.section(dataset_info("market1501"))
    assert section.startswith("### Market-1501\n")
    assert "| gallery | 15,913 | 751 | 6 |" in section
    assert "- `bounding_box_train`, `query`, `bounding_box_test` (the archive's own)" in section
    assert "- `distractors=false`: Whether the 500,000 distractors" in section
    assert "finetune.py --dataset market1501 --data-dir DIR" in section
    assert "evaluate.py local-dir:RUN/model --dataset occluded_reid" in data_page.section(
        dataset_info("occluded_reid")
    )


def test_a_file_without_a_place_for_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "DATA.md").write_text("nothing")
    with pytest.raises(SystemExit):
        data_page.main(["--file", str(tmp_path / "DATA.md")])
