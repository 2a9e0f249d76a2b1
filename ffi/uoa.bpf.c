/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The real server's side of UOA: unmodified UDP servers see the client, and what they answer goes back to the gateway.
 *
 *   udp_arrives    cgroup_skb/ingress   every datagram for a socket: reads the option of the few that have one
 *   recvmsg4, 6    cgroup/...           recvfrom() and its kin: the client instead of the gateway
 *   sendmsg4       cgroup/...           sendto() and its kin: to the gateway instead of the client; of [::] sockets too
 *   connect4, 6    cgroup/...           connect() to a client: to its gateway; getpeername() is that of toa.bpf.c
 *
 * A session is told of by its first datagrams only, so what is known is kept in maps, not at the packet: by whom it comes
 * from on the wire (`udp_clients`), and by whom a server answers (`udp_gateways`). Both are bounded and forget first what
 * was used least recently; what has been silent for longer than a session lives is not believed any more, since its
 * local port may be another client's by then. IPv4 on the wire only: IPv6 has no such option.
 *
 * Compiled twice, and the loader takes the first that the kernel takes: WITH_NETNS needs a helper that tells network
 * namespaces apart where a datagram arrives.
 */
#include "receiver.bpf.h"

#define ETH_P_IP 0x0800
#define SOCK_DGRAM 2
#define HEADER_LEN 20
#define OPTIONS_LEN_MAX 40
#define OPTION_END 0
#define OPTION_NOP 1
/* DPVS kmod/uoa/uoa.h: IPOPT_UOA */
#define KIND 31
#define LEN_V4 8
#define LEN_V6 20
#define SESSIONS_MAX 65536

/* How long a session may be silent and still be who it was. */
const volatile __u64 idle_nanos = 300ULL * 1000000000;

/* A session as its datagrams arrive. */
struct flow {
	__u64 netns;
	__u32 local[4]; /* the address that the socket is bound to, all zero: to any */
	__u32 gateway;
	__be16 gateway_port;
	__u16 local_port; /* host order, as the kernel has it */
};

struct named {
	__u64 seen;
	__u32 client;
	__be16 port;
	__u16 unused;
};

/* A session as a server answers it. */
struct way {
	__u64 netns;
	__u32 client;
	__be16 client_port;
	__u16 local_port;
};

struct gateway {
	__u64 seen;
	__u32 address;
	__be16 port;
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SESSIONS_MAX);
	__type(key, struct flow);
	__type(value, struct named);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_clients SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SESSIONS_MAX);
	__type(key, struct way);
	__type(value, struct gateway);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_gateways SEC(".maps");

#ifdef WITH_NETNS
#define NETNS(ctx) bpf_get_netns_cookie(ctx)
#else
#define NETNS(ctx) ((void)(ctx), 0)
#endif

static __always_inline int is_fresh(__u64 seen, __u64 now)
{
	/* `seen` may be another processor's and later */
	return (__s64)(now - seen) < (__s64)idle_nanos;
}

/* The same where a datagram arrives and where a server asks for it. */
static __always_inline void bound(struct bpf_sock *sk, __u32 *local)
{
	if (sk->family == AF_INET6) {
		local[0] = sk->src_ip6[0];
		local[1] = sk->src_ip6[1];
		local[2] = sk->src_ip6[2];
		__u32 last = sk->src_ip6[3];
		/* Without it clang reads the last word of both branches at once, through a computed address. */
		asm volatile("" : "+r"(last));
		local[3] = last;
	} else {
		__u32 address = sk->src_ip4;
		asm volatile("" : "+r"(address));
		local[3] = address;
	}
}

/*
 * The first well-formed option of a header; its length, 0 if there is none, -1 if there is only one of another length.
 * The offset is kept below 64 so that the verifier sees few states instead of a million. An IPv6 client is told by the
 * length alone: `option` has room for an IPv4 one.
 */
static __always_inline int find_option(struct __sk_buff *skb, __u32 header_len, __u8 *option)
{
	__u32 at = HEADER_LEN;
	int found = 0;

	for (int turn = 0; turn < OPTIONS_LEN_MAX; turn++) {
		if (at + 2 > header_len || bpf_skb_load_bytes(skb, at, option, 2))
			return found;
		__u32 len = option[1];
		if (option[0] == OPTION_END)
			return found;
		if (option[0] == OPTION_NOP) {
			at += 1;
		} else {
			if (len < 2 || at + len > header_len)
				return found;
			if (option[0] == KIND) {
				if (len == LEN_V4 && !bpf_skb_load_bytes(skb, at, option, LEN_V4))
					return LEN_V4;
				if (len == LEN_V6)
					return LEN_V6;
				found = -1;
			}
			at += len;
		}
		asm volatile("%0 &= 63" : "+r"(at));
	}
	return found;
}

/* A socket that is connected to the gateway has one client, kept at it as an accepted connection's is. */
static __always_inline void keep_at_socket(struct bpf_sock *sk, __u32 address, __be16 port)
{
	struct client *kept = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		count(UDP_NO_MEMORY);
		return;
	}
	kept->address[0] = 0;
	kept->address[1] = 0;
	kept->address[2] = MAPPED;
	kept->address[3] = address;
	kept->port = port;
}

/* The answers to a client do not go to this gateway any more: its local port is another client's now. */
static __always_inline void forget_way(const struct flow *flow, const struct named *named)
{
	struct way way;

	__builtin_memset(&way, 0, sizeof(way));
	way.netns = flow->netns;
	way.client = named->client;
	way.client_port = named->port;
	way.local_port = flow->local_port;
	struct gateway *gateway = bpf_map_lookup_elem(&udp_gateways, &way);
	if (gateway && gateway->address == flow->gateway && gateway->port == flow->gateway_port)
		bpf_map_delete_elem(&udp_gateways, &way);
}

static __always_inline void learn(const struct flow *flow, const __u8 *option)
{
	struct named named;
	struct way way;
	struct gateway gateway;

	__builtin_memset(&named, 0, sizeof(named));
	__builtin_memset(&way, 0, sizeof(way));
	__builtin_memset(&gateway, 0, sizeof(gateway));
	__builtin_memcpy(&named.port, option + 2, sizeof(named.port));
	__builtin_memcpy(&named.client, option + 4, sizeof(named.client));
	named.seen = bpf_ktime_get_ns();
	struct named *before = bpf_map_lookup_elem(&udp_clients, flow);
	if (before && (before->client != named.client || before->port != named.port))
		forget_way(flow, before);
	way.netns = flow->netns;
	way.client = named.client;
	way.client_port = named.port;
	way.local_port = flow->local_port;
	gateway.seen = named.seen;
	gateway.address = flow->gateway;
	gateway.port = flow->gateway_port;
	/* The way back first: nobody is shown a client whom it could not answer. */
	if (bpf_map_update_elem(&udp_gateways, &way, &gateway, BPF_ANY) ||
	    bpf_map_update_elem(&udp_clients, flow, &named, BPF_ANY)) {
		count(UDP_NO_MEMORY);
		return;
	}
	count(UDP_OPTIONS);
}

SEC("cgroup_skb/ingress")
int udp_arrives(struct __sk_buff *skb)
{
	__u8 *header = (void *)(long)skb->data;
	__u8 option[LEN_V4];
	struct prefix sender;
	struct flow flow;

	/* Nearly all go on here. */
	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)(header + HEADER_LEN) > (void *)(long)skb->data_end)
		return 1;
	if (header[9] != IPPROTO_UDP || (header[0] & 15) <= HEADER_LEN / 4)
		return 1;

	__builtin_memset(option, 0, sizeof(option));
	int len = find_option(skb, (header[0] & 15) * 4, option);
	if (len == 0)
		return 1;
	if (len < 0) {
		count(UDP_MALFORMED);
		return 1;
	}
	__builtin_memset(&flow, 0, sizeof(flow));
	if (bpf_skb_load_bytes(skb, 12, &flow.gateway, 4) ||
	    bpf_skb_load_bytes(skb, (header[0] & 15) * 4, &flow.gateway_port, 2))
		return 1;
	sender.len = 128;
	sender.address[0] = 0;
	sender.address[1] = 0;
	sender.address[2] = MAPPED;
	sender.address[3] = flow.gateway;
	if (!bpf_map_lookup_elem(&trusted, &sender)) {
		count(UDP_UNTRUSTED);
		return 1;
	}
	struct bpf_sock *sk = skb->sk;
	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	flow.netns = NETNS(skb);
	bound(sk, flow.local);
	flow.local_port = sk->src_port;
	if (len == LEN_V6) {
		/* Its local port was another client's before. */
		bpf_map_delete_elem(&udp_clients, &flow);
		count(UDP_NOT_SAYABLE);
		return 1;
	}
	if (sk->dst_port) {
		__u32 address;
		__be16 port;
		__builtin_memcpy(&port, option + 2, sizeof(port));
		__builtin_memcpy(&address, option + 4, sizeof(address));
		keep_at_socket(sk, address, port);
	}
	learn(&flow, option);
	return 1;
}

/* The way to a client, if it was used within the life of a session. */
static __always_inline struct gateway *find_way(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u32 client,
						__be16 port, __u64 now)
{
	struct way way;

	__builtin_memset(&way, 0, sizeof(way));
	way.netns = NETNS(ctx);
	way.client = client;
	way.client_port = port;
	way.local_port = sk->src_port;
	struct gateway *gateway = bpf_map_lookup_elem(&udp_gateways, &way);
	return gateway && is_fresh(gateway->seen, now) ? gateway : 0;
}

/* Whose datagram it is that came from `gateway` and `port`; 1 and the client in their place, or 0. */
static __always_inline int client_of(struct bpf_sock_addr *ctx, __u32 *gateway, __be16 *port)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow flow;

	if (!sk)
		return 0;
	if (sk->dst_port) {
		struct client *client = bpf_sk_storage_get(&clients, sk, 0, 0);
		if (!client || !is_v4(client->address))
			return 0;
		*gateway = client->address[3];
		*port = client->port;
		count(UDP_SHOWN);
		return 1;
	}
	__builtin_memset(&flow, 0, sizeof(flow));
	flow.netns = NETNS(ctx);
	bound(sk, flow.local);
	flow.gateway = *gateway;
	flow.gateway_port = *port;
	flow.local_port = sk->src_port;
	struct named *named = bpf_map_lookup_elem(&udp_clients, &flow);
	if (!named)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (!is_fresh(named->seen, now)) {
		/* The server alone may have kept the session alive. */
		struct gateway *way = find_way(ctx, sk, named->client, named->port, now);
		if (!way || way->address != *gateway || way->port != *port)
			return 0;
	}
	named->seen = now;
	*gateway = named->client;
	*port = named->port;
	count(UDP_SHOWN);
	return 1;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	__u32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;

	if (client_of(ctx, &address, &port)) {
		ctx->user_ip4 = address;
		ctx->user_port = port;
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip6[0] != 0 || ctx->user_ip6[1] != 0 || ctx->user_ip6[2] != MAPPED)
		return 1;
	__u32 address = ctx->user_ip6[3];
	__be16 port = ctx->user_port;

	if (client_of(ctx, &address, &port)) {
		ctx->user_ip6[3] = address;
		ctx->user_port = port;
	}
	return 1;
}

/* The gateway of a client whom a server answers or connects to; 1 and it in their place, or 0. */
static __always_inline int gateway_of(struct bpf_sock_addr *ctx, struct bpf_sock *sk, __u32 *client, __be16 *port)
{
	__u64 now = bpf_ktime_get_ns();
	struct gateway *gateway = find_way(ctx, sk, *client, *port, now);

	if (!gateway)
		return 0;
	gateway->seen = now;
	*client = gateway->address;
	*port = gateway->port;
	count(UDP_ANSWERS);
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	__u32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;
	struct bpf_sock *sk = ctx->sk;

	if (sk && gateway_of(ctx, sk, &address, &port)) {
		ctx->user_ip4 = address;
		ctx->user_port = port;
	}
	return 1;
}

/* What the socket was connected to before is over in any case. */
static __always_inline int connects(struct bpf_sock_addr *ctx, __u32 *address, __be16 *port)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 client = *address;
	__be16 client_port = *port;

	if (!sk)
		return 0;
	bpf_sk_storage_delete(&clients, sk);
	if (!gateway_of(ctx, sk, address, port))
		return 0;
	keep_at_socket(sk, client, client_port);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	if (ctx->type != SOCK_DGRAM)
		return 1;
	__u32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;

	if (connects(ctx, &address, &port)) {
		ctx->user_ip4 = address;
		ctx->user_port = port;
	}
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	if (ctx->type != SOCK_DGRAM)
		return 1;
	if (ctx->user_ip6[0] != 0 || ctx->user_ip6[1] != 0 || ctx->user_ip6[2] != MAPPED) {
		if (ctx->sk)
			bpf_sk_storage_delete(&clients, ctx->sk);
		return 1;
	}
	__u32 address = ctx->user_ip6[3];
	__be16 port = ctx->user_port;

	if (connects(ctx, &address, &port)) {
		ctx->user_ip6[3] = address;
		ctx->user_port = port;
	}
	return 1;
}

/* As of the programs for TCP, which share their maps. */
char licence[] SEC("license") = "Dual MIT/GPL";
