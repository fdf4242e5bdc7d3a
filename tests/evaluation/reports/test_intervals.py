from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from rga_timm.evaluation import bootstrap_interval, paired_difference
from rga_timm.evaluation.reports import intervals
from rga_timm.evaluation.reports.intervals import bootstrap_intervals


def slow_interval(
    values: np.ndarray, pids: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Draw people one after another and put their queries in a row."""
    rng = np.random.default_rng(seed)
    people = sorted(set(pids[~np.isnan(values)].tolist()))
    means = []
    for _ in range(resamples):
        queries: list[float] = []
        for i in rng.integers(0, len(people), len(people)):
            queries += [v for v, pid in zip(values, pids, strict=True) if pid == people[i]]
        means.append(np.nanmean(queries))
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return low, high


def people_and_scores(rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """One to six queries of each person, whose scores are alike; their expectation is 0.5."""
    pids = np.repeat(np.arange(people), rng.integers(1, 7, people))
    of_person = rng.normal(0.5, 0.2, people)
    return of_person[pids] + rng.normal(0, 0.05, len(pids)), pids


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_equals_the_slow_loop(level: float) -> None:
    rng = np.random.default_rng(1)
    values, pids = people_and_scores(rng, 12)
    values[3] = np.nan
    shuffled = rng.permutation(len(pids))
    values, pids = values[shuffled], pids[shuffled] * 7 - 20
    found = bootstrap_interval(values, pids, level=level, resamples=200, seed=5)
    expected = slow_interval(values, pids, level, resamples=200, seed=5)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.level, found.resamples, found.seed, found.identities) == (level, 200, 5, 12)


def test_equals_scipy_where_each_person_has_one_query() -> None:
    values = np.random.default_rng(2).beta(2, 1, 80)
    found = bootstrap_interval(values, np.arange(80), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    # A quantile of 20,000 draws is uncertain by about a fiftieth of the interval's width.
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=width / 30)
    assert found.high == pytest.approx(theirs.high, abs=width / 30)


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    rng, tests = np.random.default_rng(0), 400
    hits = {"people": 0, "queries": 0}
    for _ in range(tests):
        values, pids = people_and_scores(rng, 60)
        for name, clusters in (("people", pids), ("queries", np.arange(len(pids)))):
            low, high, *_ = bootstrap_interval(values, clusters, level=0.9, resamples=400)
            hits[name] += low <= 0.5 <= high
    # Of 400 trials at 90 % the standard error is 1.5 %.
    assert hits["people"] / tests == pytest.approx(0.9, abs=0.045)
    # Queries taken for independent give intervals that are too narrow: what people are drawn for.
    assert hits["queries"] / tests < 0.75


def test_memory_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, pids = people_and_scores(np.random.default_rng(3), 30)
    at_once = bootstrap_interval(values, pids, resamples=501)
    for cells in (1, 100, 1000):  # 1, 3 and 33 draws at a time
        monkeypatch.setattr(intervals, "_CELLS", cells)
        assert bootstrap_interval(values, pids, resamples=501) == at_once


def test_several_scores_are_of_the_same_draws() -> None:
    values, pids = people_and_scores(np.random.default_rng(4), 20)
    both = bootstrap_intervals(np.stack([values, 1 - values], axis=1), pids, resamples=300)
    alone = bootstrap_interval(values, pids, resamples=300)
    assert both[0] == alone
    assert (1 - both[1].high, 1 - both[1].low) == pytest.approx((alone.low, alone.high))


def test_queries_that_do_not_count_are_left_out() -> None:
    values, pids = people_and_scores(np.random.default_rng(5), 20)
    more, whose = np.append(values, [np.nan, np.nan]), np.append(pids, [3, 99])
    assert bootstrap_interval(more, whose) == bootstrap_interval(values, pids)


def test_another_seed_gives_other_draws() -> None:
    values, pids = people_and_scores(np.random.default_rng(6), 20)
    found = [bootstrap_interval(values, pids, seed=seed, resamples=100) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_paired_difference_is_narrower_than_the_scores() -> None:
    a, pids = people_and_scores(np.random.default_rng(7), 50)
    b = a + 0.01 + np.random.default_rng(8).normal(0, 0.01, len(a))
    value, interval = paired_difference(a, b, pids)
    assert value == pytest.approx(b.mean() - a.mean())
    assert 0 < interval.low < value < interval.high < 0.02
    single = bootstrap_interval(a, pids)
    assert interval.high - interval.low < (single.high - single.low) / 10


def test_the_same_people_are_drawn_for_both() -> None:
    a, pids = people_and_scores(np.random.default_rng(9), 20)
    value, interval = paired_difference(a, a + 0.25, pids)
    assert (value, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))


def test_the_difference_leaves_out_queries_that_do_not_count() -> None:
    a, pids = np.array([0.1, 0.2, np.nan, 0.4]), np.array([1, 2, 3, 4])
    assert paired_difference(a, a * 2, pids).value == pytest.approx(0.7 / 3)
    with pytest.raises(ValueError, match="count in one of a and b and not in the other"):
        paired_difference(a, a[::-1], pids)
    with pytest.raises(ValueError, match="of the same queries"):
        paired_difference(a, a[:3], pids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.1]], [1]), r"values must be \(Q,\), got shape \(1, 1\)"),
        (([0.1, 0.2], [1]), r"got shapes \(2, 1\) and \(1,\)"),
        (([0.1, 0.2], [1, 1]), "two people or more, got 1"),
        (([np.nan, 0.2], [1, 2]), "two people or more, got 1"),
        (([], []), "two people or more, got 0"),
    ],
)
def test_what_has_no_interval_is_refused(arguments: tuple[list, list], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(*map(np.array, arguments))


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1 and resamples positive"):
        bootstrap_interval(np.array([0.1, 0.2]), np.array([1, 2]), **options)


def test_a_query_counts_for_all_scores_or_for_none() -> None:
    with pytest.raises(ValueError, match="count for one score and not for another"):
        bootstrap_intervals(np.array([[0.1, np.nan], [0.1, 0.2]]), np.array([1, 2]))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="values must be finite numbers, or NaN"):
        bootstrap_interval([np.inf, 1.0, 2.0], [0, 1, 2])
