"""Imitates the Hub on 127.0.0.1 for the real clients: dataset repos with commits, pull requests, tags, LFS (single and
multipart uploads), xet through hf_xet's local store, and buckets.

hub = Hub(folder); with running(hub): ... HF_ENDPOINT=hub.url
"""

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.loopback.server import Handler, Server
from tests.loopback.xet_store import XetFile, known_files, read_file

TOKEN = "hf_loopback"
USER = "user"
LFS_SUFFIXES = (".tar", ".parquet", ".png", ".jpg", ".safetensors")
MAX_REGULAR_BYTES = 10 * 1024 * 1024
TIME = "2026-01-01T00:00:00.000Z"
DATASET = r"/api/(?:datasets|models)/(?P<id>[\w.-]+/[\w.-]+)"


@dataclass(frozen=True)
class Blob:
    sha256: str
    size: int
    oid: str
    """Git's object id for a regular file, the sha256 for a file in LFS."""
    is_lfs: bool


Tree = dict[str, Blob]


@dataclass
class Commit:
    tree: Tree
    parent: str
    title: str


@dataclass
class PullRequest:
    number: int
    title: str
    base: str
    status: str = "draft"
    author: str = USER


@dataclass
class Repo:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)

    def commit(self, ref: str, tree: Tree, title: str) -> str:
        parent = self.refs.get(ref, "")
        name = hashlib.sha1(f"{parent}/{title}/{sorted(tree.items())}/{time.time_ns()}".encode()).hexdigest()
        self.commits[name] = Commit(tree, parent, title)
        self.refs[ref] = name
        return name

    def find(self, revision: str) -> str | None:
        found = self.refs.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)


class HubError(Exception):
    def __init__(self, status: int, code: str, message: str, **fields: str) -> None:
        self.status, self.code, self.message, self.fields = status, code, message, fields


class Hub(Server):
    def __init__(self, folder: Path, port: int = 0, *, chunk_bytes: int = 0) -> None:
        super().__init__(_Hub, port)
        self.objects, self.xet = folder / "objects", folder / "xet"
        self.pieces, self.chunk_bytes = folder / "parts", chunk_bytes
        for path in (self.objects, self.xet, self.pieces):
            path.mkdir(parents=True, exist_ok=True)
        self.repos: dict[str, Repo] = {}
        self.buckets: dict[str, dict[str, XetFile]] = {}
        self.lock = threading.RLock()
        self.forbidden: set[str] = set()
        """Repos that the token may read but not write."""

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.objects / sha256).write_bytes(content)
        return sha256

    def get(self, sha256: str) -> bytes:
        path = self.objects / sha256
        if not path.exists():
            self.put(read_file(self.xet, self.xet_files()[sha256]))
        return path.read_bytes()

    def has(self, sha256: str) -> bool:
        return (self.objects / sha256).exists() or sha256 in self.xet_files()

    def xet_files(self) -> dict[str, XetFile]:
        """Returns the files of the xet store, by sha256 and by xet hash."""
        files = known_files(self.xet)
        return {file.xet_hash: file for file in files} | {file.sha256: file for file in files if file.sha256}

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Returns the files of a revision, for assertions of tests."""
        found = self.repos[repo]
        return {path: self.get(blob.sha256) for path, blob in found.commits[found.find(revision) or ""].tree.items()}


def hub_environment(hub: Hub, home: Path, *, token: str = TOKEN, xet: bool = False) -> dict[str, str]:
    """Returns the environment variables that direct the clients of Hugging Face to this Hub."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token,
        "FAKEIT_CACHE": str(home / "fakeit"),
    }


def route(method: str, pattern: str) -> Callable[[Any], Any]:
    def mark(function: Any) -> Any:
        function.routes = [*getattr(function, "routes", []), (method, re.compile(pattern + "$"))]
        return function

    return mark


class _Hub(Handler):
    server: Hub

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = {name: values[0] for name, values in parse_qs(query).items()}
        method = "GET" if self.command == "HEAD" else self.command
        for name in dir(type(self)):
            for verb, pattern in getattr(getattr(type(self), name), "routes", []):
                if verb == method and (match := pattern.match(path)):
                    self._serve(
                        getattr(self, name), {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    )
                    return
        self.send(json.dumps({"error": f"no route {method} {path}"}).encode(), 404)

    def _serve(self, function: Callable[..., None], arguments: dict[str, str]) -> None:
        try:
            function(**arguments)
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self.send(json.dumps({"error": error.message, **error.fields}).encode(), error.status, headers)

    # --- shared by all routes ---

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def check_writer(self, id: str) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != TOKEN:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        if id.partition("/")[0] != USER or id in self.server.forbidden:
            raise HubError(403, "", "Forbidden: you don't have the rights to write here")

    def repo(self, id: str) -> Repo:
        repo = self.server.repos.get(id)
        if repo is None or (repo.private and TOKEN not in self.headers.get("Authorization", "")):
            raise HubError(404, "RepoNotFound", "Repository not found")
        return repo

    def tree(self, id: str, revision: str) -> tuple[str, Tree]:
        repo = self.repo(id)
        if (name := repo.find(revision)) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return name, repo.commits[name].tree

    # --- repos ---

    @route("POST", "/api/repos/create")
    def create(self) -> None:
        requested = json.loads(self.body())
        id = f"{requested.get('organization') or USER}/{requested['name']}"
        self.check_writer(id)
        if id in self.server.repos:
            raise HubError(409, "", "You already created this dataset repo", url=f"{self.server.url}/datasets/{id}")
        repo = Repo(private=requested.get("visibility") == "private" or bool(requested.get("private")))
        attributes = b"*.tar filter=lfs diff=lfs merge=lfs -text\n"
        repo.commit("main", {".gitattributes": blob_of(attributes, self.server.put(attributes))}, "initial commit")
        self.server.repos[id] = repo
        self.json({"url": f"{self.server.url}/datasets/{id}", "name": id})

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        self.check_writer(f"{USER}/x")
        self.json({"type": "user", "name": USER, "auth": {"accessToken": {"role": "write"}}})

    @route("POST", "/api/validate-yaml")
    def validate(self) -> None:
        self.json({"errors": [], "warnings": []})

    @route("GET", DATASET)
    @route("GET", DATASET + "/revision/(?P<revision>[^/]+)")
    def info(self, id: str, revision: str = "main") -> None:
        name, tree = self.tree(id, revision)
        siblings = [{"rfilename": path} for path in sorted(tree)]
        self.json({"_id": "0", "id": id, "sha": name, "private": self.repo(id).private, "siblings": siblings,
                   "tags": [], "downloads": 0, "likes": 0, "lastModified": TIME, "createdAt": TIME, "gated": False,
                   "disabled": False})  # fmt: skip

    @route("GET", DATASET + "/refs")
    def refs(self, id: str) -> None:
        repo = self.repo(id)
        branches = {name: target for name, target in repo.refs.items() if not name.startswith("refs/")}
        named = [("heads", branches), ("tags", repo.tags)]
        lists = [
            [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": t} for n, t in of.items()] for kind, of in named
        ]
        self.json({"branches": lists[0], "tags": lists[1], "converts": []})

    @route("GET", DATASET + "/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?")
    def list_tree(self, id: str, revision: str, folder: str = "") -> None:
        _, tree = self.tree(id, revision)
        found = listing(tree, folder, self.query.get("recursive", "").lower() == "true")
        if not found and folder:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist")
        entries = [self.entry(path, blob) for path, blob in found]
        start = int(self.query.get("cursor", "0"))
        page = entries[start : start + 1000]
        headers = {}
        if start + 1000 < len(entries):
            base = self.path.partition("?")[0]
            rest = "&".join(f"{k}={v}" for k, v in self.query.items() if k != "cursor")
            headers["Link"] = f'<{self.server.url}{base}?{rest}&cursor={start + 1000}>; rel="next"'
        self.json(page, headers=headers)

    @route("POST", DATASET + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, id: str, revision: str) -> None:
        _, tree = self.tree(id, revision)
        body = self.body()
        paths = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
        self.json([self.entry(path, tree[path]) for path in paths if path in tree])

    def entry(self, path: str, blob: Blob | None) -> dict[str, Any]:
        if blob is None:
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        found: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
        if blob.is_lfs:
            found["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
            if known := self.server.xet_files().get(blob.sha256):
                found["xetHash"] = known.xet_hash
        return found

    @route("POST", DATASET + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, id: str, revision: str) -> None:
        self.check_writer(id)
        _, tree = self.tree(id, revision)
        files = []
        for requested in json.loads(self.body())["files"]:
            is_lfs = requested["path"].endswith(LFS_SUFFIXES) or requested["size"] > MAX_REGULAR_BYTES
            there = tree.get(requested["path"])
            files.append({"path": requested["path"], "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False,
                          "oid": there and (there.sha256 if there.is_lfs else there.oid)})  # fmt: skip
        self.json({"files": files})

    @route("POST", DATASET + "/commit/(?P<revision>[^/]+)")
    def commit(self, id: str, revision: str) -> None:
        self.check_writer(id)
        lines = [json.loads(line) for line in self.body().splitlines()]
        with self.server.lock:
            head, tree = self.tree(id, revision)
            if lines[0]["value"].get("parentCommit", head) != head:
                raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
            tree = dict(tree)
            for line in lines:
                self.apply(tree, line["key"], line["value"])
            name = self.repo(id).commit(revision, tree, lines[0]["value"]["summary"])
        self.json({"success": True, "commitOid": name, "commitUrl": f"{self.server.url}/datasets/{id}/commit/{name}"})

    def apply(self, tree: Tree, key: str, value: dict[str, Any]) -> None:
        path = value.get("path", "")
        if key == "file":
            content = base64.b64decode(value["content"])
            tree[path] = blob_of(content, self.server.put(content))
        elif key == "lfsFile":
            if not self.server.has(value["oid"]):
                raise HubError(400, "", f"LFS object {value['oid']} was not uploaded")
            # A copied file comes without its size.
            size = value["size"] if "size" in value else len(self.server.get(value["oid"]))
            tree[path] = Blob(value["oid"], size, hashlib.sha1(value["oid"].encode()).hexdigest(), True)
        elif key == "deletedFile":
            if tree.pop(path, None) is None:
                raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
        elif key == "deletedFolder":
            for name in [name for name in tree if name.startswith(path.rstrip("/") + "/")]:
                del tree[name]

    @route("POST", DATASET + "/tag/(?P<revision>[^/]+)")
    def tag(self, id: str, revision: str) -> None:
        self.check_writer(id)
        name, _ = self.tree(id, revision)
        tag = json.loads(self.body())["tag"]
        if tag in self.repo(id).tags:
            raise HubError(409, "", "Tag reference exists already")
        self.repo(id).tags[tag] = name
        self.json({})

    @route("DELETE", DATASET + "/tag/(?P<tag>[^/]+)")
    def delete_tag(self, id: str, tag: str) -> None:
        self.check_writer(id)
        if self.repo(id).tags.pop(tag, None) is None:
            raise HubError(404, "RevisionNotFound", "no such tag")
        self.json({})

    @route("POST", DATASET + "/branch/(?P<branch>[^/]+)")
    def branch(self, id: str, branch: str) -> None:
        self.check_writer(id)
        if branch in self.repo(id).refs:
            raise HubError(409, "", "Reference already exists")
        name, _ = self.tree(id, json.loads(self.body() or b"{}").get("startingPoint") or "main")
        self.repo(id).refs[branch] = name
        self.json({})

    @route("DELETE", DATASET + "/branch/(?P<branch>[^/]+)")
    def delete_branch(self, id: str, branch: str) -> None:
        self.check_writer(id)
        if self.repo(id).refs.pop(branch, None) is None:
            raise HubError(404, "RevisionNotFound", "no such branch")
        self.json({})

    # --- pull requests ---

    @route("GET", DATASET + "/discussions")
    def discussions(self, id: str) -> None:
        found = [pull_json(id, pull) for pull in self.repo(id).pulls]
        if author := self.query.get("author"):
            found = [pull for pull in found if pull["author"]["name"] == author]
        requested = self.query.get("status")
        if requested == "open":
            found = [pull for pull in found if pull["status"] in ("open", "draft")]
        self.json({"discussions": found, "count": len(found), "start": 0})

    @route("POST", DATASET + "/discussions")
    def open_pull(self, id: str) -> None:
        self.check_writer(id)
        with self.server.lock:
            repo = self.repo(id)
            pull = PullRequest(len(repo.pulls) + 1, json.loads(self.body())["title"], repo.refs["main"])
            repo.refs[f"refs/pr/{pull.number}"] = pull.base
            repo.pulls.append(pull)
        self.json({"num": pull.number})

    @route("GET", DATASET + r"/discussions/(?P<number>\d+)")
    def pull(self, id: str, number: str) -> None:
        self.json(pull_json(id, self.repo(id).pulls[int(number) - 1]))

    @route("POST", DATASET + r"/discussions/(?P<number>\d+)/status")
    def pull_status(self, id: str, number: str) -> None:
        self.check_writer(id)
        pull = self.repo(id).pulls[int(number) - 1]
        pull.status = json.loads(self.body())["status"]
        self.json({"newStatus": event(pull.status)})

    @route("POST", DATASET + r"/discussions/(?P<number>\d+)/merge")
    def merge(self, id: str, number: str) -> None:
        self.check_writer(id)
        with self.server.lock:
            repo, reference = self.repo(id), f"refs/pr/{number}"
            pull = repo.pulls[int(number) - 1]
            if pull.status != "open":
                raise HubError(400, "", f"Cannot merge a pull request that is {pull.status}")
            old, ours = repo.commits[pull.base].tree, repo.commits[repo.refs[reference]].tree
            theirs = repo.commits[repo.refs["main"]].tree
            changed = {path for path in old.keys() | ours.keys() if old.get(path) != ours.get(path)}
            if any(theirs.get(path) not in (old.get(path), ours.get(path)) for path in changed):
                raise HubError(409, "", "Cannot merge: there are conflicts with main")
            merged = {path: blob for path, blob in theirs.items() if path not in changed}
            repo.commit("main", merged | {path: ours[path] for path in changed if path in ours}, pull.title)
            pull.status = "merged"
        self.json({})

    # --- contents ---

    @route("GET", r"(?:/datasets)?/(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, id: str, revision: str, path: str) -> None:
        name, tree = self.tree(id, revision)
        if path not in tree:
            raise HubError(404, "EntryNotFound", "Entry not found")
        blob = tree[path]
        headers = {"X-Repo-Commit": name, "ETag": f'"{blob.oid}"', "Content-Type": "application/octet-stream"}
        if blob.is_lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
            if known := self.server.xet_files().get(blob.sha256):
                route = f"{self.server.url}/api/datasets/{id}/xet-read-token/{name}"
                headers |= {"X-Xet-Hash": known.xet_hash, "X-Xet-Refresh-Route": route}
        self.send(self.server.get(blob.sha256), headers=headers)

    @route("POST", r"(?:/datasets)?/(?P<id>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
    def lfs_batch(self, id: str) -> None:
        self.check_writer(id)
        objects = []
        for requested in json.loads(self.body())["objects"]:
            oid, size = requested["oid"], requested["size"]
            found: dict[str, Any] = {"oid": oid, "size": size}
            if not self.server.has(oid):
                url = f"{self.server.url}/lfs/{oid}"
                upload: dict[str, Any] = {"href": url}
                if 0 < self.server.chunk_bytes < size:
                    count = -(-size // self.server.chunk_bytes)
                    pieces = {str(number): f"{url}/{number}" for number in range(1, count + 1)}
                    upload = {
                        "href": f"{url}/complete",
                        "header": {"chunk_size": str(self.server.chunk_bytes), **pieces},
                    }
                found["actions"] = {"upload": upload, "verify": {"href": f"{url}/verify"}}
            objects.append(found)
        self.json({"transfer": "basic", "objects": objects})

    @route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, oid: str) -> None:
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise HubError(400, "", "the content has another sha256")
        self.server.put(content)
        self.send(b"")

    @route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<piece>\d+)")
    def lfs_piece(self, oid: str, piece: str) -> None:
        content = self.body()
        (self.server.pieces / f"{oid}.{piece}").write_bytes(content)
        self.send(b"", headers={"ETag": hashlib.md5(content).hexdigest()})

    @route("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/complete")
    def lfs_complete(self, oid: str) -> None:
        numbers = [piece["partNumber"] for piece in json.loads(self.body())["parts"]]
        content = b"".join((self.server.pieces / f"{oid}.{number}").read_bytes() for number in numbers)
        if self.server.put(content) != oid:
            raise HubError(400, "", "the parts have another sha256")
        self.json({})

    @route("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify")
    def lfs_verify(self, oid: str) -> None:
        if not self.server.has(oid):
            raise HubError(404, "", "no such object")
        self.json({})

    @route("GET", DATASET + "/xet-(?P<kind>read|write)-token/(?P<revision>[^/]+)")
    @route("GET", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)/xet-(?P<kind>read|write)-token")
    def xet_token(self, id: str, kind: str, revision: str = "") -> None:
        if kind == "write":
            self.check_writer(id)
        expires, store = int(time.time()) + 3600, f"local://{self.server.xet}"
        headers = {"X-Xet-Cas-Url": store, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
        self.json({"accessToken": "xet", "exp": expires, "casUrl": store}, headers=headers)

    # --- buckets ---

    @route("POST", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)")
    def create_bucket(self, id: str) -> None:
        self.check_writer(id)
        if id in self.server.buckets:
            raise HubError(409, "", "the bucket exists")
        self.server.buckets[id] = {}
        self.json({"url": f"{self.server.url}/buckets/{id}"})

    def bucket(self, id: str) -> dict[str, XetFile]:
        if id not in self.server.buckets:
            raise HubError(404, "RepoNotFound", "Bucket not found")
        return self.server.buckets[id]

    @route("GET", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)")
    def bucket_info(self, id: str) -> None:
        files = self.bucket(id)
        size = sum(file.size for file in files.values())
        self.json({"id": id, "private": False, "createdAt": TIME, "size": size, "totalFiles": len(files)})

    @route("GET", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)/tree(/(?P<folder>.*))?")
    def bucket_tree(self, id: str, folder: str = "") -> None:
        found = listing(self.bucket(id), folder, self.query.get("recursive", "").lower() == "true")
        self.json([bucket_entry(path, file) for path, file in found])

    @route("POST", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)/paths-info")
    def bucket_paths(self, id: str) -> None:
        files = self.bucket(id)
        self.json([bucket_entry(path, files[path]) for path in json.loads(self.body())["paths"] if path in files])

    @route("POST", r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)/batch")
    def bucket_batch(self, id: str) -> None:
        self.check_writer(id)
        files = self.bucket(id)
        known = self.server.xet_files()
        for line in self.body().splitlines():
            requested = json.loads(line)
            if requested["type"] == "deleteFile":
                files.pop(requested["path"], None)
            else:
                files[requested["path"]] = known[requested["xetHash"]]
        self.json({"failed": []})

    @route("GET", r"/buckets/(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<path>.+)")
    def bucket_resolve(self, id: str, path: str) -> None:
        file = self.bucket(id).get(path)
        if file is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        route = f"{self.server.url}/api/buckets/{id}/xet-read-token"
        headers = {"X-Xet-Hash": file.xet_hash, "X-Xet-Refresh-Route": route, "X-Linked-Size": str(file.size)}
        self.send(read_file(self.server.xet, file), headers={**headers, "ETag": f'"{file.xet_hash}"'})


def blob_of(content: bytes, sha256: str) -> Blob:
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return Blob(sha256, len(content), oid, False)


def listing(files: dict[str, Any], folder: str, recursive: bool) -> list[tuple[str, Any]]:
    """Returns files and folders (None) below a folder, as git lists them."""
    prefix = folder.rstrip("/") + "/" if folder else ""
    found: dict[str, Any] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        pieces = path[len(prefix) :].split("/")
        for depth in range(1, len(pieces) if recursive else min(len(pieces), 2)):
            found[prefix + "/".join(pieces[:depth])] = None
        if recursive or len(pieces) == 1:
            found[path] = file
    return sorted(found.items())


def bucket_entry(path: str, file: XetFile | None) -> dict[str, Any]:
    if file is None:
        return {"type": "directory", "path": path}
    return {"type": "file", "path": path, "size": file.size, "xetHash": file.xet_hash, "uploadedAt": TIME}


def event(status: str) -> dict[str, Any]:
    return {"id": "0", "type": "status-change", "createdAt": TIME, "author": {"name": USER}, "data": {"status": status}}


def pull_json(id: str, pull: PullRequest) -> dict[str, Any]:
    return {"num": pull.number, "title": pull.title, "status": pull.status, "isPullRequest": True, "createdAt": TIME,
            "author": {"name": pull.author}, "repo": {"name": id, "type": "dataset"}, "events": [], "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main", "mergeCommitId": None}, "diff": None}  # fmt: skip
