"""Upload a checkpoint's folder to the Hugging Face Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

# A card is missing where somebody uploads what save_pretrained has written.
_REQUIRED_FILES = ("config.json", "model.safetensors")
_ALLOWED_FILES = (*_REQUIRED_FILES, "README.md")
# Beside those: recipes, logs, plots. Nothing that runs or unpacks anything when it is read.
EXTRA_SUFFIXES = (".csv", ".png", ".yaml")

# The most general error of the HTTP library that huggingface_hub uses, which is another one in each
# of its major versions: what is raised where a server cannot be reached.
_HTTPError: type[BaseException] = next(
    c for c in reversed(HfHubHTTPError.__mro__) if c.__module__ != "builtins"
)


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    revision_tag: str | None = None,
    private: bool = False,
    gated: Literal["auto", "manual"] | None = None,
    collection: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a checkpoint's folder to the Hub, as one commit to the repository's branch ``main``.

    It may be called again after an interruption, or to add what was not asked for at first: what is
    there already is neither uploaded nor made again. Other files of the repository are left alone.

    Args:
        folder: With ``config.json`` and ``model.safetensors``; else only ``README.md``, tables
            (``.csv``), pictures (``.png``) and options (``.yaml``).
        repo_id: OWNER/NAME of the repository, which is made if it does not exist.
        revision_tag: A tag for the commit, as ``v1``. It never moves: an existing tag must hold
            these very files, and then nothing is uploaded.
        private: Make the repository private; one that is private already stays so.
        gated: Hand out the files only to users who were let in: ``'auto'``, all who ask, or
            ``'manual'``, whom the owner chooses. None leaves the repository as it is.
        collection: The title of a collection of OWNER to add the repository to, which is made if
            it does not exist, as private as the repository.
        commit_message: Its first line.
        token: Of a user who may write to the repository; by default the one of ``hf auth login`` or
            ``HF_TOKEN``.

    Returns:
        The repository's URL.

    Raises:
        ValueError: The folder holds something else or cannot be read, or the name is not valid.
            Before anything is sent.
        PermissionError: There is no valid token, or the user may not write there.
        FileExistsError: The tag belongs to other files.
        ConnectionError: The Hub cannot be reached, or refuses for another reason.
    """
    folder = Path(folder)
    files = check_uploadable(folder)
    validate_repo_id(repo_id)
    owner, _, name = repo_id.rpartition("/")
    if not owner:
        raise ValueError(f"{name!r} is not the full name of a repository, OWNER/NAME")
    if gated not in (None, "auto", "manual"):
        raise ValueError(f"gated is 'auto', 'manual' or None, not {gated!r}")
    token = token or get_token()
    if not token:
        raise PermissionError(
            "the Hub takes files only with a token: log in by `hf auth login`, or set HF_TOKEN"
        )

    api = HfApi(token=token)
    with _explained(f"logging in to {api.endpoint}"):
        user = api.whoami()["name"]
    with _explained(f"making the repository {repo_id} as {user}"):
        # None, not False: an organisation may want its new repositories private.
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
    with _explained(f"reading the tags of {repo_id} as {user}"):
        tagged = revision_tag is not None and _is_tagged(api, repo_id, revision_tag, files)
    with _explained(f"changing the settings of {repo_id} as {user}"):
        # A repository that was there before has its own, which must not come after the files.
        if private and not api.model_info(repo_id).private:
            api.update_repo_settings(repo_id, private=True)
        if gated:
            api.update_repo_settings(repo_id, gated=gated)
    with _explained(f"uploading to {repo_id} as {user}"):
        if not tagged:
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                allow_patterns=[file.name for file in files],  # what was checked, and no more
                commit_message=commit_message or f"Upload {name}",
            )
            if revision_tag:
                api.create_tag(repo_id, tag=revision_tag, revision=commit.oid)
    if collection:
        with _explained(f"adding {repo_id} to the collection {collection!r} as {user}"):
            _add_to_collection(api, collection, owner, repo_id, private)
    return str(url)


def check_uploadable(folder: Path) -> list[Path]:
    """The files of a checkpoint's folder; above all no pickles, which run code when they are read.

    Raises:
        ValueError: Something is missing, of another kind, or not a safetensors file.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    files = sorted(folder.iterdir())
    refused = [
        file.name
        for file in files
        if not file.is_file()
        or not (file.name in _ALLOWED_FILES or file.suffix in EXTRA_SUFFIXES)
        or set(file.name) & set("*?[]")  # patterns, to huggingface_hub
    ]
    if refused:
        raise ValueError(
            f"{folder} holds what is not uploaded: {', '.join(refused)}. A checkpoint's folder has "
            f"{', '.join(_ALLOWED_FILES)} and {', '.join(f'*{s}' for s in EXTRA_SUFFIXES)} only; "
            "weights of other formats become model.safetensors by rga_timm.hub.save_pretrained"
        )
    if missing := [name for name in _REQUIRED_FILES if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is no checkpoint's folder: {', '.join(missing)} is missing")
    weights = folder / "model.safetensors"
    try:
        with safe_open(weights, framework="np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{weights} is no complete safetensors file: {error}") from error
    return files


def _is_tagged(api: HfApi, repo_id: str, tag: str, files: list[Path]) -> bool:
    """Whether there is such a tag, with these files; a FileExistsError if it has others."""
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    if tag not in tags:
        return False
    there = api.model_info(repo_id, revision=tags[tag], files_metadata=True)
    if differing := [file.name for file in files if not _holds(there, file)]:
        raise FileExistsError(
            f"{repo_id} has a tag {tag} of other files ({', '.join(differing)} differ), and tags "
            "stay where they are: raise the version"
        )
    return True


def _holds(there: ModelInfo, file: Path) -> bool:
    """Whether a commit has the very file: large files by their SHA-256, others by git's SHA-1."""
    content = file.read_bytes()
    for sibling in there.siblings or ():
        if sibling.rfilename == file.name:
            if sibling.lfs:
                return sibling.lfs.sha256 == hashlib.sha256(content).hexdigest()
            blob = b"blob %d\0" % len(content) + content
            return sibling.blob_id == hashlib.sha1(blob).hexdigest()
    return False


def _add_to_collection(api: HfApi, title: str, owner: str, repo_id: str, private: bool) -> None:
    found = [c.slug for c in api.list_collections(owner=owner) if c.title == title]
    if not found:
        made = api.create_collection(title, namespace=owner, private=private, exists_ok=True)
        found = [made.slug]
    api.add_collection_item(found[0], repo_id, item_type="model", exists_ok=True)


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Errors of the Hub as Python's own, in one line: what was being done, and what to do now."""
    try:
        yield
    except _HTTPError as error:
        response = getattr(error, "response", None)
        if response is None:
            raise ConnectionError(f"{doing}: the Hub cannot be reached, {error}") from error
        reason = getattr(error, "server_message", None) or str(error).partition("\n")[0]
        tokens = "https://huggingface.co/settings/tokens"
        if response.status_code == 401:
            raise PermissionError(
                f"{doing}: the token is not valid ({reason}). Make one that may write at {tokens}, "
                "and log in by `hf auth login`"
            ) from error
        if response.status_code == 403:
            raise PermissionError(
                f"{doing}: no right to do that ({reason}). The name is another's, or the token is "
                f"only for reading: {tokens} makes one that may write"
            ) from error
        if response.status_code == 409:
            raise FileExistsError(f"{doing}: somebody else was faster ({reason})") from error
        raise ConnectionError(
            f"{doing}: the Hub answers {response.status_code}, {reason}. Try again"
        ) from error
    except RuntimeError as error:  # of the upload of a large file
        reason = f"{error} {error.__cause__ or ''}".strip().partition("\n")[0]
        raise ConnectionError(f"{doing}: {reason} Try again") from error
