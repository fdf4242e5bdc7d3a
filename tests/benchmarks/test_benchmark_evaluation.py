from __future__ import annotations

import json
from pathlib import Path

import evaluation_baselines as benchmark_baselines
import numpy as np
import pytest
from benchmarks import evaluation as benchmark_evaluation
from embed_runs import MODEL, run

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


def test_stored_embeddings_can_be_measured(people: Path, tmp_path: Path) -> None:
    folder = run(
        *MODEL, "--dataset", "market1501", "--data-dir", people, "--output", tmp_path / "e"
    )
    rows = benchmark_evaluation.main(["ranking", "--embeddings", str(folder), "--rounds", "1"])
    assert rows[0]["shape"][:2] == [21, 44]


def test_a_script_of_others_is_measured_beside(tmp_path: Path) -> None:
    script = tmp_path / "theirs.py"
    script.write_text(
        "import numpy as np\n"
        "from rga_timm.evaluation import k_reciprocal_rerank\n"
        "def re_ranking(q_g_dist, q_q_dist, g_g_dist):\n"
        "    squared = np.block([[q_q_dist, q_g_dist], [q_g_dist.T, g_g_dist]]) ** 2\n"
        "    centre = np.eye(len(squared)) - 1 / len(squared)\n"
        "    values, vectors = np.linalg.eigh(-centre @ squared @ centre / 2)\n"
        "    points = vectors * np.sqrt(np.maximum(values, 0))  # whose distances these are\n"
        "    return k_reciprocal_rerank(points[: len(q_g_dist)], points[len(q_g_dist) :])\n"
    )
    arguments = f"rerank --sizes 20 150 20 --width 8 --rounds 1 --published {script}"
    rows = benchmark_evaluation.main(arguments.split())
    assert [row["form"] for row in rows] == ["theirs.py", "dense numpy", "rga_timm"]
    assert rows[0]["mAP"] == pytest.approx(rows[2]["mAP"], abs=1e-4)


def test_an_unknown_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_evaluation.main(["ranks"])
    assert "a TASK is ranking or rerank, not ranks" in capsys.readouterr().err


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_other_forms_are_right(noise: float) -> None:
    drawn = benchmark_evaluation.draw(50, 400, 25, 12, noise)
    data = [drawn[name] for name in benchmark_evaluation.NAMES]
    expected = evaluate(*data)
    assert benchmark_baselines.evaluate_argsort(*data) == pytest.approx(
        (expected.mAP, expected.cmc[0]), abs=1e-6
    )
    query, gallery = (benchmark_baselines.unit(data[i]) for i in (0, 3))
    np.testing.assert_allclose(
        benchmark_baselines.rerank_dense(query.copy(), gallery.copy(), 20, 6, 0.3),
        k_reciprocal_rerank(query, gallery),
        atol=1e-5,
    )
    reranked = evaluate(*data, rerank={})
    assert benchmark_baselines.evaluate_dense(*data) == pytest.approx(
        (reranked.mAP, reranked.cmc[0]), abs=1e-6
    )
