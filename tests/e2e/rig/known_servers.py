"""Servers as the distribution ships them, which say themselves whom they take for their client: HAProxy, Redis, PostgreSQL
and sshd. Each is started once and asked over connections that the caller makes."""

import contextlib
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile

from .netns import wait_until
from .servers import listening

HAPROXY = """\
defaults
  mode http
  timeout client 10s
  timeout connect 10s
  timeout server 10s
frontend seen
  bind 0.0.0.0:{port}
  bind :::{port} v6only
  bind :::{dual} v4v6
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]"
"""
SSHD = """\
Port {port}
HostKey {dir}/host_key
PidFile none
UsePAM no
LogLevel VERBOSE
"""


class Server:
    """One of them. `seen` asks it over a connection: the address and the port of its client, as it writes them."""

    port, dual = None, None
    """where it listens, once for each family; where it does for both at once, if it can"""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="fullnat-known-"))
        self.log = self.directory / "log"
        self.process = None

    def start(self, namespace, inside):
        """Begins; `ready` waits for it. `inside`: what makes a command line run in the receiver's cgroup."""
        self.namespace = namespace
        with open(self.log, "wb") as log:
            self.process = namespace.start(*inside(*self.command()), stdout=log, stderr=subprocess.STDOUT,
                                           stdin=subprocess.DEVNULL, cwd=self.directory)
        return self

    def ready(self):
        wait_until(self._is_ready, 30, lambda: f"{type(self).__name__} is not ready\n{self.log.read_text()}")

    def _is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} ended with {self.process.returncode}\n{self.log.read_text()}")
        return listening(self.namespace, self.port)

    def close(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(10)
            self.namespace.processes.remove(self.process)
        shutil.rmtree(self.directory)


class HAProxy(Server):
    """`src` and `src_port`."""

    port, dual = 8095, 8096

    def command(self):
        config = self.directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, dual=self.dual))
        return ["haproxy", "-db", "-f", config]

    def seen(self, connection):
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().split()[-2:]


class Redis(Server):
    """`CLIENT LIST`."""

    port = 6379

    def command(self):
        return ["redis-server", "--port", self.port, "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", ""]

    def seen(self, connection):
        connection.sendall(b"CLIENT LIST\r\n")
        text = b""
        while b"\n\r\n" not in text:
            text += connection.recv(4096)
        [(address, port)] = re.findall(r" addr=(\S+):(\d+) ", text.decode())
        return address.strip("[]"), port


class PostgreSQL(Server):
    """`pg_stat_activity`. It does not run as root."""

    port = 5432
    QUERY = b"SELECT client_addr, client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()\0"

    def command(self):
        programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=keep"]
        shutil.chown(self.directory, "postgres", "postgres")
        data, trusted = self.directory / "data", self.directory / "hba.conf"
        trusted.write_text("host all all all trust\n")
        subprocess.run([*user, programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
                        "--no-sync", "--no-instructions"], check=True, capture_output=True, cwd=self.directory)
        settings = {"listen_addresses": "*", "unix_socket_directories": "", "hba_file": trusted, "fsync": "off"}
        return [*user, programs / "postgres", "-D", data, "-p", self.port,
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}"))]

    def _is_ready(self):
        return super()._is_ready() and "ready to accept connections" in self.log.read_text()

    def seen(self, connection):
        hello = struct.pack("!I", 3 << 16) + b"user\0postgres\0\0"
        connection.sendall(struct.pack("!I", 4 + len(hello)) + hello)
        self._rows(connection)
        connection.sendall(b"Q" + struct.pack("!I", 4 + len(self.QUERY)) + self.QUERY)
        [(address, port)] = self._rows(connection)
        return address, port

    @staticmethod
    def _rows(connection):
        """The rows that are answered until it is ready for a query."""
        rows = []
        with connection.makefile("rb") as answer:
            while True:
                kind, length = struct.unpack("!cI", answer.read(5))
                body = answer.read(length - 4)
                if kind == b"E":
                    raise RuntimeError(body.decode())
                if kind == b"Z":
                    return rows
                if kind == b"D":
                    columns, at = [], 2
                    for _ in range(struct.unpack_from("!H", body)[0]):
                        end = at + 4 + struct.unpack_from("!I", body, at)[0]
                        columns.append(body[at + 4:end].decode())
                        at = end
                    rows.append(columns)


class Sshd(Server):
    """Its log of connections."""

    port = 2222
    PRIVILEGE_SEPARATION = pathlib.Path("/run/sshd")

    def command(self):
        # Compiled in, and made by its service, which does not run here.
        self.PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        config.write_text(SSHD.format(port=self.port, dir=self.directory))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / "host_key"], check=True)
        self.told = 0
        return ["/usr/sbin/sshd", "-D", "-e", "-f", config]

    def seen(self, connection):
        assert connection.recv(64).startswith(b"SSH-2.0-OpenSSH")
        self.told += 1
        lines = lambda: re.findall(r"^Connection from (\S+) port (\d+) on ", self.log.read_text(), re.MULTILINE)
        return wait_until(lambda: lines()[self.told - 1:], 5, "the connection in sshd's log")[0]


KNOWN = {"haproxy": HAProxy, "redis": Redis, "postgresql": PostgreSQL, "sshd": Sshd}


@contextlib.contextmanager
def known_servers(namespace, inside):
    """All of them, started side by side: {name: server}."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name, kind in KNOWN.items():
            started[name] = kind()
            stack.callback(started[name].close)
            started[name].start(namespace, inside)
        for server in started.values():
            server.ready()
        yield started
