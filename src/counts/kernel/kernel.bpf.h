// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What darkport.bpf.c needs of the kernel's declarations. Only what is used is declared, and of the kernel's own types only
// the fields that are used: the loader looks up where the running kernel keeps them (CO-RE). A whole vmlinux.h makes an
// object that the loader cannot fit.

#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef _Bool bool;

#define SEC(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))
#define NULL ((void *)0)
#define PORTS 65536
#define BLOCKS 64

// linux/bpf.h: numbers of map types and helpers. They are ABI and do not change.
enum {
    MAP_ARRAY = 2,
    MAP_LPM_TRIE = 11,
    MAP_SK_STORAGE = 24,
    MAP_RINGBUF = 27,
    NO_PREALLOC = 1 << 0,
    MMAPABLE = 1 << 10,
    STORAGE_CREATE = 1 << 0,
};

struct sock;
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static __u64 (*current_pid_tgid)(void) = (void *)14;
static __u64 (*current_uid_gid)(void) = (void *)15;
static long (*current_comm)(void *buffer, __u32 size) = (void *)16;
static __u64 (*cookie_of)(void *sk) = (void *)46;
static __u64 (*current_cgroup)(void) = (void *)80;
static void *(*storage)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static long (*read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static __u64 (*netns_of)(void *ctx) = (void *)122;
static __u64 (*boot_time)(void) = (void *)125;
static struct sock *(*full_socket)(void *common) = (void *)137; // NULL for what is no TCP socket, or no longer one
static void *(*ring_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*ring_submit)(void *data, __u64 flags) = (void *)132;

// No helper but a function of the kernel, since Linux 6.2: the address, to be read as a type of the kernel's. Such
// functions have no numbers in the ABI; the loader puts the running kernel's in place of this one (linux/direct.rs).
static void *(*read_only_as)(const void *address, __u32 type) = (void *)0x6b706464;

// ---------------------------------------------------------------------------------------------------------------------
// The kernel's own types, as far as they are used.

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
    __u32 inum;
};
struct net {
    struct ns_common ns;
};
typedef struct {
    struct net *net;
} possible_net_t;
struct net_device {
    unsigned int priv_flags;
    possible_net_t nd_net;
    void *rx_handler;
};
struct in6_addr {
    __u8 bytes[16];
};
struct sock_common {
    __u32 skc_daddr;
    __u32 skc_rcv_saddr;
    __u16 skc_dport;
    __u16 skc_num;
    __u16 skc_family;
    volatile __u8 skc_state;
    possible_net_t skc_net;
    struct in6_addr skc_v6_rcv_saddr;
};
struct sock {
    struct sock_common __sk_common;
    __u32 sk_max_ack_backlog;
    __u16 sk_protocol;
    void *sk_bpf_storage; // NULL as long as no program has stored anything
};
struct inet_sock {
    __u16 inet_sport;
};
struct sk_buff {
    struct net_device *dev;
    __u32 len;
    __u32 data_len;
    __u16 protocol;
    __u16 network_header;
    int skb_iif;
    __u8 __pkt_type_offset[0]; // its low three bits
    unsigned int end;
    unsigned char *head;
    unsigned char *data;
};
struct skb_shared_info {
    __u16 gso_segs;
};
struct __kernel_sockaddr_storage {
    __u16 ss_family;
};
struct bpf_iter__tcp {
    void *meta;
    struct sock_common *sk_common;
};
// Its numbers differ between kernels; these are only names to look up.
enum skb_drop_reason {
    SKB_DROP_REASON_NO_SOCKET = 1,
    SKB_DROP_REASON_NETFILTER_DROP = 2,
};
enum netdev_priv_flags {
    IFF_BRIDGE_PORT = 1,
    IFF_OVS_DATAPATH = 2,
};

#pragma clang attribute pop

// The head of struct bpf_sock of linux/bpf.h, which is ABI: the socket as a program on control groups sees it.
struct group_socket {
    __u32 bound_dev_if;
    __u32 family;
    __u32 type;
    __u32 protocol;
    __u32 mark;
    __u32 priority;
    __u32 src_ip4;
    __u32 src_ip6[4];
    __u32 src_port;
};

// What a name stands for in the running kernel; its numbers differ between kernels.
#define VALUE_OF(type, name) __builtin_preserve_enum_value(*(typeof(type) *)name, 1)
#define TYPE_ID(type) __builtin_btf_type_id(*(type *)0, 1)
#define IS_THERE(type, name) __builtin_preserve_enum_value(*(typeof(type) *)name, 0)

enum { AF_INET = 2, AF_INET6 = 10 };
enum { PACKET_HOST = 0, PACKET_OTHERHOST = 3, PACKET_TYPES = 7 };
enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { ETH_P_IP = 0x0800, ETH_P_8021Q = 0x8100, ETH_P_IPV6 = 0x86dd, ETH_P_8021AD = 0x88a8 };
enum { TCP_SYN = 0x02, TCP_ACK = 0x10 };
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_CLOSE = 7, TCP_LISTEN = 10 };

// Both architectures this is built for, and nearly all others, are little-endian; `clang -target bpfel` says so.
#define from_net16(value) __builtin_bswap16(value)
