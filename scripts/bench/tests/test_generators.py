"""What generators would send, without a generator: TRex's interfaces are played by recorders, packets are scapy's."""

import importlib
import ipaddress
import json
import pathlib
import shutil
import subprocess
import sys
import tomllib
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts" / "bench"), str(ROOT / "conf" / "trex")]
import generators  # noqa: E402


class Recorded:
    """Remembers what it was made of."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs, self.calls = args, kwargs, []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args: self.calls.append((name, *args))


class Module(types.ModuleType):
    """Has every name that is asked of it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Recorded,), {"L4_TYPE_UDP": "udp"})


@pytest.fixture
def trex(monkeypatch):
    layers = importlib.import_module("scapy.layers.inet")
    ethernet = importlib.import_module("scapy.layers.l2")
    stl, astf = Module("trex.stl.api"), Module("trex.astf.api")
    stl.Ether, stl.IP, stl.UDP = ethernet.Ether, layers.IP, layers.UDP
    for name, module in (("trex", Module("trex")), ("trex.stl", Module("trex.stl")), ("trex.stl.api", stl),
                         ("trex.astf", Module("trex.astf")), ("trex.astf.api", astf)):
        monkeypatch.setitem(sys.modules, name, module)


def config(name="qualify.toml"):
    return tomllib.loads((ROOT / "conf" / name).read_text(encoding="utf-8"))


@pytest.fixture
def made(tmp_path):
    generators.main([str(ROOT / "conf" / "qualify.toml"), "--out", str(tmp_path), "--wan-mac", "02:00:00:00:00:01",
                     "--interfaces", "0000:01:00.0,0000:01:00.1"])
    return tmp_path


def test_addresses_are_the_gateways(made):
    found = json.loads((made / "gateway.json").read_text())
    assert {(s["protocol"], s["vip"], s["port"]) for s in found["services"]} == {
        ("udp", "198.18.0.100", 53), ("tcp", "198.18.0.100", 80)}
    assert found["services"][0]["real_servers"][0] == ["198.19.128.11", 5353]
    assert ipaddress.ip_address(found["clients_first"]) in ipaddress.ip_network("16.0.0.0/8")
    assert found["router"] == "198.18.0.1", "the generator plays the clients' router"
    assert found["server_router"] == "198.19.0.1", "and that of the real servers"


def test_the_platform_file_names_ports_and_gateways(made):
    text = (made / "trex_cfg.yaml").read_text()
    assert 'interfaces: ["0000:01:00.0", "0000:01:00.1"]' in text
    assert "- ip: 198.18.0.1\n      default_gw: 198.18.0.254" in text
    assert "- ip: 198.19.0.1\n      default_gw: 198.19.0.254" in text


def test_pktgen_commands_are_complete(made):
    text = (made / "udp.pkt").read_text()
    assert "@" not in text
    assert "range 0 dst ip 198.18.0.100 198.18.0.100 198.18.0.100 0.0.0.0" in text
    assert "range 0 src ip 16.0.0.1 16.0.0.1 16.0.61.9 0.0.0.1" in text
    assert "range 0 src port 1024 1024 1087 1" in text
    assert "range 0 dst mac 02:00:00:00:00:01" in text
    assert "set 1 src ip 198.19.0.1/17\nenable 1 process" in text, "somebody answers for the real servers' router"
    clients, ports = generators.PKTGEN_CLIENTS, generators.PKTGEN_PORTS
    flows = {(packet % clients, packet % ports) for packet in range(clients * ports)}
    assert len(flows) == 1_000_000, "both advance with every packet"
    script = (ROOT / "conf" / "pktgen" / "rfc2544.lua").read_text(encoding="utf-8")
    assert "flows = 1000000," in script


def test_without_the_gateways_address_there_is_nothing_for_pktgen(made, capsys):
    generators.main([str(ROOT / "conf" / "qualify.toml"), "--out", str(made)])
    assert sorted(path.name for path in made.iterdir()) == ["gateway.json", "trex_cfg.yaml"], "the old udp.pkt is gone"
    assert "--wan-mac" in capsys.readouterr().err
    with pytest.raises(generators.Unfit, match="--wan-mac"):
        generators.pktgen(generators.facts(config()))


def test_real_servers_are_behind_one_address():
    """A generator's port answers ARP for one address: sessions to others would end in neighbour_unreachable."""
    near = config()
    del near["route"][1]
    with pytest.raises(generators.Unfit, match="no route"):
        generators.facts(near)
    near["port"][1]["addresses"] = ["198.19.0.254/16"]
    with pytest.raises(generators.Unfit, match="198.19.128.11, 198.19.128.12"):
        generators.facts(near)
    for service in near["service"]:
        del service["real_server"][1:]
    assert generators.facts(near)["server_router"] == "198.19.128.11", "a single real server needs no router"


@pytest.mark.parametrize("size", [64, 128, 1518])
def test_the_udp_profile_builds_frames_for_the_vip(trex, made, size):
    profile = importlib.import_module("stl_udp").register()
    tunables = ["--sessions", "1000000", "--size", str(size), "--gateway", str(made / "gateway.json")]
    [stream] = profile.get_streams(tunables=tunables)
    builder = stream.kwargs["packet"]
    frame = bytes(builder.kwargs["pkt"])
    assert len(frame) == size - 4, "the frame's checksum is the NIC's"
    packet = importlib.import_module("scapy.layers.l2").Ether(frame)
    assert (packet.dst, packet["IP"].dst, packet["UDP"].dport) == ("02:00:00:00:00:01", "198.18.0.100", 53)


def variables(stream):
    """What TRex makes of a stream's program: {field: variable}."""
    if "vm" not in stream.kwargs["packet"].kwargs:
        return {}
    program = stream.kwargs["packet"].kwargs["vm"].args[0]
    named = {step.args[0]: step.kwargs for step in program if step.args}
    return {step.kwargs["pkt_offset"]: named[step.kwargs["fv_name"]] for step in program if "fv_name" in step.kwargs}


def advanced(variable, value, step):
    """TRex's rule: what a step has left at the end of the range counts from its beginning, which is one step itself."""
    left = variable["max_value"] - value
    return value + step if step <= left else variable["min_value"] + step - left - 1


def played(stream, packets, cores=1):
    """The flows of so many packets. Of several cores each begins one packet further on and goes as many steps at once."""
    found = variables(stream).values()
    assert all(variable["op"] == "inc" and 0 < variable["step"] <= variable["max_value"] - variable["min_value"]
               for variable in found)
    for core in range(cores):
        steps, values = [], []
        for variable in found:
            size = variable["max_value"] - variable["min_value"] + 1
            values.append(advanced(variable, variable["min_value"], variable["step"] * core % size))
            steps.append(variable["step"] * cores % size)
        for _ in range(core, packets, cores):
            yield tuple(values)
            values = [advanced(*each) for each in zip(found, values, steps)]


def streams(made, *tunables):
    profile = importlib.import_module("stl_udp").register()
    return profile.get_streams(tunables=[*tunables, "--gateway", str(made / "gateway.json")])


@pytest.mark.parametrize("sessions", [1, 2, 7, 1_000, 1_024, 65_536, 100_000, 1_000_000])
def test_a_round_has_every_flow_once(trex, made, sessions):
    [stream] = streams(made, "--sessions", str(sessions))
    flows = list(played(stream, sessions))
    assert len(set(flows)) == sessions
    assert flows[0] == tuple(variable["min_value"] for variable in variables(stream).values())
    again = list(played(stream, sessions + 1))
    assert again[-1] == flows[0], "then the next round begins"


@pytest.mark.parametrize("sessions", [1_000, 100_000, 1_000_000])
def test_trials_go_neither_by_address_nor_in_the_order_of_opening(trex, made, sessions):
    [trial] = streams(made, "--sessions", str(sessions))
    [opening] = streams(made, "--sessions", str(sessions), "--opening_rounds", "2")
    assert list(variables(trial)) == ["IP.src", "UDP.sport"]
    opened = {flow: at for at, flow in enumerate(played(opening, sessions))}
    flows = list(played(trial, sessions))
    for before, flow in zip(flows, flows[1:]):
        assert sessions // 3 < (opened[flow] - opened[before]) % sessions < 2 * sessions // 3
        assert flow[0] - before[0] not in (0, 1)


@pytest.mark.parametrize("cores", [1, 2, 3, 7])
def test_the_opening_has_every_flow_whatever_the_cores(trex, made, cores):
    [stream] = streams(made, "--sessions", "100000", "--opening_rounds", "2", "--latency_pps", "1000")
    assert stream.kwargs["mode"].kwargs == {"total_pkts": 200_000}, "it ends by itself"
    assert len(set(played(stream, 200_000, cores))) == 100_000
    [trial] = streams(made, "--sessions", "100000")
    assert len(set(played(trial, 200_000, cores))) == 100_000


def test_no_flows_are_refused_with_a_reason(trex, made, capsys):
    with pytest.raises(SystemExit):
        streams(made, "--sessions", "0")
    assert "give 1 or more" in capsys.readouterr().err


def test_a_second_stream_is_time_stamped(trex, made):
    profile = importlib.import_module("stl_udp").register()
    tunables = ["--latency_pps", "1000", "--gateway", str(made / "gateway.json")]
    _, stream = profile.get_streams(tunables=tunables)
    assert stream.kwargs["flow_stats"].kwargs == {"pg_id": 1} and stream.kwargs["mode"].kwargs == {"pps": 1000}
    packet = importlib.import_module("scapy.layers.l2").Ether(bytes(stream.kwargs["packet"].kwargs["pkt"]))
    assert packet["UDP"].dport == 53 and packet["UDP"].sport < 1024, "a flow that the other stream does not draw"
    assert len(bytes(packet["UDP"].payload)) >= 16, "room for the time stamp"
    assert packet["IP"].flags.DF, "or the gateway would change the identification that TRex knows it by"


def test_the_documents_commands_are_taken_by_the_profiles(trex, made):
    """`-t` comes last, and what follows it are the profile's own options."""
    text = (ROOT / "docs" / "qualify.md").read_text(encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if line.startswith("trex> start -f")]
    assert len(commands) >= 4
    for words in commands:
        path, tunables = ROOT / words[3], words[words.index("-t") + 1:]
        assert path.is_file()
        profile = importlib.import_module(path.stem).register()
        load = getattr(profile, "get_streams", None) or profile.get_profile
        load(tunables=[*tunables, "--gateway", str(made / "gateway.json")])


def test_the_http_profile_dials_the_vip_and_serves_as_the_real_servers(trex, made):
    profile = importlib.import_module("astf_http").register()
    common = ["--gateway", str(made / "gateway.json"), "--cps", "5000"]
    client = profile.get_profile(tunables=[*common, "--side", "client"])
    server = profile.get_profile(tunables=[*common, "--side", "server"])
    ranges = [side.kwargs["default_ip_gen"].kwargs["dist_server"].kwargs["ip_range"] for side in (client, server)]
    assert ranges == [["198.18.0.100", "198.18.0.100"], ["198.19.128.11", "198.19.128.14"]]
    ports = [side.kwargs["templates"].kwargs["client_template"].kwargs["port"] for side in (client, server)]
    assert ports == [80, 8080]
    said = client.kwargs["templates"].kwargs["client_template"].kwargs["program"].calls
    heard = server.kwargs["templates"].kwargs["server_template"].kwargs["program"].calls
    assert said[0][0] == "send" and heard[0] == ("recv", len(said[0][1]))
    assert said[1] == ("recv", len(heard[1][1])), "the client waits for just what the server sends"


def test_a_configuration_with_one_port_is_refused_with_a_reason():
    with pytest.raises(generators.Unfit, match="two ports"):
        generators.facts(config("one-arm.toml"))


def test_the_lua_script_is_well_formed():
    compiler = next((found for name in ("luac5.4", "luac5.3", "luac") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no Lua compiler: scripts/bootstrap.sh bench installs one")
    subprocess.run([compiler, "-p", ROOT / "conf" / "pktgen" / "rfc2544.lua"], check=True)
