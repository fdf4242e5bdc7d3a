import sys
from pathlib import Path
from typing import Any

import pytest
import timm

# The scripts import each other by name, as they do when they are run from the command line.
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture
def no_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad options end a script before it creates one."""

    def create_model(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(timm, "create_model", create_model)
