from pathlib import Path

import numpy as np
import pytest
from stored_folder import clustered, write_folder

from rga_timm.search import SearchIndex


def paths_of(found: list[list[dict]]) -> list[list[str]]:
    return [[row["path"] for row in rows] for rows in found]


def recall(found: list[list[dict]], exact: list[list[str]]) -> float:
    """Part of the exact first ones that was found."""
    pairs = zip(paths_of(found), exact, strict=True)
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in pairs]))


def test_a_narrow_filter_gives_k_results_from_partitions_far_away(
    index: SearchIndex, queries: np.ndarray
) -> None:
    index.create_index("ivf_rq", num_partitions=30)
    found = index.query(queries, 10, where="camid = 3", nprobes=1)
    assert [len(rows) for rows in found] == [10] * len(queries)
    assert {row["camid"] for rows in found for row in rows} == {3}


def test_more_partitions_find_more(tmp_path: Path) -> None:
    features, _ = clustered(200, 10, 32, noise=2)
    queries = clustered(200, 1, 32, noise=2)[0][:50]
    folder = write_folder(tmp_path / "embeddings", features)
    index = SearchIndex.build(tmp_path / "db", folder)
    index.create_index(num_partitions=20)
    exact = paths_of(index.query(queries, 10, exact=True))
    recalls = [
        recall(index.query(queries, 10, nprobes=nprobes, refine_factor=100), exact)
        for nprobes in (1, 5, 20)
    ]
    assert recalls[0] < 0.7
    assert recalls[0] + 0.15 < recalls[1] < 0.99
    assert recalls[2] > 0.99


def test_approximate_index_finds_most_of_what_the_exact_search_finds(tmp_path: Path) -> None:
    features, _ = clustered(200, 10, 32, noise=1)
    queries = clustered(200, 1, 32, noise=1)[0][:50]
    folder = write_folder(tmp_path / "embeddings", features)
    index = SearchIndex.build(tmp_path / "db", folder)
    index.create_index("ivf_rq", num_partitions=6)
    assert index.info()["kind"] == "ivf_rq"
    assert index.info()["indexed_rows"] == 2000
    exact = paths_of(index.query(queries, 10, exact=True))
    assert recall(index.query(queries, 10, nprobes=5, refine_factor=30), exact) > 0.9
    coarse = paths_of(index.query(queries, 10, nprobes=1, refine_factor=1))
    assert coarse != exact  # it was the approximate index that answered
    index.create_index("exact")
    assert index.info()["kind"] == "exact"
    assert paths_of(index.query(queries, 10)) == exact


def test_appended_images_are_found_without_a_new_index(
    tmp_path: Path, index: SearchIndex, people: tuple[np.ndarray, np.ndarray], times: Path
) -> None:
    index.create_index("ivf_rq", num_partitions=4)
    features, _ = clustered(20, 2, seed=5)
    paths = [f"new/{i}.jpg" for i in range(40)]
    new = write_folder(tmp_path / "new", features, paths=paths, shard_size=30)
    later = tmp_path / "later.csv"
    later.write_text(
        "path,time,place\n" + "".join(f"{p},2025-01-01,hall\n" for p in [*paths, "other"])
    )
    assert index.append(new, columns=later) == 40
    assert (index.info()["rows"], index.info()["indexed_rows"]) == (340, 300)
    assert [rows[0] for rows in paths_of(index.query(features, 1, refine_factor=340))] == paths
    assert len(index.query(features[:1], 100, where="time >= timestamp '2025-01-01'")[0]) == 40

    index.table.optimize()
    assert (index.info()["rows"], index.info()["indexed_rows"]) == (340, 340)
    assert [rows[0] for rows in paths_of(index.query(features, 1, refine_factor=340))] == paths
    old = people[0][:3]
    assert paths_of(index.query(old, 1, refine_factor=340)) == [
        [f"images/{i:05d}.jpg"] for i in range(3)
    ]
    assert SearchIndex(tmp_path / "db").metadata == index.metadata


def test_a_width_that_bits_do_not_fit_is_refused(tmp_path: Path) -> None:
    features, _ = clustered(60, 5, 15)
    folder = write_folder(tmp_path / "embeddings", features)
    index = SearchIndex.build(tmp_path / "db", folder)
    with pytest.raises(ValueError, match="divisible by 8"):
        index.create_index()
