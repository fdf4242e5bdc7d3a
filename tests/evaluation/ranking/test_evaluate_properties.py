"""Thousands of small random problems, against a slow loop and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import slow_reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from rga_timm.evaluation import ReidResult, evaluate
from rga_timm.evaluation.ranking.distance import Cosine

Problem = tuple[np.ndarray, ...]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Few people, cameras and places: ties, one match, no match and all left out are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    Q, G = draw(st.integers(1, 5)), draw(st.integers(1, 30))
    dim, people = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    cameras = draw(st.integers(1, 3))
    if draw(st.booleans()):  # places on a grid: exact ties in any precision
        query, gallery = rng.integers(-1, 2, (Q, dim)), rng.integers(-1, 2, (G, dim))
    else:
        query, gallery = rng.normal(size=(Q, dim)), rng.normal(size=(G, dim))
    return (
        query.astype(np.float32),
        rng.integers(0, people, Q),
        rng.integers(0, cameras, Q),
        gallery.astype(np.float32),
        rng.integers(0, people, G),
        rng.integers(0, cameras, G),
    )


def has_match(problem: Problem) -> np.ndarray:
    _, q_pids, q_camids, _, g_pids, g_camids = problem
    return ((q_pids[:, None] == g_pids) & (q_camids[:, None] != g_camids)).any(axis=1)


def assert_equals_slow_loop(result: ReidResult, dist: np.ndarray, problem: Problem) -> None:
    _, q_pids, q_camids, _, g_pids, g_camids = problem
    rankings = slow_reference.rank(dist, q_pids, q_camids, g_pids, g_camids)
    for name, value in slow_reference.summary(rankings, 50).items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-12, err_msg=name)
    for q, row in enumerate(rankings):
        if any(hit for _, hit in row):
            assert result.first_match_rank[q] == slow_reference.first_rank(row)
            for name, reference in (
                ("average_precision", slow_reference.step_ap),
                ("average_precision_trapezoid", slow_reference.market1501_script_ap),
                ("inverse_negative_penalty", slow_reference.inverse_negative_penalty),
            ):
                assert getattr(result, name)[q] == pytest.approx(reference(row))
        else:
            assert result.first_match_rank[q] == -1
            for name in ("average_precision", "inverse_negative_penalty"):
                assert np.isnan(getattr(result, name)[q])


@settings(max_examples=1500, deadline=None)
@given(problem=problems(), metric=st.sampled_from(["cosine", "euclidean"]))
def test_equals_the_slow_loop(problem: Problem, metric: str) -> None:
    if not has_match(problem).any():
        with pytest.raises(ValueError, match="no query has a match"):
            evaluate(*problem, metric=metric)
        return
    query, gallery = problem[0], problem[3]
    if metric == "cosine":
        # The reference divides by lengths: a zero vector is at cosine 0 from all.
        wide = query.astype(np.float64), gallery.astype(np.float64)
        lengths = np.outer(*(np.linalg.norm(x, axis=1) for x in wide))
        products = wide[0] @ wide[1].T
        dist = 1 - np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        # Ties are those of distances in float32; the reference's own last bits would break them.
        dist = dist.astype(np.float32)
        rounded = Cosine(torch.from_numpy(gallery))(torch.from_numpy(query)).numpy()
        np.testing.assert_allclose(rounded, dist, atol=1e-7)
        dist = rounded
    else:
        dist = slow_reference.distances(query, gallery, metric).astype(np.float32)
    assert_equals_slow_loop(evaluate(*problem, metric=metric), dist, problem)


@settings(max_examples=1000, deadline=None)
@given(problem=problems())
def test_step_ap_equals_scikit_learn(problem: Problem) -> None:
    query, q_pids, q_camids, gallery, g_pids, g_camids = problem
    if not has_match(problem).any():
        return
    result = evaluate(*problem, metric="euclidean")
    dist = slow_reference.distances(query, gallery, "euclidean").astype(np.float32)
    for q in np.flatnonzero(has_match(problem)):
        kept = ~((g_pids == q_pids[q]) & (g_camids == q_camids[q]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of newer scikit-learn, on a single class
            expected = average_precision_score(g_pids[kept] == q_pids[q], -dist[q][kept])
        assert result.average_precision[q] == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(
    problem=problems(), which=st.integers(0, 1), value=st.sampled_from([np.nan, np.inf, -np.inf])
)
def test_numbers_that_are_not_finite_are_refused(
    problem: Problem, which: int, value: float
) -> None:
    features = [problem[0].copy(), problem[3].copy()]
    features[which][-1, -1] = value
    with pytest.raises(ValueError, match=r"1 of .* features are not finite"):
        evaluate(features[0], *problem[1:3], features[1], *problem[4:])
