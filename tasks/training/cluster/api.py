"""The few calls of the Kubernetes API that a launcher makes, with the service account of its own pod."""

import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts token, certificate authority and namespace in every pod."""
REQUEST_SECONDS = 10.0
LIST_LIMIT = 500

Object = dict[str, Any]


class Kind(NamedTuple):
    """A kind of object: its group's path, and its name in addresses and permissions."""

    group: str
    version: str
    plural: str

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


JOBSETS = Kind("jobset.x-k8s.io", "v1alpha2", "jobsets")
PODS = Kind("", "v1", "pods")


class ClusterError(RuntimeError):
    """The cluster refuses; says what was asked and what to do."""


class ClusterAway(ClusterError):
    """The cluster does not answer, or not now: the same request may do later."""


class NotThere(ClusterError):
    """There is no such object."""


class AlreadyThere(ClusterError):
    """There is one of that name, or it is not the one that was meant."""


class Expired(ClusterError):
    """A watch was to go on from what the server no longer remembers: list again."""


@dataclass(frozen=True)
class Access:
    """Where the API is, and as whom one speaks to it."""

    server: str
    namespace: str
    token_file: Path
    """Read before each request, since tokens are replaced while a pod runs."""
    ca_file: Path | None
    """Who vouches for the server; None: whom this machine trusts."""

    @classmethod
    def in_cluster(cls, account: Path = ACCOUNT) -> Self:
        """As this pod's service account.

        Raises: ClusterError: this is no pod, or it has no service account's token.
        """
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            raise ClusterError(
                "run.training.nodes.num_nodes is above 1, but this stage does not run in a pod of a Kubernetes cluster "
                f"with a service account ({account / 'token'}); run it on a Kubernetes pool, or set num_nodes to 1"
            )
        host = f"[{host}]" if ":" in host else host
        namespace = (account / "namespace").read_text().strip()
        return cls(f"https://{host}:{port}", namespace, account / "token", account / "ca.crt")


class Cluster:
    """One namespace of a cluster.

    Every call raises ClusterAway, or ClusterError where it is not allowed (the missing permission is named).
    """

    def __init__(self, access: Access) -> None:
        self.namespace = access.namespace
        self._token_file = access.token_file
        verify = ssl.create_default_context(cafile=access.ca_file)
        # no proxy from the environment: the API's own address is inside the cluster
        self._client = httpx.Client(base_url=access.server, verify=verify, timeout=REQUEST_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    def create(self, kind: Kind, body: Object) -> Object:
        """The object as the cluster made it. Raises: AlreadyThere."""
        return self._ask("create", "POST", kind, body=body)

    def get(self, kind: Kind, name: str) -> Object:
        """The object as it is. Raises: NotThere."""
        return self._ask("get", "GET", kind, name)

    def delete(self, kind: Kind, name: str, uid: str | None) -> None:
        """Let it go, what it owns first; with a `uid` that one alone. Raises: NotThere. AlreadyThere: another uid."""
        conditions = {"preconditions": {"uid": uid}} if uid else {}
        self._ask("delete", "DELETE", kind, name, body={"propagationPolicy": "Foreground", **conditions})

    def list(self, kind: Kind, selector: str) -> tuple[list[Object], str]:
        """The objects that have these labels, and the version from which a watch goes on."""
        found: list[Object] = []
        more = ""
        while True:
            query = {"labelSelector": selector, "limit": str(LIST_LIMIT), **({"continue": more} if more else {})}
            page = self._ask("list", "GET", kind, query=query)
            found += page["items"]
            more = page["metadata"].get("continue", "")
            if not more:
                return found, str(page["metadata"]["resourceVersion"])

    def watch(self, kind: Kind, selector: str, version: str, seconds: int) -> Iterator[tuple[str, Object]]:
        """What happens after `version`, as (ADDED, MODIFIED, DELETED or BOOKMARK, object), for so many seconds.

        Raises: Expired. ClusterAway: the stream broke; it can go on from the last object's version.
        """
        query = {"labelSelector": selector, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query["allowWatchBookmarks"] = "true"
        timeout = httpx.Timeout(REQUEST_SECONDS, read=seconds + REQUEST_SECONDS)
        try:
            with self._client.stream(
                "GET", self._address(kind), params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal("watch", kind, "", answer)
                for line in answer.iter_lines():
                    yield self._event(kind, line)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise away(error) from error

    def _event(self, kind: Kind, line: str) -> tuple[str, Object]:
        try:
            event = json.loads(line)
        except ValueError:
            raise ClusterAway(f"a watch of {kind.plural} broke off within a line") from None
        if event["type"] == "ERROR":
            status = event["object"]
            message = f"watching {kind.plural}: {status.get('message', status)}"
            raise Expired(message) if status.get("code") == 410 else ClusterAway(message)
        return event["type"], event["object"]

    def _ask(
        self,
        verb: str,
        method: str,
        kind: Kind,
        name: str = "",
        body: Object | None = None,
        query: dict[str, str] | None = None,
    ) -> Object:
        try:
            answer = self._client.request(
                method, self._address(kind, name), json=body, params=query, headers=self._headers()
            )
            if answer.status_code < 300:
                found: Object = answer.json()
                return found
        except (httpx.HTTPError, ValueError) as error:
            raise away(error) from error
        raise self._refusal(verb, kind, name, answer)

    def _address(self, kind: Kind, name: str = "") -> str:
        return f"{kind.path}/namespaces/{self.namespace}/{kind.plural}{f'/{name}' if name else ''}"

    def _headers(self) -> dict[str, str]:
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise ClusterAway(f"the service account's token cannot be read: {error}") from error

    def _refusal(self, verb: str, kind: Kind, name: str, answer: httpx.Response) -> ClusterError:
        """What an answer that is no success means."""
        status, said = answer.status_code, words_of(answer)
        what = f"{verb} {kind.plural} {name}".rstrip() + f" in namespace {self.namespace}"
        if status == 403:
            group = kind.group or '"" (core)'
            return ClusterError(
                f"{what}: forbidden ({said}); give the worker's service account a Role with the verb {verb} on "
                f"{kind.plural} of API group {group}"
            )
        if status == 404 and not name:
            return ClusterError(
                f"{what}: the cluster knows no {kind.plural} of {kind.group}/{kind.version} ({said}); "
                "install the JobSet controller"
            )
        known = {404: NotThere, 409: AlreadyThere, 410: Expired}.get(status)
        if known:
            return known(f"{what}: {said}")
        if status in (401, 408, 429) or status >= 500:
            return ClusterAway(f"{what}: the API answers {status} ({said})")
        return ClusterError(f"{what}: the API answers {status} ({said})")


def words_of(answer: httpx.Response) -> str:
    """The message of a Kubernetes Status, or the beginning of whatever was said."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or answer.reason_phrase


def away(error: Exception) -> ClusterAway:
    return ClusterAway(f"the Kubernetes API does not answer: {type(error).__name__}: {error}")
