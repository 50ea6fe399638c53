//! Who may be probed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The networks whose addresses may be probed; none by default.
///
/// Some addresses are not what somebody means who lists a large network: those of the link, of groups, of a cloud's
/// metadata service, and those that carry an IPv4 address within. They are allowed only by a network that lies wholly
/// within their own block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    networks: Vec<IpNet>,
}

impl Allowed {
    /// These networks. Bits behind a prefix are left out of account.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks
                .into_iter()
                .map(|network| network.trunc())
                .collect(),
        }
    }

    /// Whether nobody may be probed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether an address may be probed. An IPv4 address written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
    ///
    /// # Errors
    /// When it may not; the error says why.
    pub fn check(&self, address: IpAddr) -> Result<(), NotAllowed> {
        let address = address.to_canonical();
        let covering: Vec<&IpNet> = self
            .networks
            .iter()
            .filter(|network| network.contains(&address))
            .collect();
        let why = |why| NotAllowed { address, why };
        if covering.is_empty() {
            return Err(why(Why::NotListed));
        }
        for special in SPECIAL {
            let block = special.block();
            let is_special = block.contains(&address) && !address.is_loopback();
            if is_special && !covering.iter().any(|listed| block.contains(*listed)) {
                return Err(why(Why::Special(special.what)));
            }
        }
        let is_listed_itself = covering
            .iter()
            .any(|network| network.prefix_len() >= network.max_prefix_len() - 1);
        if !is_listed_itself
            && covering
                .iter()
                .any(|network| is_broadcast(network, address))
        {
            return Err(why(Why::Special(
                "the broadcast address of a network that is listed",
            )));
        }
        Ok(())
    }
}

/// Whether this is the last address of an IPv4 network that has one for all of its hosts (RFC 919; not RFC 3021's pairs).
fn is_broadcast(network: &IpNet, address: IpAddr) -> bool {
    matches!(network, IpNet::V4(network) if network.prefix_len() < 31 && IpAddr::V4(network.broadcast()) == address)
}

/// Why an address may not be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed {
    address: IpAddr,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NotListed,
    Special(&'static str),
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.why {
            Why::NotListed => write!(f, "{address} is not in probe.targets of the configuration"),
            Why::Special(what) => write!(
                f,
                "{address} is {what}: a wider network in probe.targets does not allow it, list it by itself"
            ),
        }
    }
}

impl std::error::Error for NotAllowed {}

/// A block that has to be listed by itself, or in part.
struct Special {
    first: IpAddr,
    prefix: u8,
    what: &'static str,
}

impl Special {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, what: &'static str) -> Self {
        let first = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        Self {
            first,
            prefix,
            what,
        }
    }

    const fn v6(parts: [u16; 8], prefix: u8, what: &'static str) -> Self {
        let [a, b, c, d, e, f, g, h] = parts;
        let first = IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h));
        Self {
            first,
            prefix,
            what,
        }
    }

    const fn block(&self) -> IpNet {
        match self.first {
            IpAddr::V4(first) => IpNet::V4(Ipv4Net::new_assert(first, self.prefix)),
            IpAddr::V6(first) => IpNet::V6(Ipv6Net::new_assert(first, self.prefix)),
        }
    }
}

const METADATA: &str = "an address of a cloud's metadata service";
const EMBEDDED: &str = "an IPv6 address that stands for an IPv4 address";

/// IANA's registries of special-purpose addresses (RFC 6890) for what is general; the clouds' own documentation for their
/// services. Of blocks within each other each has to be met.
const SPECIAL: [Special; 23] = [
    Special::v4(0, 0, 0, 0, 8, "an unspecified address: this host"),
    Special::v4(169, 254, 0, 0, 16, "a link-local address"),
    Special::v4(169, 254, 169, 254, 32, METADATA),
    // Credentials of tasks and pods, AWS ECS and EKS.
    Special::v4(169, 254, 170, 2, 32, METADATA),
    Special::v4(169, 254, 170, 23, 32, METADATA),
    // Azure's wire server, Alibaba Cloud, Oracle Cloud.
    Special::v4(168, 63, 129, 16, 32, METADATA),
    Special::v4(100, 100, 100, 200, 32, METADATA),
    Special::v4(192, 0, 0, 192, 32, METADATA),
    Special::v4(224, 0, 0, 0, 4, "a multicast address"),
    Special::v4(255, 255, 255, 255, 32, "the broadcast address"),
    Special::v4(240, 0, 0, 0, 4, "a reserved address"),
    Special::v6([0; 8], 128, "the unspecified address: this host"),
    Special::v6([0; 8], 96, EMBEDDED),
    Special::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "a link-local address"),
    Special::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "a multicast address"),
    // Translated (RFC 7915), NAT64, Teredo, 6to4.
    Special::v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, EMBEDDED),
    Special::v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32, EMBEDDED),
    Special::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, EMBEDDED),
    Special::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, EMBEDDED),
    // AWS, Google Cloud, Oracle Cloud, Scaleway.
    Special::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, METADATA),
    Special::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, METADATA),
    Special::v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, METADATA),
    Special::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, METADATA),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(networks: &str) -> Allowed {
        let network = |text: &str| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).unwrap()
        };
        Allowed::new(networks.split_whitespace().map(network))
    }

    fn is_allowed(networks: &str, address: &str) -> bool {
        allowed(networks).check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn nobody_is_allowed_who_is_not_listed() {
        assert!(!is_allowed("", "127.0.0.1"));
        assert!(is_allowed("127.0.0.0/8", "127.0.0.1"));
        assert!(!is_allowed("127.0.0.0/8", "128.0.0.1"));
        assert!(!is_allowed("127.0.0.0/8", "::2"));
        assert!(is_allowed("2001:db8::/32", "2001:db8::1"));
        assert!(
            is_allowed("10.1.2.3/8", "10.0.0.1"),
            "bits behind the prefix"
        );
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() {
        assert!(!is_allowed("::/0", "::ffff:10.0.0.1"));
        assert!(is_allowed("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!is_allowed("0.0.0.0/0 ::/0", "::ffff:169.254.169.254"));
        for carrier in [
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!is_allowed("0.0.0.0/0 ::/0", carrier), "{carrier}");
        }
    }

    #[test]
    fn a_wider_network_does_not_cover_what_is_special() {
        for special in SPECIAL {
            let address = special.first.to_string();
            assert!(!is_allowed("0.0.0.0/0 ::/0", &address), "{address}");
            let own = special.block().to_string();
            // The most special of the blocks that hold the address is what must be listed.
            assert!(
                is_allowed(&format!("{own} {address}"), &address),
                "{address}"
            );
        }
        for (wider, address) in [
            ("169.0.0.0/8", "169.254.1.1"),
            ("169.254.0.0/16", "169.254.169.254"),
            ("fe00::/8", "fe80::1"),
            ("fc00::/7", "fd00:ec2::254"),
            ("100.64.0.0/10", "100.100.100.200"),
            ("0.0.0.0/0", "0.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("::/0", "::"),
            ("::/0", "ff02::1"),
            ("0.0.0.0/0", "239.1.2.3"),
        ] {
            assert!(!is_allowed(wider, address), "{wider} {address}");
        }
        assert!(is_allowed("169.254.0.0/16", "169.254.1.1"));
        assert!(is_allowed("169.254.1.0/24", "169.254.1.1"));
        assert!(is_allowed("::1/128", "::1"));
        assert!(is_allowed("::/0", "::1"));
    }

    #[test]
    fn the_last_address_of_a_network_is_everybodys() {
        assert!(!is_allowed("192.0.2.0/24", "192.0.2.255"));
        assert!(is_allowed("192.0.2.0/24 192.0.2.255/32", "192.0.2.255"));
        assert!(!is_allowed("192.0.0.0/16 192.0.2.0/24", "192.0.2.255"));
        assert!(is_allowed("192.0.2.0/31", "192.0.2.1"));
        assert!(is_allowed("2001:db8::/120", "2001:db8::ff"));
    }

    #[test]
    fn the_reason_names_the_address_and_the_cure() {
        let told = |networks, address: &str| {
            allowed(networks)
                .check(address.parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            told("", "127.0.0.1"),
            "127.0.0.1 is not in probe.targets of the configuration"
        );
        assert!(told("0.0.0.0/0", "169.254.169.254").contains("link-local"));
        assert!(told("169.254.0.0/16", "169.254.169.254").contains("metadata"));
    }
}
