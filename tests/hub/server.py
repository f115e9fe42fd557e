"""A hub that really listens: as much of its HTTP interface as loading and pushing need."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

__all__ = ["TOKEN", "HubServer", "Repo"]

TOKEN = "hf_of-the-tests"


@dataclass
class Repo:
    """A repository: files by commit, commits by branch. Only TOKEN may see a private one."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """Put these files, and no others, on a branch."""
        before = f"{self.branches.get(branch)} {len(self.commits)}"
        sha = hashlib.sha1(before.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class HubServer:
    """Serves `repos` on a free port while it is entered.

    asked lists "METHOD path" of what came; `status` is what all of it is answered with, if set;
    sizes overrides the size that is told of a file; meanwhile holds what happens once after an
    "info" and before a "commit" (others push, too).
    """

    def __init__(self) -> None:
        self.reset()
        app = FastAPI()
        model = "/api/models/{org}/{name}"
        for method, path, answer in (
            ("GET", model, self._info),
            ("GET", model + "/revision/{revision}", self._info),
            ("GET", "/{org}/{name}/resolve/{revision}/{path:path}", self._file),
            ("HEAD", "/{org}/{name}/resolve/{revision}/{path:path}", self._file),
            ("POST", "/api/repos/create", self._create),
            ("POST", "/api/validate-yaml", self._validate),
            ("POST", model + "/branch/{branch}", self._branch),
            ("POST", model + "/preupload/{revision}", self._preupload),
            ("POST", model + "/commit/{revision}", self._commit),
        ):
            app.add_api_route(path, answer, methods=[method])
        app.middleware("http")(self._note)
        # With the protocol named, asyncio sends at once: else, each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
        run = {"sockets": [self._socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=run, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def reset(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.sizes: dict[str, int] = {}
        self.status = 0
        self.meanwhile: dict[str, Callable[[], object]] = {}

    async def _note(self, request: Request, call_next: Any) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.status:
            return Response("an answer of no use", self.status)
        answer: Response = await call_next(request)
        return answer

    def _find(self, request: Request, org: str, name: str) -> Repo | None:
        repo = self.repos.get(f"{org}/{name}")
        return None if repo is None or (repo.private and not _knows(request)) else repo

    def _info(self, request: Request, org: str, name: str, revision: str = "main") -> Response:
        repo = self._find(request, org, name)
        if repo is None:
            return _error(404 if _knows(request) else 401, "RepoNotFound")
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            return _error(404, "RevisionNotFound")
        siblings = [
            {"rfilename": path, "size": self.sizes.get(path, len(data))}
            for path, data in repo.commits[sha].items()
        ]
        self.meanwhile.pop("info", int)()
        told = {"id": f"{org}/{name}", "sha": sha, "private": repo.private, "siblings": siblings}
        return JSONResponse(told)

    def _file(self, request: Request, org: str, name: str, revision: str, path: str) -> Response:
        repo = self._find(request, org, name)
        if repo is None:
            return _error(401, "RepoNotFound")
        if repo.gated:
            return _error(403, "GatedRepo")
        sha = repo.branches.get(revision, revision)
        if path not in repo.commits.get(sha, {}):
            return _error(404, "EntryNotFound", {"X-Repo-Commit": sha})
        data = repo.commits[sha][path]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return Response(data, headers={"ETag": etag, "X-Repo-Commit": sha})

    async def _create(self, request: Request) -> Response:
        if not _knows(request):
            return _error(401, "", {"X-Error-Message": "Invalid username or password."})
        body = await request.json()
        name = f"{body['organization']}/{body['name']}"
        url = {"url": f"{self.url}/{name}"}
        if name in self.repos:
            return JSONResponse(url, 409)
        private = body.get("visibility") == "private" or body.get("private") is True
        self.repos[name] = Repo(private)
        self.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return JSONResponse(url)

    async def _validate(self, request: Request) -> Response:
        bad = "license: no-such-licence" in (await request.json())["content"]
        errors = [{"message": '"license" must be one of [apache-2.0, mit, …]'}] if bad else []
        return JSONResponse({"errors": errors, "warnings": []}, 400 if bad else 200)

    def _branch(self, org: str, name: str, branch: str) -> Response:
        repo = self.repos[f"{org}/{name}"]
        if branch in repo.branches:
            return Response(status_code=409)
        repo.branches[branch] = repo.branches["main"]
        return Response()

    async def _preupload(self, request: Request) -> Response:
        files = (await request.json())["files"]
        modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
        return JSONResponse({"files": modes})

    async def _commit(self, request: Request, org: str, name: str, revision: str) -> Response:
        repo = self.repos[f"{org}/{name}"]
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        self.meanwhile.pop("commit", int)()
        files, message = dict(repo.files(revision)), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value["parentCommit"] != repo.branches[revision]:
                    return _error(412, "", {"X-Error-Message": "the branch moved on"})
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files, revision, message)
        url = f"{self.url}/{org}/{name}/commit/{sha}"
        return JSONResponse({"commitUrl": url, "commitOid": sha, "success": True})


def _knows(request: Request) -> bool:
    return bool(request.headers.get("authorization") == f"Bearer {TOKEN}")


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    return Response(status_code=status, headers={"X-Error-Code": code, **(headers or {})})
