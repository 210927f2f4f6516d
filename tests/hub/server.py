"""A Hugging Face hub of one's own, on 127.0.0.1: as much of its HTTP API as loading a model or a data set asks for.

Knows repositories as folders with revisions; knows nothing about models, data or this project. Headers and error codes
are those that huggingface_hub reads. Not served: Xet, the data set viewer, uploads.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.+))?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Folders by revision, and what goes wrong with them."""

    revisions: dict[str, Path] = field(default_factory=dict)
    gated: bool = False
    cut: dict[str, int] = field(
        default_factory=dict
    )  # file: how many of its downloads break off: half-way, and when resumed at once
    proposals: list[tuple[int, str, str]] = field(default_factory=list)  # open pull requests: number, author, title

    def folder(self, revision: str) -> Path | None:
        """By branch, ref or commit."""
        for name, folder in self.revisions.items():
            if revision in (name, commit(folder)):
                return folder
        return None


class LocalHub:
    """Serves until ``close``. ``log`` holds what was asked for, as "METHOD path"."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.log: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def publish(self, kind: str, name: str, folder: Path, revision: str = "main", **about: Any) -> Repository:
        """Add a revision to a repository, and what is to go wrong; ``kind`` is "models" or "datasets"."""
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.revisions[revision] = folder
        for key, value in about.items():
            setattr(repository, key, value)
        return repository

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def commit(folder: Path) -> str:
    """A revision's 40 hex digits."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        self.hub.log.append(f"{self.command} {unquote(self.path)}")

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, body: str = "") -> None:
        path = urlsplit(self.path).path
        if call := API.fullmatch(path):
            kind, name, rest = call.groups(default="")
            self._api(kind, name, [unquote(part) for part in rest.split("/", 2)], body)
        elif call := FILE.fullmatch(path):
            kind, name, revision, file = call.groups()
            self._file("datasets" if kind else "models", name, unquote(revision), unquote(file))
        else:
            self._refuse(404, "", "")

    def _find(self, kind: str, name: str, revision: str) -> tuple[Repository, Path] | None:
        """What is asked for; None if it was refused."""
        repository = self.hub.repositories.get((kind, name))
        if repository is None:  # the real one does not tell strangers what is private and what does not exist
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return None
        folder = repository.folder(revision)
        if folder is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, folder

    def _api(self, kind: str, name: str, words: list[str], body: str) -> None:
        call, revision, path = (*words, "", "")[:3]
        found = self._find(kind, name, revision or "main" if call in ("revision", "tree", "paths-info") else "main")
        if found is None:
            return
        repository, folder = found
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if call in ("", "revision"):
            siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
            about = {"id": name, "sha": commit(folder), "private": False, "tags": [], "siblings": siblings}
            self._json({**about, "gated": "manual" if repository.gated else False})
        elif call == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
            start = folder / path
            entries = sorted(start.rglob("*") if recursive else start.glob("*"))
            if start.is_dir():
                self._json([_entry(entry, folder) for entry in entries])
            else:
                self._refuse(404, "EntryNotFound", f"{path} does not exist")
        elif call == "paths-info":
            entries = [folder / path for path in parse_qs(body).get("paths", [])]
            self._json([_entry(entry, folder) for entry in entries if entry.exists()])
        elif call == "discussions":
            self._json(_discussions(name, repository, parse_qs(urlsplit(self.path).query).get("author", [""])[0]))
        elif call == "auth-check" and repository.gated and not self._has_token():
            self._refuse(401, "GatedRepo", f"Access to {name} is restricted.")
        elif call == "auth-check":
            self._json({})
        else:
            self._refuse(404, "", "")

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self._find(kind, name, revision)
        if found is None:
            return
        repository, folder = found
        if repository.gated and not self._has_token():
            self._refuse(401, "GatedRepo", f"Access to {name} is restricted.")
        elif not (folder / path).is_file():
            self._refuse(404, "EntryNotFound", "Entry not found", commit(folder))
        else:
            data = (folder / path).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit(folder))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            breaks = self.command == "GET" and repository.cut.get(path, 0) > 0
            repository.cut[path] = repository.cut.get(path, 0) - breaks
            self._send(data[start:], breaks=breaks)

    def _has_token(self) -> bool:
        return self.headers.get("Authorization", "").startswith("Bearer ")

    def _json(self, value: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(value).encode())

    def _refuse(self, status: int, code: str, message: str, sha: str = "") -> None:
        self.send_response(status)
        for header, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", sha)):
            if value:
                self.send_header(header, value)
        self._send(json.dumps({"error": message}).encode())

    def _send(self, data: bytes, *, breaks: bool = False) -> None:
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: 0 if "Range" in self.headers else len(data) // 2] if breaks else data)
        self.close_connection = self.close_connection or breaks


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    about = {"path": path.relative_to(folder).as_posix(), "oid": commit(path)}
    return {**about, "type": "directory", "size": 0} if path.is_dir() else _file_entry(path, about)


def _file_entry(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    return {**about, "type": "file", "size": path.stat().st_size}


def _discussions(name: str, repository: Repository, wanted: str) -> dict[str, Any]:
    rows = [
        {
            "num": number,
            "author": {"name": author},
            "title": title,
            "status": "open",
            "isPullRequest": True,
            "createdAt": "2023-03-16T00:00:00.000Z",
            "repo": {"name": name, "type": "model"},
        }
        for number, author, title in repository.proposals
        if wanted in ("", author)
    ]
    return {"discussions": rows, "count": len(rows), "start": 0}
