/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The real server's side of TOA as eBPF programs: unmodified servers see the client in accept() and getpeername().
 *
 *   established    sockops           the segment that completes a handshake: reads the option, keeps it at the socket
 *   getpeername4   cgroup/...        accept() and getpeername() of IPv4 sockets: the client instead of the gateway
 *   getpeername6   cgroup/...        the same of IPv6 sockets, dual-stack ones included
 *   getsockopt     cgroup/...        IPPROTO_IP 4096, as the toa.ko of DPVS answers it: an IPv6 client at an IPv4 socket
 *   connections    iter/...          every connection whose client is known, for `fullnat-toa status --connections`
 *
 * What is kept lives and dies with the socket (SK_STORAGE): nothing to size, nothing to clean up. The layout of
 * `struct connection` is that of src/receiver/layout.rs.
 *
 * Compiled thrice, and the loader takes the first that the kernel takes: WITH_MPTCP needs a helper of 5.19 that finds an
 * MPTCP connection from its subflow, WITH_CONNECTIONS the kernel's type information.
 */
#include "receiver.bpf.h"

#include <bpf/bpf_core_read.h>

#define TCP_HEADER_LEN 20
#define OPTIONS_LEN_MAX 40
#define OPTION_END 0
#define OPTION_NOP 1
#define KIND 254
#define KIND_ALTERNATE 253
#define LEN_V4 8
#define LEN_V6 20
/* DPVS kmod/toa/toa.h: TOA_SO_GET_LOOKUP */
#define SO_TOA_LOOKUP 4096
#define PAGE_LEN_MIN 4096

/* DPVS kmod/toa/toa.h: struct toa_nat64_peer. */
struct toa_nat64_peer {
	__u32 saddr[4];
	__be16 port;
	__u8 padding[2];
};

/* One line of `status --connections`. */
struct connection {
	__u32 client[4];
	__u32 peer[4]; /* as it stands on the wire: the gateway's local address */
	__u32 local[4];
	__be16 client_port;
	__be16 peer_port;
	__u16 local_port; /* host order, as the kernel has it */
	__u8 state;
	__u8 unused;
};

/*
 * The first TOA option of a segment; 1 if there is one, -1 if there is only one of a wrong length.
 *
 * bpf_load_hdr_opt() would refuse: of kinds 253 and 254 it demands RFC 6994 identifiers, where TOA has the port. `end` is
 * the end of the TCP header.
 *
 * The verifier follows every way through the loop until it comes to a state that it has seen. What it knows of the offset
 * would differ from way to way, a million of them, unless it came in a lucky order. So each turn ends with an offset of
 * which it knows nothing but that it is below 64: `any` is added and taken away again, a number that it cannot know.
 */
static __always_inline int find_option(void *data, void *end, __u64 any, struct client *client)
{
	__u64 at = TCP_HEADER_LEN;
	int found = 0;

	for (int turn = 0; turn < OPTIONS_LEN_MAX; turn++) {
		__u8 *option = data + at;
		if ((void *)(option + 2) > end)
			return found;
		__u8 kind = option[0], len = option[1];
		if (kind == OPTION_END)
			return found;
		if (kind == OPTION_NOP) {
			at += 1;
		} else {
			if (len < 2 || len > OPTIONS_LEN_MAX)
				return found;
			if (kind == KIND || kind == KIND_ALTERNATE) {
				if (len == LEN_V4 && (void *)(option + LEN_V4) <= end) {
					client->port = *(__be16 *)(option + 2);
					client->address[2] = MAPPED;
					client->address[3] = *(__u32 *)(option + 4);
					return 1;
				}
				if (len == LEN_V6 && (void *)(option + LEN_V6) <= end) {
					client->port = *(__be16 *)(option + 2);
					client->address[0] = *(__u32 *)(option + 4);
					client->address[1] = *(__u32 *)(option + 8);
					client->address[2] = *(__u32 *)(option + 12);
					client->address[3] = *(__u32 *)(option + 16);
					return 1;
				}
				if (kind == KIND)
					found = -1;
			}
			at += len;
		}
		asm volatile("%0 += %1; %0 -= %1; %0 &= 63" : "+r"(at) : "r"(any));
	}
	return found;
}

/* The sender of the segment may name a client. */
static __always_inline int is_trusted(struct bpf_sock_ops *ops)
{
	struct prefix sender;

	sender.len = 128;
	if (ops->family == AF_INET) {
		sender.address[0] = 0;
		sender.address[1] = 0;
		sender.address[2] = MAPPED;
		__u32 address = ops->remote_ip4;
		/* Without it clang makes one read of those that end both branches, through a computed address, which the
		 * verifier refuses of a context. */
		asm volatile("" : "+r"(address));
		sender.address[3] = address;
	} else {
		sender.address[0] = ops->remote_ip6[0];
		sender.address[1] = ops->remote_ip6[1];
		sender.address[2] = ops->remote_ip6[2];
		sender.address[3] = ops->remote_ip6[3];
	}
	return bpf_map_lookup_elem(&trusted, &sender) != 0;
}

#ifdef WITH_MPTCP
/*
 * Of an MPTCP connection accept() and getpeername() ask the connection, not the subflow. Only the first subflow names the
 * client: one that joins later comes from wherever its path begins.
 */
static __always_inline void keep_at_connection(struct bpf_sock *sk, const struct client *client)
{
	struct mptcp_sock *connection = bpf_skc_to_mptcp_sock(sk);
	if (!connection || bpf_sk_storage_get(&clients, connection, 0, 0))
		return;
	struct client *kept = bpf_sk_storage_get(&clients, connection, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (kept) {
		*kept = *client;
		kept->copy = 1;
	}
}
#endif

/*
 * Called with the child's lock held and before accept() can read its name. The segment is what completes the handshake:
 * the third ACK, the first data if that ACK was lost or accept is deferred, the SYN with TCP Fast Open.
 */
SEC("sockops")
int established(struct bpf_sock_ops *ops)
{
	if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	struct bpf_sock *sk = ops->sk;
	if (!sk)
		return 1;
	count(SESSIONS);

	struct client client;
	__builtin_memset(&client, 0, sizeof(client));
	int found = find_option((void *)(long)ops->skb_data, (void *)(long)ops->skb_data_end, ops->remote_port, &client);
	if (found <= 0) {
		count(found ? MALFORMED : WITHOUT);
		return 1;
	}
	if (!is_trusted(ops)) {
		count(UNTRUSTED);
		return 1;
	}
	struct client *kept = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		count(NO_MEMORY);
		return 1;
	}
	*kept = client;
#ifdef WITH_MPTCP
	keep_at_connection(sk, &client);
#endif
	count(OPTIONS);
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct client *client = bpf_sk_storage_get(&clients, ctx->sk, 0, 0);
	if (!client)
		return 1;
	if (!is_v4(client->address)) {
		count(NOT_SAYABLE);
		return 1;
	}
	ctx->user_ip4 = client->address[3];
	ctx->user_port = client->port;
	count(REWRITTEN);
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct client *client = bpf_sk_storage_get(&clients, ctx->sk, 0, 0);
	if (!client)
		return 1;
	ctx->user_ip6[0] = client->address[0];
	ctx->user_ip6[1] = client->address[1];
	ctx->user_ip6[2] = client->address[2];
	ctx->user_ip6[3] = client->address[3];
	ctx->user_port = client->port;
	count(REWRITTEN);
	return 1;
}

SEC("cgroup/getsockopt")
int getsockopt(struct bpf_sockopt *ctx)
{
	/* Of longer answers the program is shown the first page only, and kernels before 6.4 refuse them (EFAULT) unless it
	 * says that it leaves them alone: Documentation/bpf/prog_cgroup_sockopt.rst. */
	if (ctx->optlen > PAGE_LEN_MIN) {
		ctx->optlen = 0;
		return 1;
	}
	if (ctx->level != IPPROTO_IP || ctx->optname != SO_TOA_LOOKUP || !ctx->sk)
		return 1;
	struct client *client = bpf_sk_storage_get(&clients, ctx->sk, 0, 0);
	struct toa_nat64_peer *peer = ctx->optval;
	if (!client || is_v4(client->address) || (void *)(peer + 1) > ctx->optval_end)
		return 1;
	peer->saddr[0] = client->address[0];
	peer->saddr[1] = client->address[1];
	peer->saddr[2] = client->address[2];
	peer->saddr[3] = client->address[3];
	peer->port = client->port;
	peer->padding[0] = 0;
	peer->padding[1] = 0;
	count(LOOKED_UP);
	/* volatile: clang would make one store of the two, which the verifier refuses */
	volatile struct bpf_sockopt *answer = ctx;
	answer->optlen = sizeof(*peer);
	answer->retval = 0;
	return 1;
}

#ifdef WITH_CONNECTIONS
/* What is read of the kernel's structures, found by name wherever this kernel has it (CO-RE). */

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	struct client *value;
};

static __always_inline void mapped(__u32 *address, __u32 v4)
{
	address[2] = MAPPED;
	address[3] = v4;
}

SEC("iter/bpf_sk_storage_map")
int connections(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct client *client = ctx->value;
	if (!sk || !client || client->copy)
		return 0;
	struct connection line;
	__builtin_memset(&line, 0, sizeof(line));
	line.client[0] = client->address[0];
	line.client[1] = client->address[1];
	line.client[2] = client->address[2];
	line.client[3] = client->address[3];
	line.client_port = client->port;
	if (sk->__sk_common.skc_family == AF_INET6) {
		bpf_probe_read_kernel(line.peer, sizeof(line.peer), &sk->__sk_common.skc_v6_daddr);
		bpf_probe_read_kernel(line.local, sizeof(line.local), &sk->__sk_common.skc_v6_rcv_saddr);
	} else {
		mapped(line.peer, sk->__sk_common.skc_daddr);
		mapped(line.local, sk->__sk_common.skc_rcv_saddr);
	}
	line.peer_port = sk->__sk_common.skc_dport;
	line.local_port = sk->__sk_common.skc_num;
	line.state = sk->__sk_common.skc_state;
	bpf_seq_write(ctx->meta->seq, &line, sizeof(line));
	return 0;
}
#endif

/* bpf_seq_write and the iterator's probe reads are for programs whose licence the kernel takes for compatible. */
char licence[] SEC("license") = "Dual MIT/GPL";
