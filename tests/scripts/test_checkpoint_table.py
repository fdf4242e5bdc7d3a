import checkpoint_table
import pytest

from rga_timm.hub import read_manifest


def test_model_card_and_readme_have_the_table_of_the_manifest():
    assert checkpoint_table.main(["--check"]) == 0


def test_every_checkpoint_stands_in_it_with_its_scores():
    lines = checkpoint_table.format_part().splitlines()[2:]
    manifest = read_manifest(checkpoint_table.ROOT / "weights")
    assert len(lines) == len(manifest)
    for line, (name, entry) in zip(lines, manifest.items(), strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] == f"[`{name}`](weights/{name}/README.md)"
        assert (checkpoint_table.ROOT / "weights" / name / "README.md").is_file()
        assert cells[-4] == f"{100 * entry['metrics']['mAP']:.1f}"
        assert cells[-1] == f"{100 * entry['metrics']['rank1']:.1f}"


def test_another_table_is_told_and_mended(tmp_path, capsys):
    pages = [tmp_path / "one.md", tmp_path / "other.md"]
    right, text = (page.read_text() for page in checkpoint_table.PAGES)
    pages[0].write_text(right)
    pages[1].write_text(text.replace("| 64x32", "| 65x32"))
    files = ["--file", *map(str, pages)]
    assert checkpoint_table.main(["--check", *files]) == 1
    assert "other.md is out of date" in (output := capsys.readouterr().out)
    assert "one.md" not in output
    assert checkpoint_table.main(files) == 0
    assert [page.read_text() for page in pages] == [right, text]


def test_page_that_cannot_be_written_is_told(tmp_path, capsys):
    page = tmp_path / "page.md"
    for text in (None, "nothing", checkpoint_table.PAGES[0].read_text() * 2):
        if text is not None:
            page.write_text(text)
        with pytest.raises(SystemExit):
            checkpoint_table.main(["--file", str(page)])
        assert str(page) in capsys.readouterr().err
