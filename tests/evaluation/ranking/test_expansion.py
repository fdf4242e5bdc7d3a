from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rga_timm.evaluation import QueryExpansion, evaluate, expand_queries, pool_queries


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clusters(seed: int = 0, noise: float = 0.6) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(15, 8))
    q_pids, g_pids = rng.integers(0, 15, 40), rng.integers(0, 15, 300)
    return (
        centres[q_pids] + noise * rng.normal(size=(40, 8)),
        q_pids,
        np.zeros(40, dtype=int),
        centres[g_pids] + noise * rng.normal(size=(300, 8)),
        g_pids,
        np.ones(300, dtype=int),
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 5, 300])
def test_equals_a_slow_loop(k: int, alpha: float) -> None:
    query, _, _, gallery, _, _ = clusters()
    expected = []
    for q in unit(query):
        cosines = unit(gallery) @ q
        total = q.copy()
        for i in np.argsort(-cosines, kind="stable")[:k]:
            total += (max(cosines[i], 0) ** alpha if alpha else 1) * unit(gallery[i])
        expected.append(unit(total))
    actual = expand_queries(query, gallery, k=k, alpha=alpha)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


def test_helps_on_clusters() -> None:
    problem = clusters(noise=0.9)
    plain = evaluate(*problem).mAP
    for alpha in (0.0, 3.0):
        assert evaluate(*problem, expand={"k": 5, "alpha": alpha}).mAP > plain + 0.01


def test_evaluate_ranks_the_expanded_queries() -> None:
    problem = clusters()
    expanded = expand_queries(problem[0], problem[3], k=4, alpha=2.0)
    expected = evaluate(expanded, *problem[1:])
    for expand in (QueryExpansion(4, 2.0), {"k": 4, "alpha": 2.0}):
        result = evaluate(*problem, expand=expand)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(result, name), value, err_msg=name)


def test_a_zero_query_becomes_the_mean_of_what_comes_first() -> None:
    gallery = np.eye(3)[[0, 1, 1]]
    expanded = expand_queries(np.zeros((1, 3)), gallery, k=1, alpha=0)
    np.testing.assert_allclose(expanded.numpy(), [[1, 0, 0]])
    assert (expand_queries(np.zeros((1, 3)), gallery, k=1, alpha=1) == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k = 1 neighbours or more, got 0"),
        ({"k": 301}, "k = 301 neighbours are asked of a gallery of 300"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"alpha": float("nan")}, "alpha must not be negative"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    query, _, _, gallery, _, _ = clusters()
    with pytest.raises(ValueError, match=message):
        expand_queries(query, gallery, **options)
    with pytest.raises(ValueError, match=message):
        evaluate(*clusters(), expand=options)


def test_other_metrics_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="expanded by the cosine; the metric is euclidean"):
        evaluate(*clusters(), metric="euclidean", expand={})
    with pytest.raises(TypeError, match="expand must be None, a QueryExpansion or a dict, got int"):
        evaluate(*clusters(), expand=5)  # type: ignore[arg-type]


def test_pooled_queries_are_means_in_order_of_appearance() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    pids, camids = np.array([7, 3, 7, 7]), np.array([1, 1, 1, 2])
    means, pooled_pids, pooled_camids, first = pool_queries(features, pids, camids)
    np.testing.assert_array_equal(means.numpy(), [[2, 0], [0, 2], [0, 1]])
    assert pooled_pids.tolist() == [7, 3, 7]
    assert pooled_camids.tolist() == [1, 1, 2]
    assert first.tolist() == [0, 1, 3]


def test_pooling_single_images_changes_nothing() -> None:
    query, pids, _, *_ = clusters()
    means, *ids, first = pool_queries(query.astype(np.float32), pids, np.arange(40))
    np.testing.assert_array_equal(means.numpy(), query.astype(np.float32))
    np.testing.assert_array_equal(ids, [pids, np.arange(40)])
    np.testing.assert_array_equal(first, np.arange(40))
