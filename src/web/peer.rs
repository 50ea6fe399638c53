//! Who is one peer, where peers are held apart.

use std::net::{IpAddr, Ipv6Addr};

/// How many peers the log names in a minute, each once for each kind of refusal; of the others it tells the number.
pub(super) const PEERS_TOLD: usize = 64;

/// What one host commonly has for itself: an IPv4 address, or the first 64 bits of an IPv6 address.
pub(super) fn network(peer: IpAddr) -> Ipv6Addr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => (u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_peer_whatever_address_it_takes() {
        let peer = |text: &str| network(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }
}
