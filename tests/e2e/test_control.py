"""Operators at work while traffic flows: weights, real servers, whole configurations, questions."""

import concurrent.futures
import copy
import json
import socket
import stat
import subprocess
import time

import pytest

from rig import gateway as gateways
from rig import machine
from rig.control import ControlError
from rig.lab import CIP, RIPS, VIP, VIP6
from rig.netns import wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.bulk, pytest.mark.usefixtures("spoil")]

RS1, RS2 = f"{RIPS['rs1']}:8080", f"{RIPS['rs2']}:8080"


def ask(lab, vip=VIP, port=80):
    """Which real server answers a new connection."""
    with lab.client.connect(vip, port, timeout=2) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := connection.recv(4096):
            answer += data
    return answer.rsplit(b"\n", 2)[-2].split()[0].decode()


def start_wrk(lab, url=f"http://{VIP}/", seconds=4, close=True):
    script = lab.directory / "close.lua"
    script.write_text("wrk.headers['Connection'] = 'close'\n" if close else "")
    return lab.client.start("wrk", "-t1", "-c16", f"-d{seconds}s", "--timeout", "3", "-s", script, url,
                            stdout=subprocess.PIPE, text=True)


def clean(report):
    """wrk saw neither a refused connection nor a reset, a time-out or another status than 200."""
    assert "Requests/sec" in report, report
    assert "Socket errors" not in report and "Non-2xx" not in report, report


def hold(lab, count, port=9000):
    held = []
    for _ in range(count):
        connection = lab.client.connect(VIP, port)
        connection.sendall(b"echo\n")
        held.append(connection)
    return held


def alive(held):
    for number, connection in enumerate(held):
        connection.sendall(b"%06d" % number)
    return all(connection.recv(6) == b"%06d" % number for number, connection in enumerate(held))


def test_conformance_M2_drain_keeps_what_lives_and_takes_nothing_new(gateway, lab):
    peer1 = f"{RIPS['rs1']}:9000"
    held = hold(lab, 100)
    assert alive(held)
    gateway.control.real_server("peer", "drain", peer1)
    before = gateway.control.services()["peer"]["real_servers"][0]["sessions_created"]
    names = set()
    for _ in range(40):
        with lab.client.connect(VIP, 9000) as connection:
            connection.sendall(b"who\n")
            names.add(connection.recv(100).split()[0])
    assert names == {b"rs2"}
    assert alive(held), "sessions of the drained real server live on"
    state = gateway.control.services()["peer"]["real_servers"][0]
    assert (state["state"], state["sessions_created"]) == ("draining", before)
    gateway.control.real_server("peer", "undrain", peer1)
    assert {ask(lab) for _ in range(8)} == {"rs1", "rs2"}
    for connection in held:
        connection.close()


def test_conformance_M1_M3_real_servers_come_and_go_under_load(gateway, lab):
    held = hold(lab, 50)
    process = start_wrk(lab)
    for _ in range(5):
        gateway.control.real_server("web", "remove", RS2)
        gateway.control.real_server("web", "add", RS2, weight=100)
        gateway.control.real_server("web", "weight", RS1, weight=7)
        gateway.control.real_server("web", "drain", RS2)
        gateway.control.real_server("web", "undrain", RS2)
        assert alive(held)
    clean(process.communicate(timeout=20)[0])
    assert {ask(lab) for _ in range(40)} == {"rs1", "rs2"}
    for connection in held:
        connection.close()


def test_conformance_M1_a_gateway_grows_beyond_its_first_configuration(start, lab, workers):
    lips = gateways.addresses.LIPS
    peer = gateways.service("peer", f"{VIP}:9000", 9000, ("rs1",))
    gateway = start(gateways.config(workers, [peer], lips=[lips[0]]))
    held = hold(lab, 40)
    gateway.control.real_server("peer", "add", f"{RIPS['rs2']}:9000", weight=100)
    held += hold(lab, 40)
    larger = running(gateway)
    larger["local_pool"][0]["addresses"] = lips[:2]
    larger["service"].append(gateways.service("web", f"{VIP}:80", 8080))
    gateway.control.put_config(larger)
    held += hold(lab, 40)
    assert {ask(lab) for _ in range(8)} == {"rs1", "rs2"}
    servers = gateway.control.services()["peer"]["real_servers"]
    assert [server["refused_no_port"] for server in servers] == [0, 0]
    # Half of those held since there are two, and each worker takes its own turns.
    assert all(server["sessions_created"] >= 40 - workers for server in servers), servers
    assert alive(held)
    for connection in held:
        connection.close()


def test_conformance_M5_a_removed_local_address_is_given_up(gateway, lab):
    server, gone = lab.servers["rs1"], gateways.addresses.LIPS[-1]

    def is_answered_for():
        server.run("ip", "neigh", "flush", "to", gone, check=False)
        server.run("ping", "-c1", "-W1", gone, check=False)
        return "lladdr" in server.run("ip", "neigh", "show", "to", gone).stdout

    assert is_answered_for()
    smaller = running(gateway)
    smaller["local_pool"][0]["addresses"] = [gateways.addresses.LIPS[0], *gateways.addresses.LIPS6]
    generation = gateway.control.put_config(smaller)["generation"]
    wait_until(lambda: not is_answered_for(), 10, "the removed local address to be given up")
    assert gateway.control.get("/v1/version")["generation"] == generation
    assert ask(lab) in ("rs1", "rs2")


def test_conformance_M6_whole_configurations_under_load_lose_nothing(gateway, lab):
    held = hold(lab, 50)
    process = start_wrk(lab, close=True)
    generation = gateway.control.get("/v1/version")["generation"]
    settings = running(gateway)
    slowest = 0.0
    for number in range(20):
        changed = copy.deepcopy(settings)
        changed["service"].append(gateways.service(f"extra-{number}", f"{VIP}:{3000 + number}", 8080))
        started = time.monotonic()
        gateway.control.put_config(changed)
        slowest = max(slowest, time.monotonic() - started)
    clean(process.communicate(timeout=20)[0])
    assert gateway.control.get("/v1/version")["generation"] == generation + 20
    assert slowest < 1
    assert alive(held)
    assert ask(lab, port=3019) in ("rs1", "rs2")
    with pytest.raises(ConnectionRefusedError):
        lab.client.connect(VIP, 3018)
    for connection in held:
        connection.close()


def running(gateway):
    return gateway.control.get("/v1/config")


def test_conformance_M7_a_wrong_configuration_changes_nothing(gateway, lab):
    before = running(gateway)
    generation = gateway.control.get("/v1/version")["generation"]
    wrong = [
        ("listen", f"{VIP}:99999"), ("listen", "10.1.0.300:80"), ("protocol", "sctp"), ("scheduler", "fastest"),
        ("local_pool", "no-such-pool"), ("client_address", "xff"), ("listen", f"{VIP}:9000"),
        ("listen", f"{gateways.addresses.LIPS[0]}:80"), ("surprise", 1),
    ]
    for key, value in wrong:
        bad = copy.deepcopy(before)
        bad["service"][0][key] = value
        with pytest.raises(ControlError) as refused:
            gateway.control.put_config(bad)
        assert refused.value.status in (400, 422), (key, value)
        paths = [fault["path"] for fault in refused.value.body["errors"]]
        assert any("service[" in path for path in paths), (key, value, refused.value.body)
    for mutilate in (lambda c: c["local_pool"][0].update(addresses=[]),
                     lambda c: c["service"][0]["real_server"][0].update(weight=-1),
                     lambda c: c["service"][0]["real_server"][0].update(weight=2**32),
                     lambda c: c["service"].append(c["service"][0])):
        bad = copy.deepcopy(before)
        mutilate(bad)
        with pytest.raises(ControlError):
            gateway.control.put_config(bad)
    assert running(gateway) == before
    assert gateway.control.get("/v1/version")["generation"] == generation
    assert ask(lab) in ("rs1", "rs2")


def test_conformance_I10_a_client_whose_real_server_is_gone_gets_another(gateway, lab):
    """The same client port again after its real server was removed."""
    source = ("", 51900)
    with lab.client.connect(VIP, 9000, source=source) as first:
        first.sendall(b"stay\n")
        name = first.recv(100).split()[0].decode()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gateway.control.real_server("peer", "remove", f"{RIPS[name]}:9000")
    with lab.client.connect(VIP, 9000, source=source) as second:
        second.sendall(b"who\n")
        assert second.recv(100).split()[0].decode() != name


def test_conformance_K4_a_constant_sender_is_not_lost_with_its_real_server(gateway, lab):
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((VIP, 9000))
        client.send(b"one")
        name = client.recv(200).split()[0].decode()
        client.settimeout(0.2)
        gateway.control.real_server("echo", "remove", f"{RIPS[name]}:9000")

        def moved():
            client.send(b"again")
            try:
                return client.recv(200).split()[0].decode() != name
            except TimeoutError:
                return False

        wait_until(moved, 5, "the sender to be served by another real server")


def test_no_real_server_left_is_told_at_once(gateway, lab):
    for name in ("rs1", "rs2"):
        gateway.control.real_server("web", "remove", f"{RIPS[name]}:8080")
    def refusal():
        with pytest.raises(ConnectionRefusedError):
            lab.client.connect(VIP, 80, timeout=2)

    with machine.Timed(0.1, gateway.process) as refusals:
        refusals.measure(refusal)
    refusals.check()
    assert gateway.control.drops()["no_real_server"] == 1


def test_questions_have_answers(gateway, lab):
    control = gateway.control
    held = hold(lab, 30)
    assert control.get("/v1/version")["name"] == "fullnat"
    ports = {p["name"]: p for p in control.get("/v1/ports")}
    assert set(ports) == {"wan", "lan"} and ports["wan"]["link"]["up"]
    assert {r["to"] for r in control.get("/v1/routes")} >= {"10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"}
    neighbours = {n["address"]: n for n in control.get("/v1/neighbours") if n.get("mac")}
    assert neighbours[CIP]["mac"] == lab.client.mac("eth0")
    assert neighbours[RIPS["rs1"]]["mac"] == lab.servers["rs1"].mac("eth0")
    mine = control.sessions(client=CIP, vip=f"{VIP}:9000", state="established")
    assert len(mine) >= 30 and {s["service"] for s in mine} == {"peer"}
    exact = control.sessions(client=mine[0]["client"])
    assert mine[0]["local"] in {s["local"] for s in exact}
    pool = control.get("/v1/pools")[0]
    assert pool["name"] == "lan-pool" and pool["leased"] >= 30
    document = control.get("/v1/openapi.json")
    assert document["openapi"].startswith("3.") and "/v1/config" in document["paths"]
    assert "fullnat" in control.get("/metrics")
    for connection in held:
        connection.close()


def test_least_and_hashed_schedulers_spread_as_they_promise(start, lab, workers):
    gateway = start(gateways.config(workers, [
        gateways.service("sh", f"{VIP}:8001", 8080, scheduler="sh"),
        gateways.service("mh", f"{VIP}:8002", 8080, scheduler="mh"),
        gateways.service("lc", f"{VIP}:8003", 9000, scheduler="lc"),
        {**gateways.service("wrr", f"{VIP}:8004", 8080, scheduler="wrr"),
         "real_server": [{"address": RS1, "weight": 3}, {"address": RS2, "weight": 1}]},
    ]))
    for port in (8001, 8002):
        assert len({ask(lab, port=port) for _ in range(10)}) == 1, "one client, one real server"
    held = [lab.client.connect(VIP, 8003) for _ in range(40)]
    wait_until(lambda: sum(s["sessions_active"] for s in gateway.control.services()["lc"]["real_servers"]) >= 40, 3,
               "40 active sessions")
    active = [s["sessions_active"] for s in gateway.control.services()["lc"]["real_servers"]]
    assert abs(active[0] - active[1]) <= 2 * workers, active
    for connection in held:
        connection.close()
    answers = [ask(lab, port=8004) for _ in range(80)]
    assert abs(answers.count("rs1") - 60) <= 4 * workers, "weights 3 : 1"


def test_fullnatctl_speaks_to_people_and_programs(gateway, lab):
    with lab.client.connect(VIP, 9000) as held:
        for words in (("version",), ("ports",), ("workers",), ("services",), ("neighbours",), ("routes",), ("pools",),
                      ("drops",), ("config", "show"), ("openapi",)):
            assert json.loads(gateway.fullnatctl("--json", *words).stdout), words
            assert gateway.fullnatctl(*words).stdout.strip(), words
        sessions = json.loads(gateway.fullnatctl("--json", "sessions").stdout)["sessions"]
        client = f"{CIP}:{held.getsockname()[1]}"
        assert client in {session["client"] for session in sessions}
        assert client in gateway.fullnatctl("sessions").stdout
    assert gateway.fullnatctl("no-such-command", check=False).returncode != 0
    nobody = lab.gateway.run(gateways.binary("fullnatctl"), "--socket", "/nonexistent.sock", "version", check=False)
    assert nobody.returncode != 0 and len(nobody.stderr.strip().splitlines()) == 1


def test_conformance_N1_N2_the_socket_is_for_its_owner_and_group(gateway, lab):
    mode = gateway.socket.stat()
    assert stat.S_IMODE(mode.st_mode) == 0o660 and mode.st_uid == 0
    refused = lab.gateway.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS",
                              "--unix-socket", gateway.socket, "http://fullnat/v1/version", check=False)
    assert refused.returncode != 0


def test_conformance_N5_slow_clients_of_the_socket_delay_nobody(gateway, lab):
    slow = []
    for _ in range(50):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(gateway.socket))
        one.sendall(b"GET /v1/ver")
        slow.append(one)
    started = time.monotonic()
    assert gateway.control.get("/v1/version")
    assert time.monotonic() - started < 0.5
    for one in slow:
        one.close()


def test_conformance_M9_contradictory_commands_at_once(gateway, lab):
    """Ten operators at a time: every command is carried out or refused, the result is one of the orders."""
    def operator(number):
        done = 0
        for _ in range(10):
            try:
                if number % 2:
                    gateway.control.real_server("web", "drain", RS1)
                else:
                    gateway.control.real_server("web", "undrain", RS1, weight=5)
                done += 1
            except ControlError as refused:
                assert refused.status in (409, 503)
        return done

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(operator, range(10))) > 50
    weight = gateway.control.services()["web"]["real_servers"][0]["weight"]
    assert weight in (0, 5)
    assert ask(lab) in ("rs1", "rs2") and ask(lab, VIP6) in ("rs1", "rs2")
