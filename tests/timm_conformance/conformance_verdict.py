"""Whether timm's tests, run on our models, passed and left nothing out.

Plain functions on the records that the pytest plugin wrote; no timm, no torch.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Model:
    """A registered model.

    Args:
        name: Without tag.
        family: Module of its entrypoint.
        tagged: Its names with tags.
        pretrained: Those of them that have weights.
        selected: Whether this run is about it.
    """

    name: str
    family: str
    tagged: tuple[str, ...]
    pretrained: tuple[str, ...]
    selected: bool = True

    @property
    def is_test_sized(self) -> bool:
        """Whether it is its family's small model, whose name says so as timm's do."""
        return self.name.startswith("test_")


@dataclass(frozen=True)
class Result:
    """One test function on one model (``model`` with its tag where the function lists tags)."""

    function: str
    model: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    cpu: float = 0.0  # seconds of processor time, which others on the machine disturb less


@dataclass
class Run:
    """All that is known of a run, of one process or several.

    Args:
        models: By name.
        results: One for each finished test.
        collected: (function, model) of each test that was to run.
        empty: Functions whose list of models had none of ours.
        foreign: Functions that name timm's models themselves, or none.
        versions: Of timm and torch.
    """

    models: dict[str, Model] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    collected: list[tuple[str, str]] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    versions: dict[str, str] = field(default_factory=dict)

    def read(self, lines: Iterable[str]) -> None:
        """Add the records of a process."""
        for record in map(json.loads, lines):
            kind = record.pop("kind")
            if kind == "result":
                self.results.append(Result(**record))
                continue
            self.collected += [(test["function"], test["model"]) for test in record["tests"]]
            self.empty |= set(record["empty"])
            self.foreign |= set(record["foreign"])
            self.versions = {"timm": record["timm"], "torch": record["torch"]}
            self.models |= {name: _model(name, m) for name, m in record["registry"].items()}


def _model(name: str, record: dict[str, Any]) -> Model:
    tagged, pretrained = tuple(record["tagged"]), tuple(record["pretrained"])
    return Model(name, record["family"], tagged, pretrained, record["selected"])


def arch(name: str) -> str:
    """Model name without its tag."""
    return name.split(".", 1)[0]


# Functions that are for none of ours, and why: they are not run.
FOR_TIMMS = {
    "test_model_inference": "it compares trained test_* models with outputs that lie in timm's own "
    "repositories; ours have a golden embedding, which tests/test_shipped_weights.py looks at",
}

# Functions that are for some models only, or for none of ours, and why.
FOR_SOME = {
    **FOR_TIMMS,
    "test_model_features_space2depth_reduction": "it is about the stem of efficientnet_h and _x",
    "test_model_default_cfgs_non_std": "it is for networks whose features are no maps; all of ours "
    "are, the ViT's too",
}

SIZE_SKIP = "Fixed input size model > limit"


def problems(run: Run) -> list[str]:
    """What keeps the run from counting as passed; empty if nothing does."""
    ran = defaultdict(set)
    for result in run.results:
        ran[result.function].add(result.model)
    finished = {(r.function, r.model) for r in run.results}
    found = [f"{f} on {m} never finished" for f, m in run.collected if (f, m) not in finished]
    found += [f"{r.function} on {r.model} failed" for r in run.results if r.outcome == "failed"]
    if not run.results and not found:
        found.append("nothing ran")
    for function in sorted(ran):
        started = ran[function] | {m for f, m in run.collected if f == function}
        missing = required(function, run.models.values(), started) - started
        found += [
            f"{function} did not run on {name}"
            for name in sorted(missing)
            if function not in FOR_SOME
        ]
    found += [
        f"{function} ran on none of our models"
        for function in sorted(run.empty - ran.keys() - FOR_SOME.keys())
        if required(function, run.models.values(), ())
    ]
    for result in run.results:
        if result.outcome != "passed" and result.outcome != "failed":
            found += unexplained_skip(result, run)
    return found


def required(function: str, models: Iterable[Model], ran: Iterable[str]) -> set[str]:
    """The names on which a function must run, in the manner of those on which it ran.

    Args:
        function: Tests of ``…_pretrained`` are for the tags that have weights.
        models: All that are registered; those not selected are not required.
        ran: Names with tags mean that every tag is wanted.
    """
    chosen = [model for model in models if model.selected]
    if "pretrained" in function:
        return {name for model in chosen for name in model.pretrained}
    if any("." in name for name in ran):
        return {name for model in chosen for name in model.tagged}
    return {model.name for model in chosen}


def unexplained_skip(result: Result, run: Run) -> list[str]:
    """Why this skip hides something: one line or none.

    Images of a fixed size above timm's limit for a test are skipped there. That hides nothing if
    the same test passes on a small model of the family. With some models selected only, that small
    model may be left out; then there is nothing to say.
    """
    what = f"{result.function} on {result.model} was skipped"
    if SIZE_SKIP not in result.reason:
        return [f"{what}: {result.reason or result.outcome}"]
    family = run.models[arch(result.model)].family
    small = [m for m in run.models.values() if m.family == family and m.is_test_sized]
    passed = {
        arch(r.model) for r in run.results if (r.function, r.outcome) == (result.function, "passed")
    }
    if any(m.name in passed for m in small):
        return []
    if small and not any(m.selected for m in small):
        return []
    return [f"{what} for its size, and no test-sized model of {family} passed it"]


def summary(run: Run, by: str = "function") -> str:
    """Counts, seconds and processor seconds as a table, by ``'function'`` or ``'model'``."""
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in run.results:
        rows[result.function if by == "function" else arch(result.model)].append(result)
    width = max((len(name) for name in rows), default=0)
    lines = [f"{by:<{width}}  passed skipped failed  seconds  cpu sec"]
    for name, results in (*rows.items(), ("all", run.results)):
        counts = [
            sum(r.outcome == outcome for r in results)
            for outcome in ("passed", "skipped", "failed")
        ]
        seconds, cpu = sum(r.seconds for r in results), sum(r.cpu for r in results)
        lines.append(
            f"{name:<{width}}  {counts[0]:6} {counts[1]:7} {counts[2]:6} {seconds:8.1f} {cpu:8.1f}"
        )
    return "\n".join(lines)
