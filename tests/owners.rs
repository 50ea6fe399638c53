//! Owners of real sockets: this process's own, and those of `sh` and `sleep`, which any host has.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, not what they share"
)]

#[path = "support/group.rs"]
mod group;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use darkport_exporter::owners::{Owner, Owners, Process};
use darkport_exporter::port::{Port, Protocol};
use darkport_exporter::sockets::netlink::Netlink;
use darkport_exporter::sockets::{Listener, Wanted};
use group::Group;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::{Domain, Socket, Type};

const NOBODY: u32 = 65_534;
const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// One test at a time: a program that one starts has the sockets of all the others until it is on its way.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listening(
    domain: Domain,
    protocol: Option<socket2::Protocol>,
    address: SocketAddr,
    shared: bool,
) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, protocol).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1).unwrap();
    socket
}

fn on_loopback() -> Socket {
    listening(
        Domain::IPV4,
        None,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into(),
        false,
    )
}

fn port(socket: &Socket) -> Port {
    Port {
        number: socket.local_addr().unwrap().as_socket().unwrap().port(),
        protocol: Protocol::Tcp,
    }
}

/// A child that is ended with the test.
struct Running(Child);

impl Running {
    /// Starts a program that has the socket open too, under the same number.
    fn start(command: &mut Command, socket: &Socket) -> Self {
        fcntl_setfd(socket, FdFlags::empty()).unwrap();
        let child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        fcntl_setfd(socket, FdFlags::CLOEXEC).unwrap();
        Self(child.unwrap())
    }

    fn sleep(socket: &Socket) -> Self {
        Self::start(Command::new("sleep").arg("600"), socket)
    }

    fn shell(script: &str, socket: &Socket) -> Self {
        Self::start(Command::new("sh").args(["-c", script]), socket)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets a script go on that reads a line.
    fn go_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Running {
    /// Ends it and all it has started.
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn listeners_on(port: Port) -> Vec<Listener> {
    let table = Netlink::open().unwrap().read(Wanted::Listeners).unwrap();
    table
        .listeners
        .into_iter()
        .filter(|listener| listener.port == port)
        .collect()
}

fn owners_of(owners: &mut Owners, port: Port) -> Vec<Arc<Owner>> {
    owners.resolve(&listeners_on(port)).owners
}

fn owner_of(owners: &mut Owners, port: Port) -> Arc<Owner> {
    let found = owners_of(owners, port);
    assert_eq!(found.len(), 1, "one socket on {port}");
    Arc::clone(&found[0])
}

fn of_host() -> Owners {
    Owners::new(Path::new("/proc"))
}

fn pids(owner: &Owner) -> Vec<u32> {
    owner.holders().map(|process| process.pid).collect()
}

/// Asks until the answer is as it should be.
fn until<T>(mut ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask();
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time");
        std::thread::yield_now();
    }
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap()
        .trim_end()
        .to_owned()
}

/// The name of a user of this host, or the number.
fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let names = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let named = names.filter(|fields| fields.get(2) == Some(&uid.to_string().as_str()));
    named
        .map(|fields| fields[0].to_owned())
        .next()
        .unwrap_or_else(|| uid.to_string())
}

fn own_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn own_socket_is_named_with_all_that_is_known_of_this_process() {
    let _alone = alone();
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let owner = owner_of(
        &mut of_host(),
        Port {
            number: socket.local_addr().unwrap().port(),
            protocol: Protocol::Tcp,
        },
    );
    let process = owner.oldest().unwrap();
    assert_eq!(process.pid, process::id());
    assert_eq!(owner.process(), comm(process::id()));
    assert_eq!(owner.user(), user_name(own_uid()));
    assert_eq!(
        process.executable.as_deref(),
        std::env::current_exe().unwrap().to_str()
    );
    assert!(process.started > 0);
}

#[test]
fn udp_socket_is_named() {
    let _alone = alone();
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = Port {
        number: socket.local_addr().unwrap().port(),
        protocol: Protocol::Udp,
    };
    assert_eq!(pids(&owner_of(&mut of_host(), port)), [process::id()]);
}

#[test]
fn dual_stack_socket_is_named() {
    let _alone = alone();
    if fs::read_to_string("/proc/net/if_inet6")
        .unwrap_or_default()
        .is_empty()
    {
        eprintln!("this host has no IPv6");
        return;
    }
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = listening(Domain::IPV6, None, address, false);
    assert!(!socket.only_v6().unwrap());
    let child = Running::sleep(&socket);
    let port = port(&socket);
    drop(socket);
    assert_eq!(pids(&owner_of(&mut of_host(), port)), [child.pid()]);
}

#[test]
fn multipath_tcp_socket_is_named() {
    let _alone = alone();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into();
    if Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::MPTCP)).is_err() {
        eprintln!("this host has no Multipath TCP");
        return;
    }
    let socket = listening(Domain::IPV4, Some(socket2::Protocol::MPTCP), address, false);
    let child = Running::sleep(&socket);
    let port = port(&socket);
    drop(socket);
    let owner = owner_of(&mut of_host(), port);
    assert_eq!(
        (owner.process(), pids(&owner)),
        ("sleep", vec![child.pid()])
    );
}

#[test]
fn four_processes_on_one_port_are_four_owners() {
    let _alone = alone();
    let first = listening(
        Domain::IPV4,
        None,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into(),
        true,
    );
    let address = first.local_addr().unwrap().as_socket().unwrap();
    let port = port(&first);
    let mut sockets = vec![first];
    let mut children = Vec::new();
    for _ in 0..4 {
        let socket = sockets
            .pop()
            .unwrap_or_else(|| listening(Domain::IPV4, None, address, true));
        children.push(Running::sleep(&socket));
        drop(socket);
    }
    let mut found: Vec<Vec<u32>> = owners_of(&mut of_host(), port)
        .iter()
        .map(|owner| pids(owner))
        .collect();
    found.sort_unstable();
    let mut expected: Vec<Vec<u32>> = children.iter().map(|child| vec![child.pid()]).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn socket_shared_after_a_fork_names_all_holders_and_the_oldest_first() {
    let _alone = alone();
    let socket = on_loopback();
    let child = Running::shell("sleep 600 & wait", &socket);
    let port = port(&socket);
    let owner = until(
        || owner_of(&mut of_host(), port),
        |owner| pids(owner).len() == 3,
    );
    assert_eq!(pids(&owner)[..2], [process::id(), child.pid()]);
    assert_eq!(owner.process(), comm(process::id()));
}

#[test]
fn socket_of_an_exited_parent_is_the_childs() {
    let _alone = alone();
    let socket = on_loopback();
    let mut parent = Running::shell("sleep 600 & read line; exit 0", &socket);
    let port = port(&socket);
    drop(socket);
    until(
        || owner_of(&mut of_host(), port),
        |owner| owner.holders().any(|process| process.name == "sleep"),
    );
    let mut owners = of_host();
    let before = owner_of(&mut owners, port);
    assert_eq!((before.process(), pids(&before).len()), ("sh", 2));
    assert_eq!(before.oldest().unwrap().pid, parent.pid());
    parent.go_on();
    parent.0.wait().unwrap();
    let after = owner_of(&mut owners, port);
    assert_eq!((after.process(), pids(&after).len()), ("sleep", 1));
}

#[test]
fn process_that_runs_another_program_is_named_anew() {
    let _alone = alone();
    let socket = on_loopback();
    let mut child = Running::shell("read line; exec sleep 600", &socket);
    let port = port(&socket);
    drop(socket);
    let mut owners = of_host();
    assert_eq!(owner_of(&mut owners, port).process(), "sh");
    child.go_on();
    until(|| comm(child.pid()), |name| name == "sleep");
    let owner = owner_of(&mut owners, port);
    assert_eq!(
        (owner.process(), pids(&owner)),
        ("sleep", vec![child.pid()])
    );
    assert!(
        owner
            .oldest()
            .unwrap()
            .executable
            .as_deref()
            .unwrap()
            .ends_with("sleep")
    );
}

#[test]
fn socket_given_to_another_process_is_that_ones() {
    let _alone = alone();
    let socket = on_loopback();
    let port = port(&socket);
    let mut owners = of_host();
    assert_eq!(pids(&owner_of(&mut owners, port)), [process::id()]);
    // It has another number there.
    let moved = format!("exec 9<&{0} {0}<&-; exec sleep 600", socket.as_raw_fd());
    let child = Running::shell(&moved, &socket);
    until(|| comm(child.pid()), |name| name == "sleep");
    drop(socket);
    assert_eq!(pids(&owner_of(&mut owners, port)), [child.pid()]);
}

#[test]
fn socket_on_its_way_is_nobodys_and_not_the_kernels() {
    let _alone = alone();
    let socket = on_loopback();
    let port = port(&socket);
    let (from, to) = UnixStream::pair().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sent = [socket.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sent)));
    sendmsg(
        &from,
        &[IoSlice::new(b"x")],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
    drop(socket);
    let mut owners = of_host();
    for _ in 0..4 {
        let owner = owner_of(&mut owners, port);
        assert!(owner.is_unknown(), "{owner:?}");
        assert_eq!([owner.process(), owner.user(), owner.unit()], ["", "", ""]);
    }
    drop(to);
}

#[test]
fn names_are_data() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let sleep = ["/bin/sleep", "/usr/bin/sleep"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"x\"} 1\n", "x\"} 1\n"),
        (b"a\xff\\b", "a\u{fffd}\\b"),
        (b") S 1 (", ") S 1 ("),
        (b"kernel", "kernel (a process)"),
    ];
    for (name, shown) in cases {
        let program = directory.path().join(OsStr::from_bytes(name));
        symlink(sleep, &program).unwrap();
        let socket = on_loopback();
        let child = Running::start(Command::new(&program).arg0("sleep").arg("600"), &socket);
        let port = port(&socket);
        drop(socket);
        let owner = owner_of(&mut of_host(), port);
        assert_eq!((owner.process(), pids(&owner)), (shown, vec![child.pid()]));
        assert!(!owner.is_kernel());
    }
}

#[test]
fn closed_listener_is_forgotten_and_a_new_one_on_its_port_is_found() {
    let _alone = alone();
    let socket = on_loopback();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let port = port(&socket);
    let mut owners = of_host();
    assert_eq!(pids(&owner_of(&mut owners, port)), [process::id()]);
    drop(socket);
    assert!(owners_of(&mut owners, port).is_empty());
    let socket = listening(Domain::IPV4, None, address, false);
    let child = Running::sleep(&socket);
    drop(socket);
    assert_eq!(pids(&owner_of(&mut owners, port)), [child.pid()]);
}

/// The table of the whole host: what this process may not see is empty, and nothing is said to be another's.
#[test]
fn whatever_is_named_is_right_and_the_rest_is_empty() {
    let listeners = Netlink::open()
        .unwrap()
        .read(Wanted::Listeners)
        .unwrap()
        .listeners;
    let resolution = of_host().resolve(&listeners);
    assert_eq!(resolution.owners.len(), listeners.len());
    assert_eq!(
        resolution.unknown,
        resolution
            .owners
            .iter()
            .filter(|owner| owner.is_unknown())
            .count()
    );
    for owner in &resolution.owners {
        let labels = [owner.process(), owner.user(), owner.unit()];
        match &**owner {
            Owner::Held(_) => {
                assert!(!labels[0].is_empty() && labels[0] != "kernel" && !labels[1].is_empty());
            }
            Owner::Kernel => assert_eq!(labels, ["kernel", "", ""]),
            Owner::Unknown { .. } => assert_eq!(labels, ["", "", ""]),
        }
    }
}

// As root.

#[test]
#[ignore = "needs root"]
fn listener_of_another_user_is_named() {
    let _alone = alone();
    let socket = on_loopback();
    let child = Running::start(
        Command::new("sleep").arg("600").uid(NOBODY).gid(NOBODY),
        &socket,
    );
    let port = port(&socket);
    drop(socket);
    let owner = owner_of(&mut of_host(), port);
    assert_eq!(
        (owner.user(), pids(&owner)),
        (user_name(NOBODY).as_str(), vec![child.pid()])
    );
}

#[test]
#[ignore = "needs root"]
fn change_of_user_is_seen() {
    let _alone = alone();
    let socket = on_loopback();
    let mut child = Running::shell(
        "read line; exec setpriv --reuid 65534 --clear-groups sleep 600",
        &socket,
    );
    let port = port(&socket);
    drop(socket);
    let mut owners = of_host();
    assert_eq!(owner_of(&mut owners, port).user(), user_name(0));
    child.go_on();
    until(|| comm(child.pid()), |name| name == "sleep");
    assert_eq!(owner_of(&mut owners, port).user(), user_name(NOBODY));
}

/// Anybody has programs run as another user, by any name, that hold what they are given: `su`, and here `sleep`.
#[test]
#[ignore = "needs root"]
fn a_setuid_program_lends_its_user_to_no_socket() {
    use std::os::unix::fs::PermissionsExt;
    let _alone = alone();
    // Some systems mount /tmp so that the bit has no effect there.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    make_readable(directory.path());
    let program = directory.path().join("nv-hostengine");
    fs::copy("/usr/bin/python3", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let listens = format!(
        "import os, socket, time
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.set_inheritable(True)
print(s.getsockname()[1], flush=True)
if os.fork() == 0: os.execv('{}', ['nv-hostengine', '-c', 'import time; time.sleep(600)'])
input()
if os.fork() == 0: time.sleep(600)
input()",
        program.display()
    );
    let mut child = Running(
        Command::new("/usr/bin/python3")
            .args(["-c", &listens])
            .uid(NOBODY)
            .gid(NOBODY)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = Port::tcp(line.trim().parse().unwrap());
    let holders = |count| {
        let is_set = |owner: &Arc<Owner>| {
            let as_root = |process: &Process| process.name == "nv-hostengine" && process.uid == 0;
            owner.holders().count() == count && owner.holders().any(as_root)
        };
        until(|| owner_of(&mut of_host(), port), is_set)
    };
    let nobody = user_name(NOBODY);
    assert_eq!(holders(2).user(), nobody);
    child.go_on();
    assert_eq!(holders(3).user(), nobody);
    // Now the program with root's rights is the oldest.
    child.go_on();
    child.0.wait().unwrap();
    let owner = holders(2);
    assert_eq!(owner.user(), nobody);
    assert_ne!(owner.process(), "nv-hostengine");
}

/// Without privilege: another process of the test binary, as another user, which runs
/// [`whatever_is_named_is_right_and_the_rest_is_empty`] and [`own_socket_is_named_with_all_that_is_known_of_this_process`]
/// beside a socket of root.
#[test]
#[ignore = "needs root"]
fn without_privilege_own_sockets_are_named_and_others_are_empty() {
    let _alone = alone();
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let program = directory.path().join("owners");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    make_readable(directory.path());
    let socket = on_loopback();
    let output = Command::new(&program)
        .args([
            "--exact",
            "unprivileged_part",
            "own_socket_is_named_with_all_that_is_known_of_this_process",
        ])
        .args([
            "whatever_is_named_is_right_and_the_rest_is_empty",
            "--include-ignored",
            "--test-threads=1",
        ])
        .env("OF_ROOT", port(&socket).number.to_string())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("3 passed"),
        "{text}"
    );
}

fn make_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "run by without_privilege_own_sockets_are_named_and_others_are_empty"]
fn unprivileged_part() {
    let Some(number) = std::env::var("OF_ROOT").ok() else {
        assert_eq!(own_uid(), 0, "started by hand without OF_ROOT");
        return;
    };
    assert_eq!(own_uid(), NOBODY);
    let port = Port {
        number: number.parse().unwrap(),
        protocol: Protocol::Tcp,
    };
    let mut owners = of_host();
    for _ in 0..3 {
        let resolution = owners.resolve(&listeners_on(port));
        assert_eq!(
            *resolution.owners[0],
            Owner::Unknown {
                creator: Some(user_name(0).into())
            }
        );
        assert_eq!(
            [resolution.owners[0].process(), resolution.owners[0].user()],
            ["", ""]
        );
        assert_eq!(resolution.unknown, 1);
        assert!(resolution.coverage.unreadable > 0);
        let why = resolution.coverage.to_string();
        assert!(
            why.contains("CAP_SYS_PTRACE") && why.contains("CAP_DAC_READ_SEARCH"),
            "{why}"
        );
    }
}

/// The unit of a listener whose process is put into a control group, before it is asked about and after.
#[test]
#[ignore = "needs root"]
fn listeners_in_control_groups_have_their_units() {
    let _alone = alone();
    let number = process::id();
    let service = format!("darkport-test-{number}.service");
    let slice = format!("darkporttest{number}.slice");
    let docker = format!("docker-{CONTAINER}.scope");
    let invalid = [
        b"darkport-\xff-".as_slice(),
        number.to_string().as_bytes(),
        b".service",
    ]
    .concat();
    let invalid_shown = format!("darkport-\u{fffd}-{number}.service");
    let cases: [(Vec<&[u8]>, &str); 4] = [
        (vec![slice.as_bytes(), service.as_bytes()], service.as_str()),
        (vec![slice.as_bytes(), docker.as_bytes()], CONTAINER),
        (vec![b"docker-test", CONTAINER.as_bytes()], CONTAINER),
        (vec![slice.as_bytes(), &invalid], &invalid_shown),
    ];
    for (path, unit) in cases {
        let socket = on_loopback();
        let group = Group::make(&path);
        let child = Running::sleep(&socket);
        let port = port(&socket);
        drop(socket);
        let mut owners = of_host();
        let before = owner_of(&mut owners, port);
        assert_ne!(before.unit(), unit);
        group.put(child.pid());
        let after = owner_of(&mut owners, port);
        assert_eq!((after.unit(), pids(&after)), (unit, vec![child.pid()]));
        drop(child);
    }
}

/// VXLAN has the kernel open a UDP socket. Whether that can be told from a socket of a process that may not be read is a
/// matter of what may be read; that it is taken for nothing else is not.
#[test]
#[ignore = "needs root"]
fn socket_of_the_kernel_is_the_kernels_where_all_processes_can_be_read_and_else_unknown() {
    let _alone = alone();
    std::thread::spawn(|| {
        #[allow(deprecated, reason = "a new network namespace shares no memory; the other function is unsafe for those that do")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        for arguments in [
            "link set lo up",
            "link add dark0 type vxlan id 7 dstport 4789 dev lo",
            "link set dark0 up",
        ] {
            assert!(
                Command::new("ip")
                    .args(arguments.split(' '))
                    .status()
                    .unwrap()
                    .success(),
                "{arguments}"
            );
        }
        let listeners = Netlink::open()
            .unwrap()
            .read(Wanted::Listeners)
            .unwrap()
            .listeners;
        assert!(!listeners.is_empty());
        let mut owners = of_host();
        owners.resolve(&listeners);
        let resolution = owners.resolve(&listeners);
        for owner in &resolution.owners {
            assert_eq!(
                owner.is_kernel(),
                resolution.coverage.is_whole(),
                "{owner:?} {}",
                resolution.coverage
            );
            assert_eq!(owner.is_unknown(), !resolution.coverage.is_whole());
        }
    })
    .join()
    .unwrap();
}
