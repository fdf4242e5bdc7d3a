"""A server of the Hugging Face Hub's protocol on this machine: olah, over local git repositories.

olah is a mirror of the Hub. Told that it is offline, it serves what lies in a folder, to a client
that cannot tell it from the Hub. It lives in an environment of its own, as it wants other versions
than we do; `RGA_TIMM_TEST_OLAH` may name the `olah-cli` of an installation that is there already.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock
from hub_repository import HubRepository

OLAH = "olah==0.5.4"


class HubServer:
    """olah while it runs, and the repositories that it serves.

    In tests take the fixture `hub_server`, which is one of these for each worker of pytest-xdist;
    repositories of two tests must therefore differ in name. Give clients its `url` as HF_ENDPOINT,
    which :func:`hub_client.run_client` does.
    """

    def __init__(self, folder: Path, command: list[str]) -> None:
        """Start the server, and wait until it answers.

        Args:
            folder: For its repositories, cache and log.
            command: What starts olah, without options.

        Raises:
            RuntimeError: It does not come up; the message is its log.
        """
        self.models = folder / "models"
        self.log = folder / "olah.txt"
        self.models.mkdir(parents=True)
        for _ in range(3):  # another program may have taken the port meanwhile
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            config = folder / "olah.toml"
            config.write_text(
                f"[basic]\nhost = '127.0.0.1'\nport = {port}\nrepos-path = '{folder}/cache'\n"
                f"mirrors-path = ['{folder}']\n\n[accessibility]\noffline = true\n"
            )
            with self.log.open("w") as log:
                self._process = subprocess.Popen(
                    [*command, "--config", str(config), "--log-path", str(folder / "logs")],
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if self._answers(seconds=60):
                return
            self.stop()
        raise RuntimeError(f"olah does not answer. Its log:\n{self.log.read_text()}")

    def add(
        self, repo_id: str, folder: Path, revision_tag: str | None = None, *, lfs: bool = True
    ) -> str:
        """Commit a folder's files to a repository's branch `main`, in the place of those there.

        Args:
            repo_id: ORG/NAME; the repository is made with its first commit.
            folder: Whose files, without those of subfolders, are the new commit's.
            revision_tag: A tag for the commit.
            lfs: Keep weights in Git LFS, as the Hub does, and not as plain git blobs.

        Returns:
            The commit.
        """
        repository = self.repository(repo_id)
        if not repository.exists():
            repository.create()
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        commit = repository.commit(files, message="Add files", lfs=lfs, replace=True)
        if revision_tag:
            repository.tag(revision_tag, commit)
        return commit

    def repository(self, repo_id: str) -> HubRepository:
        """The git repository behind ORG/NAME."""
        return HubRepository(self.models / repo_id)

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self, seconds: float) -> bool:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                direct.open(f"{self.url}/api/models/nobody/nothing", timeout=10)
            except urllib.error.HTTPError:  # no such repository: it is there, and says so
                return True
            except OSError:
                time.sleep(0.1)
        return False


def install_olah(cache: Path) -> list[str]:
    """What starts olah: an environment in `cache`, made there by the first process that asks.

    Raises:
        RuntimeError: It cannot be installed.
    """
    if given := os.environ.get("RGA_TIMM_TEST_OLAH"):
        if not os.access(given, os.X_OK):
            raise RuntimeError(f"RGA_TIMM_TEST_OLAH={given} is not a program")
        return [given]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment = cache / f"{OLAH.replace('==', '-')}-{version}"
    python = environment / "bin" / "python"
    finished = environment / "finished"
    with FileLock(f"{environment}.lock"):
        if not finished.exists():  # never made, or its making was interrupted
            shutil.rmtree(environment, ignore_errors=True)
            _call([sys.executable, "-m", "venv", str(environment)])
            _call([str(python), "-m", "pip", "install", "--disable-pip-version-check", OLAH])
            finished.touch()
    # Not olah-cli: its first line holds the path where it was installed, and a clone may move.
    return [str(python), "-c", "from olah.server import cli; cli()"]


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(
            f"the tests of the Hub need {OLAH}, which cannot be installed. Give pip a network, or "
            "name the olah-cli of another installation in RGA_TIMM_TEST_OLAH.\n"
            f"{' '.join(command)}\n{done.stdout}"
        )
