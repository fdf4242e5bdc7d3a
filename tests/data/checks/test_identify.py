import shutil
from pathlib import Path

import pytest
from noise_image import write_noise

from rga_timm.data import Counts, Layout, ReidImage, ReidSplits, register_dataset, registry
from rga_timm.data.checks import Identification, identify
from rga_timm.data.layout import file_names, find_layout

CAMERAS = Layout("the archive's own", ("cam_a", "cam_b"))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    """Registers data sets of two folders, beside Market-1501; each wants files of its own."""
    known = {"market1501": registry._datasets["market1501"]}
    monkeypatch.setattr(registry, "_datasets", known)

    def register(name: str, ending: str = ".png", layout: Layout = CAMERAS, **info) -> None:
        @register_dataset(name, layouts=[layout], **info)
        def read(root: Path | None) -> ReidSplits:
            root, _ = find_layout(name, root, [layout])
            images = []
            for camid, folder in enumerate(layout.paths[:2]):
                for pid, file in enumerate(file_names(root / folder)):
                    if not file.endswith(ending):
                        raise ValueError(f"{file} is not named as in {name}")
                    images.append(ReidImage(f"{folder}/{file}", pid, camid))
            return ReidSplits.from_images(name, root, train=images)

    return register


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """Two people in the layout ``CAMERAS``."""
    root = tmp_path / "some people"
    for folder in ("cam_a", "cam_b"):
        for name in ("1.png", "2.png"):
            write_noise(root / folder / name)
    return root


def kinds(found: Identification) -> list[str]:
    return [finding.kind for finding in found.findings]


def texts(found: Identification) -> str:
    assert found.splits is None
    return "\n".join(line for finding in found.findings for line in finding.lines(limit=99))


def test_a_data_set_is_found_with_its_layout_and_read(market_root: Path) -> None:
    for folder in (market_root, market_root.parent, market_root / "query"):
        found = identify(folder)
        assert found.info.name == "market1501"
        assert found.layout.name == "the archive's own"
        assert found.splits.root == market_root
        assert len(found.splits.train) == 3
        assert found.splits.published["train"] == Counts(12936, 751, 6)
        assert (found.why, found.findings) == ("", ())


def test_of_several_that_fit_those_that_cannot_be_read_drop_out(register, cameras: Path) -> None:
    register("aaa", ending=".jpg")
    register("bbb")
    found = identify(cameras)
    assert found.info.name == "bbb"
    assert not found.why


def test_of_several_in_the_same_layout_the_counts_decide(register, cameras: Path) -> None:
    register("somepeople", published={"train": Counts(9, 9)})
    register("xxx", published={"train": Counts(4, 2, 2)})
    found = identify(cameras)
    assert found.info.name == "xxx"
    assert found.why.startswith("somepeople would fit too; the published counts are its counts")


def test_of_several_without_their_counts_the_name_of_the_folder_decides(
    register, cameras: Path
) -> None:
    register("somepeople", published={"train": Counts(9, 9)})
    register("aaa", published={"train": Counts(4, 9)})
    found = identify(cameras)
    assert found.info.name == "somepeople"
    assert "the folder is called so" in found.why


def test_a_guess_is_called_a_guess(register, cameras: Path) -> None:
    register("aaa")
    register("bbb")
    found = identify(cameras)
    assert found.info.name == "aaa"
    assert "bbb would fit too; nothing tells them apart" in found.why


def test_an_outer_folder_wins_over_what_looks_like_a_data_set_in_it(
    register, cameras: Path
) -> None:
    register("inner")
    register("outer", layout=Layout("own", ("single/cam_a", "single/cam_b")))
    cameras.rename(cameras.parent / "single")
    assert identify(cameras.parent).info.name == "outer"


def test_a_folder_of_several_data_sets_is_answered_with_them(
    register, cameras: Path, market_root: Path
) -> None:
    register("viper")
    found = identify(market_root.parent)
    assert kinds(found) == ["several"]
    assert {item["dataset"] for item in found.findings[0].items} == {"viper", "market1501"}
    assert str(cameras) in texts(found)


def test_two_copies_of_a_data_set_are_answered_with_both(market_root: Path) -> None:
    above = market_root.parent / "above"
    shutil.copytree(market_root, above / "mine")
    shutil.copytree(market_root, above / "yours")
    found = identify(above)
    assert kinds(found) == ["ambiguous"]
    assert "(mine, yours)" in texts(found)


def test_a_layout_whose_files_are_other_ones_is_told_with_the_reason(market_root: Path) -> None:
    write_noise(market_root / "query" / "who.jpg")
    found = identify(market_root)
    assert kinds(found) == ["cannot_read"]
    assert "has Market-1501's layout" in texts(found)
    assert "who.jpg is not named as in Market-1501" in texts(found)


@pytest.mark.parametrize("name", ["DukeMTMC-reID", "dukemtmc"])
def test_a_withdrawn_data_set_is_explained(market_root: Path, name: str) -> None:
    # It is in Market-1501's layout, and nothing else would stop it but the names of its files.
    duke = market_root.rename(market_root.parent / name)
    for folder in (duke, duke.parent):
        found = identify(folder)
        assert kinds(found) == ["withdrawn"]
        assert "withdrawn by its authors in 2019" in texts(found)


def test_a_withdrawn_data_set_beside_another_is_no_obstacle(market_root: Path) -> None:
    shutil.copytree(market_root, market_root.parent / "DukeMTMC-reID")
    found = identify(market_root.parent)
    assert found.splits is not None
    assert found.splits.root == market_root


def test_an_unpublished_layout_of_a_withdrawn_data_set_is_explained_too(tmp_path: Path) -> None:
    write_noise(tmp_path / "DukeMTMC-reID" / "images" / "a.jpg")
    assert kinds(identify(tmp_path)) == ["withdrawn"]


def test_the_layouts_that_lack_least_come_first(register, cameras: Path) -> None:
    register("one", layout=Layout("own", ("cam_a", "cam_b", "cam_x", "cam_y")))
    register("two", layout=Layout("own", ("cam_a", "cam_b", "list.txt")))
    found = identify(cameras)
    assert kinds(found) == ["not_found", "incomplete", "incomplete"]
    assert "(two) in own layout (cam_a, cam_b, list.txt), but lacks list.txt" in texts(found)
    assert "lacks cam_x, cam_y" in found.findings[2].text


def test_a_folder_called_train_alone_is_no_hint(register, tmp_path: Path) -> None:
    register("msmt", layout=Layout("V1's", ("train", "test", "a.txt", "b.txt")))
    write_noise(tmp_path / "train" / "1.jpg")
    assert kinds(identify(tmp_path)) == ["not_found"]


def test_what_an_incomplete_layout_lacks_is_said(market_root: Path) -> None:
    shutil.rmtree(market_root / "query")
    for folder in (market_root, market_root.parent):
        found = identify(folder)
        assert kinds(found) == ["not_found", "incomplete"]
        assert [finding.level for finding in found.findings] == ["error", "note"]
        assert f"{market_root} could be Market-1501 (market1501)" in texts(found)
        assert "but lacks query" in texts(found)


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    for name in ("Market-1501-v15.09.15.zip", "my data/b.tar.gz"):
        (tmp_path / name).touch()
    found = identify(tmp_path)
    assert kinds(found) == ["not_found", "packed"]
    assert f"cd {tmp_path} && unzip Market-1501-v15.09.15.zip" in texts(found)
    assert f"cd '{tmp_path}/my data' && tar xf b.tar.gz" in texts(found)


def test_where_nothing_is_found_it_is_said_what_can_be_read(tmp_path: Path) -> None:
    assert "it holds nothing: it is empty" in texts(identify(tmp_path))
    write_noise(tmp_path / "train" / "anna" / "1.jpg")
    found = texts(identify(tmp_path))
    assert "it holds train/" in found
    assert "market1501" in found
    assert "--dataset folder (a folder for each person) or --dataset table" in found


def test_a_wrong_path_is_told_apart_from_an_empty_folder(tmp_path: Path) -> None:
    assert "nowhere does not exist" in texts(identify(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").touch()
    assert "notes.txt is a file" in texts(identify(tmp_path / "notes.txt"))
