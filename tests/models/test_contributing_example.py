"""The complete family in CONTRIBUTING.md is one: it passes what all families must pass."""

import copy
import importlib.util
import re
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import timm
from family_model_tests import ModelTests
from family_weights_tests import WeightsTests

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
NAME = "rga_starnet"


@pytest.fixture(scope="module", autouse=True)
def family(tmp_path_factory):
    """The example as a module of its own, registered with timm for these tests alone."""
    (code,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), flags=re.DOTALL)
    path = tmp_path_factory.mktemp("example") / f"{NAME}.py"
    path.write_text(code)
    registry = {k: v for k, v in vars(timm.models._registry).items() if isinstance(v, (dict, set))}
    before = {k: copy.deepcopy(v) for k, v in registry.items() if k.startswith("_model")}
    spec = importlib.util.spec_from_file_location(NAME, path)
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
    yield code
    for k, v in before.items():
        registry[k].clear()
        registry[k].update(v)
    registry["_module_to_models"].pop(NAME)
    del sys.modules[NAME]


def test_is_under_60_lines_of_code(family) -> None:
    lines = [line for line in family.splitlines() if line.strip()]
    assert len(lines) < 60


class TestRGAStarNet(ModelTests, WeightsTests):
    tiny = "test_rga_starnet"
    small: ClassVar = {"base_dim": 8, "depths": (1, 1, 1, 1)}
    stages = ("stages.0", "stages.1", "stages.2", "stages.3")
    variants = ("rga_starnet_s1",)
    golden_embedding = (0.132108, -0.092626, -0.874621, 0.648314, 0.441110, 0.678878)
    golden_logits = (-0.348623, 0.580223, 0.111766, -0.161829, -0.577520)

    def test_unknown_argument_is_refused(self):
        """As far as timm's StarNet itself refuses it, which in older versions takes anything."""
        try:
            timm.create_model("starnet_s1", no_such_argument=1)
        except TypeError:
            super().test_unknown_argument_is_refused()
