"""What runs inside the real servers: nginx, HAProxy, the peer servers, a name server, iperf3."""

import pathlib
import subprocess
import sys

from .netns import wait_until

HTTP_PORT, PEER_PORT, IPERF_PORT, DNS_PORT = 8080, 9000, 5201, 5300
# One listener for both families, on which an IPv6 client of an IPv4 real server can be shown.
DUAL_PORT = 8064
PEER_SERVER = pathlib.Path(__file__).with_name("peer_server.py")
WHO_SERVER = pathlib.Path(__file__).with_name("who_server.py")
UDP_SERVER = pathlib.Path(__file__).with_name("udp_server.py")
PROXY_SERVER = pathlib.Path(__file__).with_name("proxy_server.py")
DNS_SERVER = pathlib.Path(__file__).with_name("dns_server.py")

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 8192; }}
http {{
    log_format seen "$remote_addr $remote_port"; access_log {log};
    keepalive_requests 100000000; tcp_nodelay on; default_type text/plain;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    server {{
        {listen}
        location / {{ return 200 "{name} {client}\\n"; }}
        location /big {{ root {dir}; }}
    }}
}}
"""


HAPROXY = """\
global
    maxconn 4000
defaults
    mode http
    timeout client 10s
frontend seen
    bind 0.0.0.0:{port} accept-proxy
    bind :::{port} v6only accept-proxy
    http-request return status 200 content-type text/plain lf-string "haproxy %[src] %[src_port]\\n"
"""


def listening(namespace, port, kind="-t"):
    """Whether something listens there; cheap enough to poll."""
    return namespace.run("ss", "-Hln", kind, f"sport = :{port}").stdout.strip() != ""


def start_nginx(namespace, name, directory, port=HTTP_PORT, listen=None, inside=None, log=False,
                client="$remote_addr $remote_port"):
    """`listen`: directives instead of the usual ones; `inside`: what makes a command line run elsewhere, such as
    `Receiver.inside`; `log`: whether each client goes into `directory/access.log`; `client`: whom it answers to
    have taken for its client."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "big").write_bytes(bytes(range(256)) * 4096)
    config = directory / "nginx.conf"
    listen = listen or (f"listen {port} backlog=4096; listen [::]:{port} backlog=4096; "
                        f"listen [::]:{DUAL_PORT} ipv6only=off; listen 1000; listen [::]:1000;")
    config.write_text(NGINX.format(dir=directory, name=name, listen=listen, client=client,
                                   log=f"{directory}/access.log seen" if log else "off"))
    argv = ["nginx", "-p", directory, "-c", config]
    process = namespace.start(*(inside(*argv) if inside else argv), stderr=subprocess.DEVNULL)
    wait_until(lambda: listening(namespace, port), 5, f"nginx in {namespace.role}")
    return process


def start_peer(namespace, name, port=PEER_PORT):
    process = namespace.start(sys.executable, PEER_SERVER, name, port)
    wait_until(lambda: listening(namespace, port) and listening(namespace, port, "-u"), 10,
               f"peer server in {namespace.role}")
    return process


def start_haproxy(namespace, directory, port):
    """Takes PROXY protocol headers, and answers whom it takes for its client."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port))
    process = namespace.start("haproxy", "-db", "-q", "-f", config)
    wait_until(lambda: listening(namespace, port), 5, f"HAProxy in {namespace.role}")
    return process


def start_proxy_peer(namespace, port):
    process = namespace.start(sys.executable, PROXY_SERVER, port)
    wait_until(lambda: listening(namespace, port) and listening(namespace, port, "-u"), 10,
               f"PROXY protocol peer in {namespace.role}")
    return process


def start_who(namespace, address, port, inside):
    process = namespace.start(*inside(sys.executable, WHO_SERVER, address, port))
    wait_until(lambda: listening(namespace, port), 10, f"http.server in {namespace.role}")
    return process


def start_udp(namespace, mode, address, port, inside):
    process = namespace.start(*inside(sys.executable, UDP_SERVER, mode, address, port))
    wait_until(lambda: listening(namespace, port, "-u"), 10, f"UDP server in {namespace.role}")
    return process


def start_dnsmasq(namespace, port, log, inside):
    """Every name is 192.0.2.1; `log` gets a line for each query, with the client's address and port."""
    process = namespace.start(*inside(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--no-resolv", "--no-hosts",
        f"--port={port}", "--address=/example.org/192.0.2.1", "--log-queries=extra", f"--log-facility={log}"))
    wait_until(lambda: listening(namespace, port, "-u"), 10, f"dnsmasq in {namespace.role}")
    return process


def start_dns(namespace, port=DNS_PORT):
    process = namespace.start(sys.executable, DNS_SERVER, port)
    wait_until(lambda: listening(namespace, port) and listening(namespace, port, "-u"), 10,
               f"name server in {namespace.role}")
    return process


def start_iperf(namespace, port=IPERF_PORT):
    process = namespace.start("iperf3", "-s", "-p", port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: listening(namespace, port), 5, f"iperf3 in {namespace.role}")
    return process
