//! The steps of starting: fitting the programs to the kernel, attaching them part by part, noting what is missing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Map, MapData, MapError, RingBuf};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use rustix::net::sockopt::socket_cookie;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::debug;

use super::addresses::Addresses;
use super::counters::Counters;
use super::direct;
use super::host::Host;
use super::programs::{self, Refusal};
use crate::counts::kernel::{Missing, Options, Part, StartError};

pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../darkport.bpf.o");

const STRANGE_TYPES: &str =
    "report the kernel's version, and use --collector.tier=netlink or polled";

/// The description of the kernel's types. Large: to be dropped once all is attached.
pub(super) fn types() -> Result<Btf, StartError> {
    Btf::from_sys_fs().map_err(|error| StartError::Refused {
        step: "reading the kernel's types in /sys/kernel/btf/vmlinux",
        why: chain(&error),
        cure: STRANGE_TYPES.to_owned(),
    })
}

pub(super) fn load(types: &Btf) -> Result<Ebpf, StartError> {
    let netns = own_netns().map_err(os("reading /proc/thread-self/ns/net"))?;
    let object = direct::with_function(OBJECT, types);
    let load = || {
        EbpfLoader::new()
            .btf(Some(types))
            .override_global("own_netns", &netns, true)
            .load(&object)
    };
    // The loader panics over some shapes that a kernel's types can have. No kernel may bring the exporter down.
    let loaded =
        panic::catch_unwind(panic::AssertUnwindSafe(load)).map_err(|_| StartError::Refused {
            step: "fitting the programs to this kernel's types",
            why: "the loader does not know one of their shapes".to_owned(),
            cure: STRANGE_TYPES.to_owned(),
        })?;
    loaded.map_err(|error| {
        let cure = match &error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => programs::cure(io_error),
            _ => STRANGE_TYPES,
        };
        StartError::Refused {
            step: "making the kernel tier's maps",
            why: chain(&error),
            cure: cure.to_owned(),
        }
    })
}

/// Attaches what counts attempts, in its cheaper form where the kernel has what that takes.
pub(super) fn attach_tap(ebpf: &mut Ebpf, types: &Btf, options: &Options) -> Result<(), Refusal> {
    const TRACEPOINT: &str = "netif_receive_skb";
    if options.in_place && programs::trace(ebpf, "tap_direct", TRACEPOINT, types).is_ok() {
        return Ok(());
    }
    programs::trace(ebpf, "tap", TRACEPOINT, types)
}

/// Attaches what tells refused from filtered; whether each is counted.
pub(super) fn attach_drops(
    ebpf: &mut Ebpf,
    types: &Btf,
    host: &Host,
    missing: &mut Vec<Missing>,
) -> (bool, bool) {
    let refused = note(
        Part::Refused,
        programs::trace(ebpf, "dropped", "kfree_skb", types).map_err(|refusal| Refusal {
            cure: if host.has_drop_reasons() {
                refusal.cure
            } else {
                Host::DROPS_CURE.to_owned()
            },
            ..refusal
        }),
        missing,
    )
    .is_some();
    let filtered = refused && host.tells_filtered();
    if refused && !filtered {
        missing.push(Missing {
            part: Part::Filtered,
            why: "this kernel does not say when a firewall drops a packet".to_owned(),
            cure: Host::DROPS_CURE.to_owned(),
        });
    }
    (refused, filtered)
}

pub(super) fn attach_binds(ebpf: &mut Ebpf, counters: &Counters) -> Result<(), Refusal> {
    let group = programs::root_group()?;
    // Only for the moment in which it is needed: it is called for every socket of the host.
    programs::on_group(ebpf, "released", &group)?;
    let named = name_own_netns(counters);
    programs::detach_from_group(ebpf, "released")?;
    named.map_err(|error| {
        Refusal::new(
            format!("naming the own network namespace to the programs: {error}"),
            "this is a defect: report it",
        )
    })?;
    programs::on_group(ebpf, "bound4", &group)?;
    programs::on_group(ebpf, "bound6", &group)
}

/// Closes a socket that the programs know to be ours, so that they learn its network namespace.
fn name_own_netns(counters: &Counters) -> io::Result<()> {
    let own = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    counters.name_own_socket(socket_cookie(&own)?);
    drop(own);
    if counters.netns_is_known() {
        Ok(())
    } else {
        Err(io::Error::other("they did not see a socket close"))
    }
}

pub(super) fn follow_addresses(ebpf: &mut Ebpf) -> Result<Addresses, StartError> {
    let step = "reading the host's own addresses";
    let map = ebpf
        .take_map("addresses")
        .ok_or_else(|| io::Error::other("the eBPF object has no map addresses"))
        .and_then(|map| LpmTrie::try_from(map).map_err(io::Error::other))
        .map_err(os(step))?;
    Addresses::follow(map).map_err(os(step))
}

pub(super) fn ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, StartError> {
    ebpf.take_map("events")
        .ok_or_else(|| io::Error::other("the eBPF object has no map events"))
        .and_then(|map: Map| RingBuf::try_from(map).map_err(io::Error::other))
        .map_err(os("mapping the ring of listener events"))
}

pub(super) fn note<T>(
    part: Part,
    result: Result<T, Refusal>,
    missing: &mut Vec<Missing>,
) -> Option<T> {
    result
        .map_err(|refusal| missing.push(refusal.of(part)))
        .ok()
}

pub(super) fn os(step: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Os { step, source }
}

/// Inode number of the calling thread's network namespace; the kernel's own number for it. 32 bits there.
fn own_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

/// Lets maps be as large as they are where they count as locked memory.
pub(super) fn allow_locked_memory() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        debug!(%error, "the limit of locked memory could not be raised");
    }
}

/// An error with all that stands behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
