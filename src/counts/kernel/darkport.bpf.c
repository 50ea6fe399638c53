// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the kernel counts for darkport_exporter. Every program observes: none drops, delays or changes anything.
//
//   tap        each packet a device hands up               attempts; tap_direct in its place where it can be loaded
//   dropped    each dropped packet, with its reason        refused, filtered
//   state      each change of a TCP socket's state         accepted, outbound, listeners, connections
//   seed       each TCP socket there is, when asked        connections that were there before
//   bound4/6   each bind that succeeded                    UDP listeners opened
//   released   a socket of the exporter, once              which network namespace is its own
//
// Nothing depends on an architecture. Shapes shared with the reader stand in linux/counters.rs and linux/listeners.rs
// and must agree with them. `./build` makes darkport.bpf.o from this file.

#include "kernel.bpf.h"

// ---------------------------------------------------------------------------------------------------------------------
// Maps. Counters lie in arrays which the exporter has mapped: reading them takes no system call, adding to them is one
// atomic instruction, and there is no queue in which a count could be lost. 64 bits do not wrap in the life of a host.

#define MAP(name, kind, key_type, value_type, entries, flags)                                                          \
    struct {                                                                                                           \
        int (*type)[kind];                                                                                             \
        key_type *key;                                                                                                 \
        value_type *value;                                                                                             \
        int (*max_entries)[entries];                                                                                   \
        int (*map_flags)[flags];                                                                                       \
    } name SEC(".maps")
#define COUNTERS(name, value_type, entries) MAP(name, MAP_ARRAY, __u32, value_type, entries, MMAPABLE)

struct arrival {
    __u64 attempts;
    __u64 last; // nanoseconds since boot
};
struct knock {
    __u64 refused;
    __u64 filtered;
};
struct inbound {
    __u64 accepted;
    __s64 established; // now; kept for ports that are gauged
};
struct outbound {
    __u64 connected;
    __u64 failed;
};
struct opening {
    __u64 opened;
    __u64 last;   // nanoseconds since boot
    __u64 cookie; // of the newest socket
};

// By port: TCP, then UDP.
COUNTERS(arrivals, struct arrival, 2 * PORTS);
COUNTERS(knocks, struct knock, 2 * PORTS);
COUNTERS(openings, struct opening, 2 * PORTS);
// By port, TCP alone.
COUNTERS(inbound, struct inbound, PORTS);
COUNTERS(outbound, struct outbound, PORTS);
// One bit a port, TCP, then UDP; written by the exporter. Listener events are told only here.
COUNTERS(watched, __u64, 2 * PORTS / 64);
// One bit a port, TCP alone; written by the exporter, and never taken back. On gauged ports established connections are
// kept count of. Those from before are counted by a walk over all sockets; once it has ended, the port is settled.
struct gauging {
    __u64 gauged;
    __u64 settled;
};
COUNTERS(gauging, struct gauging, PORTS / 64);
// Sums over 1,024 ports each: knocks on TCP, knocks on UDP, accepted. A reader of the whole space looks only into
// blocks whose sum has moved.
COUNTERS(blocks, __u64, 3 * BLOCKS);
// What is known to be missing, by reason.
COUNTERS(lost, __u64, 3);
enum { LOST_EVENT, LOST_MARK, LOST_HEADER };

// The host's own addresses: destinations of RTN_LOCAL routes, IPv4 mapped into IPv6. Written by the exporter.
struct prefix {
    __u32 length;
    __u8 address[16];
};
MAP(addresses, MAP_LPM_TRIE, struct prefix, __u8, 65536, NO_PREALLOC);

// What is remembered with a TCP socket until it goes. Storing costs more than all else that is done for a connection, so
// it is left for the few of which it cannot be told by looking at them; see `leave`.
struct mark {
    __u16 port;
    __u8 established; // counted in inbound.established
    __u8 active;      // opened by this host, though its state looks as if the other end had
    __u8 outbound;    // opened by this host, though it has listened before
    __u8 unnamed;     // listens on a port that was not known when it began to
};
MAP(marks, MAP_SK_STORAGE, int, struct mark, 0, NO_PREALLOC);

// How programs on control groups, which cannot follow pointers, learn which network namespace is the exporter's: it
// names a socket of its own here and closes it.
struct own {
    __u64 socket; // cookie
    __u64 netns;  // cookie
};
COUNTERS(own, struct own, 1);

struct {
    int (*type)[MAP_RINGBUF];
    int (*max_entries)[256 * 1024];
} events SEC(".maps");

struct event {
    __u64 at; // nanoseconds since boot
    __u64 cookie;
    __u64 cgroup;
    __u32 pid;
    __u32 thread;
    __u32 uid;
    __u16 port;
    __u8 protocol;
    __u8 opened;
    __u8 address[16];
    __u8 comm[16];
};

// Inode number of the exporter's network namespace; nothing of any other is counted.
const volatile __u32 own_netns = 0;

// ---------------------------------------------------------------------------------------------------------------------

static inline void miss(__u32 reason)
{
    __u64 *count = map_lookup(&lost, &reason);

    if (count)
        __sync_fetch_and_add(count, 1);
}

static inline void add_to_block(__u32 index)
{
    __u64 *sum = map_lookup(&blocks, &index);

    if (sum)
        __sync_fetch_and_add(sum, 1);
}

static inline __u32 index_of(__u8 protocol, __u16 port)
{
    return protocol == IPPROTO_UDP ? PORTS + port : port;
}

static inline bool is_watched(__u32 index)
{
    __u32 word = index / 64;
    __u64 *bits = map_lookup(&watched, &word);

    return bits && (*bits >> (index % 64)) & 1;
}

static inline bool is_own_address(struct prefix *destination)
{
    destination->length = 128;
    return map_lookup(&addresses, destination) != NULL;
}

static inline void map_ipv4(struct prefix *to, __u32 address)
{
    __builtin_memset(to, 0, sizeof(*to));
    to->address[10] = 0xff;
    to->address[11] = 0xff;
    __builtin_memcpy(&to->address[12], &address, 4);
}

// IPv6 headers that may stand before the transport's. Their length is in the second byte: in units of 8 bytes after
// the first 8, for AH in units of 4 after the first 8.
enum { EXT_HOP = 0, EXT_ROUTING = 43, EXT_FRAGMENT = 44, EXT_AH = 51, EXT_DESTINATION = 60, EXT_MOBILITY = 135 };
#define MOST_EXTENSIONS 16

static inline bool is_extension(__u8 header)
{
    return header == EXT_HOP || header == EXT_ROUTING || header == EXT_FRAGMENT || header == EXT_AH ||
           header == EXT_DESTINATION || header == EXT_MOBILITY;
}

static inline __u32 extension_length(__u8 header, __u8 length)
{
    if (header == EXT_FRAGMENT)
        return 8;
    if (header == EXT_AH)
        return (length + 2) * 4;
    return (length + 1) * 8;
}

static inline bool is_attempt_flags(__u8 flags)
{
    return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

// ---------------------------------------------------------------------------------------------------------------------
// What is an attempt, and on which port: the same for packets that come and for packets that are dropped.

struct cursor {
    unsigned char *at;
    unsigned char *end; // of what lies in one piece
    bool in_pieces;     // more lies elsewhere
    bool goes_on;       // the first fragment of a packet
};

// What follows the packet in the frame, to fill it up, is not the packet's.
static inline void end_after(struct cursor *cursor, __u32 length)
{
    unsigned char *end = cursor->at + length;

    if (end > cursor->end)
        return;
    cursor->end = end;
    cursor->in_pieces = 0;
}

static inline bool take(struct cursor *cursor, void *to, __u32 size)
{
    if (cursor->at + size > cursor->end) {
        // A packet that is too short is nothing; one whose header cannot be reached may have counted.
        if (cursor->in_pieces)
            miss(LOST_HEADER);
        return 0;
    }
    return !read_kernel(to, size, cursor->at);
}

// In `fragment`: whether more come, and how far from the beginning this one is.
#define MORE4 0x2000
#define OFFSET4 0x1fff
// Where in TCP's header its flags are.
#define TCP_FLAGS 13

struct ipv4 {
    __u8 first, tos;
    __u16 length, id, fragment;
    __u8 ttl, protocol;
    __u16 checksum;
    __u32 source, destination;
};
struct ipv6 {
    __u32 first;
    __u16 length;
    __u8 header, hops;
    __u8 source[16], destination[16];
};

static inline bool enter_ipv4(struct cursor *cursor, __u8 *protocol, struct prefix *destination)
{
    struct ipv4 ip;

    // A fragment after the first has no ports.
    if (!take(cursor, &ip, sizeof(ip)) || ip.fragment & from_net16(OFFSET4))
        return 0;
    // One that was merged from many may be too long for the field.
    if (ip.length)
        end_after(cursor, from_net16(ip.length));
    cursor->goes_on = (ip.fragment & from_net16(MORE4)) != 0;
    cursor->at += (ip.first & 0x0f) * 4;
    *protocol = ip.protocol;
    map_ipv4(destination, ip.destination);
    return 1;
}

static inline bool enter_ipv6(struct cursor *cursor, __u8 *protocol, struct prefix *destination)
{
    struct ipv6 ip;
    __u8 extension[4];

    if (!take(cursor, &ip, sizeof(ip)))
        return 0;
    // A longer one says 0 there.
    if (ip.length)
        end_after(cursor, sizeof(ip) + from_net16(ip.length));
    cursor->goes_on = 0;
    cursor->at += sizeof(ip);
    *protocol = ip.header;
    __builtin_memcpy(destination->address, ip.destination, 16);
    for (int i = 0; i < MOST_EXTENSIONS; i++) {
        if (!is_extension(*protocol))
            return 1;
        if (!take(cursor, extension, sizeof(extension)))
            return 0;
        if (*protocol == EXT_FRAGMENT) {
            if (extension[2] || extension[3] & 0xf8)
                return 0;
            cursor->goes_on = extension[3] & 1;
        }
        cursor->at += extension_length(*protocol, extension[1]);
        *protocol = extension[0];
    }
    // Behind more than are followed may be what counts.
    if (is_extension(*protocol))
        miss(LOST_HEADER);
    return !is_extension(*protocol);
}

// Whether what begins at the cursor is an attempt; then on which port, and where it was sent.
static inline bool is_attempt(struct cursor *cursor, __u16 ether_type, __u32 *index, struct prefix *destination)
{
    __u8 protocol = 0, transport[TCP_FLAGS + 1];
    bool entered;

    if (ether_type == from_net16(ETH_P_IP))
        entered = enter_ipv4(cursor, &protocol, destination);
    else
        entered = enter_ipv6(cursor, &protocol, destination);
    if (!entered)
        return 0;
    if (protocol == IPPROTO_TCP) {
        // A fragment that ends before the flags is taken for what it hides: nobody else begins a packet like that.
        if (cursor->goes_on && !cursor->in_pieces && cursor->at + TCP_FLAGS >= cursor->end) {
            if (!take(cursor, transport, 4))
                return 0;
        } else if (!take(cursor, transport, TCP_FLAGS + 1) || !is_attempt_flags(transport[TCP_FLAGS])) {
            return 0;
        }
    } else if (protocol != IPPROTO_UDP || !take(cursor, transport, 4)) {
        return 0;
    }
    *index = index_of(protocol, transport[2] << 8 | transport[3]);
    return 1;
}

static inline bool is_ip(__u16 ether_type)
{
    return ether_type == from_net16(ETH_P_IP) || ether_type == from_net16(ETH_P_IPV6);
}

// ---------------------------------------------------------------------------------------------------------------------
// Attempts. Called with each packet that a device hands up, before anything has been done with it but by the device's
// own XDP program.

// Whether the packet comes up on this device for good. What comes to a port of a bridge comes again, on the bridge, if
// it is for this host. Other devices on top of devices (bonds, VLANs, macvlan, ipvlan) take it over without its being
// shown again; a macvlan may have an address of its own, for which the lower device was not the host.
static inline bool is_for_host(struct sk_buff *skb, struct net_device *device)
{
    __u8 type = *skb->__pkt_type_offset & PACKET_TYPES;
    __u32 flags = 0;

    if (!device->rx_handler)
        return type == PACKET_HOST;
    // In some kernels it is a bit field, which the loader cannot load from directly.
    read_kernel(&flags, sizeof(flags), &device->priv_flags);
    if (flags & (VALUE_OF(enum netdev_priv_flags, IFF_BRIDGE_PORT) |
                 VALUE_OF(enum netdev_priv_flags, IFF_OVS_DATAPATH)))
        return 0;
    return type == PACKET_HOST || type == PACKET_OTHERHOST;
}

// What most packets begin with: IP without options or extensions, and as much of the transport's header as has TCP's
// flags.
struct plain4 {
    struct ipv4 ip;
    __u8 transport[TCP_FLAGS + 1];
};
struct plain6 {
    struct ipv6 ip;
    __u8 transport[TCP_FLAGS + 1];
};
#define PLAIN4 34
#define PLAIN6 54

enum look { NO_ATTEMPT, ATTEMPT, UNCLEAR };

static inline enum look look_at_transport(__u8 protocol, __u8 *transport, __u32 *index)
{
    if (protocol == IPPROTO_TCP ? !is_attempt_flags(transport[TCP_FLAGS]) : protocol != IPPROTO_UDP)
        return NO_ATTEMPT;
    *index = index_of(protocol, transport[2] << 8 | transport[3]);
    return ATTEMPT;
}

// Where a header lies in one piece, without copying it. Its type is that of any kernel type which is large enough and
// nothing but bytes. The kernel makes a load from where nothing is yield 0.
static inline void *in_place(unsigned char *at)
{
    return read_only_as(at, TYPE_ID(struct __kernel_sockaddr_storage));
}

// One look tells most packets, and nearly all of those are segments of connections that stand. What it costs is paid
// for each packet of the host, so nothing is done before it that can be done after.
static inline enum look look(struct cursor *cursor, __u16 ether_type, bool direct, __u32 *index,
                             struct prefix *destination)
{
    enum look seen;

    if (ether_type == from_net16(ETH_P_IP)) {
        struct plain4 copy, *plain = &copy;

        if (cursor->at + PLAIN4 > cursor->end)
            return UNCLEAR;
        if (direct)
            plain = in_place(cursor->at);
        else if (read_kernel(plain, PLAIN4, cursor->at))
            return UNCLEAR;
        if (plain->ip.first != 0x45 || plain->ip.fragment & from_net16(MORE4 | OFFSET4))
            return UNCLEAR;
        seen = look_at_transport(plain->ip.protocol, plain->transport, index);
        if (seen != ATTEMPT)
            return seen;
        map_ipv4(destination, plain->ip.destination);
    } else {
        struct plain6 copy, *plain = &copy;

        if (cursor->at + PLAIN6 > cursor->end)
            return UNCLEAR;
        if (direct)
            plain = in_place(cursor->at);
        else if (read_kernel(plain, PLAIN6, cursor->at))
            return UNCLEAR;
        if (is_extension(plain->ip.header))
            return UNCLEAR;
        seen = look_at_transport(plain->ip.header, plain->transport, index);
        if (seen != ATTEMPT)
            return seen;
        __builtin_memcpy(destination->address, plain->ip.destination, 16);
    }
    return ATTEMPT;
}

// Datagrams that were merged on the way in are still as many as were sent.
static inline __u32 datagrams(struct sk_buff *skb)
{
    struct skb_shared_info *shared = (void *)(skb->head + skb->end);
    __u16 count = 0;

    read_kernel(&count, sizeof(count), &shared->gso_segs);
    return count > 1 ? count : 1;
}

static inline bool is_here(struct net_device *device)
{
    return device && device->nd_net.net->ns.inum == own_netns;
}

static inline int count_packet(struct sk_buff *skb, bool direct)
{
    __u16 ether_type = skb->protocol;
    struct prefix destination;
    struct arrival *arrival;
    struct cursor cursor;
    enum look seen;
    __u32 index;

    cursor.at = skb->data;
    cursor.end = cursor.at + (skb->len - skb->data_len);
    cursor.in_pieces = skb->data_len != 0;
    if (ether_type == from_net16(ETH_P_8021Q) || ether_type == from_net16(ETH_P_8021AD)) {
        __u16 tag[2];

        if (!is_here(skb->dev) || !take(&cursor, tag, sizeof(tag)))
            return 0;
        cursor.at += sizeof(tag);
        ether_type = tag[1];
    }
    if (!is_ip(ether_type))
        return 0;
    seen = look(&cursor, ether_type, direct, &index, &destination);
    if (seen == NO_ATTEMPT || !is_here(skb->dev) || !is_for_host(skb, skb->dev))
        return 0;
    if (seen == UNCLEAR && !is_attempt(&cursor, ether_type, &index, &destination))
        return 0;
    if (!is_own_address(&destination))
        return 0;
    arrival = map_lookup(&arrivals, &index);
    if (!arrival)
        return 0;
    __sync_fetch_and_add(&arrival->attempts, index < PORTS ? 1 : datagrams(skb));
    arrival->last = boot_time();
    return 0;
}

SEC("tp_btf/netif_receive_skb")
int tap(__u64 *arguments)
{
    return count_packet((void *)arguments[0], 0);
}

// The same, a third cheaper, for kernels that have what it takes.
SEC("tp_btf/netif_receive_skb")
int tap_direct(__u64 *arguments)
{
    return count_packet((void *)arguments[0], 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Refused and filtered. Called for every packet the host drops; all but two reasons end at once.

static inline void count_knock(struct sk_buff *skb, bool refused)
{
    struct prefix destination;
    struct cursor cursor;
    struct knock *knock;
    __u32 index;

    cursor.at = skb->head + skb->network_header;
    cursor.end = skb->data + (skb->len - skb->data_len);
    cursor.in_pieces = skb->data_len != 0;
    if (!is_ip(skb->protocol) || !is_attempt(&cursor, skb->protocol, &index, &destination))
        return;
    // What the transport refused had arrived. What a firewall dropped may have been on its way to elsewhere.
    if (!refused && !is_own_address(&destination))
        return;
    knock = map_lookup(&knocks, &index);
    if (!knock)
        return;
    __sync_fetch_and_add(refused ? &knock->refused : &knock->filtered, 1);
    add_to_block(index / (PORTS / BLOCKS));
}

SEC("tp_btf/kfree_skb")
int dropped(__u64 *arguments)
{
    struct sk_buff *skb = (void *)arguments[0];
    __u32 reason = arguments[2];
    bool refused;

    if (reason == VALUE_OF(enum skb_drop_reason, SKB_DROP_REASON_NO_SOCKET))
        refused = 1;
    else if (IS_THERE(enum skb_drop_reason, SKB_DROP_REASON_NETFILTER_DROP) &&
             reason == VALUE_OF(enum skb_drop_reason, SKB_DROP_REASON_NETFILTER_DROP))
        refused = 0;
    else
        return 0;
    // Without an arrival interface it is the host's own packet on its way out.
    if (!skb->skb_iif || !skb->dev || skb->dev->nd_net.net->ns.inum != own_netns)
        return 0;
    count_knock(skb, refused);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Listeners.

static inline bool is_told(__u8 protocol, __u16 port)
{
    return is_watched(index_of(protocol, port));
}

// An event, with all but the socket's address and cookie. The caller is whoever opens or closes the listener.
static inline struct event *new_event(__u8 protocol, __u16 port, bool opened)
{
    struct event *event = ring_reserve(&events, sizeof(*event), 0);
    __u64 caller;

    if (!event) {
        miss(LOST_EVENT);
        return NULL;
    }
    caller = current_pid_tgid();
    event->at = boot_time();
    event->cgroup = current_cgroup();
    event->pid = caller >> 32;
    event->thread = caller;
    event->uid = current_uid_gid();
    event->port = port;
    event->protocol = protocol;
    event->opened = opened;
    current_comm(event->comm, sizeof(event->comm));
    return event;
}

static inline void count_opening(__u8 protocol, __u16 port, __u64 cookie)
{
    __u32 index = index_of(protocol, port);
    struct opening *opening = map_lookup(&openings, &index);

    if (!opening)
        return;
    opening->last = boot_time();
    opening->cookie = cookie;
    __sync_fetch_and_add(&opening->opened, 1);
}

// UDP has no states to follow: binding opens. That a socket has closed is left to the socket table to show: to be called
// at each close would be called for each connection of the host too. Programs on control groups may forbid; these return
// 1, which is to let be.

static inline int bound(struct group_socket *socket, struct prefix *address)
{
    __u32 first = 0;
    struct own *known = map_lookup(&own, &first);
    struct event *event;
    __u64 cookie;
    __u16 port;

    if (socket->protocol != IPPROTO_UDP || !known || netns_of(socket) != known->netns)
        return 1;
    port = socket->src_port;
    cookie = cookie_of(socket);
    count_opening(IPPROTO_UDP, port, cookie);
    if (!is_told(IPPROTO_UDP, port))
        return 1;
    event = new_event(IPPROTO_UDP, port, 1);
    if (!event)
        return 1;
    event->cookie = cookie;
    __builtin_memcpy(event->address, address->address, 16);
    ring_submit(event, 0);
    return 1;
}

SEC("cgroup/post_bind4")
int bound4(struct group_socket *socket)
{
    struct prefix address;

    map_ipv4(&address, socket->src_ip4);
    return bound(socket, &address);
}

SEC("cgroup/post_bind6")
int bound6(struct group_socket *socket)
{
    struct prefix address;
    __u32 words[4];

    words[0] = socket->src_ip6[0];
    words[1] = socket->src_ip6[1];
    words[2] = socket->src_ip6[2];
    words[3] = socket->src_ip6[3];
    __builtin_memcpy(address.address, words, 16);
    return bound(socket, &address);
}

SEC("cgroup/sock_release")
int released(struct group_socket *socket)
{
    __u32 first = 0;
    struct own *known = map_lookup(&own, &first);

    if (known && known->socket && known->socket == cookie_of(socket))
        known->netns = netns_of(socket);
    return 1;
}

// ---------------------------------------------------------------------------------------------------------------------
// TCP. An MPTCP socket changes state too, as a protocol of its own; its subflows are TCP and are what is counted.

static inline struct inbound *inbound_of(__u32 port)
{
    port &= 0xffff;
    return map_lookup(&inbound, &port);
}

// Nearly all sockets have nothing stored with them: to see that costs less than to ask.
static inline struct mark *mark_of(struct sock *sk)
{
    return sk->sk_bpf_storage ? storage(&marks, sk, NULL, 0) : NULL;
}

static inline struct mark *new_mark(struct sock *sk)
{
    struct mark *mark = storage(&marks, sk, NULL, STORAGE_CREATE);

    if (!mark)
        miss(LOST_MARK);
    return mark;
}

static inline struct gauging *gauging_of(__u16 port)
{
    __u32 word = port / 64;

    return map_lookup(&gauging, &word);
}

static inline bool has_bit(__u64 bits, __u16 port)
{
    return (bits >> (port % 64)) & 1;
}

// The child of a listener keeps the listener's backlog; a socket that connects has none, unless it has listened before.
static inline bool looks_accepted(struct sock *sk)
{
    return sk->sk_max_ack_backlog != 0;
}

static inline void establish_marked(struct sock *sk, struct inbound *counts, __u16 port)
{
    struct mark *mark = new_mark(sk);

    if (!mark || mark->established || mark->outbound)
        return;
    mark->port = port;
    mark->established = 1;
    __sync_fetch_and_add(&counts->established, 1);
}

// A connection of a settled port need not be marked: when it leaves it is known to be counted, for all are.
static inline void establish(struct sock *sk, struct inbound *counts, __u16 port)
{
    struct gauging *gauging = gauging_of(port);

    if (!gauging || !has_bit(gauging->gauged, port))
        return;
    if (has_bit(gauging->settled, port) && looks_accepted(sk))
        __sync_fetch_and_add(&counts->established, 1);
    else
        establish_marked(sk, counts, port);
}

// skc_num is gone by now where the owner had not chosen it.
static inline __u16 port_of_closed(struct sock *sk)
{
    __u16 port = 0;

    read_kernel(&port, sizeof(port), &((struct inet_sock *)sk)->inet_sport);
    return from_net16(port);
}

static inline void take_off(__u16 port)
{
    struct inbound *counts = inbound_of(port);

    if (counts)
        __sync_fetch_and_add(&counts->established, -1);
}

// Whether it was counted is told by its mark; without one, by what it looks like, if it had come to a settled port, or
// its port was settled since.
static inline void leave(struct sock *sk)
{
    struct mark *mark = mark_of(sk);
    struct gauging *gauging;
    __u16 port;

    if (mark && (mark->established || mark->outbound)) {
        if (mark->established)
            take_off(mark->port);
        mark->established = 0;
        mark->outbound = 0;
        return;
    }
    if (!looks_accepted(sk))
        return;
    port = sk->__sk_common.skc_num;
    if (!port)
        port = port_of_closed(sk);
    gauging = gauging_of(port);
    if (gauging && has_bit(gauging->settled, port))
        take_off(port);
}

static inline void concluded(struct sock *sk, bool connected)
{
    __u32 port = from_net16(sk->__sk_common.skc_dport);
    struct outbound *counts = map_lookup(&outbound, &port);

    if (counts)
        __sync_fetch_and_add(connected ? &counts->connected : &counts->failed, 1);
    if (connected && looks_accepted(sk)) {
        struct mark *mark = new_mark(sk);

        if (mark)
            mark->outbound = 1;
    }
}

static inline void accepted(struct sock *sk)
{
    __u16 port = sk->__sk_common.skc_num;
    struct inbound *counts = inbound_of(port);

    if (!counts)
        return;
    __sync_fetch_and_add(&counts->accepted, 1);
    add_to_block(2 * BLOCKS + port / (PORTS / BLOCKS));
    establish(sk, counts, port);
}

static inline void tell(struct sock *sk, __u16 port, bool opened)
{
    struct event *event;

    if (!is_told(IPPROTO_TCP, port))
        return;
    event = new_event(IPPROTO_TCP, port, opened);
    if (!event)
        return;
    event->cookie = cookie_of(sk);
    if (sk->__sk_common.skc_family == AF_INET6) {
        read_kernel(event->address, 16, &sk->__sk_common.skc_v6_rcv_saddr);
    } else {
        struct prefix mapped;

        map_ipv4(&mapped, sk->__sk_common.skc_rcv_saddr);
        __builtin_memcpy(event->address, mapped.address, 16);
    }
    ring_submit(event, 0);
}

static inline void listens(struct sock *sk)
{
    __u16 port = sk->__sk_common.skc_num;

    if (port) {
        count_opening(IPPROTO_TCP, port, cookie_of(sk));
        tell(sk, port, 1);
        return;
    }
    // Who listens without having bound is given a port only after this. It is told when it closes.
    struct mark *mark = new_mark(sk);

    if (mark)
        mark->unnamed = 1;
}

static inline void listens_no_more(struct sock *sk)
{
    struct mark *mark = mark_of(sk);
    __u16 port = port_of_closed(sk);

    if (mark && mark->unnamed) {
        mark->unnamed = 0;
        if (!port)
            return;
        count_opening(IPPROTO_TCP, port, cookie_of(sk));
        tell(sk, port, 1);
    }
    tell(sk, port, 0);
}

SEC("tp_btf/inet_sock_set_state")
int state(__u64 *arguments)
{
    struct sock *sk = (void *)arguments[0];
    int from = arguments[1], to = arguments[2];
    struct mark *mark;

    // Most changes end here.
    if (from != TCP_ESTABLISHED && from != TCP_SYN_SENT && from != TCP_SYN_RECV && to != TCP_LISTEN &&
        !(from == TCP_LISTEN && to == TCP_CLOSE))
        return 0;
    if (sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_net.net->ns.inum != own_netns)
        return 0;

    if (from == TCP_ESTABLISHED) {
        leave(sk);
    } else if (from == TCP_SYN_SENT) {
        if (to == TCP_SYN_RECV) {
            // Both ends called each other: it goes on like an inbound one.
            mark = new_mark(sk);
            if (mark)
                mark->active = 1;
        } else {
            concluded(sk, to == TCP_ESTABLISHED);
        }
    } else if (from == TCP_SYN_RECV) {
        mark = mark_of(sk);
        if (mark && mark->active) {
            mark->active = 0;
            concluded(sk, to == TCP_ESTABLISHED);
        } else if (to == TCP_ESTABLISHED) {
            accepted(sk);
        }
    } else if (to == TCP_LISTEN) {
        listens(sk);
    } else if (to == TCP_CLOSE) {
        listens_no_more(sk);
    }
    return 0;
}

// Connections that were there before a port was gauged. Until it is settled each connection is marked when it is
// counted. The kernel holds the lock of each socket it shows here, so no state changes between the question and the
// mark: a socket is counted by `state` or here, by whoever marks it first, and taken off when a marked one leaves. When
// the walk has ended, each that stands has been counted, and marks are no longer needed.
SEC("iter/tcp")
int seed(struct bpf_iter__tcp *step)
{
    struct sock_common *common = step->sk_common;
    struct gauging *gauging;
    struct inbound *counts;
    struct sock *sk;
    __u16 port;

    if (!common || common->skc_state != TCP_ESTABLISHED)
        return 0;
    port = common->skc_num;
    gauging = gauging_of(port);
    if (!gauging || !has_bit(gauging->gauged, port) || has_bit(gauging->settled, port))
        return 0;
    counts = inbound_of(port);
    if (!counts)
        return 0;
    sk = full_socket(common);
    if (!sk || !looks_accepted(sk))
        return 0;
    establish_marked(sk, counts, port);
    return 0;
}

// The kernel lends some of the helpers used only to programs under a licence it is compatible with.
char licence[] SEC("license") = "Dual BSD/GPL";
