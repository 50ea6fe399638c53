//! Listeners in other network namespaces, with namespaces made by `ip netns` and `unshare`.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, not what they share"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use darkport_exporter::namespaces::{Bounds, Error, Failure, NAMES, Namespaces, Reading};
use darkport_exporter::owners::Owners;
use darkport_exporter::port::Port;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn of_host() -> Namespaces {
    Namespaces::new(Path::new("/proc"), Path::new(NAMES))
}

fn ip(arguments: &str) {
    assert!(
        Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .unwrap()
            .success(),
        "ip {arguments}"
    );
}

/// A namespace with a name, unnamed at the end.
struct Named(String);

impl Named {
    fn add() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "darkport-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&format!("netns add {name}"));
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.0)
    }

    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.0));
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

/// A process in a namespace of its own, without a name.
struct Alone(Child);

impl Alone {
    fn start() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "600"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let alone = Self(child);
        until(
            || fs::read_to_string(format!("/proc/{}/comm", alone.0.id())).unwrap(),
            |name| name == "sleep\n",
        );
        alone
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A listening socket in the namespace at this path, held by this process, which is not in it.
fn listen_in(namespace: &Path) -> (TcpListener, Port) {
    let namespace = File::open(namespace).unwrap();
    let there = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 3476)).unwrap()
    };
    (thread::spawn(there).join().unwrap(), Port::tcp(3476))
}

fn inode(namespace: &Path) -> u64 {
    fs::metadata(namespace).unwrap().ino()
}

fn where_the_kept_threads_are() -> Vec<u64> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    threads
        .map(|task| task.unwrap().path())
        .filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "namespaces\n")
        })
        .filter_map(|task| Some(fs::metadata(task.join("ns/net")).ok()?.ino()))
        .collect()
}

fn until<T>(mut ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask();
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time");
        thread::yield_now();
    }
}

fn ports_in(reading: &Reading, inode: u64) -> Option<Vec<Port>> {
    let (_, table) = reading
        .tables
        .iter()
        .find(|(namespace, _)| namespace.inode == inode)?;
    Some(
        table
            .listeners
            .iter()
            .map(|listener| listener.port)
            .collect(),
    )
}

#[test]
fn own_namespace_is_not_among_the_others() {
    let reading = of_host().read().unwrap();
    let own = inode(Path::new("/proc/self/ns/net"));
    assert!(
        reading
            .tables
            .iter()
            .all(|(namespace, _)| namespace.inode != own)
    );
    assert!(reading.read <= reading.seen);
    assert_eq!(reading.read, reading.tables.len());
    assert_eq!(reading.read + reading.unread.len(), reading.seen);
    assert_eq!(reading.failure.is_some(), reading.read < reading.seen);
}

#[test]
fn procfs_that_is_none_is_an_error_that_says_so() {
    let mut namespaces = Namespaces::new(Path::new("/nonexistent/proc"), Path::new(NAMES));
    for _ in 0..2 {
        let error = namespaces.read().unwrap_err();
        assert!(matches!(error, Error::Processes { .. }));
        assert!(error.to_string().contains("--path.procfs"), "{error}");
    }
}

#[test]
fn directory_without_namespaces_names_none() {
    let names = tempfile::tempdir().unwrap();
    fs::write(names.path().join("left-over"), "").unwrap();
    fs::create_dir(names.path().join("directory")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(names.path().join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let mut namespaces = Namespaces::new(Path::new("/proc"), names.path());
    let reading = namespaces.read().unwrap();
    assert!(
        reading
            .tables
            .iter()
            .all(|(namespace, _)| namespace.name.is_none())
    );
}

#[test]
#[ignore = "needs root"]
fn listeners_of_two_namespaces_are_read_and_owned() {
    let (named, unnamed) = (Named::add(), Alone::start());
    let (first, port) = listen_in(&named.path());
    let (second, _) = listen_in(&unnamed.path());
    let reading = of_host().read().unwrap();
    assert!(reading.seen >= 2 && reading.read == reading.tables.len());
    for (path, label) in [
        (named.path(), named.0.clone()),
        (unnamed.path(), inode(&unnamed.path()).to_string()),
    ] {
        let found = reading
            .tables
            .iter()
            .find(|(namespace, _)| namespace.inode == inode(&path));
        let (namespace, table) = found.unwrap();
        assert_eq!(namespace.to_string(), label);
        let listeners: Vec<_> = table
            .listeners
            .iter()
            .filter(|listener| listener.port == port)
            .collect();
        assert_eq!(listeners.len(), 1);
        let owners = Owners::new(Path::new("/proc"))
            .resolve(listeners.iter().copied())
            .owners;
        assert_eq!(owners[0].oldest().unwrap().pid, process::id());
    }
    drop((first, second));
    let reading = of_host().read().unwrap();
    assert_eq!(ports_in(&reading, inode(&named.path())), Some(Vec::new()));
}

/// Whoever made namespaces by the thousand decided how long a scrape took.
#[test]
#[ignore = "needs root"]
fn no_more_are_read_than_the_bounds_allow_and_each_has_its_turn() {
    let alone = [(); 3].map(|()| Alone::start());
    let by_number = Bounds {
        most: 2,
        time: Duration::MAX,
    };
    let by_time = Bounds {
        most: usize::MAX,
        time: Duration::ZERO,
    };
    for (bounds, at_once) in [(by_number, 2), (by_time, 1)] {
        let mut namespaces = Namespaces::with_bounds(Path::new("/proc"), Path::new(NAMES), bounds);
        let mut turns = BTreeSet::new();
        let mut readings = 0;
        while !alone
            .iter()
            .all(|each| turns.contains(&inode(&each.path())))
        {
            let reading = namespaces.read().unwrap();
            readings += 1;
            assert!(reading.read <= at_once, "{reading:?}");
            assert_eq!(reading.read + reading.unread.len(), reading.seen);
            assert!(readings <= 2 * reading.seen, "{bounds:?}: {turns:?}");
            let (first_left, failure) = reading.failure.unwrap();
            assert!(matches!(failure, Failure::Left(_)), "{failure}");
            assert!(reading.unread.contains(&first_left));
            turns.extend(reading.tables.iter().map(|(each, _)| each.inode));
        }
    }
    let all = of_host().read().unwrap();
    assert_eq!(all.unread, []);
}

#[test]
#[ignore = "needs root"]
fn asking_thread_and_all_others_stay_where_they_are() {
    let named = Named::add();
    let mut namespaces = of_host();
    for _ in 0..3 {
        let reading = namespaces.read().unwrap();
        assert!(ports_in(&reading, inode(&named.path())).is_some());
    }
    let own = inode(Path::new("/proc/self/ns/net"));
    assert_eq!(inode(Path::new("/proc/thread-self/ns/net")), own);
    // Threads of other tests that run just now may be away, but all come home.
    until(where_the_kept_threads_are, |inodes| {
        !inodes.is_empty() && inodes.iter().all(|&inode| inode == own)
    });
    drop(namespaces);
}

/// The end of a pair of virtual interfaces disappears from one namespace when the kernel frees the other: proof that a
/// reading keeps nothing alive.
#[test]
#[ignore = "needs root"]
fn namespace_that_was_read_can_end() {
    let (staying, ending) = (Named::add(), Named::add());
    staying.ip(&format!(
        "link add dark0 type veth peer name dark1 netns {}",
        ending.0
    ));
    let number = inode(&ending.path());
    let mut namespaces = of_host();
    assert!(ports_in(&namespaces.read().unwrap(), number).is_some());
    drop(ending);
    let has_interface = || {
        Command::new("ip")
            .args(["-n", &staying.0, "link", "show", "dark0"])
            .output()
            .unwrap()
    };
    until(has_interface, |output| !output.status.success());
    assert!(ports_in(&namespaces.read().unwrap(), number).is_none());
}

#[test]
#[ignore = "needs root"]
fn namespaces_that_come_and_go_while_they_are_read_are_no_failure() {
    let mut namespaces = of_host();
    let churn = thread::spawn(|| {
        for _ in 0..20 {
            drop(Alone::start());
        }
    });
    while !churn.is_finished() {
        let reading = namespaces.read().unwrap();
        assert!(reading.failure.is_none(), "{:?}", reading.failure);
        assert_eq!(reading.read, reading.seen);
    }
    churn.join().unwrap();
}

/// Runs [`unprivileged_part`] as another user, with a namespace there to be seen.
#[test]
#[ignore = "needs root"]
fn without_privilege_namespaces_are_seen_and_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let named = Named::add();
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("namespaces");
    // By another process: what this one wrote, a program started by another test might still have open.
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let output = Command::new(&program)
        .args(["--exact", "unprivileged_part", "--include-ignored"])
        .env("NAMESPACE", &named.0)
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "run by without_privilege_namespaces_are_seen_and_not_read"]
fn unprivileged_part() {
    let Ok(name) = std::env::var("NAMESPACE") else {
        assert_eq!(
            fs::metadata("/proc/self").unwrap().uid(),
            0,
            "started by hand without NAMESPACE"
        );
        return;
    };
    let reading = of_host().read().unwrap();
    assert!(Path::new(NAMES).join(name).exists());
    assert!(reading.seen >= 1 && reading.unreadable > 0);
    assert_eq!((reading.read, reading.tables.len()), (0, 0));
    let (_, failure) = reading.failure.unwrap();
    assert!(
        matches!(failure, Failure::Enter(_)) && failure.to_string().contains("CAP_SYS_ADMIN"),
        "{failure}"
    );
}
