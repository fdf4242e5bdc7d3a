"""Runs of embed and evaluate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rga_timm.cli import embed as script
from rga_timm.cli import evaluate as evaluate_script
from rga_timm.evaluation import Report

SIZE = (64, 32)
MODEL = ("test_rga_resnet", "--no-pretrained", "--img-size", *SIZE)


def arguments(*options: object) -> list[str]:
    options = (*options, "--device", "cpu") if "--device" not in options else options
    return [str(option) for option in (*options, "--workers", 0)]


def run(*options: object) -> Path:
    return script.main(arguments(*options))


def evaluate(*options: object) -> Report:
    (report,) = evaluate_script.main(arguments(*options))
    return report


def in_processes(
    count: int, *options: object, verb: str = "embed", **environment: str
) -> subprocess.Popen[str]:
    python = [sys.executable]
    if count > 1:
        python += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        [*python, "-m", "rga_timm", verb, *arguments(*options)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
