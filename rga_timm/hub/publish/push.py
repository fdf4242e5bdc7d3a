"""Upload a checkpoint's folder to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash
from safetensors import SafetensorError, safe_open

from rga_timm.weights import sha256_of

# save_pretrained writes these; the card is optional.
_REQUIRED_FILES = ("config.json", "model.safetensors")
_ALLOWED_FILES = (*_REQUIRED_FILES, "README.md")
# Recipes, logs, plots: nothing that can run code when it is read.
EXTRA_SUFFIXES = (".csv", ".png", ".yaml")

# The base error of the HTTP library that huggingface_hub uses, which depends on its version. It is
# raised when a server cannot be reached.
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

    It may be called again after an interruption, or with further options; files that are there
    already are not uploaded again. Other files of the repository stay. Returns its URL.

    Args:
        folder: It holds ``config.json`` and ``model.safetensors``, and may hold ``README.md``,
            ``.csv``, ``.png`` and ``.yaml`` files.
        repo_id: OWNER/NAME of the repository, which is made if it does not exist.
        revision_tag: A tag for the commit, such as ``v1``. It never moves: if it exists, it must
            hold the same files, and nothing is uploaded.
        private: Make the repository private; a private one stays so in any case.
        gated: Give access to all users who ask (``'auto'``) or whom the owner accepts
            (``'manual'``). None leaves the setting as it is.
        collection: The title of a collection of OWNER to add the repository to. It is made if it
            does not exist, private if ``private`` is set.
        commit_message: Its first line.
        token: The token of a user who may write to the repository; by default that of
            ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        ValueError: The folder or the name is invalid; nothing was sent.
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
        raise PermissionError("uploading needs a token: log in by `hf auth login`, or set HF_TOKEN")

    api = HfApi(token=token)
    with _explained(f"logging in to {api.endpoint}"):
        user = api.whoami()["name"]
    with _explained(f"making the repository {repo_id} as {user}"):
        # None, not False: an organisation may want its new repositories private.
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
    with _explained(f"reading the tags of {repo_id} as {user}"):
        tagged = revision_tag is not None and _is_tagged(api, repo_id, revision_tag, files)
    with _explained(f"changing the settings of {repo_id} as {user}"):
        # Before the upload, so that the files of an older repository are never public.
        if private and not api.model_info(repo_id).private:
            api.update_repo_settings(repo_id, private=True)
        if gated:
            api.update_repo_settings(repo_id, gated=gated)
    with _explained(f"uploading to {repo_id} as {user}"):
        if not tagged:
            checked, message = [file.name for file in files], commit_message or f"Upload {name}"
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, allow_patterns=checked, commit_message=message
            )
            if revision_tag:
                api.create_tag(repo_id, tag=revision_tag, revision=commit.oid)
    if collection:
        with _explained(f"adding {repo_id} to the collection {collection!r} as {user}"):
            slugs = [c.slug for c in api.list_collections(owner=owner) if c.title == collection]
            if not slugs:
                make: dict[str, Any] = {"namespace": owner, "private": private, "exists_ok": True}
                slugs = [api.create_collection(collection, **make).slug]
            api.add_collection_item(slugs[0], repo_id, item_type="model", exists_ok=True)
    return str(url)


def check_uploadable(folder: Path) -> list[Path]:
    """List a checkpoint's files; a ValueError if one is missing or may run code, as pickles do."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    files = sorted(folder.iterdir())
    refused = [
        file.name
        for file in files
        if not file.is_file()
        or not (file.name in _ALLOWED_FILES or file.suffix in EXTRA_SUFFIXES)
        or set(file.name) & set("*?[]")  # huggingface_hub would read a pattern
    ]
    if refused:
        allowed = ", ".join([*_ALLOWED_FILES, *(f"*{suffix}" for suffix in EXTRA_SUFFIXES)])
        raise ValueError(
            f"{folder} holds what is not uploaded: {', '.join(refused)}. Allowed are {allowed}; "
            "rga_timm.hub.save_pretrained writes weights as model.safetensors"
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
    """Whether the tag exists with these files; a FileExistsError if it has others."""
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    if tag not in tags:
        return False
    there = api.model_info(repo_id, revision=tags[tag], files_metadata=True)
    if differing := [file.name for file in files if not _holds(there, file)]:
        raise FileExistsError(
            f"{repo_id} has a tag {tag} of other files ({', '.join(differing)} differ), and tags "
            "never move: raise the version"
        )
    return True


def _holds(there: ModelInfo, file: Path) -> bool:
    """Whether a commit has the same file, by SHA-256 for large files, by git's SHA-1 for others."""
    sibling = next((s for s in there.siblings or () if s.rfilename == file.name), None)
    if sibling and sibling.lfs:
        return sibling.lfs.sha256 == sha256_of(file)
    return sibling is not None and sibling.blob_id == git_hash(file.read_bytes())


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn errors of the Hub into Python's own, with what was being done and what to do now."""
    try:
        yield
    except _HTTPError as error:
        response = getattr(error, "response", None)
        if response is None:
            raise ConnectionError(f"{doing}: the Hub cannot be reached, {error}") from error
        reason = getattr(error, "server_message", None) or str(error).partition("\n")[0]
        new_token = "make one that may write at https://huggingface.co/settings/tokens"
        code = response.status_code
        kind: type[OSError] = PermissionError
        if code == 401:
            text = f"the token is not valid ({reason}): {new_token}, and log in by `hf auth login`"
        elif code == 403:
            why = "the name is somebody else's, or the token is only for reading"
            text = f"no right to do that ({reason}): {why}; {new_token}"
        elif code == 409:
            kind, text = FileExistsError, f"somebody else was faster ({reason})"
        else:
            kind, text = ConnectionError, f"the Hub answers {code}, {reason}. Try again"
        raise kind(f"{doing}: {text}") from error
    except RuntimeError as error:  # from the upload of a large file
        reason = f"{error} {error.__cause__ or ''}".strip().partition("\n")[0]
        raise ConnectionError(f"{doing}: {reason} Try again") from error
