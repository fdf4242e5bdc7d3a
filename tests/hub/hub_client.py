"""Clients of the Hub: processes of their own, as huggingface_hub reads its settings on import."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# Each client is a fork of a process that has imported what takes seconds, and huggingface_hub not.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["torch._dynamo", "torchvision", "scipy.stats", "sklearn"])


class Client:
    """A Python program that uses the Hub, while it runs.

    Args:
        code: The program.
        endpoint: The URL of the server that is the Hub for it.
        home: Its HF_HOME: cache and token. Clients that share it share their downloads.
        arguments: Its command line.
        **env: Further environment variables, such as HF_HUB_OFFLINE or HF_TOKEN. Those of the
            surrounding process that concern the Hub are not passed on.
    """

    def __init__(
        self, code: str, endpoint: str, home: Path, arguments: Sequence[str] = (), **env: str
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "RGA_TIMM_"))
            and not name.lower().endswith("_proxy")
        }
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # the servers do not speak that protocol
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        self._folder = TemporaryDirectory()
        self._arguments = list(arguments)
        self._process = _forks.Process(
            target=_run,
            args=(code, self._arguments, {**inherited, **settings, **env}, self._folder.name),
        )
        self._process.start()

    def result(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for its end; what it wrote, and how it ended.

        Raises:
            TimeoutError: It has not ended after so many seconds, and was killed.
        """
        self._process.join(timeout)
        if late := self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        out, err = (Path(self._folder.name, name).read_text() for name in ("out", "err"))
        code = self._process.exitcode
        self._process.close()
        self._folder.cleanup()
        if late:
            raise TimeoutError(f"a client did not end in {timeout} s:\n{out}\n{err}")
        return subprocess.CompletedProcess(self._arguments, code, out, err)


def run_client(
    code: str, endpoint: str, home: Path, arguments: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a :class:`Client` to its end."""
    return Client(code, endpoint, home, arguments, **env).result()


def run_verb(
    name: str, endpoint: str, home: Path, arguments: Sequence[str], **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb as from the command line, as a :class:`Client`."""
    code = "from rga_timm.cli import main; main()"
    return run_client(code, endpoint, home, ["rga-timm", name, *arguments], **env)


def _run(code: str, arguments: list[str], env: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    sys.argv = arguments or ["client"]
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("huggingface_hub was imported before its settings were known")
    exec(compile(code, "<client>", "exec"), {"__name__": "__client__"})
