"""Git repositories as the Hugging Face Hub keeps them: weights in Git LFS, the rest as blobs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".png")

_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


class StoredFile(NamedTuple):
    """A file of a commit."""

    blob: str  # the git object, of the pointer for a file in LFS
    size: int  # in bytes, of the content
    sha256: str | None  # of the content, for a file in LFS


class HubRepository:
    """A repository with the branch `main`, written by git's plumbing: there is no work tree.

    olah serves such a repository from the folder `models/ORG/NAME`, and looks for LFS objects in
    `.git/lfs/objects`, where Git LFS itself would put them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        return self.folder.is_dir()

    def create(self) -> None:
        """An empty repository without a commit."""
        self.folder.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(
        self, files: Mapping[str, bytes], *, message: str, lfs: bool = True, replace: bool = False
    ) -> str:
        """Write files by their paths, in the place of all others if `replace`; the commit."""
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            head = self.refs().get("refs/heads/main")
            if head and not replace:
                self._git("read-tree", head, **index)
            for path, content in files.items():
                in_lfs = lfs and path.endswith(LFS_SUFFIXES)
                blob = self.store_pointer(content) if in_lfs else content
                oid = self._git("hash-object", "-w", "--stdin", stdin=blob)
                self._git("update-index", "--add", "--cacheinfo", f"100644,{oid},{path}", **index)
            tree = self._git("write-tree", **index)
        parent = ["-p", head] if head else []
        commit = self._git("commit-tree", tree, *parent, "-m", message)
        self._git("update-ref", "refs/heads/main", commit)
        return commit

    def tag(self, name: str, commit: str) -> None:
        self._git("update-ref", f"refs/tags/{name}", commit)

    def refs(self) -> dict[str, str]:
        """The commits by the full names of branches and tags."""
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split() for line in lines)

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit; None if there is none."""
        refs = self.refs()
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in refs:
                return refs[name]
        commits = self._git("rev-list", "--all").splitlines()
        return revision if revision in commits else None

    def files(self, commit: str) -> dict[str, StoredFile]:
        """What a commit holds, by path."""
        found = {}
        for line in self._git("ls-tree", "-r", "-l", commit).splitlines():
            (_, _, blob, size), path = line.partition("\t")[0].split(), line.partition("\t")[2]
            found[path] = StoredFile(blob, int(size), None)
            if int(size) < 200:
                text = self._git("cat-file", "blob", blob)
                if match := re.search(r"^oid sha256:(\w{64})\nsize (\d+)", text, re.M):
                    found[path] = StoredFile(blob, int(match[2]), match[1])
        return found

    def content(self, file: StoredFile) -> bytes:
        if file.sha256:
            return self.lfs_object(file.sha256).read_bytes()
        return self._run("cat-file", "blob", file.blob)

    def lfs_object(self, sha256: str) -> Path:
        """Where the content of a file in LFS lies."""
        return self.folder / ".git" / "lfs" / "objects" / sha256[:2] / sha256[2:4] / sha256

    def store_pointer(self, content: bytes) -> bytes:
        """Put content into LFS; what git gets in its place."""
        oid = hashlib.sha256(content).hexdigest()
        self.lfs_object(oid).parent.mkdir(parents=True, exist_ok=True)
        self.lfs_object(oid).write_bytes(content)
        return _POINTER.format(oid=oid, size=len(content)).encode()

    def _git(self, *command: str, stdin: bytes = b"", **env: str) -> str:
        return self._run(*command, stdin=stdin, **env).decode().strip()

    def _run(self, *command: str, stdin: bytes = b"", **env: str) -> bytes:
        who = {
            f"GIT_{role}_{what.upper()}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("name", "someone"), ("email", "someone@example.com"))
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        # Neither the machine's nor the user's settings, such as signing or hooks.
        config = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *command],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            env={**kept, **config, **who, **env},
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(command)}: {done.stderr.decode()}")
        return done.stdout
