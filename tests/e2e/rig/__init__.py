"""The rig of the end-to-end tests: network namespaces with real kernels around a gateway.

    client --eth0--br1--gw-wan-- gateway --gw-lan--br0--eth0-- rs1, rs2, router -- rs3

Every module stands on those before it: `netns` (namespaces and processes in them), `frames` (checks with scapy's
parser), `capture`, `raw_host` (a host that is not a kernel), `control` (the gateway's socket), `gateway` (its
configuration and process), `servers`, `lab` (the topology), `dimensions` (what tests are repeated over),
`disorder`, `machine`, `receiver` (the real servers' side of TOA), `invariants` (what holds at the end of every test).
"""
