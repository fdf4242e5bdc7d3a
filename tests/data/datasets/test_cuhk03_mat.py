import pickle
import shutil
import sys
from pathlib import Path

import cuhk03_files
import h5py
import numpy as np
import pytest
import torch
from cuhk03_files import EMPTY, LABELS, TEST_SETS, new_protocol, pictures
from PIL import Image
from torch.utils.data import DataLoader

from rga_timm.data import ReidDataset, create_dataset
from rga_timm.data.datasets import cuhk03_mat
from rga_timm.data.datasets.cuhk03_mat import MatOpener

CLASSIC = "cuhk03:protocol=classic"


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The archive as torchreid wants it: its folder, the lists of the new protocol beside that."""
    root = tmp_path_factory.mktemp("archive") / "cuhk03"
    cuhk03_files.write_mat(root / "cuhk03_release" / "cuhk-03.mat")
    cuhk03_files.write_new_protocol(root)
    return root


@pytest.fixture
def copy(archive, tmp_path) -> Path:
    """One to be changed."""
    shutil.copytree(archive, tmp_path / "cuhk03")
    return tmp_path / "cuhk03"


def assert_as_drawn(splits, boxes):
    """Each image is, to the pixel, the one that was put into the file."""
    drawn = {f"images_{boxes}/{shot.name}": shot for shot in pictures(boxes)}
    for reader in splits.readers.values():
        assert len(reader) > 0
        for image, (pixels, _) in zip(reader.images, ReidDataset(reader), strict=True):
            shot = drawn[image.path]
            assert (image.pid, image.camid) == (shot.pid, shot.view)
            assert np.array_equal(np.asarray(pixels), shot.pixels)


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_the_new_protocol_reads_the_pixels_of_its_list(archive, boxes):
    splits = create_dataset("cuhk03", archive, boxes=boxes)
    assert splits.root == archive / "cuhk03_release"
    assert_as_drawn(splits, boxes)
    for split, reader in splits.readers.items():
        names = [pictures(boxes)[index - 1].name for index in new_protocol(boxes)[split]]
        assert reader.filenames(basename=True) == names


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
@pytest.mark.parametrize("split", [0, 1, 19])
def test_the_classic_protocol_needs_nothing_but_the_file(archive, boxes, split):
    splits = create_dataset(f"{CLASSIC},split={split}", archive / "cuhk03_release", boxes=boxes)
    assert_as_drawn(splits, boxes)
    tested = {LABELS[pair] + person for pair, person in TEST_SETS[split]}
    assert set(splits.query.pids.tolist()) == tested
    assert splits.gallery.images == splits.query.images
    assert len(splits.train) + len(splits.query) == 13 * 10 - len(EMPTY[boxes])
    assert splits.single_gallery_shot


def test_the_lists_of_the_new_protocol_may_lie_beside_the_file(copy):
    expected = create_dataset("cuhk03", copy).fingerprint
    for path in copy.glob("*.mat"):
        path.rename(copy / "cuhk03_release" / path.name)
    assert create_dataset("cuhk03", copy).fingerprint == expected


def test_without_the_new_protocols_list_one_is_told_where_to_get_it(copy):
    for path in copy.glob("*.mat"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="zhunzhong07/person-re-ranking"):
        create_dataset("cuhk03", copy)
    assert len(create_dataset(CLASSIC, copy).query) > 0


def test_people_are_counted_as_the_new_protocol_labels_them(archive):
    new, classic = (create_dataset(spec, archive) for spec in ("cuhk03", CLASSIC))
    of = {image.path: image.pid for r in new.readers.values() for image in r.images}
    assert {image.path: image.pid for r in classic.readers.values() for image in r.images} == of


def test_an_image_comes_as_an_uncompressed_file(archive):
    splits = create_dataset("cuhk03", archive)
    with splits.query.open(0) as file, Image.open(file) as image:
        width, height = image.size
        assert image.mode == "RGB"
    with splits.query.open(0) as file:
        assert 3 * width * height < len(file.read()) < 3 * width * height + 64


def test_forked_loader_processes_read_the_same_though_the_file_is_open_here_already(archive):
    reader = create_dataset("cuhk03", archive).train
    here = [np.asarray(pixels) for pixels, _ in ReidDataset(reader)]
    handle = cuhk03_mat._handles[reader.opener.path]
    loader = DataLoader(
        ReidDataset(reader, _to_tensor),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
    )
    there = [pixels.numpy() for pixels, _ in loader]
    assert len(there) == len(here) > 60
    assert all(np.array_equal(*pair) for pair in zip(there, here, strict=True))
    # The processes that closed their copy of it left this one alone.
    assert cuhk03_mat._handles[reader.opener.path] is handle
    assert np.array_equal(np.asarray(ReidDataset(reader)[0][0]), here[0])


def _to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def test_a_process_opens_the_file_once_and_a_fork_opens_it_anew(archive, monkeypatch):
    splits = create_dataset("cuhk03", archive)
    monkeypatch.setattr(cuhk03_mat, "_handles", {})
    opened = []
    original = cuhk03_mat._open
    monkeypatch.setattr(cuhk03_mat, "_open", lambda path: opened.append(path) or original(path))
    for reader in splits.readers.values():
        for index in range(len(reader)):
            reader.open(index).close()
    assert len(opened) == 1
    (parents,) = cuhk03_mat._handles.values()
    monkeypatch.setattr(cuhk03_mat.os, "getpid", lambda: -1)  # as in a child
    splits.train.open(0).close()
    assert len(opened) == 2
    assert not parents.file  # its descriptor would be shared with the parent's


def test_the_opener_goes_to_other_processes_as_a_path_alone(archive):
    opener = create_dataset("cuhk03", archive).train.opener
    opener("images_labeled/1_002_1_01.png").close()
    assert len(pickle.dumps(opener)) < 300
    again = pickle.loads(pickle.dumps(opener))
    name = "images_labeled/2_001_2_08.png"
    assert again(name).read() == opener(name).read()


def test_a_cell_without_an_image_is_named_where_it_is_asked_for(archive):
    opener = MatOpener(str(archive / "cuhk03_release" / "cuhk-03.mat"))
    with pytest.raises(ValueError, match=r"detected 1_001_1_05\.png cannot be read from .*empty"):
        opener("images_detected/1_001_1_05.png")
    with pytest.raises(ValueError, match=r"detected 1_006_1_01\.png cannot be read"):
        opener("images_detected/1_006_1_01.png")  # there are five people in this pair


def change(root, edit):
    with h5py.File(root / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
        edit(file)


def cells(file, boxes="detected", pair=1):
    return file[file[boxes][()].ravel()[pair - 1]]


def test_cells_of_size_0_and_references_to_nothing_are_empty_too(copy):
    def edit(file):
        # 1_001 and 1_003 are trained on.
        nothing = file["#refs#"].create_dataset("z", data=np.zeros((0, 0), dtype=np.uint8))
        cells(file)[1, 0] = nothing.ref
        cells(file)[2, 0] = h5py.Reference()

    before = create_dataset(CLASSIC, copy).train.filenames()
    change(copy, edit)
    gone = {"images_detected/1_001_1_02.png", "images_detected/1_001_1_03.png"}
    assert set(before) - set(create_dataset(CLASSIC, copy).train.filenames()) == gone
    with pytest.raises(FileNotFoundError, match=r"names 1_001_1_02\.png.*and 1 others"):
        create_dataset("cuhk03", copy)  # whose list names them


def test_cell_arrays_may_lie_in_rows_or_columns(copy):
    def edit(file):
        for name in ("detected", "testsets"):
            turned = file[name][()].T
            del file[name]
            file.create_dataset(name, data=turned, dtype=h5py.ref_dtype)

    before = create_dataset(CLASSIC, copy).fingerprint
    change(copy, edit)
    assert create_dataset(CLASSIC, copy).fingerprint == before


@pytest.mark.parametrize("shape", [(4, 8, 3), (8, 4)])
def test_a_cell_with_something_else_than_an_image_is_an_error(copy, shape):
    def edit(file):
        cells(file)[7, 2] = file["#refs#"].create_dataset("z", data=np.zeros(shape, np.uint8)).ref

    change(copy, edit)
    with pytest.raises(ValueError, match=r"detected, 1_003_2_08\.png: uint8 of the shape"):
        create_dataset("cuhk03", copy)


def test_tables_of_other_shapes_are_an_error(copy):
    def turn(file):
        table = cells(file, pair=2)[()]
        name = file[file["detected"][()].ravel()[1]].name
        del file[name]
        turned = file.create_dataset(name, data=table.T, dtype=h5py.ref_dtype)
        references = file["detected"][()]
        references[0, 1] = turned.ref
        file["detected"][...] = references

    change(copy, turn)
    with pytest.raises(ValueError, match=r"detected, pair 2, has the shape \(3, 10\); expected"):
        create_dataset("cuhk03", copy)


def test_a_test_set_of_another_shape_or_with_strangers_is_an_error(copy):
    def edit(file):
        references = file["testsets"][()].ravel()
        file[references[0]][...] = np.array([[1, 1, 2], [1, 2, 4]])  # 3 people in pair 2
        data = file["#refs#"].create_dataset("z", data=np.ones((3, 2)))
        file["testsets"][0, 1] = data.ref

    change(copy, edit)
    with pytest.raises(ValueError, match=r"test set 2 has the shape \(3, 2\)"):
        create_dataset(CLASSIC, copy)
    change(copy, lambda file: file["testsets"].__setitem__((0, 1), file["testsets"][0, 2]))
    with pytest.raises(
        ValueError, match=r"test set 1 names 1 people without images, such as person 4 of"
    ):
        create_dataset(CLASSIC, copy)
    assert len(create_dataset(f"{CLASSIC},split=1", copy).query) > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>", "is not an HDF5 file, as cuhk-03.mat is: it is a web page"),
        (b"PK\3\4 a zip file", "is not an HDF5 file.*it is another file"),
        (b"", "is not an HDF5 file"),
    ],
)
def test_a_file_that_is_no_hdf5_is_an_error_that_says_what_it_may_be(copy, content, message):
    (copy / "cuhk03_release" / "cuhk-03.mat").write_bytes(content)
    for spec in ("cuhk03", CLASSIC):
        with pytest.raises(ValueError, match=message):
            create_dataset(spec, copy)


def test_a_file_that_was_cut_off_is_an_error(copy):
    path = copy / "cuhk03_release" / "cuhk-03.mat"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cuhk-03\.mat is cut off or broken: download it again"):
        create_dataset("cuhk03", copy)


def test_another_matlab_file_is_an_error_that_says_what_is_in_it(copy):
    with h5py.File(copy / "cuhk03_release" / "cuhk-03.mat", "w") as file:
        file["features"] = np.zeros(3)
        file["detected"] = np.zeros(3)
    with pytest.raises(ValueError, match="has no labeled, testsets, but detected, features"):
        create_dataset("cuhk03", copy)


def test_without_h5py_one_is_told_what_to_install(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'rga-timm\[data\]'"):
        create_dataset("cuhk03", archive)


def test_pixels_that_cannot_be_read_are_an_error_of_the_image(copy):
    reader = create_dataset("cuhk03", copy).train
    found = []

    def edit(file):
        data = file[cells(file)[0, 0]]  # 1_001_1_01.png
        found.append(data.id.read_direct_chunk((0, 0, 0))[1])

    change(copy, edit)
    path = copy / "cuhk03_release" / "cuhk-03.mat"
    content = path.read_bytes()
    assert content.count(found[0]) == 1
    path.write_bytes(content.replace(found[0], b"\xff" * len(found[0])))
    assert reader.images[0].path == "images_detected/1_001_1_01.png"
    with pytest.raises(RuntimeError, match=r"cannot read the image .*cannot be read from .*\.mat"):
        ReidDataset(reader)[0]
    ReidDataset(reader)[1]
