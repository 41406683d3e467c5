"""A W&B server on the loopback interface, as far as the real client of these tests needs one.

It speaks the GraphQL, file stream and storage protocol of wandb 0.31 and keeps all in memory. What it does not know it answers
with an error and lists in ``unknown``, which tests hold against the empty list: a client with another protocol fails loudly.
It was written from observed traffic and so proves what our side sends, not the rules of W&B's own server.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import yaml
from support.forked_trials import unused_port

ENTITY = "bench-team"
KEY = "0" * 40
HANG = -1  # a fault: no answer
NOW = "2026-01-01T00:00:00Z"
ONE_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
Variables = dict[str, Any]


@dataclass
class StoredRun:
    """A run as the server holds it."""

    project: str
    name: str
    display_name: str = ""
    state: str = "running"
    exit_code: int | None = None
    group: str | None = None
    job_type: str | None = None
    sweep: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return encoded("Run", ENTITY, self.project, self.name)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams.get("wandb-history.jsonl", [])]

    @property
    def axes(self) -> dict[str, str]:
        """The step metric of each defined metric."""
        metrics = self.config.get("_wandb", {}).get("value", {}).get("m", [])
        return {metric["1"]: metrics[metric["5"] - 1]["1"] for metric in metrics if "5" in metric}


@dataclass
class StoredArtifact:
    """An artifact; ``files`` are their paths in the storage."""

    id: str
    name: str
    kind: str
    run: str
    project: str
    digest: str
    aliases: list[str]
    committed: bool = False
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class StoredSweep:
    """A sweep over a grid; ``waiting`` are the points that no agent has taken."""

    name: str
    project: str
    config: str
    waiting: list[dict[str, Any]]
    state: str = "PENDING"
    taken: int = 0


class NotFound(LookupError):
    """What is asked for does not exist; the message is the server's."""


class WandbServer:
    """Serves from ``with`` on; ``stop`` and ``start`` take it down and up again on the same port.

    Attributes:
        fault: asked with the kind (``graphql``, ``stream``, ``storage``) and the operation or path; a status, or HANG.
        written: how many requests changed something.
        accepted: how many connections there were.
    """

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.storage: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.written = 0
        self.accepted = 0
        self.sweeps: dict[str, StoredSweep] = {}
        self.agents: dict[str, StoredSweep] = {}
        self.fault: Callable[[str, str], int | None] = lambda kind, name: None
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self.port = unused_port()
        self._http: http.server.ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serves; started again does nothing."""
        if self._http is not None:
            return
        handler = type("Bound", (Handler,), {"server_state": self})
        self._http = _Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections and drops those there are."""
        if self._http is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._http = None
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def run(self, variables: Variables) -> StoredRun | None:
        name = next(variables[key] for key in ("name", "run", "runName") if key in variables)
        return self.runs.get((variables.get("project") or "uncategorized", name))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to report."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection. A method ``op_…`` answers the GraphQL operation of that name."""

    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def setup(self) -> None:
        super().setup()
        self.server_state.connections.add(self.connection)
        self.server_state.accepted += 1

    def finish(self) -> None:
        self.server_state.connections.discard(self.connection)
        super().finish()

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self._storage_path()
        content = self.server_state.storage.get(path)
        if self._faulty("storage", path):
            return
        if content is None:
            self._send({"error": f"no {self.path}"}, 404)
        else:
            self._send(content)

    def do_PUT(self) -> None:
        body, path = self._body(), self._storage_path()
        if self._faulty("storage", path):
            return
        with self.server_state.lock:
            self.server_state.storage[path] = body
            self.server_state.written += 1
        self._send({})

    def do_POST(self) -> None:
        body, path = self._body(), self.path.split("?")[0]
        if path.startswith("/sdk/otel"):  # telemetry
            return self._send({})
        query = json.loads(body) if path == "/graphql" else {}
        if query:
            name = query.get("operationName") or re.findall(r"(?:query|mutation)\s+(\w+)", query["query"])[0]
            if self._faulty("graphql", name):
                return None
        key = base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers["authorization"] != f"Basic {key}":
            return self._send({"errors": [{"message": "user is not logged in"}]}, 401)
        stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if stream:
            _, project, name = map(unquote, stream.groups())
            if not self._faulty("stream", name):
                self._stream(self.server_state.runs[project, name], json.loads(body))
            return None
        if not query:
            self.server_state.unknown.append(path)
            return self._send({"error": "no such path"}, 404)
        operation = getattr(self, f"op_{name}", None)
        with self.server_state.lock:
            if operation is None:
                self.server_state.unknown.append(name)
                return self._send({"errors": [{"message": f"unknown operation {name}"}]})
            self.server_state.written += query["query"].lstrip().startswith("mutation")
            try:
                answer = {"data": operation(query.get("variables") or {})}
            except NotFound as error:
                answer = {"errors": [{"message": str(error), "path": ["x"]}], "data": None}
            except Exception as error:  # noqa: BLE001 - a question that is not understood
                self.server_state.unknown.append(f"{name} {query.get('variables')}: {error!r}")
                answer = {"errors": [{"message": f"{name} is not understood", "path": ["x"]}], "data": None}
        return self._send(answer)

    def _faulty(self, kind: str, name: str) -> bool:
        status = self.server_state.fault(kind, name)
        if status == HANG:
            time.sleep(60)
            self.close_connection = True
        elif status is not None:
            self._send({"errors": [{"message": "injected"}]}, status)
        return status is not None

    def _storage_path(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/storage/")

    def _url(self, path: str) -> str:
        return f"{self.server_state.url}/storage/{quote(path)}"

    def _body(self) -> bytes:
        if "chunked" in (self.headers.get("transfer-encoding") or ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def _send(self, content: Any, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, run: StoredRun, sent: dict[str, Any]) -> None:
        with self.server_state.lock:
            self.server_state.written += 1
            for name, chunk in (sent.get("files") or {}).items():
                if name == "wandb-summary.json":
                    run.summary = json.loads(chunk["content"][-1])
                    continue
                lines = run.streams.setdefault(name, [])
                lines[chunk.get("offset", 0) :] = chunk["content"]
            run.state = "running"
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode") or 0
                run.state = "failed" if run.exit_code else "finished"
        self._send({"exitcode": None, "limits": {}})

    # Nodes that several operations answer with.

    def _user(self) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        names = {"id": encoded("User"), "entity": ENTITY, "name": "ci", "username": "ci", "email": "ci@example.invalid"}
        return names | {"admin": False, "flags": "{}", "deletedAt": None, "teams": teams, "apiKeys": {"edges": []}}

    def _project(self, name: str) -> dict[str, Any]:
        entity = {"id": encoded("Entity"), "name": ENTITY}
        ids = {"id": encoded("Project", name), "internalId": encoded("Project", name)}
        rest = {"readOnly": False, "createdAt": NOW, "isBenchmark": False, "user": self._user(), "entity": entity}
        return ids | {"name": name, "entityName": ENTITY, "views": "{}", "description": "", "access": "PRIVATE"} | rest

    def _run(self, run: StoredRun) -> dict[str, Any]:
        rows, keys = run.history, {}
        for row in rows:
            for key, value in row.items():
                kind = "number" if isinstance(value, int | float) else "string"
                keys[key] = {"typeCounts": [{"type": kind, "count": 1}]}
        counts = {
            f"{key}LineCount": len(run.streams.get(name, []))
            for key, name in (
                ("history", "wandb-history.jsonl"),
                ("events", "wandb-events.jsonl"),
                ("log", "output.log"),
            )
        }
        tails = {
            f"{key}Tail": json.dumps(run.streams.get(f"wandb-{key}.jsonl", [])[-1:]) for key in ("history", "events")
        }
        node = {"id": run.id, "name": run.name, "displayName": run.display_name, "state": run.state, "group": run.group}
        node |= {"jobType": run.job_type, "tags": run.tags, "notes": None, "createdAt": NOW, "heartbeatAt": NOW}
        node |= {"sweepName": run.sweep, "description": None, "systemMetrics": "{}", "projectId": 1, "commit": None}
        node |= {"readOnly": False, "stopped": False, "user": self._user(), "project": self._project(run.project)}
        node |= {"config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary)}
        node |= {"wandbConfig": json.dumps({"t": 1} if run.config else {})}
        node |= {"historyKeys": {"lastStep": rows[-1]["_step"] if rows else -1, "sets": [], "keys": keys}}
        return node | counts | tails

    def _artifact(self, artifact: StoredArtifact) -> dict[str, Any]:
        versions = self._versions(artifact.name)
        collection = {"__typename": "ArtifactSequence", "id": encoded("Sequence", artifact.name), "name": artifact.name}
        collection["project"] = self._project(artifact.project)
        aliases = [
            {
                "__typename": "ArtifactAlias",
                "id": encoded("Alias", name),
                "alias": name,
                "artifactCollection": collection,
            }
            for name in artifact.aliases
        ]
        manifest = self._url(f"manifest/{artifact.id}/wandb_manifest.json")
        return {
            "__typename": "Artifact", "id": artifact.id, "artifactSequence": collection,
            "versionIndex": versions.index(artifact), "artifactType": {"name": artifact.kind}, "description": None,
            "metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None,
            "state": "COMMITTED", "size": sum(len(self.server_state.storage[path]) for path in artifact.files.values()),
            "digest": artifact.digest, "commitHash": "0", "fileCount": len(artifact.files), "createdAt": NOW,
            "updatedAt": NOW, "aliases": aliases, "currentManifest": {"id": "m", "file": {"id": "m", "directUrl": manifest}},
        }  # fmt: skip

    def _versions(self, name: str) -> list[StoredArtifact]:
        return [artifact for artifact in self.server_state.artifacts if artifact.name == name and artifact.committed]

    def _version(self, name: str) -> StoredArtifact | None:
        """By ``name:v3`` or ``name:alias``."""
        name, _, version = name.partition(":")
        versions = self._versions(name)
        if re.fullmatch(r"v\d+", version):
            return versions[int(version[1:])] if int(version[1:]) < len(versions) else None
        return versions[-1] if versions else None

    def _by_id(self, artifact: str) -> StoredArtifact:
        return next(item for item in self.server_state.artifacts if item.id == artifact)

    # A run, as the client writes it.

    def op_Viewer(self, given: Variables) -> Any:
        return {"viewer": self._user()}

    op_GetViewer = op_GetDefaultEntity = op_Viewer

    def op_ServerInfo(self, given: Variables) -> Any:
        local = {"outOfDate": False, "latestVersionString": "0.80.0", "versionOnThisInstanceString": "0.80.0"}
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "0.99.0"}, "latestLocalVersionInfo": local}}

    def op_ServerFeaturesQuery(self, given: Variables) -> Any:
        return {"serverInfo": {"features": []}}

    def op_OrganizationCoreWeaveOrganizationID(self, given: Variables) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def op_RunResumeStatus(self, given: Variables) -> Any:
        run = self.server_state.run(given)
        return {"model": self._project(given["project"]) | {"bucket": self._run(run) if run else None}}

    def op_UpsertBucket(self, given: Variables) -> Any:
        if given.get("entity") not in {None, ENTITY}:
            raise NotFound(f"entity {given['entity']} not found during upsertBucket")
        if given.get("id"):
            run, inserted = next(run for run in self.server_state.runs.values() if run.id == given["id"]), False
        else:
            place = (given.get("project") or "uncategorized", given["name"])
            inserted = place not in self.server_state.runs
            run = self.server_state.runs.setdefault(place, StoredRun(*place))
        for key, name in {
            "displayName": "display_name",
            "groupName": "group",
            "jobType": "job_type",
            "sweep": "sweep",
            "tags": "tags",
            "notes": "notes",
        }.items():
            if given.get(key) is not None:
                setattr(run, name, given[key])
        run.config |= json.loads(given.get("config") or "{}")
        run.summary |= json.loads(given.get("summaryMetrics") or "{}")
        return {"upsertBucket": {"bucket": self._run(run), "inserted": inserted, "serverSettings": None}}

    def op_UpsertSweep(self, given: Variables) -> Any:
        sweeps = self.server_state.sweeps
        if given.get("id"):
            sweep = next(sweep for sweep in sweeps.values() if given["id"] == encoded("Sweep", sweep.name))
            sweep.state = given.get("state") or sweep.state
        else:
            parameters = yaml.safe_load(given["config"])["parameters"]
            values = [options.get("values", [options.get("value")]) for options in parameters.values()]
            grid = [dict(zip(parameters, point, strict=True)) for point in itertools.product(*values)]
            sweep = StoredSweep(
                f"sweep{len(sweeps)}", given.get("projectName") or "uncategorized", given["config"], grid
            )
            sweeps[sweep.name] = sweep
        node = {"name": sweep.name, "id": encoded("Sweep", sweep.name), "project": self._project(sweep.project)}
        return {"upsertSweep": {"sweep": node, "configValidationWarnings": []}}

    def op_CreateAgent(self, given: Variables) -> Any:
        agents = self.server_state.agents
        agents[name := f"agent{len(agents)}"] = self.server_state.sweeps[given["sweep"]]
        return {"createAgent": {"agent": {"id": name}}}

    def op_Heartbeat(self, given: Variables) -> Any:
        """The next point of the grid to an agent that has nothing to do, the end after the last."""
        sweep, commands = self.server_state.agents[given["id"]], []
        if not any(json.loads(given.get("runState") or "{}").values()):
            if sweep.waiting:
                sweep.taken += 1
                point = {key: {"value": value} for key, value in sweep.waiting.pop(0).items()}
                program = yaml.safe_load(sweep.config)["program"]
                commands = [
                    {"type": "run", "run_id": f"{sweep.name}run{sweep.taken}", "args": point, "program": program}
                ]
            else:
                sweep.state, commands = "FINISHED", [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def op_SweepWithRuns(self, given: Variables) -> Any:
        sweep = self.server_state.sweeps[given.get("sweep") or given["name"]]
        node = {"id": encoded("Sweep", sweep.name), "name": sweep.name, "config": sweep.config, "state": sweep.state}
        node |= {"method": "grid", "displayName": None, "description": None, "bestLoss": None, "controller": None}
        node |= {
            "scheduler": None,
            "createdAt": NOW,
            "heartbeatAt": NOW,
            "updatedAt": NOW,
            "earlyStopJobRunning": False,
        }
        node |= {"runCount": sweep.taken, "runCountExpected": None, "runs": {"edges": []}, "priorRuns": {"edges": []}}
        return {"project": self._project(sweep.project) | {"sweep": node}}

    op_GetSweep = op_GetSweepState = op_GetSweepLegacy = op_SweepWithRuns

    def op_RunStoppedStatus(self, given: Variables) -> Any:
        return {"project": {"run": {"stopped": False}}}

    def op_CreateRunFiles(self, given: Variables) -> Any:
        files = [
            {"name": name, "uploadUrl": self._url(f"run/{given['project']}/{given['run']}/{name}")}
            for name in given["files"]
        ]
        run = encoded("Run", ENTITY, given["project"], given["run"])
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    # Artifacts, as the client writes them.

    def op_ArtifactType(self, given: Variables) -> Any:
        artifact = self._version(given["name"])
        return {"project": {"artifact": artifact and {"artifactType": {"name": artifact.kind}}}}

    def op_CreateArtifact(self, given: Variables) -> Any:
        wanted = given["input"]
        versions = self._versions(wanted["artifactCollectionName"])
        artifact = next((version for version in versions if version.digest == wanted["digest"]), None)
        if artifact is None:
            artifact = StoredArtifact(
                encoded("Artifact", len(self.server_state.artifacts)),
                wanted["artifactCollectionName"],
                wanted["artifactTypeName"],
                wanted["runName"],
                wanted["projectName"],
                wanted["digest"],
                [alias["alias"] for alias in wanted.get("aliases") or []],
            )
            self.server_state.artifacts.append(artifact)
        state = "COMMITTED" if artifact.committed else "PENDING"
        latest = {"latestArtifact": {"id": versions[-1].id} if versions else None}
        return {"createArtifact": {"artifact": {"id": artifact.id, "state": state, "artifactSequence": latest}}}

    def op_CreateArtifactManifest(self, given: Variables) -> Any:
        url = self._url(f"manifest/{given['artifactID']}/{given['name']}")
        manifest = encoded("Manifest", given["artifactID"])
        file = {"id": manifest, "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": manifest, "file": file}}}

    def op_CreateArtifactFiles(self, given: Variables) -> Any:
        edges = []
        for file in given["input"]["artifactFiles"]:
            path = f"artifact/{file['artifactID']}/{file['name']}"
            self._by_id(file["artifactID"]).files[file["name"]] = path
            node = {"storagePath": path, "uploadUrl": self._url(path), "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": node | {"artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def op_CommitArtifact(self, given: Variables) -> Any:
        artifact = self._by_id(given["artifactID"])
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    # What wandb.Api reads.

    def op_Run(self, given: Variables) -> Any:
        run = self.server_state.run(given)
        return {"project": self._project(given["project"]) | {"run": self._run(run) if run else None}}

    def op_RunHistoryKeys(self, given: Variables) -> Any:
        run = self.server_state.run(given)
        return {"project": {"run": run and {"historyKeys": self._run(run)["historyKeys"]}}}

    def op_RunParquetHistory(self, given: Variables) -> Any:
        run = self.server_state.run(given)
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": run.history if run else []}}}}

    def op_HistoryPage(self, given: Variables) -> Any:
        run = self.server_state.run(given)
        low, high = int(given["minStep"]), int(given["maxStep"])
        rows = [row for row in run.history if low <= row["_step"] < high] if run else []
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def op_RunFiles(self, given: Variables) -> Any:
        prefix = f"run/{given['project']}/{given['name']}/"
        edges = []
        for path, content in self.server_state.storage.items():
            name = path.removeprefix(prefix)
            if path.startswith(prefix) and name in (given.get("fileNames") or [name]):
                digest = base64.b64encode(hashlib.md5(content).digest()).decode()
                node = {"id": name, "name": name, "url": self._url(path), "directUrl": self._url(path), "md5": digest}
                node |= {"sizeBytes": str(len(content)), "mimetype": None, "updatedAt": NOW}
                edges.append({"cursor": name, "node": node})
        files = {"fileCount": len(edges), "files": {"edges": edges, "pageInfo": ONE_PAGE}}
        return {"project": {"internalId": "1", "run": files}}

    def op_RunOutputArtifacts(self, given: Variables) -> Any:
        mine = [
            artifact
            for artifact in self.server_state.artifacts
            if artifact.run == given["run"] and artifact.project == given["project"] and artifact.committed
        ]
        edges = [{"node": self._artifact(artifact)} for artifact in mine]
        return {"project": {"run": {"artifacts": {"totalCount": len(edges), "pageInfo": ONE_PAGE, "edges": edges}}}}

    def op_ArtifactMembershipByName(self, given: Variables) -> Any:
        artifact = self._version(given["name"])
        if artifact is None:
            return {"project": {"artifactCollectionMembership": None}}
        node = self._artifact(artifact)
        member = {"__typename": "ArtifactCollectionMembership", "id": encoded("Member", artifact.id), "artifact": node}
        member |= {key: node[key] for key in ("versionIndex", "createdAt", "aliases")}
        return {"project": {"artifactCollectionMembership": member | {"artifactCollection": node["artifactSequence"]}}}

    def op_FetchArtifactManifest(self, given: Variables) -> Any:
        return {"artifact": self._artifact(self._by_id(given["id"]))}

    def op_GetArtifactMembershipFileUrls(self, given: Variables) -> Any:
        artifact = self._version(f"{given['collection']}:{given['alias']}")
        files = artifact.files if artifact else {}
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": self._url(path)}} for name, path in files.items()
        ]
        membership = {"artifactMembership": {"files": {"pageInfo": ONE_PAGE, "edges": edges}}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence"} | membership}}

    # Saved views: workspaces and reports.

    def op_CreateProject(self, given: Variables) -> Any:
        project = self._project(given["input"]["name"])
        return {"result": {"project": project, "model": project, "inserted": False}}

    def op_GetProjects(self, given: Variables) -> Any:
        names = sorted({project for project, _ in self.server_state.runs})
        edges = [{"node": {"__typename": "Project"} | self._project(name), "cursor": name} for name in names]
        return {"models": {"edges": edges, "pageInfo": ONE_PAGE}}

    def op_ProjectInternalId(self, given: Variables) -> Any:
        return {"project": self._project(given["projectName"]) if self._exists(given["projectName"]) else None}

    def op_View(self, given: Variables) -> Any:
        return self._views(given["name"], "project-view", given["viewName"])

    def op_ProjectViews(self, given: Variables) -> Any:
        return self._views(given["project"], "runs", given.get("reportName"))

    def op_UpsertView2(self, given: Variables) -> Any:
        view = given.get("id") or encoded("View", len(self.server_state.views))
        stored = self.server_state.views.setdefault(view, {})
        stored |= {key: value for key, value in given.items() if value is not None} | {"id": view}
        return {"upsertView": {"view": self._view(stored), "inserted": not given.get("id")}}

    op_upsertView = op_UpsertView2

    def _exists(self, project: str) -> bool:
        return any(known == project for known, _ in self.server_state.runs)

    def _views(self, project: str, kind: str, name: str | None) -> Any:
        if not self._exists(project):
            return {"project": None}
        edges = [
            {"node": self._view(view), "cursor": view["id"]}
            for view in self.server_state.views.values()
            if view["type"] == kind and view["projectName"] == project and name in {None, view["name"]}
        ]
        return {"project": {"allViews": {"edges": edges, "pageInfo": ONE_PAGE}}}

    def _view(self, view: dict[str, Any]) -> dict[str, Any]:
        rest = {"createdAt": NOW, "updatedAt": NOW, "previewUrl": None, "user": self._user()}
        return {"description": ""} | view | rest | {"project": self._project(view["projectName"])}


def environment(home: Path, server: WandbServer) -> dict[str, str]:
    """Of a client that has a key for this server and knows no other."""
    folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), str(home))
    return folders | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}


def encoded(kind: str, *parts: object) -> str:
    """An id as W&B's are: base64 of kind and parts."""
    return base64.b64encode(":".join((kind, *map(str, parts))).encode()).decode()
