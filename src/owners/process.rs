//! Reading single processes from procfs, proc(5).
//!
//! Everything here may vanish while it is read; that is no error, the process is simply not there.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::str;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat, readlinkat_raw, statat};
use rustix::io::{Errno, read};

use super::budget::{Budget, LINKS};
use super::owner::{Process, displayed};
use super::search::{Hold, Via};
use super::users::Users;
use super::{bounded, cgroup};

/// Set in the flags of a kernel thread: `PF_KTHREAD` of the kernel's linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// As much of a small procfs file as is read; stat has some 300 bytes, a control-group file a few lines.
const SMALL_FILE: usize = 16 * 1024;

/// What the reading of a ring costs, in links read, and how many bytes of it cost one more.
const RING: u32 = 16;
const RING_BYTES: usize = 128;

/// An open procfs.
#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

/// What a file descriptor's link says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A socket, by inode.
    Socket(u64),
    /// An io_uring, which can hold files of its own.
    Ring,
    /// Anything else.
    Other,
}

/// What `/proc/PID/stat` says, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(super) comm: Vec<u8>,
    pub(super) parent: u32,
    pub(super) started: u64,
    state: u8,
    flags: u64,
    threads: u64,
}

impl Procfs {
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self {
            root: open_directory(CWD, path)?,
        })
    }

    /// The ids of all processes in sight, the youngest first: a new listener mostly belongs to a new process. Ids are
    /// handed out upwards and wrap around, so that the youngest is the last one handed out.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, Errno> {
        let mut pids = self.numbers_in(".")?;
        pids.sort_unstable_by(|a, b| b.cmp(a));
        let last = self.last_pid().unwrap_or(u32::MAX);
        let youngest = pids.partition_point(|&pid| pid > last);
        pids.rotate_left(youngest);
        Ok(pids)
    }

    /// The id handed out last: the fifth field of loadavg.
    fn last_pid(&self) -> Option<u32> {
        last_pid_in(&self.read("loadavg").ok()?)
    }

    /// The entries of a directory that are numbers.
    pub(super) fn numbers_in(&self, path: &str) -> Result<Vec<u32>, Errno> {
        let mut numbers = Vec::new();
        each_number(open_directory(&self.root, path)?.as_fd(), |number, _| {
            numbers.push(number);
            Ok(true)
        })?;
        Ok(numbers)
    }

    /// Calls `visit` with each file of the table at `path`, such as `7/fd`, as long as there is budget.
    pub(super) fn each_file(
        &self,
        path: &str,
        budget: &Budget,
        mut visit: impl FnMut(u32, Link),
    ) -> Result<(), Errno> {
        let directory = open_directory(&self.root, path)?;
        each_number(directory.as_fd(), |number, name| {
            if !budget.take(1) {
                return Ok(false);
            }
            match link(directory.as_fd(), name) {
                // Closed since it was listed.
                Err(Errno::NOENT) => {}
                link => visit(number, link?),
            }
            Ok(true)
        })
    }

    /// How many files a process has open, which Linux tells since 6.2 as the size of the table. `None` before that, and of
    /// a process that is gone.
    pub(super) fn table_size(&self, pid: u32) -> Option<u64> {
        let status = statat(&self.root, format!("{pid}/fd"), AtFlags::empty()).ok()?;
        u64::try_from(status.st_size).ok().filter(|&size| size > 0)
    }

    /// What a process's file with this number is.
    pub(super) fn file(&self, pid: u32, number: u32) -> Result<Link, Errno> {
        let mut path = String::with_capacity(24);
        let _ = write!(path, "{pid}/fd/{number}");
        link(self.root.as_fd(), path.as_str())
    }

    /// The sockets an io_uring holds, if there is budget. The kernel lists a ring's files in its fdinfo, unless the ring is busy
    /// just then, and all that waits in it, so that the length tells what it costs.
    pub(super) fn sockets_of_ring(&self, pid: u32, ring: u32, budget: &Budget) -> Vec<u64> {
        let mut sockets = Vec::new();
        if !budget.take(RING) {
            return sockets;
        }
        if let Ok(file) = self.open_file(&format!("{pid}/fdinfo/{ring}")) {
            let length = each_piece(&file, |piece| sockets.extend(sockets_in(piece)));
            budget.take(u32::try_from(length / RING_BYTES).unwrap_or(u32::MAX));
        }
        sockets
    }

    /// Whether the process still holds the socket the same way.
    pub(super) fn holds(&self, hold: Hold, inode: u64) -> bool {
        let Hold { pid, via } = hold;
        match via {
            Via::File(number) => self.file(pid, number) == Ok(Link::Socket(inode)),
            Via::Thread(thread, number) => {
                link(
                    self.root.as_fd(),
                    format!("{pid}/task/{thread}/fd/{number}").as_str(),
                ) == Ok(Link::Socket(inode))
            }
            Via::Ring(ring) => self
                .sockets_of_ring(pid, ring, &Budget::new(LINKS))
                .contains(&inode),
        }
    }

    /// What `/proc/PID/stat` says; `None` if the process is gone.
    pub(crate) fn stat(&self, pid: u32) -> Option<Stat> {
        Stat::parse(&self.read(&format!("{pid}/stat")).ok()?)
    }

    /// All that is told of a process; `None` if it is gone.
    pub(super) fn describe(&self, pid: u32, users: &mut Users) -> Option<Process> {
        let stat = self.stat(pid)?;
        // The directory of a process belongs to its effective user, whatever the process may hide.
        let uid = statat(&self.root, pid.to_string(), AtFlags::empty())
            .ok()?
            .st_uid;
        let executable = readlinkat(&self.root, format!("{pid}/exe"), Vec::new()).ok();
        let cgroups = self.read(&format!("{pid}/cgroup")).unwrap_or_default();
        Some(Process {
            pid,
            started: stat.started,
            name: displayed(&stat.comm),
            executable: executable.map(|path| path.to_string_lossy().into_owned()),
            uid,
            user: users.name(uid),
            unit: bounded(&cgroup::unit_of_process(&String::from_utf8_lossy(&cgroups))),
        })
    }

    /// Whether a process can only have from somebody else what this user created: the user is neither its own, nor root, nor the
    /// root of its user namespace.
    pub(super) fn is_stranger(&self, process: &Process, creator: u32) -> bool {
        let is_namespaces_root = || {
            self.read(&format!("{}/uid_map", process.pid))
                .is_ok_and(|map| has_root(&map, creator, process.uid))
        };
        creator != 0 && creator != process.uid && !is_namespaces_root()
    }

    /// The network namespace a process is in, by inode.
    pub(crate) fn network_namespace(&self, pid: u32) -> Result<Option<u64>, Errno> {
        let mut target = [MaybeUninit::uninit(); 64];
        let (target, _) = readlinkat_raw(&self.root, format!("{pid}/ns/net"), &mut target)?;
        Ok(inode_in(b"net:[", target))
    }

    /// Opens a file below procfs.
    pub(crate) fn open_file(&self, path: &str) -> Result<OwnedFd, Errno> {
        openat(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Reads a small file, or the beginning of one that is not.
    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let file = self.open_file(path)?;
        let mut content = Vec::with_capacity(1024);
        let mut piece = [0; 1024];
        while content.len() < SMALL_FILE {
            match read(&file, &mut piece) {
                Ok(0) => break,
                Ok(length) => content.extend_from_slice(&piece[..length]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(content)
    }
}

impl Stat {
    /// `pid (comm) state ppid …`; the name may hold anything, parentheses and line ends too, so the last one closes it.
    fn parse(file: &[u8]) -> Option<Self> {
        let opening = file.iter().position(|&byte| byte == b'(')?;
        let closing = file.iter().rposition(|&byte| byte == b')')?;
        let comm = file.get(opening + 1..closing)?.to_vec();
        let fields: Vec<&str> = str::from_utf8(&file[closing + 1..])
            .ok()?
            .split_whitespace()
            .collect();
        // Fields are counted from 1 in proc_pid_stat(5); the first after the name is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
        })
    }

    pub(super) const fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }

    /// Whether it can hold a file at all: a kernel thread cannot, and neither can what has exited and only waits for its
    /// parent. A process whose first thread has exited looks like that too, but has other threads.
    pub(crate) const fn can_hold_files(&self) -> bool {
        !self.is_kernel_thread() && (self.threads > 1 || !matches!(self.state, b'Z' | b'X'))
    }
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Calls `visit` with the entries of a directory that are numbers, until it says that this is enough.
fn each_number(
    directory: BorrowedFd<'_>,
    mut visit: impl FnMut(u32, &CStr) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok())
            && !visit(number, name)?
        {
            break;
        }
    }
    Ok(())
}

/// Calls `visit` with pieces of a file that end where lines do, and gives its length. A line that is longer than a small file is
/// left out: whoever names files may choose where a part of it begins.
fn each_piece(file: &OwnedFd, mut visit: impl FnMut(&[u8])) -> usize {
    let mut buffer = vec![0; SMALL_FILE];
    let (mut filled, mut total) = (0, 0);
    let mut is_in_long_line = false;
    loop {
        match read(file, &mut buffer[filled..]) {
            Err(Errno::INTR) => {}
            Ok(length) if length > 0 => {
                total += length;
                filled += length;
                let mut whole = 0;
                if let Some(end) = buffer[..filled].iter().rposition(|&byte| byte == b'\n') {
                    whole = end + 1;
                    let ends_here = buffer.iter().position(|&byte| byte == b'\n');
                    let first = ends_here
                        .filter(|_| is_in_long_line)
                        .map_or(0, |end| end + 1);
                    visit(&buffer[first..whole]);
                    is_in_long_line = false;
                } else if filled == buffer.len() {
                    whole = filled;
                    is_in_long_line = true;
                }
                buffer.copy_within(whole..filled, 0);
                filled -= whole;
            }
            Ok(_) | Err(_) => break,
        }
    }
    if !is_in_long_line {
        visit(&buffer[..filled]);
    }
    total
}

fn link(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<Link, Errno> {
    // What is longer than this is not a socket.
    let mut target = [MaybeUninit::uninit(); 64];
    let (target, _) = readlinkat_raw(at, path, &mut target)?;
    Ok(parse_link(target))
}

/// The sockets in the fdinfo of an io_uring: each stands last on a line.
fn sockets_in(file: &[u8]) -> impl Iterator<Item = u64> {
    file.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').next_back())
        .filter_map(|target| match parse_link(target) {
            Link::Socket(inode) => Some(inode),
            Link::Ring | Link::Other => None,
        })
}

/// Whether in the user namespace of this uid_map, user_namespaces(7), `root` is root over `uid`. Whoever makes a namespace can
/// become only such users in it as they were given.
fn has_root(map: &[u8], root: u32, uid: u32) -> bool {
    let ranges: Vec<[u32; 3]> = str::from_utf8(map)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some([next()?, next()?, next()?])
        })
        .collect();
    ranges
        .iter()
        .any(|&[inside, outside, _]| inside == 0 && outside == root)
        && ranges
            .iter()
            .any(|&[_, outside, count]| uid.checked_sub(outside).is_some_and(|at| at < count))
}

/// The fifth field of loadavg.
fn last_pid_in(file: &[u8]) -> Option<u32> {
    let mut fields = str::from_utf8(file).ok()?.split_whitespace();
    fields.nth(4)?.parse().ok()
}

fn parse_link(target: &[u8]) -> Link {
    match inode_in(b"socket:[", target) {
        Some(inode) => Link::Socket(inode),
        None if target == b"anon_inode:[io_uring]" => Link::Ring,
        None => Link::Other,
    }
}

/// The number in a link such as `socket:[7]`.
fn inode_in(kind: &[u8], target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(kind)?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The files of a process.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some(stat) = Stat::parse(bytes) {
        assert!(stat.comm.len() < bytes.len());
        let _ = (stat.can_hold_files(), displayed(&stat.comm));
    }
    let _ = (parse_link(bytes), inode_in(b"net:[", bytes));
    assert!(sockets_in(bytes).count() <= bytes.len());
    let _ = last_pid_in(bytes);
    let _ = has_root(bytes, 7, 8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_tell_sockets_and_rings() {
        let cases = [
            ("socket:[123]", Link::Socket(123)),
            ("socket:[]", Link::Other),
            ("socket:[1", Link::Other),
            ("anon_inode:[io_uring]", Link::Ring),
            ("/tmp/socket:[1]", Link::Other),
        ];
        for (target, link) in cases {
            assert_eq!(parse_link(target.as_bytes()), link, "{target}");
        }
    }

    #[test]
    fn no_part_of_a_long_line_is_taken_for_one() {
        let long = |length| [vec![b'a'; length], b"socket:[5]\n".to_vec()].concat();
        let file = [
            b"UserFiles: 3\n 0: socket:[6]\n".to_vec(),
            long(2 * SMALL_FILE - 29),
            b" 2: socket:[7]\n".to_vec(),
            long(SMALL_FILE),
            b" 4: socket:[8]".to_vec(),
        ]
        .concat();
        let mut written = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut written, &file).unwrap();
        std::io::Seek::rewind(&mut written).unwrap();
        let mut sockets = Vec::new();
        let length = each_piece(&written.into(), |piece| sockets.extend(sockets_in(piece)));
        assert_eq!(length, file.len());
        assert_eq!(sockets, [6, 7, 8]);
    }

    #[test]
    fn a_user_namespace_has_one_root_over_the_users_it_was_given() {
        let map = b"         0     100000          1\n        33     100033          1\n";
        assert!(has_root(map, 100_000, 100_033));
        assert!(!has_root(map, 100_033, 100_000));
        assert!(!has_root(map, 100_000, 0));
        assert!(has_root(b"0 0 4294967295\n", 0, 33));
        assert!(!has_root(b"0 0 4294967295\n", 1000, 0));
        assert!(!has_root(b"", 1000, 1000) && !has_root(b"0 1000", 1000, 1000));
    }

    #[test]
    fn stat_survives_a_name_that_looks_like_stat() {
        let file = b"7 (x) S 1 (\n)) Z 42 7 7 0 -1 2097152 0 0 0 0 0 0 0 0 20 0 3 0 991 0 0";
        let stat = Stat::parse(file).unwrap();
        assert_eq!(stat.comm, b"x) S 1 (\n)");
        assert_eq!((stat.parent, stat.started, stat.threads), (42, 991, 3));
        assert!(stat.is_kernel_thread() && !stat.can_hold_files());
        let zombie = Stat {
            flags: 0,
            threads: 1,
            ..stat.clone()
        };
        assert!(!zombie.can_hold_files());
        assert!(
            Stat {
                threads: 2,
                ..zombie
            }
            .can_hold_files()
        );
    }

    proptest! {
        #[test]
        fn any_stat_is_survived(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&file);
        }
    }
}
