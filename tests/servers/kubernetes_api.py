"""A small Kubernetes API server: JobSets and pods of one namespace, with watches, versions and a real one's faults.

It keeps objects and tells of changes; it schedules nothing. A test plays scheduler and kubelet (`add_pods`, `end_pod`,
`end_jobset`), or `kubelet` does, with processes for pods.
"""

import copy
import json
import re
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE, TOKEN = "solon", "first-token"
PATH = re.compile(r"/(?:api/v1|apis/jobset\.x-k8s\.io/v1alpha2)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?")
GROUPS = {"jobsets": "/apis/jobset.x-k8s.io/v1alpha2/", "pods": "/api/v1/"}
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}
CUT, AWAY = "cut", "away"

Object = dict[str, Any]


class KubernetesApi:
    """The state behind the server, and what a test does to it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[tuple[str, str], Object] = {}
        self.events: list[tuple[int, str, str, Object]] = []
        """(version, plural, type, object): what watches are told."""
        self.version = 100
        self.oldest = 0
        """Versions before this one are forgotten: a watch that asks for them gets 410."""
        self.token = TOKEN
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, plural) that the service account may not do."""
        self.without: set[str] = set()
        """Plurals that the cluster does not know."""
        self.faults: list[int | str] = []
        """For the next requests, one each: a status, or AWAY: the connection breaks."""
        self.away = False
        """Every connection breaks."""
        self.generation = 0
        """Watches opened before this many cuts end."""
        self.holds_deleted = False
        """A deleted JobSet stays, with its deletionTimestamp, until `let_go`."""
        self.asked: Counter[str] = Counter()
        """Requests that did something, by `verb plural`."""
        self.server = ""

    # what a test does

    def put(self, plural: str, name: str, body: Object) -> Object:
        """Make or replace an object, as a controller would."""
        with self.changed:
            there = (plural, name) in self.objects
            return self._store(plural, name, body, "MODIFIED" if there else "ADDED")

    def jobsets(self) -> list[Object]:
        with self.changed:
            return [found for (plural, _), found in self.objects.items() if plural == "jobsets"]

    def add_pods(self, jobset: str, phase: str = "Running") -> list[str]:
        """The pods of a JobSet, a node each; their names."""
        spec = self.objects["jobsets", jobset]["spec"]["replicatedJobs"][0]["template"]["spec"]
        names = [f"{jobset}-node-0-{index}-abcde" for index in range(spec["completions"])]
        for index, name in enumerate(names):
            labels = {"jobset.sigs.k8s.io/jobset-name": jobset, "batch.kubernetes.io/job-completion-index": str(index)}
            self.put("pods", name, {"metadata": {"labels": labels}, "status": {"phase": phase}})
        return names

    def end_pod(self, name: str, code: int | None, reason: str = "Error", message: str = "", **status: Any) -> None:
        """A pod's end: its container's exit code and last words, and more of its status (reason, conditions)."""
        pod = copy.deepcopy(self.objects["pods", name])
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now()}
        states = [{"name": "node", "state": {"terminated": ended}}] if code is not None else []
        phase = "Succeeded" if code == 0 else "Failed"
        pod["status"] = {"phase": phase, "containerStatuses": states, **status}
        self.put("pods", name, pod)

    def end_jobset(self, name: str, kind: str = "Completed", message: str = "") -> None:
        """Completed or Failed, as the JobSet controller says it."""
        found = copy.deepcopy(self.objects["jobsets", name])
        reason = {"Completed": "AllJobsCompleted", "Failed": "FailedJobs"}[kind]
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        found["status"] = {"terminalState": kind, "conditions": [condition]}
        self.put("jobsets", name, found)

    def forget(self) -> None:
        """As etcd's compaction does: nothing before now can be watched from."""
        with self.changed:
            self.version += 1
            self.oldest = self.version

    def cut_watches(self) -> None:
        """End every open watch within a line."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def let_go(self, name: str) -> None:
        """Remove a deleted JobSet that was held, and its pods."""
        with self.changed:
            self._remove(name)

    def wait_for(self, condition: Any, seconds: float = 60) -> bool:
        """Whether it came true in time, whether or not an object changed for it."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition() and time.monotonic() < deadline:
                self.changed.wait(0.1)
            return bool(condition())

    # what the server asks of it

    def create(self, plural: str, body: Object) -> tuple[int, Object]:
        with self.changed:
            name = body["metadata"]["name"]
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
                return status(422, f"{plural} {name!r} is invalid: metadata.name")
            if (plural, name) in self.objects:
                return status(409, f'{plural} "{name}" already exists')
            self.asked[f"create {plural}"] += 1
            return 201, self._store(plural, name, body, "ADDED")

    def delete(self, plural: str, name: str, options: Object) -> tuple[int, Object]:
        with self.changed:
            found = self.objects.get((plural, name))
            if not found:
                return status(404, f'{plural} "{name}" not found')
            uid = options.get("preconditions", {}).get("uid")
            if uid and uid != found["metadata"]["uid"]:
                return 409, status(409, f"the UID in the precondition ({uid}) is not that of the object")[1]
            self.asked[f"delete {plural}"] += 1
            if self.holds_deleted:
                body = copy.deepcopy(found)
                body["metadata"]["deletionTimestamp"] = now()
                return 200, self._store(plural, name, body, "MODIFIED")
            self._remove(name)
            return 200, found

    def _remove(self, jobset: str) -> None:
        for plural, name in list(self.objects):
            labels = self.objects[plural, name]["metadata"].get("labels", {})
            if name == jobset or labels.get("jobset.sigs.k8s.io/jobset-name") == jobset:
                gone = self.objects.pop((plural, name))
                self._tell(plural, "DELETED", gone)

    def _store(self, plural: str, name: str, body: Object, kind: str) -> Object:
        body = copy.deepcopy(body)
        there = self.objects.get((plural, name))
        uid = there["metadata"]["uid"] if there else str(uuid.uuid4())
        body["metadata"] |= {"name": name, "namespace": NAMESPACE, "uid": uid}
        self._tell(plural, kind, body)
        self.objects[plural, name] = body
        return body

    def _tell(self, plural: str, kind: str, body: Object) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, plural, kind, copy.deepcopy(body)))
        self.changed.notify_all()


def status(code: int, message: str) -> tuple[int, Object]:
    """Kubernetes' own form of an error."""
    reason = REASONS.get(code, "InternalError")
    return code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def matches(found: Object, selector: str) -> bool:
    labels = found["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in (term.split("=") for term in selector.split(",") if term))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    api: KubernetesApi

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        fault = self.api.faults.pop(0) if self.api.faults else None
        if self.api.away or fault == AWAY:
            self.close_connection = True
            self.connection.close()
            return
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        refused = self._refusal(address.path, query, fault)
        if refused:
            self._answer(*refused)
            return
        _, plural, name = PATH.fullmatch(address.path).groups()  # type: ignore[union-attr]
        if query.get("watch"):
            self._watch(plural, query)
        else:
            self._answer(*self._do(plural, name, body, query))

    def _refusal(self, path: str, query: dict[str, str], fault: int | str | None) -> tuple[int, Object] | None:
        if fault:
            return status(int(fault), "injected")
        if self.headers.get("Authorization") != f"Bearer {self.api.token}":
            return status(401, "Unauthorized")
        found = PATH.fullmatch(path)
        if not found or not path.startswith(GROUPS.get(found[2], "?")) or found[2] in self.api.without:
            return status(404, "the server could not find the requested resource")
        verb = self._verb(found[3], query)
        if (verb, found[2]) in self.api.forbidden or found[1] != NAMESPACE:
            group = "jobset.x-k8s.io" if found[2] == "jobsets" else ""
            who = f'User "system:serviceaccount:{NAMESPACE}:worker" cannot {verb} resource "{found[2]}"'
            return status(403, f'{found[2]} is forbidden: {who} in API group "{group}" in the namespace "{found[1]}"')
        return None

    def _verb(self, name: str | None, query: dict[str, str]) -> str:
        if self.command == "GET":
            return "get" if name else "watch" if query.get("watch") else "list"
        return {"POST": "create", "DELETE": "delete"}[self.command]

    def _do(self, plural: str, name: str | None, body: Object, query: dict[str, str]) -> tuple[int, Object]:
        if self.command == "POST":
            return self.api.create(plural, body)
        if self.command == "DELETE":
            return self.api.delete(plural, str(name), body)
        with self.api.changed:
            if name:
                found = self.api.objects.get((plural, name))
                return (200, found) if found else status(404, f'{plural} "{name}" not found')
            items = [found for (kind, _), found in self.api.objects.items() if kind == plural]
            chosen = [found for found in items if matches(found, query.get("labelSelector", ""))]
            self.api.asked[f"list {plural}"] += 1
            return 200, {"items": chosen, "metadata": {"resourceVersion": str(self.api.version)}}

    def _answer(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        api, since = self.api, int(query["resourceVersion"])
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if since < api.oldest:
            self._line("ERROR", status(410, f"too old resource version: {since} ({api.oldest})")[1])
        else:
            with api.changed:
                api.asked[f"watch {plural}"] += 1
                api.changed.notify_all()
                generation = api.generation
            while (left := deadline - time.monotonic()) > 0:
                with api.changed:
                    fresh = [event for event in api.events if event[0] > since and event[1] == plural]
                    if not fresh and api.generation == generation and not api.away:
                        api.changed.wait(min(left, 0.5))
                        continue
                if api.generation != generation or api.away:
                    self.wfile.write(b'20\r\n{"type": "MODIFIED", "obj')
                    self.close_connection = True
                    self.connection.close()
                    return
                for version, _, kind, found in fresh:
                    since = version
                    if matches(found, query.get("labelSelector", "")):
                        self._line(kind, found)
        self.wfile.write(b"0\r\n\r\n")

    def _line(self, kind: str, found: Object) -> None:
        data = json.dumps({"type": kind, "object": found}).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


class QuietServer(ThreadingHTTPServer):
    """A client that hangs up is nothing to print."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        return None


@contextmanager
def kubernetes_api(tls: ssl.SSLContext | None = None) -> Iterator[KubernetesApi]:
    """A running server on a loopback port, gone afterwards. `api.server` is its address."""
    api = KubernetesApi()
    server = QuietServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.server = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
