"""The gateway's control socket: HTTP/1.1 + JSON over a UNIX socket, with Python's own HTTP client."""

import http.client
import json
import socket
from urllib.parse import quote, urlencode

from .netns import wait_until


class ControlError(Exception):
    """The gateway refused: status and body of its answer."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Control:
    """One gateway's socket. A connection per request: a gateway that restarts is simply another answer."""

    def __init__(self, path, timeout=5.0):
        self.path, self.timeout = path, timeout

    def request(self, method, path, body=None, **query):
        connection = _UnixConnection(self.path, self.timeout)
        try:
            if query:
                path += "?" + urlencode(query)
            headers = {}
            if body is not None:
                headers["Content-Type"] = "application/json"
                body = json.dumps(body)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            content = json.loads(text) if text else None
        except json.JSONDecodeError:
            content = text
        if answer.status >= 400:
            raise ControlError(answer.status, content)
        return content

    def get(self, path, **query):
        return self.request("GET", path, **query)

    def alive(self):
        try:
            return bool(self.get("/v1/version"))
        except (OSError, ControlError, http.client.HTTPException):
            return False

    def workers(self):
        """Every worker's counters as it last published them: what happened some milliseconds ago may be missing."""
        return self.get("/v1/workers")

    def settled_workers(self):
        """Every worker's counters, published after this call began: what had happened by then is in them."""
        before = {worker["id"]: worker["turns"] for worker in self.workers()}

        def all_new():
            now = self.workers()
            return now if all(worker["turns"] > before[worker["id"]] for worker in now) else None

        # The turn that was under way may have published what it did before; the next publication has everything.
        wait_until(all_new, 2, "every worker to publish its counters")
        before = {worker["id"]: worker["turns"] for worker in self.workers()}
        return wait_until(all_new, 2, "every worker to publish its counters")

    def counter(self, name):
        """A counter summed over the workers."""
        return sum(worker[name] for worker in self.settled_workers())

    def drops(self):
        """Dropped packets by reason, summed over the workers, reasons that never fired left out."""
        self.settled_workers()
        return {drop["reason"]: drop["total"] for drop in self.get("/v1/drops") if drop["total"]}

    def services(self):
        return {service["name"]: service for service in self.get("/v1/services")}

    def sessions(self, **filters):
        """All sessions that match, every page of them."""
        found, cursor = [], {}
        while True:
            page = self.get("/v1/sessions", limit=1000, **filters, **cursor)
            found += page["sessions"]
            if "next" not in page:
                return found
            cursor = {"cursor": page["next"]}

    def real_server(self, service, action, address=None, **body):
        """Adds, removes, drains, undrains or weighs a real server; returns when every worker goes by it."""
        base = f"/v1/services/{quote(service)}/real-servers"
        if action == "add":
            return self.request("POST", base, {"address": address, **body})
        if action == "remove":
            return self.request("DELETE", f"{base}/{quote(address)}")
        return self.request("POST", f"{base}/{quote(address)}/{action}", body)

    def put_config(self, config):
        return self.request("PUT", "/v1/config", config)

    def accounting(self):
        """(what came in, what became of it) of every worker: equal at any moment."""
        return [(w["rx_packets"] + w["originated_packets"] + w["handed_in_packets"],
                 w["tx_packets"] + w["handed_off_packets"] + w["held_packets"] + w["dropped_packets"])
                for w in self.settled_workers()]

    def at_rest(self):
        """Whether no packet is on its way from one worker to another."""
        workers = self.settled_workers()
        return sum(w["handed_off_packets"] for w in workers) == sum(w["handed_in_packets"] for w in workers)
