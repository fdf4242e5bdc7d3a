"""pytest plugin under which timm's own model tests run on the models of rga_timm.

For a process of its own (``run.py`` starts it): it changes what ``timm.list_models`` lists, before
timm's test module asks it for the models to test, and serves weights without a network. Each
result goes to a file of JSON lines, of which ``run.py`` judges whether nothing was left out.
"""

import fnmatch
import inspect
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import stand_in_weights
import timm
import torch
from conformance_verdict import FOR_TIMMS, arch

import rga_timm  # noqa: F401  registers the models

_list_models = timm.list_models

# Told by run.py through the environment, so that pytest's command line stays timm's.
RESULTS = Path(os.environ["RGA_CONFORMANCE_RESULTS"])
MODELS = os.environ.get("RGA_CONFORMANCE_MODELS", "*").split()
TESTS = os.environ.get("RGA_CONFORMANCE_TESTS", "*").split()
SHARD, SHARDS = (int(n) for n in os.environ.get("RGA_CONFORMANCE_SHARD", "0/1").split("/"))
SEED = 0


def family(name: str) -> str:
    """The module whose entrypoint makes the model."""
    return timm.model_entrypoint(name).__module__


def is_ours(name: str) -> bool:
    """Whether rga_timm registered the model."""
    return family(name).split(".")[0] == "rga_timm"


def list_our_models(
    filter: Any = "",  # noqa: A002  timm's name
    module: Any = "",
    pretrained: bool = False,
    exclude_filters: Any = "",
    **kwargs: Any,
) -> list[str]:
    """What ``timm.list_models`` would list, were ours the only models.

    A ``module`` names files of timm whose models have a certain interface. All of ours must have
    it, so that every module of ours counts as named. Patterns by which timm sorts out networks
    without feature maps (``vit_*``) match none of ours, which all have them.
    """
    names = [n for n in _list_models(pretrained=pretrained, **kwargs) if is_ours(n)]

    def matches(name: str, patterns: Any) -> bool:
        patterns = [patterns] if isinstance(patterns, str) else patterns
        return any(
            fnmatch.fnmatch(arch(name), p) or fnmatch.fnmatch(name, p) for p in patterns if p
        )

    return [
        name
        for name in names
        if (not filter or matches(name, filter))
        and not matches(name, exclude_filters)
        and any(fnmatch.fnmatch(arch(name), p) for p in MODELS)
    ]


def list_our_pretrained(filter: Any = "", exclude_filters: Any = "") -> list[str]:  # noqa: A002
    """As ``timm.list_pretrained``."""
    return list_our_models(
        filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True
    )


def registry() -> dict[str, dict[str, Any]]:
    """Every model of ours, whatever is selected: family, names with tags, those with weights."""
    tagged = [n for n in _list_models(include_tags=True) if is_ours(n)]
    weights = [n for n in _list_models(pretrained=True) if is_ours(n)]
    return {
        name: {
            "family": family(name),
            "tagged": [n for n in tagged if arch(n) == name],
            "pretrained": [n for n in weights if arch(n) == name],
            "selected": any(fnmatch.fnmatch(name, p) for p in MODELS),
        }
        for name in _list_models()
        if is_ours(name)
    }


def write(**record: Any) -> None:
    """Append a line to the results at once, so that a killed process leaves what it had."""
    with RESULTS.open("a") as f:
        f.write(json.dumps(record) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Stand between timm and its test module, which is imported later."""
    config.addinivalue_line("markers", "timeout: of pytest-timeout, obeyed where that is installed")
    missing = set(inspect.signature(_list_models).parameters) - {
        *inspect.signature(list_our_models).parameters,
        "name_matches_cfg",
        "include_tags",
    }
    if missing:
        raise pytest.UsageError(
            f"timm.list_models has new parameters {sorted(missing)}: look at them"
        )
    timm.list_models = list_our_models
    timm.list_pretrained = list_our_pretrained
    stand_in_weights.install()


def pytest_unconfigure() -> None:
    """Delete the files."""
    stand_in_weights.remove()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests on our models; those with models named in timm's file are timm's own."""
    ours, empty, foreign = [], set(), set()
    for item in items:
        function = item.originalname  # type: ignore[attr-defined]
        params = getattr(getattr(item, "callspec", None), "params", {})
        name = params.get("model_name")
        if function in FOR_TIMMS:
            empty.add(function)
        elif isinstance(name, str) and timm.is_model(name) and is_ours(name):
            if any(fnmatch.fnmatch(function, p) for p in TESTS):
                ours.append(item)
        elif "model_name" in params and not isinstance(name, str):
            empty.add(function)  # its list of models had none of ours
        else:
            foreign.add(function)
    shard = ours[SHARD::SHARDS]
    write(
        kind="collected",
        tests=[describe(item) for item in shard],
        empty=sorted(empty),
        foreign=sorted(foreign),
        registry=registry(),
        timm=timm.__version__,
        torch=torch.__version__,
    )
    kept = set(map(id, shard))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = shard


def describe(item: pytest.Item) -> dict[str, str]:
    """Which function on which model."""
    return {"function": item.originalname, "model": item.callspec.params["model_name"]}  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The same random numbers for each test in every run: a failure can be looked at again."""
    torch.manual_seed(SEED)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """One line a test."""
    item.reports = []  # type: ignore[attr-defined]
    begin = time.process_time()
    result = yield
    cpu = round(time.process_time() - begin, 3)
    write(kind="result", **describe(item), **outcome(item.reports), cpu=cpu)  # type: ignore[attr-defined]
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Keep the reports of set-up, call and tear-down together."""
    report = yield
    item.reports.append(report)  # type: ignore[attr-defined]
    return report


def outcome(reports: list[pytest.TestReport]) -> dict[str, Any]:
    """Passed only if all three phases did."""
    seconds = round(sum(r.duration for r in reports), 3)
    for report in reports:
        if report.failed:
            return {"outcome": "failed", "reason": report.longreprtext, "seconds": seconds}
    for report in reports:
        if report.skipped:
            where = report.longrepr
            reason = where[2] if isinstance(where, tuple) else str(where)
            return {"outcome": "skipped", "reason": reason, "seconds": seconds}
    return {"outcome": "passed", "reason": "", "seconds": seconds}
