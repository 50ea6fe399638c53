//! The ports from which this host's own clients speak.

use crate::port::{Port, PortSet, Range, Span};

/// The host's ephemeral UDP ports: `net.ipv4.ip_local_port_range` on Linux (ip(7)), which holds for IPv6
/// too; elsewhere, or where it cannot be read, the dynamic range, as RFC 6335 has it.
pub(super) fn udp_ports() -> PortSet {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse(&text))
        .unwrap_or_else(dynamic)
        .numbers()
        .map(Port::udp)
        .collect()
}

fn dynamic() -> Span {
    let numbers = Range::Dynamic.numbers();
    Span {
        first: *numbers.start(),
        last: *numbers.end(),
    }
}

fn parse(text: &str) -> Option<Span> {
    let mut words = text.split_whitespace();
    let first = words.next()?.parse().ok()?;
    let last = words.next()?.parse().ok()?;
    (first <= last).then_some(Span { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_writes_two_numbers() {
        assert_eq!(
            parse("32768\t60999\n"),
            Some(Span {
                first: 32_768,
                last: 60_999
            })
        );
        assert_eq!(parse("32768"), None);
        assert_eq!(parse("60999 32768"), None);
        assert_eq!(parse("1024 70000"), None);
    }
}
