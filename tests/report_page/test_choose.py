import numpy as np

from rga_timm.report_page.choose import choose_differing, choose_queries


def test_worst_best_and_drawn_queries_are_a_third_each():
    precisions = np.array([0.5, np.nan, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6, 0.4])
    chosen = choose_queries(precisions, 6)
    groups = {g: [i for i, of in chosen.items() if of == g] for g in ("worst", "best", "random")}
    assert groups["worst"] == [2, 6]
    assert groups["best"] == [3, 7]
    assert len(groups["random"]) == 2
    assert 1 not in chosen
    assert choose_queries(precisions, 6) == chosen
    assert len(choose_queries(precisions, 100)) == 9
    assert choose_queries(precisions, 1) == {2: "worst"}
    assert choose_queries(np.array([np.nan]), 5) == {}


def test_queries_that_one_model_finds_come_first_the_clearest_ones_first():
    first = [1, 1, 1, 5, 1, 9, 2, None]
    other = [1, 4, 8, 1, None, 1, 2, 1]
    chosen = choose_differing(first, other, count=6)
    assert {i: g for i, g in chosen.items() if g != "random"} == {
        2: "first", 1: "first", 5: "second", 3: "second",
    }  # fmt: skip
    assert list(chosen)[:4] == [2, 1, 5, 3]
    assert sorted(i for i, g in chosen.items() if g == "random") == [0, 6]
    assert list(choose_differing(first, other, count=2)) == [2, 5]
    assert choose_differing([1], [1], count=3) == {0: "random"}
