from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import search as benchmark_search


def options(**changed: int) -> argparse.Namespace:
    given = {"vectors": 40, "width": 512, "per_identity": 20, "queries": 5, "seed": 0}
    return argparse.Namespace(**{**given, **changed})


def test_measures_recall_and_rate_of_every_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--vectors 9000 --width 32 --queries 20 --folder {tmp_path} --checked 20"
    arguments += f" --kinds ivf_rq ivf_pq --nprobes 1 2 --output {tmp_path / 'report.json'}"
    benchmark_search.main(arguments.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["numpy_agrees"] > 0.99
    assert report["table_bytes"] > 9_000 * 32 * 4
    assert report["exact_per_second"] > 0
    rows = report["approximate"]
    found = [(row["kind"], row["nprobes"], row["refine_factor"]) for row in rows]
    assert found == [(kind, n, 5) for kind in ("ivf_rq", "ivf_pq") for n in (1, 2)]
    for row in rows:
        assert row["index_s"] > 0
        assert row["index_bytes"] > 9_000 * 32 / 8
        assert row["per_second"] > 0
        assert 0.3 < row["recall_10"] <= 1
    one, both, *_ = rows  # of two partitions
    assert one["recall_10"] < both["recall_10"]
    printed = capsys.readouterr().out
    assert "9,000 embeddings of width 32, 20 queries" in printed
    assert printed.count("\n| `ivf_rq` | ") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]  # the rest is deleted


def test_embeddings_are_as_similar_as_the_docstring_says() -> None:
    identities = np.repeat(np.arange(50), 20)
    features = benchmark_search.draw(options(), identities, part=0)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    similarities = features @ features.T
    same = (identities[:, None] == identities) & ~np.eye(1000, dtype=bool)
    other = identities[:, None] != identities
    assert similarities[same].mean() == pytest.approx(0.73, abs=0.01)
    assert similarities[other].mean() == pytest.approx(0, abs=0.01)
    assert similarities[other].std() == pytest.approx(0.17, abs=0.01)


def test_queries_are_new_images_of_identities_in_the_index() -> None:
    args = options(queries=10)
    stored = np.concatenate(
        [
            benchmark_search.draw(args, np.repeat([0, 1], 20)[part : part + 8], part)
            for part in (0, 32)
        ]
    )
    similarities = benchmark_search.draw_queries(args) @ stored.T
    assert similarities.max() < 0.95
    assert similarities.max(axis=1).min() > 0.6


def test_recall_is_the_part_of_the_exact_first_ones() -> None:
    exact, found = np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 9]])
    assert benchmark_search.recall(found, exact, 1) == 0.5
    assert benchmark_search.recall(found, exact, 2) == 0.75


def test_fewer_vectors_than_an_identity_has_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        benchmark_search.main(["--vectors", "10"])
    assert "--vectors must be at least --per-identity" in capsys.readouterr().err
