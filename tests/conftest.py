"""What holds for all tests."""

import os

# Before torch is imported, here and in the programs that tests start: on models this small, threads
# cost more than they bring, and round differently.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from hypothesis import settings

from rga_timm.data.datasets.pedestrians import draw

# The same cases every time, on machines however slow.
settings.register_profile("rga_timm", deadline=None, derandomize=True, database=None)
settings.load_profile("rga_timm")

# The tiers of the tests: `pytest -m "not script and not hub and not compile"` is the quick one.
TIERS = {"cli": "script", "training": "script", "benchmarks": "script", "hub": "hub"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; `compile` stands at the tests themselves."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TIERS:
            item.add_marker(TIERS[folder])


@pytest.fixture
def no_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad options end a script before it creates one."""

    def create_model(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn people to train on, in Market-1501's layout."""
    return draw(
        tmp_path_factory.mktemp("people") / "market1501",
        train_ids=6, train_images=4, test_ids=4, gallery_images=2, distractors=2, junk=1,
        progress=False,
    )  # fmt: skip


@pytest.fixture
def options(people: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            {
                "dataset": "market1501",
                "data_dir": str(people),
                "model": "test_rga_resnet",
                "pretrained": False,
                "num_identities": 2,
                "num_instances": 2,
                "epochs": 3,
                "eval_every": 1,
                "workers": 0,
                "device": "cpu",
                "page": False,
            }
        )
    )
    return ["--config", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]
