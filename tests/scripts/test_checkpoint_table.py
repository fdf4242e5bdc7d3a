import checkpoint_table

from rga_timm.hub import read_manifest


def test_model_card_has_the_table_of_the_manifest():
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
    page = tmp_path / "page.md"
    text = checkpoint_table.PAGE.read_text()
    page.write_text(text.replace("| 64x32", "| 65x32"))
    assert checkpoint_table.main(["--check", "--file", str(page)]) == 1
    assert checkpoint_table.main(["--file", str(page)]) == 0
    assert page.read_text() == text
