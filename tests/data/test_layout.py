import os
from pathlib import Path

import pytest

from rga_timm.data.layout import (
    Layout,
    ListedFiles,
    file_names,
    find_layout,
    listing,
    read_lines,
    subfolders,
)

NEW = Layout("the archive's own", ("images_*/train", "list.txt"))
OLD = Layout("torchreid's", ("train", "test", "split.json"))


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).suffix:
            (root / path).touch()
        else:
            (root / path).mkdir()
    return root


def new(root: Path) -> Path:
    return make(root, "images_v2/train", "list.txt")


@pytest.mark.parametrize("around", ["", "a", "a/b"])
def test_a_data_set_is_found_in_a_folder_and_up_to_two_below(tmp_path, around):
    root = new(tmp_path / around)
    assert find_layout("data", tmp_path, [OLD, NEW]) == (root, NEW)


def test_three_folders_below_is_too_deep(tmp_path):
    new(tmp_path / "a/b/c")
    with pytest.raises(FileNotFoundError, match=r"data was not found in .*, which holds a/\."):
        find_layout("data", tmp_path, [NEW])


def test_the_outer_folder_wins_over_inner_ones_and_the_first_layout_over_later_ones(tmp_path):
    new(tmp_path)
    new(tmp_path / "copy")
    make(tmp_path, "train", "test", "split.json")
    assert find_layout("data", tmp_path, [NEW, OLD]) == (tmp_path, NEW)
    assert find_layout("data", tmp_path, [OLD, NEW]) == (tmp_path, OLD)


def test_of_several_the_one_called_like_the_data_set_is_taken(tmp_path):
    mine = new(tmp_path / "Data-Set 15.09")
    new(tmp_path / "other")
    assert find_layout("dataset15", tmp_path, [NEW]) == (mine, NEW)
    with pytest.raises(
        FileNotFoundError, match=r"several folders that could be viper \(Data-Set 15.09, other\)"
    ):
        find_layout("viper", tmp_path, [NEW])


def test_a_folder_of_the_data_set_itself_leads_to_the_one_above(tmp_path):
    new(tmp_path)
    assert find_layout("data", tmp_path / "images_v2", [NEW]) == (tmp_path, NEW)
    make(tmp_path, "train", "test", "split.json")
    assert find_layout("data", tmp_path / "test", [OLD]) == (tmp_path, OLD)


def test_what_the_nearest_layout_lacks_is_said(tmp_path):
    make(tmp_path / "in", "train", "split.json")
    with pytest.raises(FileNotFoundError) as error:
        find_layout("data", tmp_path, [NEW, OLD])
    assert f"As torchreid's layout {tmp_path / 'in'} lacks test." in str(error.value)
    assert "Expected one of these layouts" in str(error.value)
    assert "the archive's own (images_*/train, list.txt); torchreid's (train," in str(error.value)


def test_no_root_a_root_that_is_not_there_and_a_file_are_told_apart(tmp_path):
    file = tmp_path / "data.zip"
    file.touch()
    for root, message in (
        (None, "data needs the folder of the data set"),
        (tmp_path / "nowhere", r"nowhere does not exist"),
        (file, r"data\.zip is a file, not a folder"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{message}. Expected one"):
            find_layout("data", root, [NEW])
    file.unlink()
    with pytest.raises(FileNotFoundError, match="holds nothing: it is empty"):
        find_layout("data", tmp_path, [NEW])


def test_what_operating_systems_leave_is_no_data(tmp_path):
    make(tmp_path, "b.jpg", "a.jpg", "._a.jpg", "Thumbs.db", ".DS_Store", "__MACOSX", "sub")
    assert file_names(tmp_path) == ["a.jpg", "b.jpg"]
    assert subfolders(tmp_path) == [tmp_path / "sub"]
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        file_names(tmp_path / "nowhere")


@pytest.mark.faults
def test_pipes_and_sockets_are_no_files_and_links_to_nothing_are(tmp_path):
    make(tmp_path, "a.jpg", "sub")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, target in {"b.jpg": "pipe.jpg", "c.jpg": "nothing", "d.jpg": "d.jpg"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "e.jpg").symlink_to(tmp_path / "a.jpg")
    assert file_names(tmp_path) == ["a.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert subfolders(tmp_path) == [tmp_path / "sub"]
    files = ListedFiles(tmp_path)
    assert "a.jpg" in files
    assert "pipe.jpg" not in files
    assert "sub" not in files


@pytest.mark.faults
def test_a_data_set_to_which_links_lead_is_one(tmp_path):
    root = new(tmp_path / "data")
    for link in ("again", "data/back"):
        (tmp_path / link).symlink_to(root)
    found, _ = find_layout("other", tmp_path, [NEW])
    assert found.samefile(root)


def test_lines_come_with_their_places_without_empty_ones_and_marks(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa 1\r\n\n  b 2  \n".encode())
    assert read_lines(path) == [(f"{path}:1", "a 1"), (f"{path}:3", "b 2")]


def test_a_list_that_is_missing_empty_or_no_text_is_an_error(tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(FileNotFoundError, match="there is no list"):
        read_lines(path)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="is empty"):
        read_lines(path)
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"list\.txt is not a text file"):
        read_lines(path)


def test_a_long_listing_is_cut_short(tmp_path):
    make(tmp_path, *(f"{i}.jpg" for i in range(10)), "sub")
    assert listing(tmp_path, limit=2) == "0.jpg, 1.jpg and 9 more"


def test_files_are_there_or_not_and_their_folders_are_listed_once(tmp_path):
    make(tmp_path, "a/1.jpg", "a/b/2.jpg", "3.jpg")
    files = ListedFiles(tmp_path)
    assert all(path in files for path in ("a/1.jpg", "a/b/2.jpg", "3.jpg"))
    absent = ("a/2.jpg", "b/2.jpg", "1.jpg", "3.jpg/1.jpg")
    assert not any(path in files for path in absent)
    (tmp_path / "a" / "2.jpg").touch()
    assert "a/2.jpg" not in files
    assert "a/2.jpg" in ListedFiles(tmp_path)


def test_above_a_link_is_where_the_link_lies_and_the_current_folder_has_a_name(
    tmp_path, monkeypatch
):
    make(tmp_path / "set", "train", "test")
    (tmp_path / "train").symlink_to(tmp_path / "set" / "train")
    with pytest.raises(FileNotFoundError, match="was not found"):
        find_layout("name", tmp_path / "train", [Layout("its own", ("train", "test"))])
    monkeypatch.chdir(tmp_path / "set" / "train")
    found, _ = find_layout("name", Path(), [Layout("its own", ("train", "test"))])
    assert found == tmp_path / "set"


def test_folders_that_may_not_be_read_are_passed_over(tmp_path, monkeypatch):
    make(tmp_path / "lost+found", "train")
    make(tmp_path / "set", "train")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "lost+found")
    found, _ = find_layout("name", tmp_path, [Layout("its own", ("train",))])
    assert found == tmp_path / "set"
