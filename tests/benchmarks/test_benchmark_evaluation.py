from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import evaluation as benchmark_evaluation

from rga_timm.evaluation import evaluate, k_reciprocal_rerank


def test_measures_time_and_memory_of_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--sizes 40 300 30 --width 16 --rounds 1 --output {tmp_path / 'report.json'}"
    rows = benchmark_evaluation.main(arguments.split())
    assert [(row["task"], row["form"]) for row in rows] == [
        ("ranking", "argsort, compiled loop"),
        ("ranking", "rga_timm"),
        ("rerank", "dense numpy"),
        ("rerank", "rga_timm"),
    ]
    for row in rows:
        assert row["seconds"] > 0
        assert row["shape"] == [40, 300, 16]
    assert rows[1]["seconds_ratio"] == rows[3]["seconds_ratio"] == 1
    out = capsys.readouterr().out
    assert out.count("| rga_timm |") == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == json.loads(json.dumps(rows))
    assert {"device", "threads", "numba", "torch"} <= report["machine"].keys()


def test_an_unknown_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_evaluation.main(["ranks"])
    assert "a TASK is ranking or rerank, not ranks" in capsys.readouterr().err


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_other_forms_are_right(noise: float) -> None:
    drawn = benchmark_evaluation.draw(50, 400, 25, 12, noise)
    data = [drawn[name] for name in benchmark_evaluation.NAMES]
    expected = evaluate(*data)
    assert benchmark_evaluation.evaluate_argsort(*data) == pytest.approx(
        (expected.mAP, expected.cmc[0]), abs=1e-6
    )
    query, gallery = (benchmark_evaluation.unit(data[i]) for i in (0, 3))
    np.testing.assert_allclose(
        benchmark_evaluation.rerank_dense(query.copy(), gallery.copy(), 20, 6, 0.3),
        k_reciprocal_rerank(query, gallery),
        atol=1e-5,
    )
    reranked = evaluate(*data, rerank={})
    assert benchmark_evaluation.evaluate_dense(*data) == pytest.approx(
        (reranked.mAP, reranked.cmc[0]), abs=1e-6
    )
