//! The host's own counters of what we count: is the silence real?
//!
//! Reads `/proc/self/net/snmp` and `snmp6`, which belong to the network namespace this process is in, whatever
//! `--path.procfs` says.

use std::fs;
use std::io;
use std::path::Path;

/// Counters of the host's network stack, IPv4 and IPv6 together (`proc_net(5)`, RFC 4022 and RFC 4113).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// TCP connections that came in: `Tcp: PassiveOpens`, which the kernel keeps for both families together.
    pub passive_opens: u64,
    /// UDP datagrams to a port without a socket: `Udp: NoPorts` and `Udp6NoPorts`.
    pub udp_no_ports: u64,
}

impl HostCounters {
    /// Reads them for the network namespace of the calling thread.
    ///
    /// # Errors
    /// When a file cannot be read or lacks a counter. A host without IPv6 has no `snmp6`, which is no error.
    pub fn read() -> io::Result<Self> {
        Self::read_from(Path::new("/proc/thread-self/net"))
    }

    fn read_from(folder: &Path) -> io::Result<Self> {
        let snmp = fs::read_to_string(folder.join("snmp"))?;
        let snmp6 = match fs::read_to_string(folder.join("snmp6")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Self::parse(&snmp, &snmp6)
    }

    fn parse(snmp: &str, snmp6: &str) -> io::Result<Self> {
        let missing = |name: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no counter {name} in snmp"),
            )
        };
        Ok(Self {
            passive_opens: in_table(snmp, "Tcp:", "PassiveOpens")
                .ok_or_else(|| missing("Tcp PassiveOpens"))?,
            // The kernel's counters wrap around, and so does their sum.
            udp_no_ports: in_table(snmp, "Udp:", "NoPorts")
                .ok_or_else(|| missing("Udp NoPorts"))?
                .wrapping_add(in_list(snmp6, "Udp6NoPorts").unwrap_or(0)),
        })
    }

    /// What came since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            passive_opens: self.passive_opens.wrapping_sub(earlier.passive_opens),
            udp_no_ports: self.udp_no_ports.wrapping_sub(earlier.udp_no_ports),
        }
    }
}

/// A value of `snmp`, where a line of names is followed by a line of numbers with the same first word.
fn in_table(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(table));
    let names = lines.next()?;
    let numbers = lines.next()?;
    let column = names.split_whitespace().position(|word| word == name)?;
    numbers.split_whitespace().nth(column)?.parse().ok()
}

/// A value of `snmp6`, which has a name and a number a line.
fn in_list(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// `snmp` and `snmp6`.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = HostCounters::parse(&text, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Tcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 5 7\n\
                        Udp: InDatagrams NoPorts\nUdp: 90 11\nUdpLite: InDatagrams NoPorts\nUdpLite: 1 2\n";

    fn read(snmp: &str, snmp6: Option<&str>) -> io::Result<HostCounters> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("snmp"), snmp).unwrap();
        if let Some(text) = snmp6 {
            fs::write(folder.path().join("snmp6"), text).unwrap();
        }
        HostCounters::read_from(folder.path())
    }

    #[test]
    fn both_families_are_added() {
        let counters = read(SNMP, Some("Ip6InReceives  3\nUdp6NoPorts   \t4\n")).unwrap();
        assert_eq!(
            counters,
            HostCounters {
                passive_opens: 7,
                udp_no_ports: 15
            }
        );
        let earlier = HostCounters {
            passive_opens: 2,
            udp_no_ports: 15,
        };
        assert_eq!(
            counters.since(earlier),
            HostCounters {
                passive_opens: 5,
                udp_no_ports: 0
            }
        );
    }

    #[test]
    fn counters_wrap_around_and_so_does_their_sum() {
        let counters = read(SNMP, Some(&format!("Udp6NoPorts {}\n", u64::MAX))).unwrap();
        assert_eq!(counters.udp_no_ports, 10);
    }

    #[test]
    fn a_host_without_ipv6_has_its_ipv4_counters() {
        assert_eq!(read(SNMP, None).unwrap().udp_no_ports, 11);
    }

    #[test]
    fn a_missing_counter_is_an_error_and_not_a_zero() {
        for text in [
            "",
            "Tcp:\nTcp:\n",
            "Tcp: PassiveOpens\n",
            "Tcp: PassiveOpens\nTcp: x\n",
        ] {
            assert!(
                read(text, None)
                    .unwrap_err()
                    .to_string()
                    .contains("PassiveOpens"),
                "{text:?}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_host_has_them() {
        HostCounters::read().unwrap();
    }
}
