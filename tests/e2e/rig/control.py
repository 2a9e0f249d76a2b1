"""The gateway's control socket: HTTP/1.1 + JSON over a UNIX socket, with Python's own HTTP client."""

import http.client
import json
import socket
from urllib.parse import urlencode


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
        """Every worker's counters, drops by reason among them."""
        return self.get("/v1/workers")["workers"]

    def counter(self, name):
        """A counter summed over the workers."""
        return sum(worker["counters"][name] for worker in self.workers())

    def drops(self):
        """Dropped packets by reason, summed over the workers, reasons that never fired left out."""
        total = {}
        for worker in self.workers():
            for reason, count in worker["drops"].items():
                if count:
                    total[reason] = total.get(reason, 0) + count
        return total

    def services(self):
        return {service["name"]: service for service in self.get("/v1/services")["services"]}

    def sessions(self, **filters):
        """All sessions that match, every page of them."""
        found, cursor = [], None
        while True:
            page = self.get("/v1/sessions", **filters, **({"cursor": cursor} if cursor else {}))
            found += page["sessions"]
            cursor = page.get("next")
            if not cursor:
                return found

    def put_config(self, config):
        return self.request("PUT", "/v1/config", config)

    def accounting(self):
        """(what came in, what became of it): equal whenever the gateway is at rest, and at any moment per worker."""
        came = went = 0
        for worker in self.workers():
            c = worker["counters"]
            came += c["rx_packets"] + c["originated_packets"] + c["handed_in_packets"]
            went += c["tx_packets"] + c["handed_off_packets"] + c["held_packets"] + sum(worker["drops"].values())
        return came, went
