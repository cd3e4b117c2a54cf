"""The API server as a benchmark needs it: raw requests, and a watch that notes when it saw what."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hack.devcluster.settings import ClusterSettings

_KEPT_S = 20.0
"""After so long without a request the server may be about to close the connection."""


class Api:
    """A client with one kept connection a thread of use; not shared between threads."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._context = ssl.create_default_context(cafile=str(settings.pki / "ca.crt"))
        self._context.load_cert_chain(settings.pki / "admin.crt", settings.pki / "admin.key")
        self._connection = self.connect()
        self._used_at = time.monotonic()

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._settings.api_address, self._settings.api_port, context=self._context, timeout=600
        )

    def request(self, method: str, path: str, body: Any = None) -> Any:
        if time.monotonic() - self._used_at > _KEPT_S:
            self._connection.close()  # the next request opens it anew
        self._used_at = time.monotonic()
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {response.status} {content.decode()[:500]}")
        return json.loads(content) if content.startswith(b"{") else content.decode()


@dataclass
class Seen:
    """When the watch first saw a pod bound, ready and gone (monotonic seconds)."""

    bound: float | None = None
    ready: float | None = None
    gone: float | None = None
    pod: dict[str, Any] = field(default_factory=dict)


class PodWatch:
    """Watches a namespace's pods in a thread of its own; `wait` blocks until something holds."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.seen: dict[str, Seen] = {}
        self._changed = threading.Condition()
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._version = api.request("GET", self._path)["metadata"]["resourceVersion"]
        self._response = self._open()
        threading.Thread(target=self._follow, name="pod-watch", daemon=True).start()

    def _open(self) -> http.client.HTTPResponse:
        connection = self._api.connect()
        connection.request("GET", f"{self._path}?watch=1&resourceVersion={self._version}")
        return connection.getresponse()

    def _follow(self) -> None:
        """Take every event; the server ends the watch of whom it finds slow, as on a busy host."""
        while True:
            while line := self._response.readline():
                now = time.monotonic()
                event = json.loads(line)
                if event.get("type") not in {"ADDED", "MODIFIED", "DELETED"}:
                    raise RuntimeError(f"the watch of {self._path} failed: {event}")
                self._version = event["object"]["metadata"]["resourceVersion"]
                with self._changed:
                    self._note(event["type"], event["object"], now)
                    self._changed.notify_all()
            try:
                self._response = self._open()
            except OSError:
                return  # the server has ended

    def _note(self, kind: str, pod: dict[str, Any], now: float) -> None:
        seen = self.seen.setdefault(pod["metadata"]["name"], Seen())
        seen.pod = pod
        if seen.bound is None and pod["spec"].get("nodeName"):
            seen.bound = now
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
        if seen.ready is None and conditions.get("Ready") == "True":
            seen.ready = now
        if kind == "DELETED":
            seen.gone = now

    def wait(
        self, condition: Callable[[dict[str, Seen]], bool], timeout_s: float, what: str
    ) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.seen), timeout_s):
                raise SystemExit(
                    f"after {timeout_s:.0f} s still waiting for {what}: {self._story()}"
                )

    def _story(self) -> str:
        late = {n: s for n, s in self.seen.items() if s.ready is None or s.gone is None}
        return json.dumps({n: s.pod.get("status", {}) for n, s in list(late.items())[:3]})[:3000]
