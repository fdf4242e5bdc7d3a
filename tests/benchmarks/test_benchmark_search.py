from pathlib import Path

import numpy as np
import pytest
from benchmarks import search as benchmark_search


def test_measures_recall_and_rate_of_every_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arguments = "--vectors 9000 --width 32 --kinds ivf_rq ivf_pq --nprobes 1 2"
    rows = benchmark_search.main(arguments.split())
    settings = [(kind, nprobes) for kind, _, nprobes, *_ in rows]
    assert settings[1:] == [(kind, n) for kind in ("ivf_rq", "ivf_pq") for n in (1, 2)]
    recalls = [recall_10 for *_, recall_10, _ in rows]
    assert recalls[0] == 1
    assert 0.3 < recalls[1] < recalls[2] <= 1  # one or both of two partitions
    assert all(made_s > 0 < rate for _, made_s, *_, rate in rows)
    assert capsys.readouterr().out.count("\n| ivf_rq | ") == 2
    assert not [*tmp_path.iterdir()]  # all is deleted


def test_embeddings_are_as_similar_as_the_docstring_says() -> None:
    people = np.repeat(np.arange(50), 20)
    features = benchmark_search.draw(people, 512, seed=0)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    similarities = features @ features.T
    same = (people[:, None] == people) & ~np.eye(1000, dtype=bool)
    other = people[:, None] != people
    assert similarities[same].mean() == pytest.approx(0.73, abs=0.01)
    assert similarities[other].mean() == pytest.approx(0, abs=0.01)
    assert similarities[other].std() == pytest.approx(0.17, abs=0.01)


def test_images_of_a_person_in_another_shard_are_new_ones() -> None:
    first, second = (benchmark_search.draw(np.array([3, 4]), 512, seed) for seed in (0, 1))
    similarities = first @ second.T
    assert 0.6 < similarities.diagonal().min() <= similarities.max() < 0.95


def test_recall_is_the_part_of_the_exact_first_ones() -> None:
    exact, found = [[1, 2], [3, 4]], [[2, 1], [3, 9]]
    assert benchmark_search.recall(found, exact, 1) == 0.5
    assert benchmark_search.recall(found, exact, 2) == 0.75
