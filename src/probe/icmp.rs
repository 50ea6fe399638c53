//! ICMP messages about a socket's questions, without privilege.
//!
//! connect(2) gives the same error for RST and for ICMP's port unreachable, though one comes from the host and the other,
//! for TCP, from a firewall. Linux keeps the message itself in the socket's error queue (`IP_RECVERR`, ip(7)); for sockets
//! whose connection is just being made since Linux 5.9. Elsewhere, and before, only the error number is known.

use std::net::IpAddr;

use super::finding::Reason;

/// A message: what it says, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) reason: Reason,
    pub(super) from: Option<IpAddr>,
}

#[cfg(target_os = "linux")]
pub(super) use linux::{keep, read};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSliceMut};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::os::fd::AsRawFd;

    use nix::libc;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

    use super::{Message, of_icmp, of_icmpv6};

    /// Has the socket keep ICMP messages, all of them, those that end no connection included.
    pub(in crate::probe) fn keep(socket: &socket2::Socket, is_ipv6: bool) -> io::Result<()> {
        if is_ipv6 {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        } else {
            setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        }
        Ok(())
    }

    /// The oldest message that the socket has kept, if any.
    pub(in crate::probe) fn read(socket: &impl AsRawFd) -> Option<Message> {
        let mut byte = [0_u8; 1];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        )
        .ok()?;
        received.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from =
                    from.map(|from| Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into());
                of_error(&error, from)
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let from = from.map(|from| {
                    IpAddr::from(Ipv6Addr::from(from.sin6_addr.s6_addr)).to_canonical()
                });
                of_error(&error, from)
            }
            _ => None,
        })
    }

    fn of_error(error: &libc::sock_extended_err, from: Option<IpAddr>) -> Option<Message> {
        let reason = match error.ee_origin {
            libc::SO_EE_ORIGIN_ICMP => of_icmp(error.ee_type, error.ee_code),
            libc::SO_EE_ORIGIN_ICMP6 => of_icmpv6(error.ee_type, error.ee_code),
            // The error is this host's own.
            _ => return None,
        };
        Some(Message { reason, from })
    }
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "the same contract as on Linux")]
pub(super) fn keep(_: &socket2::Socket, _is_ipv6: bool) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn read<S>(_: &S) -> Option<Message> {
    None
}

/// ICMP types and codes: IANA's registry of ICMP parameters; RFC 792 and 1122, for the prohibited ones RFC 1812.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
const fn of_icmp(kind: u8, code: u8) -> Reason {
    match (kind, code) {
        (3, 0 | 5 | 6 | 11) => Reason::NetUnreachable,
        (3, 1 | 7 | 8 | 12) => Reason::HostUnreachable,
        (3, 2) => Reason::ProtocolUnreachable,
        (3, 3) => Reason::PortUnreachable,
        (3, 9) => Reason::NetProhibited,
        (3, 10) => Reason::HostProhibited,
        (3, 13..=15) => Reason::AdminProhibited,
        _ => Reason::OtherIcmp,
    }
}

/// ICMPv6 types and codes: RFC 4443.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
const fn of_icmpv6(kind: u8, code: u8) -> Reason {
    match (kind, code) {
        (1, 0) => Reason::NetUnreachable,
        (1, 1) => Reason::AdminProhibited,
        (1, 2 | 3) => Reason::HostUnreachable,
        (1, 4) => Reason::PortUnreachable,
        (1, 5 | 6) => Reason::RouteRejected,
        (4, 1) => Reason::ProtocolUnreachable,
        _ => Reason::OtherIcmp,
    }
}
