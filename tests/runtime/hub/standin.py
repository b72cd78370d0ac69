"""A hub of this machine: the requests of huggingface_hub, answered from memory.

What goes wrong is set on it: a status for every answer, other bytes than those listed, an answer
that stops half-way and waits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

LARGE = 20_000  # bytes from which a file is kept as LFS, and served from another address
TOKEN = "hf_of_the_tests"
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/([\w-]+)/([^/]+))?")


@dataclass
class Repo:
    """A repository: its branches, and the files of each commit."""

    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit of these files alone."""
        named = "".join(f"{n}{hashlib.sha1(c).hexdigest()}" for n, c in sorted(files.items()))
        sha = hashlib.sha1(f"{named}{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """The commit of a branch or commit."""
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Hub:
    """What it holds, what it was asked, and what goes wrong."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET /a/b/resolve/main/x bytes=5-"
    tokens: dict[str, str | None] = field(default_factory=dict)  # by the host that got it
    lies: dict[str, bytes] = field(default_factory=dict)  # by name: what comes in its place
    stops: dict[str, int] = field(default_factory=dict)  # by name: after so many bytes it waits
    sizes: dict[str, int] = field(default_factory=dict)  # by name: what is said in a list
    status: int = 0  # of every answer
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS, by sha256
    go_on: threading.Event = field(default_factory=threading.Event)

    def fetched(self, name: str) -> list[str]:
        """The requests for bytes of a file."""
        return [line for line in self.asked if line.startswith("GET") and f"/{name}" in line]

    def repo(self, name: str, files: dict[str, bytes]) -> Repo:
        """A new repository with a commit of these files."""
        made = self.repos.setdefault(name, Repo())
        made.commit(files)
        return made


class Refused(Exception):
    """An answer that is an error: its status and the hub's own code for it."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.stored[hashlib.sha256(content).hexdigest()] = content
        self.hub.asked.append(f"PUT {self.path}")
        self._send(200, b"")

    def _answer(self, how: Any) -> None:
        asked = f"{self.command} {unquote(self.path)} {self.headers.get('Range', '')}".strip()
        self.hub.asked.append(asked)
        host = self.headers["Host"].partition(":")[0]
        self.hub.tokens[host] = self.headers.get("Authorization")
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        try:
            if self.hub.status:
                raise Refused(self.hub.status, "")
            how()
        except Refused as error:
            status, code = error.args
            self._send(status, b'{"error": "refused"}', {"X-Error-Code": code} if code else {})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _repo(self, name: str, revision: str | None = None) -> tuple[Repo, str]:
        repo, token = self.hub.repos.get(name), self.headers.get("Authorization")
        if repo is None or repo.private and token != f"Bearer {TOKEN}":
            raise Refused(404, "RepoNotFound")
        if repo.gated and token != f"Bearer {TOKEN}":
            raise Refused(403, "GatedRepo")
        commit = repo.at("main" if revision is None else unquote(revision))
        if commit is None and revision is not None:
            raise Refused(404, "RevisionNotFound")
        return repo, commit or ""

    def _get(self) -> None:
        if found := RESOLVE.fullmatch(self.path):
            self._resolve(found[1], found[2], unquote(found[3]))
        elif self.path.startswith("/stored/"):
            _, _, sha, name = self.path.split("/", 3)
            self._file(self.hub.stored[sha], unquote(name))
        elif found := API.fullmatch(self.path):
            repo, commit = self._repo(found[1])
            self._json({"id": found[1], "sha": commit, "private": repo.private})
        else:
            raise Refused(404, "")

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo, commit = self._repo(name, revision)
        content = repo.commits[commit].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound")
        sha = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha}"'}
        if len(content) < LARGE:
            self._file(content, path, headers)
            return
        self.hub.stored[sha] = content
        headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
        other = self.hub.url.replace("127.0.0.1", "localhost")  # another host, as a CDN is
        self._send(302, b"", headers | {"Location": f"{other}/stored/{sha}/{path}"})

    def _file(self, content: bytes, name: str, headers: dict[str, str] | None = None) -> None:
        if self.command == "GET":  # what is said of a file beforehand is true
            content = self.hub.lies.get(name, content)
        status, headers = 200, headers or {}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]
        self._send(status, content, headers, self.hub.stops.get(name))

    def _post(self) -> None:
        if found := API.fullmatch(self.path):
            how = found[2].replace("-", "_")
            getattr(self, f"_{how}")(found[1], unquote(found[3]))
        elif self.path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            new = name not in self.hub.repos
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repos.setdefault(name, Repo(private=private))
            self._json({"url": f"{self.hub.url}/{name}"}, 200 if new else 409)
        elif self.path == "/api/validate-yaml":
            assert json.loads(self.body)["content"].startswith("---\n")
            self._json({})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            self._json({"transfer": "basic", "objects": [*map(self._room, self._objects())]})
        else:
            raise Refused(404, "")

    def _objects(self) -> list[dict[str, Any]]:
        return json.loads(self.body)["objects"]

    def _room(self, large: dict[str, Any]) -> dict[str, Any]:
        if large["oid"] in self.hub.stored:
            return large
        return large | {"actions": {"upload": {"href": f"{self.hub.url}/up/{large['oid']}"}}}

    def _paths_info(self, name: str, revision: str) -> None:
        repo, commit = self._repo(name, revision)
        files = repo.commits[commit]
        found: list[dict[str, Any]] = []
        for path in parse_qs(self.body.decode())["paths"]:
            if path in files:
                size = self.hub.sizes.get(path, len(files[path]))
                sha = hashlib.sha256(files[path]).hexdigest()
                entry: dict[str, Any] = {
                    "type": "file",
                    "path": path,
                    "size": size,
                    "oid": "0" * 40,
                }
                if len(files[path]) >= LARGE:
                    entry["lfs"] = {"oid": sha, "size": size, "pointerSize": 130}
                found.append(entry)
        self._json(found)

    def _branch(self, name: str, branch: str) -> None:
        repo, commit = self._repo(name)
        repo.refs.setdefault(branch, commit)
        repo.commits.setdefault(commit, {})
        self._json({})

    def _preupload(self, name: str, revision: str) -> None:
        self._repo(name)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def _commit(self, name: str, branch: str) -> None:
        repo, _ = self._repo(name)
        files = dict(repo.commits.get(repo.at(branch) or "", {}))
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        sha = repo.commit(files, branch)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def _json(self, plain: Any, status: int = 200) -> None:
        self._send(status, json.dumps(plain).encode(), {"Content-Type": "application/json"})

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:stop])
        if stop is not None and stop < len(content):
            self.wfile.flush()
            self.hub.go_on.wait(60)
            self.wfile.write(content[stop:])


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    handler = type("HandlerOfHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
