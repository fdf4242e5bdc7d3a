import os
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from noise_image import write_noise
from PIL import Image
from torch import distributed as dist

from rga_timm.data import ImageCache, ReidImage, ReidReader, node_memory

SIZE = (24, 12)


def write_reader(root: Path, count: int = 5, **options) -> ReidReader:
    """``count`` images of noise; of the second, only a part is wanted."""
    boxes = {1: (2, 3, 14, 30)}
    images = [ReidImage(f"{i}.png", i, 0, box=boxes.get(i)) for i in range(count)]
    for seed, image in enumerate(images):
        write_noise(root / image.path, seed=seed)
    return ReidReader(root, images, **options)


@pytest.fixture
def reader(tmp_path: Path) -> ReidReader:
    return write_reader(tmp_path)


def resized(reader: ReidReader, resample: Image.Resampling) -> np.ndarray:
    """(n, 3, H, W), by Pillow alone."""
    images = []
    for image in reader.images:
        pixels = Image.open(reader.root / image.path)
        pixels = pixels.crop(image.box) if image.box else pixels
        images.append(np.asarray(pixels.resize(SIZE[::-1], resample)).transpose(2, 0, 1))
    return np.stack(images)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_holds_the_images_resized_in_the_readers_order(reader, num_workers, interpolation):
    before = torch.get_rng_state()
    cache = ImageCache.fill(reader, SIZE, interpolation, num_workers=num_workers, progress=False)
    assert len(cache) == 5
    assert cache.img_size == SIZE
    assert cache.images.dtype == torch.uint8
    expected = resized(reader, Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(cache.images.numpy(), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_more_images_than_a_process_hands_over_at_a_time_keep_their_order(tmp_path):
    reader = write_reader(tmp_path, 70)
    cache = ImageCache.fill(reader, SIZE, num_workers=2)
    np.testing.assert_array_equal(cache.images, resized(reader, Image.Resampling.BILINEAR))


def test_market1501_takes_one_and_a_quarter_gigabytes():
    assert ImageCache.required_bytes(12936, (256, 128)) == 1_271_660_544


class _Never(ReidReader):
    def open(self, index: int):
        raise AssertionError("an image was read")


@pytest.mark.parametrize(
    ("allowed_gb", "figures"),
    [
        (1.0, "needs 1.27 GB, --cache allows 1.00 GB"),
        (1.27, "needs 1.271661 GB, --cache allows 1.270000 GB"),
    ],
)
def test_what_is_more_than_allowed_is_refused_before_anything_is_read(allowed_gb, figures):
    market = _Never("market", [ReidImage("0.jpg", 0, 0)] * 12936)
    with pytest.raises(ValueError, match=f"12936 images of 256x128 {figures}"):
        ImageCache.fill(market, (256, 128), allowed_gb=allowed_gb)


def test_what_is_just_allowed_is_read(reader):
    assert len(ImageCache.fill(reader, SIZE, allowed_gb=5 * 3 * 24 * 12 / 1e9, num_workers=0)) == 5


def test_what_is_more_than_there_is_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    market = _Never("market", [ReidImage("0.jpg", 0, 0)] * 12936)
    monkeypatch.setattr(node_memory, "available_memory", lambda: 900_000_000)
    message = r"1\.27 GB of memory are needed, 0\.90 GB are free"
    with pytest.raises(MemoryError, match=message):
        ImageCache.fill(market, (256, 128), allowed_gb=2)
    monkeypatch.setattr(node_memory, "available_memory", lambda: 2_000_000_000)
    usage = SimpleNamespace(free=64_000_000)  # what a container has by default
    monkeypatch.setattr(node_memory.shutil, "disk_usage", lambda folder: usage)
    message = rf"1\.27 GB are needed in {tmp_path}, where 0\.06 GB are free.*--shm-size"
    with pytest.raises(MemoryError, match=message):
        node_memory.check_free(1_271_660_544, tmp_path)
    node_memory.check_free(63_000_000, tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 2_048_000),
        # A container's limit; page cache does not count as used.
        ({"memory.max": "1000000", "memory.current": "700000"}, 2_048_000),
        (
            {
                "memory.max": "1000000\n",
                "memory.current": "700000\n",
                "memory.stat": "anon 5\ninactive_file 100000\nactive_file 7\n",
            },
            400_000,
        ),
        (
            {"memory.max": "max\n", "memory.current": "9\n", "memory.stat": "inactive_file 0\n"},
            2_048_000,
        ),
        (
            {"memory.max": "10\n", "memory.current": "20\n", "memory.stat": "inactive_file 0\n"},
            0,
        ),
    ],
)
def test_free_memory_is_the_machines_or_the_containers(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    machine = SimpleNamespace(available=2_048_000)
    monkeypatch.setattr(node_memory.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(node_memory, "_CGROUP", tmp_path)
    assert node_memory.available_memory() == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(reader, num_workers):
    (reader.root / "3.png").write_bytes(b"not an image")
    with pytest.raises(RuntimeError, match=r"cannot read the image .*3\.png"):
        ImageCache.fill(reader, SIZE, num_workers=num_workers)


def test_a_closed_cache_lets_go_of_its_memory_and_says_that_it_is_closed(reader):
    with ImageCache.fill(reader, SIZE, num_workers=0) as cache:
        assert repr(cache) == "ImageCache(5 images of 24x12, 0.00 GB on cpu)"
    assert repr(cache) == "ImageCache(closed)"
    with pytest.raises(ValueError, match="closed"):
        _ = cache.images


def test_a_gpu_without_room_is_refused_with_the_figures(monkeypatch):
    cache = ImageCache(torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(12936, 3, 256, 128))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500_000_000, 8 * 10**9))
    with pytest.raises(MemoryError, match=r"needs 1\.27 GB, cuda:1 has 0\.50 GB free"):
        cache.to("cuda:1")


# Two ranks. Each returns what it saw, for the test to look at.


class _Watch:
    """Opens files, and notes what lies in the shared folder while it does."""

    def __init__(self, root: Path, shared: Path) -> None:
        self.root, self.shared = root, shared

    def __call__(self, path: str):
        with (self.shared.parent / "seen.txt").open("a") as seen:
            seen.write(f"{os.getpid()} {len(list(self.shared.iterdir()))}\n")
        return (self.root / path).open("rb")


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    shared = folder / "shared"
    node_memory.shared_folder = lambda: shared
    reader = ReidReader(
        folder / "images",
        [ReidImage(f"{i}.png", i, 0) for i in range(5)],
        opener=_Watch(folder / "images", shared),
    )
    seen = {}

    # One cache for both: what one writes, the other reads.
    cache = ImageCache.fill(reader, SIZE, num_workers=0, progress=False)
    seen["images"] = cache.images.clone()
    dist.barrier()
    cache.images[rank] = 100 + rank
    dist.barrier()
    seen["written"] = cache.images[:2, 0, 0, 0].tolist()
    seen["left behind"] = [path.name for path in shared.iterdir()]

    # Errors of the one that reads are errors of both, at each stage.
    (folder / "images" / "4.png").write_bytes(b"not an image")
    seen["unreadable"] = error_of(lambda: ImageCache.fill(reader, SIZE, num_workers=0))
    available = node_memory.available_memory
    node_memory.available_memory = lambda: 10
    seen["memory"] = error_of(lambda: ImageCache.fill(reader, SIZE, num_workers=0))
    node_memory.available_memory = available
    seen["left behind after errors"] = [path.name for path in shared.iterdir()]

    # As if they were on two machines, each has its own.
    socket.gethostname = lambda: f"host{rank}"
    cache = ImageCache.fill(
        ReidReader(folder / "images", reader.images[:4]), SIZE, num_workers=0, progress=False
    )
    cache.images[rank] = 100 + rank
    dist.barrier()
    seen["own"] = cache.images[:2, 0, 0, 0].tolist()
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()


def error_of(call) -> str:
    try:
        call()
    except (RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "shared").mkdir()
    write_reader(folder / "images")
    mp.spawn(run_rank, args=(folder,), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.script
def test_ranks_on_a_machine_share_one_cache_that_one_of_them_reads(two_ranks):
    folder, ranks = two_ranks
    plain = ReidReader(folder / "images", [ReidImage(f"{i}.png", i, 0) for i in range(4)])
    for seen in ranks:
        np.testing.assert_array_equal(seen["images"][:4], resized(plain, Image.Resampling.BILINEAR))
        assert seen["written"] == [100, 101]
    processes = {line.split()[0] for line in (folder / "seen.txt").read_text().splitlines()}
    assert len(processes) == 1


def test_nothing_is_left_behind_not_even_by_a_rank_that_dies_while_it_reads(two_ranks):
    folder, ranks = two_ranks
    files = [line.split()[1] for line in (folder / "seen.txt").read_text().splitlines()]
    assert len(files) >= 5
    assert set(files) == {"0"}  # while images were read there was no name that could stay
    for seen in ranks:
        assert seen["left behind"] == seen["left behind after errors"] == []


def test_an_error_on_one_rank_is_an_error_on_all(two_ranks):
    first, second = two_ranks[1]
    assert first["unreadable"].startswith("UnreadableImageError: cannot read the image")
    assert "4.png" in first["unreadable"]
    assert second["unreadable"] == f"RuntimeError: rank 0 failed with {first['unreadable']}"
    assert first["memory"].startswith("MemoryError: 0.00 GB of memory are needed")
    assert second["memory"] == f"RuntimeError: rank 0 failed with {first['memory']}"


def test_ranks_on_two_machines_have_a_cache_each(two_ranks):
    first, second = two_ranks[1]
    assert (first["own"][0], second["own"][1]) == (100, 101)
    assert first["own"][1] == second["images"][1, 0, 0, 0]
    assert second["own"][0] == first["images"][0, 0, 0, 0]
