//! The framing of a netlink dump: bytes in, messages out. Knows neither sockets nor what the messages carry.
//!
//! Layout and rules are those of `linux/netlink.h` and netlink(7): messages lie one behind another on boundaries of four
//! bytes, each behind a header in host byte order, and a dump ends with `NLMSG_DONE` or `NLMSG_ERROR`.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Everything in netlink begins on a multiple of this.
const ALIGNMENT: usize = 4;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x010;

/// What ends a dump before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The kernel gave up, or never began, with this `errno`.
    Refused(i32),
    /// What was dumped changed meanwhile in a way that the kernel cannot vouch for.
    Interrupted,
    /// The bytes are not what the kernel sends.
    Malformed(&'static str),
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// A request for a dump: header, `body`, and attributes behind it.
pub(super) fn dump_request(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // The port number; the kernel knows the sender's without being told.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// Follows one dump from its first datagram to its end.
#[derive(Debug)]
pub(super) struct Dump {
    kind: u16,
    sequence: u32,
    interrupted: bool,
}

impl Dump {
    /// The dump whose messages are of type `kind` and answer the request numbered `sequence`.
    pub(super) fn new(kind: u16, sequence: u32) -> Self {
        Self {
            kind,
            sequence,
            interrupted: false,
        }
    }

    /// Hands the payload of every message of this dump in `datagram` to `take`. Messages that answer an earlier request
    /// are passed over: they are left from a dump that was given up.
    ///
    /// An interruption is reported at the end of the dump, so that nothing of it stays behind in the socket.
    pub(super) fn feed(
        &mut self,
        mut datagram: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Broken>,
    ) -> Result<Progress, Broken> {
        if datagram.is_empty() {
            return Err(Broken::Malformed("empty datagram"));
        }
        while !datagram.is_empty() {
            let (message, rest) = split(datagram)?;
            datagram = rest;
            if message.sequence != self.sequence {
                continue;
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_NOOP => {}
                NLMSG_ERROR => return Err(refusal(message.payload)),
                NLMSG_DONE => {
                    if errno(message.payload)? < 0 {
                        return Err(refusal(message.payload));
                    }
                    return if self.interrupted {
                        Err(Broken::Interrupted)
                    } else {
                        Ok(Progress::Done)
                    };
                }
                kind if kind == self.kind => take(message.payload)?,
                _ => return Err(Broken::Malformed("message of a type not asked for")),
            }
        }
        Ok(Progress::More)
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The first message, and what lies behind it.
fn split(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), Broken> {
    let (Some(length), Some(kind), Some(flags), Some(sequence)) = (
        u32_at(bytes, 0),
        u16_at(bytes, 4),
        u16_at(bytes, 6),
        u32_at(bytes, 8),
    ) else {
        return Err(Broken::Malformed("message header cut short"));
    };
    let length = length as usize;
    if length < HEADER {
        return Err(Broken::Malformed("message shorter than its header"));
    }
    let payload = bytes
        .get(HEADER..length)
        .ok_or(Broken::Malformed("message cut short"))?;
    let rest = bytes
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or(&[]);
    let message = Message {
        kind,
        flags,
        sequence,
        payload,
    };
    Ok((message, rest))
}

/// The number that `NLMSG_ERROR` and `NLMSG_DONE` begin with: 0, or an errno made negative.
fn errno(payload: &[u8]) -> Result<i32, Broken> {
    u32_at(payload, 0)
        .map(u32::cast_signed)
        .ok_or(Broken::Malformed("end of dump without its status"))
}

fn refusal(payload: &[u8]) -> Broken {
    match errno(payload) {
        Ok(number) if number < 0 => Broken::Refused(number.saturating_neg()),
        // 0 would be an acknowledgement, which was not asked for.
        Ok(_) => Broken::Malformed("error message without an error"),
        Err(broken) => broken,
    }
}

/// The attributes of `bytes` as type and value; ends at the first that does not fit, which is an error.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Broken>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let attribute = split_attribute(rest);
        rest = attribute.map_or(&[], |(.., behind)| behind);
        Some(
            attribute
                .map(|(kind, value, _)| (kind, value))
                .ok_or(Broken::Malformed("attribute cut short")),
        )
    })
}

/// Length of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// The bits of an attribute's type that are its number; the two above are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    let kind = u16_at(bytes, 2)? & ATTRIBUTE_TYPE;
    let value = bytes.get(ATTRIBUTE_HEADER..length)?;
    let behind = bytes
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or(&[]);
    Some((kind, value, behind))
}

/// Appends an attribute; `value` is a multiple of four bytes and shorter than 64 KiB by more than the header.
pub(super) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    debug_assert!(value.len().is_multiple_of(ALIGNMENT));
    debug_assert!(value.len() + ATTRIBUTE_HEADER <= usize::from(u16::MAX));
    bytes.extend(((value.len() + ATTRIBUTE_HEADER) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
}

/// The two bytes at `at`, in host byte order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

/// The four bytes at `at`, in host byte order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// The `N` bytes at `at`.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: u16 = 20;
    const NLMSG_OVERRUN: u16 = 4;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = dump_request(kind, sequence, payload);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn status(kind: u16, number: i32) -> Vec<u8> {
        message(kind, 0, 7, &number.to_ne_bytes())
    }

    fn feed(datagrams: &[Vec<u8>]) -> (Vec<Vec<u8>>, Result<Progress, Broken>) {
        let mut dump = Dump::new(KIND, 7);
        let mut taken = Vec::new();
        let mut progress = Ok(Progress::More);
        for datagram in datagrams {
            progress = dump.feed(datagram, |payload| {
                taken.push(payload.to_vec());
                Ok(())
            });
            if progress != Ok(Progress::More) {
                break;
            }
        }
        (taken, progress)
    }

    #[test]
    fn payloads_come_in_order_until_done() {
        let first = [message(KIND, 2, 7, b"one"), message(KIND, 2, 7, b"three")].concat();
        let (taken, progress) = feed(&[first, status(NLMSG_DONE, 0)]);
        assert_eq!(taken, [b"one".to_vec(), b"three".to_vec()]);
        assert_eq!(progress, Ok(Progress::Done));
    }

    #[test]
    fn without_done_there_is_more() {
        assert_eq!(feed(&[message(KIND, 2, 7, b"one")]).1, Ok(Progress::More));
    }

    #[test]
    fn an_error_in_the_middle_is_an_error() {
        let datagram = [message(KIND, 2, 7, b"one"), status(NLMSG_ERROR, -12)].concat();
        assert_eq!(feed(&[datagram]).1, Err(Broken::Refused(12)));
    }

    #[test]
    fn done_with_an_error_is_an_error() {
        assert_eq!(
            feed(&[status(NLMSG_DONE, -105)]).1,
            Err(Broken::Refused(105))
        );
        assert_eq!(
            feed(&[status(NLMSG_DONE, i32::MIN)]).1,
            Err(Broken::Refused(i32::MAX))
        );
    }

    #[test]
    fn an_interrupted_dump_is_read_to_its_end_and_then_refused() {
        let first = message(KIND, NLM_F_DUMP_INTR, 7, b"one");
        assert_eq!(feed(std::slice::from_ref(&first)).1, Ok(Progress::More));
        let (taken, progress) = feed(&[first, message(KIND, 2, 7, b"two"), status(NLMSG_DONE, 0)]);
        assert_eq!(taken.len(), 2);
        assert_eq!(progress, Err(Broken::Interrupted));
        let done = message(NLMSG_DONE, NLM_F_DUMP_INTR, 7, &[0; 4]);
        assert_eq!(feed(&[done]).1, Err(Broken::Interrupted));
    }

    #[test]
    fn answers_to_an_earlier_request_are_passed_over() {
        let late = [
            message(KIND, 2, 6, b"late"),
            message(NLMSG_DONE, 2, 6, &[0; 4]),
        ]
        .concat();
        let (taken, progress) = feed(&[late, message(KIND, 2, 7, b"mine"), status(NLMSG_DONE, 0)]);
        assert_eq!(taken, [b"mine".to_vec()]);
        assert_eq!(progress, Ok(Progress::Done));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let whole = [message(KIND, 2, 7, b"onetwo"), status(NLMSG_DONE, 0)].concat();
        assert_eq!(feed(std::slice::from_ref(&whole)).1, Ok(Progress::Done));
        for length in 0..whole.len() {
            let progress = feed(&[whole[..length].to_vec()]).1;
            assert_ne!(progress, Ok(Progress::Done), "cut to {length} bytes");
        }
    }

    #[test]
    fn what_the_kernel_does_not_send_is_refused() {
        let malformed = |bytes: Vec<u8>| matches!(feed(&[bytes]).1, Err(Broken::Malformed(_)));
        assert!(malformed(status(NLMSG_ERROR, 0)));
        assert!(malformed(message(NLMSG_OVERRUN, 0, 7, b"")));
        assert!(malformed(message(99, 0, 7, b"")));
        assert!(malformed(message(NLMSG_DONE, 0, 7, b"")));
        let mut short = message(KIND, 0, 7, b"");
        short[0..4].copy_from_slice(&15_u32.to_ne_bytes());
        assert!(malformed(short));
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 21, &[1, 2, 3, 4, 5, 6, 7, 8]);
        push_attribute(&mut bytes, 1 | 0x8000, &[9; 4]);
        let read: Result<Vec<_>, _> = attributes(&bytes).collect();
        assert_eq!(
            read.unwrap(),
            [(21, &[1, 2, 3, 4, 5, 6, 7, 8][..]), (1, &[9; 4][..])]
        );
        bytes.pop();
        assert!(attributes(&bytes).any(|attribute| attribute.is_err()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_hangs(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = feed(std::slice::from_ref(&bytes));
            let _ = attributes(&bytes).count();
        }

        #[test]
        fn damage_to_real_messages_never_panics(
            payload in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = [message(KIND, 2, 7, &payload), status(NLMSG_DONE, 0)].concat();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = feed(&[bytes]);
        }
    }
}
