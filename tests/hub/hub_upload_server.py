"""The half of the Hub's protocol that olah does not speak: what huggingface_hub uploads with.

It runs in the process of the tests, and writes into the same git repositories that olah serves. It
also serves single files, with the Hub's error codes: olah, where it is offline, says of a missing
file or revision that the repository is missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repository import LFS_SUFFIXES, HubRepository

# Tokens, and whose they are: a member of the organisation who may write, and one who may read.
WRITER, READER = "hf_writer", "hf_reader"
_USERS = {
    WRITER: {"name": "ann", "orgs": [{"name": "zoo", "roleInOrg": "write"}]},
    READER: {"name": "ben", "orgs": [{"name": "zoo", "roleInOrg": "read"}]},
}
_WRITABLE = {WRITER: {"ann", "zoo"}, READER: {"ben"}}

_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REV = r"(?P<rev>[^/]+)"


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None, **content: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.content = {"error": message, **content}


class HubUploadServer:
    """The Hub for those who write, in a thread; a context manager.

    Args:
        models: The folder of the git repositories, ORG/NAME below it.

    Attributes:
        url: For HF_ENDPOINT.
        requests: What was asked, as "METHOD /path".
        fail_at: Statuses by patterns of such requests: the next that matches gets it for an answer.
        settings: Of each repository: `private`, `gated`.
        default_visibility: Of new repositories: `"public"` or `"private"`.
        collections: By slug, as the Hub describes them.
    """

    def __init__(self, models: Path) -> None:
        self.models = models
        self.requests: list[str] = []
        self.fail_at: dict[str, int] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.default_visibility = "public"
        self.collections: dict[str, dict[str, Any]] = {}
        self._lock = Lock()

        class Handler(_Handler):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubUploadServer:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, pattern: str) -> list[str]:
        """The requests that match, in their order."""
        return [request for request in self.requests if re.search(pattern, request)]

    def repository(self, repo_id: str) -> HubRepository:
        return HubRepository(self.models / repo_id)

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Any:
        """JSON, or the bytes of a file."""
        path = unquote(urlsplit(target).path)
        with self._lock:
            self.requests.append(request := f"{method} {path}")
            for pattern, status in self.fail_at.items():
                if re.search(pattern, request):
                    del self.fail_at[pattern]
                    raise RefusedError(status, "out of order")
            token = headers.get("Authorization", "").removeprefix("Bearer ")
            if token and token not in _USERS:
                raise RefusedError(401, "Invalid credentials in Authorization header")
            for wanted, pattern, function in _ROUTES:
                if wanted == method and (match := re.fullmatch(pattern, path)):
                    query = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
                    call = _Call(self, token, body, query, **match.groupdict())
                    return function(call)
        raise RefusedError(404, f"no such page: {request}")


class _Call:
    """A request, taken apart."""

    def __init__(
        self,
        hub: HubUploadServer,
        token: str,
        body: bytes,
        query: dict[str, str],
        repo: str = "",
        rev: str = "main",
        name: str = "",
    ) -> None:
        self.hub, self.token, self.body, self.query = hub, token, body, query
        self.repo, self.rev, self.name = repo, rev, name
        self.git = hub.repository(repo)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def check_writable(self, namespace: str) -> None:
        if not self.token:
            raise RefusedError(401, "Invalid username or password.")
        if namespace not in _WRITABLE[self.token]:
            raise RefusedError(403, f"You don't have the rights to write under {namespace!r}")

    def check_repo(self, write: bool = False) -> None:
        if not self.git.exists():
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        if write:
            self.check_writable(self.repo.split("/")[0])

    def commit(self) -> str:
        self.check_repo()
        if not (commit := self.git.resolve(self.rev)):
            raise RefusedError(404, f"Invalid rev id: {self.rev}", "RevisionNotFound")
        return commit


def _whoami(call: _Call) -> Any:
    if not call.token:
        raise RefusedError(401, "Invalid username or password.")
    return {"type": "user", **_USERS[call.token]}


def _create_repo(call: _Call) -> Any:
    asked = call.json
    namespace = asked["organization"]
    call.check_writable(namespace)
    repo = f"{namespace}/{asked['name']}"
    git, url = call.hub.repository(repo), {"url": f"{call.hub.url}/{repo}"}
    if git.exists():
        raise RefusedError(409, "You already created this model repo", **url)
    git.create()
    git.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
    # Older and newer clients; without either the organisation's rule holds.
    private = asked.get("private", asked.get("visibility", call.hub.default_visibility))
    private = private in (True, "private")
    call.hub.settings[repo] = {"private": private, "gated": False}
    return url


def _update_settings(call: _Call) -> Any:
    call.check_repo(write=True)
    asked = call.json
    if "visibility" in asked:
        asked["private"] = asked.pop("visibility") == "private"
    call.hub.settings[call.repo].update(asked)
    return {}


def _preupload(call: _Call) -> Any:
    call.check_repo(write=True)
    there = call.git.files(call.commit())
    files = []
    for file in call.json["files"]:
        stored = there.get(file["path"])
        mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
        entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        files.append({**entry, "oid": stored and (stored.sha256 or stored.blob)})
    return {"files": files}


def _lfs_batch(call: _Call) -> Any:
    call.check_repo(write=True)
    objects: list[dict[str, Any]] = call.json["objects"]
    for item in objects:
        if not call.git.lfs_object(item["oid"]).exists():
            href = f"{call.hub.url}/lfs/{call.repo}/{item['oid']}"
            item["actions"] = {"upload": {"href": href}}
    return {"transfer": "basic", "objects": objects}


def _lfs_put(call: _Call) -> Any:
    if hashlib.sha256(call.body).hexdigest() != call.name:
        raise RefusedError(400, "the content is not what was announced")
    call.git.store_pointer(call.body)
    return {}


def _validate_yaml(call: _Call) -> Any:
    return {"errors": [], "warnings": []}


def _commit(call: _Call) -> Any:
    call.check_repo(write=True)
    lines = [json.loads(line) for line in call.body.splitlines()]
    values: dict[str, list[Any]] = {}
    for line in lines:
        values.setdefault(line["key"], []).append(line["value"])
    files = {f["path"]: base64.b64decode(f["content"]) for f in values.pop("file", [])}
    for file in values.pop("lfsFile", []):
        files[file["path"]] = call.git.lfs_object(file["oid"]).read_bytes()
    message = values.pop("header")[0]["summary"]
    if values:
        raise RefusedError(400, f"operations that this server does not know: {sorted(values)}")
    commit = call.git.commit(files, message=message)
    url = f"{call.hub.url}/{call.repo}/commit/{commit}"
    return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}


def _tag(call: _Call) -> Any:
    call.check_repo(write=True)
    commit, tag = call.commit(), call.json["tag"]
    if f"refs/tags/{tag}" in call.git.refs():
        raise RefusedError(409, f"Reference already exists: {tag}")
    call.git.tag(tag, commit)
    return {}


def _refs(call: _Call) -> Any:
    call.check_repo()
    groups: dict[str, list[Any]] = {"branches": [], "tags": [], "converts": []}
    for ref, commit in call.git.refs().items():
        kind, name = ref.removeprefix("refs/").split("/", 1)
        group = {"heads": "branches", "tags": "tags"}[kind]
        groups[group].append({"name": name, "ref": ref, "targetCommit": commit})
    return groups


def _model_info(call: _Call) -> Any:
    commit = call.commit()
    siblings = []
    for path, file in call.git.files(commit).items():
        sibling: dict[str, Any] = {"rfilename": path}
        if "blobs" in call.query:
            sibling.update(blobId=file.blob, size=file.size)
            if file.sha256:
                sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 130}
        siblings.append(sibling)
    settings = call.hub.settings.get(call.repo, {})
    return {"_id": "0", "id": call.repo, "sha": commit, "siblings": siblings, **settings}


def _file(call: _Call) -> Any:
    commit = call.commit()
    if call.hub.settings.get(call.repo, {}).get("gated") and not call.token:
        raise RefusedError(401, "Access to this model is restricted", "GatedRepo")
    if not (file := call.git.files(commit).get(call.name)):
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256 or file.blob}"'}
    return call.git.content(file), headers


def _list_collections(call: _Call) -> Any:
    found = [c for c in call.hub.collections.values() if c["owner"]["name"] == call.query["owner"]]
    # The client numbers them itself.
    return [{k: v for k, v in c.items() if k != "position"} for c in found]


def _create_collection(call: _Call) -> Any:
    asked = call.json
    call.check_writable(asked["namespace"])
    name = re.sub(r"\W+", "-", asked["title"].lower())
    slug = f"{asked['namespace']}/{name}-{len(call.hub.collections):024x}"
    call.hub.collections[slug] = {
        "slug": slug, "title": asked["title"], "owner": {"name": asked["namespace"]}, "items": [],
        "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "private": asked["private"],
        "theme": "blue", "upvotes": 0,
    }  # fmt: skip
    return call.hub.collections[slug]


def _collection(call: _Call) -> Any:
    return call.hub.collections[call.name]


def _add_to_collection(call: _Call) -> Any:
    collection, item = call.hub.collections[call.name], call.json["item"]
    call.check_writable(collection["owner"]["name"])
    if any(there["id"] == item["id"] for there in collection["items"]):
        raise RefusedError(409, "Item already in collection")
    collection["items"].append({"_id": item["id"], **item, "position": len(collection["items"])})
    return collection


_SLUG = r"(?P<name>[\w.-]+/[\w-]+)"
_ROUTES: list[tuple[str, str, Callable[[_Call], Any]]] = [
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/repos/create", _create_repo),
    ("PUT", f"/api/models/{_REPO}/settings", _update_settings),
    ("POST", f"/api/models/{_REPO}/preupload/{_REV}", _preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _lfs_batch),
    ("PUT", rf"/lfs/{_REPO}/(?P<name>\w+)", _lfs_put),
    ("POST", "/api/validate-yaml", _validate_yaml),
    ("POST", f"/api/models/{_REPO}/commit/{_REV}", _commit),
    ("POST", f"/api/models/{_REPO}/tag/{_REV}", _tag),
    ("GET", f"/api/models/{_REPO}/refs", _refs),
    ("GET", f"/api/models/{_REPO}", _model_info),
    ("GET", f"/api/models/{_REPO}/revision/{_REV}", _model_info),
    ("GET", f"/{_REPO}/resolve/{_REV}/(?P<name>.+)", _file),
    ("HEAD", f"/{_REPO}/resolve/{_REV}/(?P<name>.+)", _file),
    ("GET", "/api/collections", _list_collections),
    ("POST", "/api/collections", _create_collection),
    ("GET", f"/api/collections/{_SLUG}", _collection),
    ("POST", f"/api/collections/{_SLUG}/items", _add_to_collection),
]


class _Handler(BaseHTTPRequestHandler):
    hub: HubUploadServer
    protocol_version = "HTTP/1.1"

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {}
        try:
            status, content = 200, self.hub.answer(self.command, self.path, self.headers, body)
        except RefusedError as refused:
            status, content = refused.status, refused.content
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
        if isinstance(content, tuple):
            content, headers = content
        else:
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _reply  # noqa: N815 - named by http.server

    def log_message(self, *_: Any) -> None:
        pass
