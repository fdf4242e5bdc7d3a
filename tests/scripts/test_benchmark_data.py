from __future__ import annotations

from pathlib import Path

import benchmark_data
import pytest

from rga_timm.data import create_dataset, dataset_info


@pytest.mark.parametrize("extra", [[], ["--cache-on-device", "--amp-dtype", "bfloat16"]])
def test_both_ways_and_the_model_are_measured_and_compared(
    people: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    rates = benchmark_data.main(
        [
            *("loader", "--dataset", "market1501", "--data-dir", str(people)),
            *("--model", "test_rga_resnet", "--num-identities", "2", "--num-instances", "2"),
            *("--workers", "0", "--steps", "2", "--rounds", "1", "--device", "cpu", *extra),
        ]
    )
    assert list(rates) == ["files", "image cache", "test_rga_resnet, training"]
    assert all(rate > 0 for rate in rates.values())
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| 64x32, batch 4, 0 workers, cpu |")
    for (name, rate), row in zip(rates.items(), rows[2:], strict=True):
        ratios = rate / rates["files"], rate / rates["test_rga_resnet, training"]
        assert row == f"| {name} | {rate:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |"


def test_batches_go_on_after_an_epoch_with_another_one() -> None:
    class Sampler:
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    sampler = Sampler()

    class Loader:
        def __iter__(self):
            return iter([(sampler.epoch, 0), (sampler.epoch, 1)])

    batches = benchmark_data.endless(Loader(), sampler)
    assert [next(batches) for _ in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_an_index_of_msmt17_s_form_is_made_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = benchmark_data.main(["index", "--share", "0.002", "--rounds", "1"])
    assert found["images"] > 200
    assert f"{found['images']} images indexed in" in capsys.readouterr().out
    images = benchmark_data.make_msmt17(tmp_path / "MSMT17_V1", 0.002)
    splits = create_dataset("msmt17:val=true", tmp_path)
    assert sum(len(reader) for reader in splits.readers.values()) == images == found["images"]
    assert len(splits.classes) == 2


def test_at_full_size_it_is_as_large_as_msmt17() -> None:
    published = dataset_info("msmt17").published
    assert benchmark_data.MSMT17["train"] == published["train"].images
    assert benchmark_data.MSMT17["query"] == published["query"].images
    assert benchmark_data.MSMT17["gallery"] == published["gallery"].images
    assert sum(benchmark_data.MSMT17.values()) == 126_441
