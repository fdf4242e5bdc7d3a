"""A repository in the Hub's local cache, as if it had been downloaded."""

from pathlib import Path


def put_into_hub_cache(folder: Path, cache: Path, repo_id: str, revision: str = "main") -> None:
    """The cache's layout: snapshots by commit, refs by branch or tag."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / revision).write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
