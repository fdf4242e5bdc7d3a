from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import several_processes
from torch import multiprocessing

from rga_timm.evaluation import distributed as module
from rga_timm.evaluation import evaluate
from rga_timm.evaluation.distributed import gather_rows, share


@pytest.mark.script
@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_get_what_one_gets(tmp_path: Path, world_size: int) -> None:
    multiprocessing.spawn(several_processes.run, args=(world_size, tmp_path), nprocs=world_size)
    expected = several_processes.compute(distributed=False)
    for rank in range(world_size):
        found = np.load(tmp_path / f"{rank}.npz")
        assert {*found} == {*expected}
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_process_group_is_needed() -> None:
    with pytest.raises(RuntimeError, match="start with torchrun"):
        evaluate(*several_processes.problem(), distributed=True)


def test_every_process_has_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for world_size in (2, 3, 7):
        parts = []
        for rank in range(world_size):
            monkeypatch.setattr(
                module, "rank_and_world_size", lambda _, r=rank, w=world_size: (r, w)
            )
            parts.append(share(5, distributed=True))
        assert [*chain(*parts)] == [0, 1, 2, 3, 4]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_single_process_has_everything() -> None:
    assert share(5, distributed=False) == range(5)
    rows = np.arange(6).reshape(3, 2)
    assert gather_rows(rows, distributed=False) is rows
