import pytest

from rga_timm.cli import finetune, report

NAME = "test_rga_resnet.pedestrians"


def arguments(people, page, *more):
    data = ["--dataset", "market1501", "--data-dir", str(people), "--workers", "0"]
    return [NAME, *data, "--output", str(page), *more]


def test_script_writes_the_page_and_says_so(people, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert report.main(arguments(people, page, "--queries", "6", "--top", "4")) == page
    output = capsys.readouterr().out
    assert f"{page}: 6 queries with their nearest images, 0." in output
    assert "| test_rga_resnet.pedestrians | market1501 |" in output
    assert f"<title>{NAME} on market1501</title>" in page.read_text()


def test_page_to_be_passed_on_has_no_faces_or_no_pictures(people, tmp_path):
    page = tmp_path / "page.html"
    report.main(arguments(people, page, "--blur-faces"))
    assert "The upper fifth of every picture is blurred." in page.read_text()
    report.main(arguments(people, page, "--no-images"))
    assert "data:image" not in page.read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--queries", "0"], "--queries: must be at least 1, not 0"),
        (["--budget-mb", "0"], "--budget-mb: must be above 0"),
        (["--blur-faces", "--no-images"], "not allowed with argument"),
        (["--dataset", "market1501", "pedestrians"], "a page is of one data set"),
    ],
)
def test_wrong_options_end_at_once(people, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        report.main(arguments(people, tmp_path / "page.html", *more))
    assert message in capsys.readouterr().err


def test_folder_that_is_not_there_is_told_before_any_work(
    people, tmp_path, capsys, no_model_is_made
):
    with pytest.raises(SystemExit):
        report.main(arguments(people, tmp_path / "nowhere" / "page.html"))
    assert "there is no folder" in capsys.readouterr().err


def test_run_ends_with_its_page_and_curves(options, capsys):
    run = finetune.main([*options, "--page", "--epochs", "1"])
    assert f"open {run / 'report.html'} in a browser" in capsys.readouterr().out
    text = (run / "report.html").read_text()
    assert "<title>test_rga_resnet on market1501</title>" in text
    assert (run / "curves.png").is_file()


def test_two_models_are_set_against_each_other_without_their_paths(people, options, tmp_path):
    run = finetune.main([*options, "--epochs", "1"])
    page = tmp_path / "page.html"
    report.main(arguments(people, page, "--against", str(run)))
    text = page.read_text()
    assert f"<title>A: {NAME}, B: run on market1501</title>" in text
    assert str(tmp_path) not in text
