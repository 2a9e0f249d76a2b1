/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the receiver's programs for TCP (toa.bpf.c) and for UDP (uoa.bpf.c) share: maps, which are pinned by name and so
 * the same ones in both, and counters. The layouts and the numbers of the counters are those of src/receiver/layout.rs.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define MAPPED bpf_htonl(0xffff)

/* The client that the option named, at its socket. */
struct client {
	__u32 address[4]; /* network order, IPv4 mapped (::ffff:a.b.c.d) */
	__be16 port;
	__u8 copy; /* 1: of an MPTCP connection, whose subflow has it too */
	__u8 unused[5];
};

enum counter {
	SESSIONS,    /* handshakes completed */
	OPTIONS,     /* of them: with an option that was taken */
	WITHOUT,     /* without any option of that kind */
	UNTRUSTED,   /* rejected: the sender is not among the trusted */
	MALFORMED,   /* rejected: the kind is right, the length is not */
	NO_MEMORY,   /* the kernel had no memory to keep it: the server sees the gateway */
	REWRITTEN,   /* answers of accept() and getpeername() that name the client */
	NOT_SAYABLE, /* an IPv6 client that an IPv4 socket address cannot express */
	LOOKED_UP,   /* getsockopt(IPPROTO_IP, 4096) answered */
	UDP_OPTIONS,     /* datagrams whose option was taken */
	UDP_UNTRUSTED,   /* rejected: the sender is not among the trusted */
	UDP_MALFORMED,   /* rejected: the type is right, the length is not */
	UDP_NO_MEMORY,   /* the kernel had no memory to keep it: the server sees the gateway */
	UDP_NOT_SAYABLE, /* an IPv6 client of an IPv4 datagram, to whom a server could not answer */
	UDP_SHOWN,       /* datagrams of which the server was told the client */
	UDP_ANSWERS,     /* answers to a client, and connections to it, that were turned to the gateway */
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} clients SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

struct prefix {
	__u32 len;
	__u32 address[4];
};

/* Who may name a client; `::/0` when everybody may. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct prefix);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} trusted SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		*counter += 1;
}

static __always_inline int is_v4(const __u32 *address)
{
	return address[0] == 0 && address[1] == 0 && address[2] == MAPPED;
}
