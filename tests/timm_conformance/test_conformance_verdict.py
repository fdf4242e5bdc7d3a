"""The runner's judgement on made-up runs: what it must not let pass."""

import json
import tarfile
from pathlib import Path

import pytest
from conformance_verdict import SIZE_SKIP, Model, Result, Run, problems, summary
from run import ConformanceError, unpack_tests

FORWARD, BACKWARD = "test_model_forward", "test_model_backward"
CONFIGS = "test_model_default_cfgs"


def model(name: str, family: str = "rga_timm.models.rga_a", selected: bool = True) -> Model:
    tagged = (f"{name}.tag_1", f"{name}.tag_2")
    weights = () if name.startswith("test_") else (f"{name}.tag_1",)
    return Model(name, family, tagged, weights, selected)


def make_run(*results: Result, models: tuple[Model, ...] = ()) -> Run:
    models = models or (model("rga_a"), model("test_rga_a"))
    return Run(
        models={m.name: m for m in models},
        results=list(results),
        collected=[(r.function, r.model) for r in results],
    )


def passed(function: str, *names: str) -> list[Result]:
    return [Result(function, name, "passed") for name in names]


def size_skipped(function: str, name: str) -> Result:
    return Result(function, name, "skipped", f"Skipped: {SIZE_SKIP}.")


def test_run_of_every_model_has_no_problem() -> None:
    assert problems(make_run(*passed(FORWARD, "rga_a", "test_rga_a"))) == []


def test_run_of_nothing_is_a_problem() -> None:
    assert problems(make_run()) == ["nothing ran"]


def test_failure_is_named() -> None:
    run = make_run(*passed(FORWARD, "rga_a"), Result(FORWARD, "test_rga_a", "failed", "NaN"))
    assert problems(run) == ["test_model_forward on test_rga_a failed"]


def test_model_that_a_function_left_out_is_named() -> None:
    run = make_run(*passed(FORWARD, "rga_a", "test_rga_a"), *passed(BACKWARD, "test_rga_a"))
    assert problems(run) == ["test_model_backward did not run on rga_a"]


def test_function_that_lists_tags_must_run_every_tag() -> None:
    names = ["rga_a.tag_1", "rga_a.tag_2", "test_rga_a.tag_1"]
    assert problems(make_run(*passed(CONFIGS, *names))) == [
        "test_model_default_cfgs did not run on test_rga_a.tag_2"
    ]


def test_function_about_weights_must_run_the_tags_that_have_some() -> None:
    function = "test_model_load_pretrained"
    assert problems(make_run(*passed(function, "rga_a.tag_1"))) == []
    models = (model("rga_a"), model("rga_b"))
    assert problems(make_run(*passed(function, "rga_a.tag_1"), models=models)) == [
        "test_model_load_pretrained did not run on rga_b.tag_1"
    ]


def test_model_that_was_not_selected_is_not_missed() -> None:
    models = (model("rga_a", selected=False), model("test_rga_a"))
    assert problems(make_run(*passed(FORWARD, "test_rga_a"), models=models)) == []


def test_function_for_some_models_only_is_not_missed_on_others() -> None:
    assert problems(make_run(*passed("test_model_inference", "test_rga_a.tag_1"))) == []


def test_size_skip_is_covered_by_a_small_model_of_the_family_that_passed() -> None:
    skip = size_skipped(BACKWARD, "rga_a")
    assert problems(make_run(skip, *passed(BACKWARD, "test_rga_a"))) == []


def test_size_skip_without_a_small_model_that_passed_is_a_problem() -> None:
    skip = size_skipped(BACKWARD, "rga_a")
    message = (
        "test_model_backward on rga_a was skipped for its size, and no test-sized model of "
        "rga_timm.models.rga_a passed it"
    )
    assert problems(make_run(skip, models=(model("rga_a"),))) == [message]
    others = (model("rga_a"), model("test_rga_b", family="rga_timm.models.rga_b"))
    assert problems(make_run(skip, *passed(BACKWARD, "test_rga_b"), models=others)) == [message]
    both = make_run(skip, size_skipped(BACKWARD, "test_rga_a"))
    assert message in problems(both)


def test_size_skip_is_not_judged_where_the_small_model_was_not_selected() -> None:
    models = (model("rga_a"), model("test_rga_a", selected=False))
    assert problems(make_run(size_skipped(BACKWARD, "rga_a"), models=models)) == []


def test_skip_for_another_reason_is_a_problem() -> None:
    skip = Result(FORWARD, "rga_a", "skipped", "Skipped: no FX")
    assert problems(make_run(skip, *passed(FORWARD, "test_rga_a"))) == [
        "test_model_forward on rga_a was skipped: Skipped: no FX"
    ]


def test_test_that_never_finished_is_a_problem() -> None:
    run = make_run(*passed(FORWARD, "rga_a"))
    run.collected.append((FORWARD, "test_rga_a"))
    assert problems(run) == ["test_model_forward on test_rga_a never finished"]


def test_function_that_ran_on_none_of_our_models_is_a_problem_unless_explained() -> None:
    run = make_run(*passed(FORWARD, "rga_a", "test_rga_a"))
    run.empty = {"test_model_inference", "test_model_new_contract", "test_model_load_pretrained"}
    assert problems(run) == [
        "test_model_load_pretrained ran on none of our models",
        "test_model_new_contract ran on none of our models",
    ]


def test_records_of_two_processes_are_one_run() -> None:
    def collected(name: str) -> str:
        registry = {
            n: {"family": "f", "tagged": [f"{n}.x"], "pretrained": [], "selected": True}
            for n in ("rga_a", "rga_b")
        }
        tests = [{"function": FORWARD, "model": name}]
        common = {"empty": [], "foreign": ["test_swin"], "timm": "1", "torch": "2"}
        return json.dumps({"kind": "collected", "tests": tests, "registry": registry, **common})

    def result(name: str) -> str:
        test = {"function": FORWARD, "model": name, "outcome": "passed"}
        return json.dumps({"kind": "result", **test, "reason": "", "seconds": 1.5, "cpu": 2})

    run = Run()
    run.read([collected("rga_a"), result("rga_a")])
    run.read([collected("rga_b")])
    assert problems(run) == ["test_model_forward on rga_b never finished"]
    run.read([result("rga_b")])
    assert problems(run) == []
    assert summary(run).splitlines()[-1].split() == ["all", "2", "0", "0", "3.0", "4.0"]


def write_sdist(folder: Path, version: str) -> None:
    for name, text in {
        "timm/version.py": f"__version__ = '{version}'\n",
        "timm/__init__.py": "raise ImportError",
        "tests/__init__.py": "",
        "tests/test_models.py": "# tests",
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("packed", [False, True])
def test_tests_are_unpacked_without_the_package_beside_them(packed: bool, tmp_path: Path) -> None:
    sdist, target = tmp_path / "timm-1.2.3", tmp_path / "target"
    target.mkdir()
    write_sdist(sdist, "1.2.3")
    if packed:
        with tarfile.open(tmp_path / "timm-1.2.3.tar.gz", "w:gz") as tar:
            tar.add(sdist, arcname="timm-1.2.3")
        sdist = tmp_path / "timm-1.2.3.tar.gz"
    unpack_tests(sdist, "1.2.3", target)
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert files == {"tests/__init__.py", "tests/test_models.py", "pyproject.toml"}


def test_sdist_that_is_not_of_the_installed_timm_is_refused(tmp_path: Path) -> None:
    write_sdist(tmp_path / "sdist", "1.2.30")
    with pytest.raises(ConformanceError, match="another version"):
        unpack_tests(tmp_path / "sdist", "1.2.3", tmp_path)
    with pytest.raises(ConformanceError, match=r"holds no tests/test_models\.py"):
        unpack_tests(tmp_path / "sdist" / "timm", "1.2.3", tmp_path)
    with pytest.raises(ConformanceError, match="neither a folder nor"):
        unpack_tests(tmp_path / "missing.tar.gz", "1.2.3", tmp_path)
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ConformanceError, match="neither a folder nor"):
        unpack_tests(tmp_path / "broken.tar.gz", "1.2.3", tmp_path)
