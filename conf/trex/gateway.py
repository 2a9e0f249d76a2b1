"""What the TRex profiles know of the gateway: written by scripts/trex-config.sh as gateway.json, the same directory."""

import json
import pathlib

DEFAULT = pathlib.Path(__file__).with_name("gateway.json")


def load(path=None):
    """The addresses; see scripts/trex-config.sh for the keys."""
    with open(path or DEFAULT, encoding="utf-8") as file:
        return json.load(file)


def service(facts, protocol):
    """The first service of a protocol: {"vip", "port", "real_servers": [[address, port], ...]}."""
    for entry in facts["services"]:
        if entry["protocol"] == protocol:
            return entry
    raise SystemExit(f"the gateway has no {protocol} service; add one to its configuration")
