import pytest
from PIL import Image

from rga_timm.training import curves

HEADER = "epoch,train_cross_entropy,train_triplet,train_accuracy,eval_mAP,eval_rank1,lr\n"


def write_summary(run, *rows):
    run.mkdir(exist_ok=True)
    (run / "summary.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return run


def test_columns_are_read_without_the_epochs_that_lack_them(tmp_path):
    run = write_summary(tmp_path, "0,5.0,0.5,0.1,,,0.1", "1,4.0,0.25,0.2,0.5,0.75,0.2")
    read = curves.read_summary(run / "summary.csv")
    assert read["train_cross_entropy"] == ([1, 2], [5.0, 4.0])
    assert read["eval_mAP"] == ([2], [0.5])
    assert read["eval_rank1"] == ([2], [0.75])


def test_picture_shows_every_curve(tmp_path, monkeypatch):
    drawn = {}

    def remember(axes, title):
        drawn[title] = [
            (line.get_label(), list(line.get_xdata()), list(line.get_ydata()))
            for line in axes.lines
        ]

    monkeypatch.setattr(curves, "finish_axes", remember)
    run = write_summary(tmp_path, "0,5.0,0.5,0.1,,,0.1", "1,4.0,0.25,0.2,0.5,0.75,0.2")
    curves.draw_curves(run)
    assert drawn == {
        "loss": [("cross-entropy", [1, 2], [5.0, 4.0]), ("triplet", [1, 2], [0.5, 0.25])],
        "accuracy (%)": [("training identities", [1, 2], [10.0, 20.0])],
        "learning rate": [("learning rate", [1, 2], [0.1, 0.2])],
        "test (%)": [("mAP", [2], [50.0]), ("rank-1", [2], [75.0])],
    }


def test_picture_is_the_same_each_time(tmp_path):
    run = write_summary(tmp_path, "0,5.0,0.5,0.1,0.4,0.6,0.1")
    picture = curves.draw_curves(run)
    assert picture == run / "curves.png"
    first = picture.read_bytes()
    assert Image.open(picture).size == (1200, 360)
    assert curves.draw_curves(run).read_bytes() == first


def test_other_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"summary\.csv"):
        curves.draw_curves(tmp_path)
    (tmp_path / "summary.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not the summary of a run"):
        curves.draw_curves(tmp_path)
