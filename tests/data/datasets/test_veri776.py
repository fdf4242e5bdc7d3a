from pathlib import Path

import pytest
from noise_image import write_noise

from rga_timm.data import create_dataset
from rga_timm.evaluation import evaluate

FILES = {
    "image_train": [
        "0769_c020_00084715_0.jpg",
        "0001_c002_00016450_0.jpg",
        "0001_c001_00016460_1.jpg",
    ],
    "image_query": ["0002_c002_00030600_0.jpg", "0776_c007_00000600_0.jpg"],
    # The queries are among the images that are looked through.
    "image_test": [
        "0002_c002_00030600_0.jpg",
        "0776_c007_00000600_0.jpg",
        "0002_c003_00030620_0.jpg",
        "0776_c005_00000510_0.jpg",
    ],
}


@pytest.fixture
def veri(tmp_path) -> Path:
    root = tmp_path / "VeRi"
    for folder, names in FILES.items():
        for seed, name in enumerate(names):
            write_noise(root / folder / name, seed)
        file = f"name_{folder.removeprefix('image_')}.txt"
        (root / file).write_text("\r\n".join(names))
    for stray in ("image_train/Thumbs.db", "image_test/._0002_c002_00030600_0.jpg"):
        (root / stray).write_bytes(b"not an image")
    return root


def test_every_field_of_the_names_is_read(veri):
    splits = create_dataset("veri776", veri)
    assert [image[:3] for image in splits.train.images] == [
        ("image_train/0001_c001_00016460_1.jpg", 1, 1),
        ("image_train/0001_c002_00016450_0.jpg", 1, 2),
        ("image_train/0769_c020_00084715_0.jpg", 769, 20),
    ]
    assert splits.classes == [1, 769]
    assert splits.query.pids.tolist() == [2, 776]
    assert splits.query.camids.tolist() == [2, 7]
    assert [image[:3] for image in splits.gallery.images] == [
        ("image_test/0002_c002_00030600_0.jpg", 2, 2),
        ("image_test/0002_c003_00030620_0.jpg", 2, 3),
        ("image_test/0776_c005_00000510_0.jpg", 776, 5),
        ("image_test/0776_c007_00000600_0.jpg", 776, 7),
    ]


def test_a_query_does_not_find_itself(veri):
    splits = create_dataset("veri776", veri)
    # Each image is the most similar to itself, and to the other vehicle's next.
    query = [[1.0, 0.0], [0.0, 1.0]]
    gallery = [[1.0, 0.0], [0.1, 0.9], [0.9, 0.1], [0.0, 1.0]]
    result = evaluate(
        *(query, splits.query.pids, splits.query.camids),
        *(gallery, splits.gallery.pids, splits.gallery.camids),
    )
    # Left for each query: the other vehicle's two images, then its own of another camera.
    assert result.num_valid_queries == 2
    assert result.cmc[0] == 0
    assert result.mAP < 1


@pytest.mark.parametrize("name", ["VeRi", "veri", "reid/VeRi", "VeRi-776/VeRi"])
def test_the_root_may_be_a_folder_around_it(veri, tmp_path, name):
    expected = create_dataset("veri776", veri).fingerprint
    data = tmp_path / "data"
    (data / name).parent.mkdir(parents=True)
    root = veri.rename(data / name)
    splits = create_dataset("veri776", data)
    assert splits.root == root
    assert splits.fingerprint == expected


def test_the_lists_are_not_needed(veri):
    expected = create_dataset("veri776", veri).fingerprint
    for path in veri.glob("name_*.txt"):
        path.unlink()
    assert create_dataset("veri776", veri).fingerprint == expected


@pytest.mark.parametrize("folder", FILES)
def test_a_missing_folder_is_told(veri, folder):
    (veri / folder).rename(veri / "other")
    with pytest.raises(FileNotFoundError, match=rf"the archive's own layout it lacks {folder}\."):
        create_dataset("veri776", veri)


@pytest.mark.parametrize("folder", FILES)
def test_a_folder_without_images_is_an_error(veri, folder):
    for path in (veri / folder).iterdir():
        path.unlink()
    (veri / folder / "Thumbs.db").touch()
    with pytest.raises(FileNotFoundError, match=rf"{folder} holds no images.*found Thumbs\.db"):
        create_dataset("veri776", veri)


@pytest.mark.parametrize(
    "name",
    [
        "0002_c1s1_000451_03.jpg",  # Market-1501
        "000001.jpg",  # CityFlow-ReID, which has the same folders
        "-1_c002_00030600_0.jpg",
        "0002_c002_00030600.jpg",
        "0002_c002_00030600_0.txt",
    ],
)
def test_a_name_of_another_data_set_is_an_error_that_shows_both(veri, name):
    (veri / "image_query" / name).touch()
    with pytest.raises(ValueError, match=rf"{name} is not named.*0001_c001_00016450_0\.jpg"):
        create_dataset("veri776", veri)


def test_counts_other_than_the_published_ones_are_warned_of(veri, caplog):
    create_dataset("veri776", veri)
    assert [message.split()[0] for message in caplog.messages] == ["train", "query", "gallery"]
    assert "published with 37778 images, 576 ids, 20 cameras" in caplog.messages[0]
    assert "published with 1678 images, 200 ids." in caplog.messages[1]
    assert "published with 11579 images, 200 ids." in caplog.messages[2]
