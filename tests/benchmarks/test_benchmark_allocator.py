from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from benchmarks import allocator as benchmark_allocator

# Prints whether it could be asked for, and by how many MiB the process has grown after 512 MiB were
# written to and freed.
PROGRAM = """
import os, sys
import torch
from rga_timm.evaluation.compute import keep_freed_memory

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

kept = keep_freed_memory() if {keep} else False
torch.ones(2**20)
before = resident()
tensors = [torch.ones(2**24) for _ in range(8)]
del tensors
print(kept, resident() - before)
"""


def growth(keep: bool) -> tuple[bool, float]:
    program = PROGRAM.format(keep=keep)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    kept, grown = result.stdout.split()
    return kept == "True", float(grown)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_stays_with_the_process_that_asks_for_it() -> None:
    kept, grown = growth(keep=True)
    assert kept
    assert grown > 480
    assert growth(keep=False)[1] < 64


def test_a_system_without_glibc_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not benchmark_allocator.keep_freed_memory()


def test_benchmark_measures_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--model test_rga_resnet --img-size 64 32 --batch-size 2 --rounds 1 --steps 1"
    seconds = benchmark_allocator.main(options.split())
    assert min(seconds.values()) > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["handed back", "kept"]
