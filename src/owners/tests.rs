//! Owners from a procfs made for the test: what a running host cannot be brought to show at will.

#![allow(
    clippy::unwrap_used,
    reason = "the lints spare test functions only, not what they share"
)]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::TempDir;

use super::*;

/// A directory that looks like a procfs.
struct FakeProcfs(TempDir);

impl FakeProcfs {
    /// One that shows the whole host: the second process is a kernel thread.
    fn whole() -> Self {
        let procfs = Self::partial();
        procfs.write(
            "2/stat",
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 20 0 0",
        );
        fs::create_dir_all(procfs.path("2/fd")).unwrap();
        procfs
    }

    fn partial() -> Self {
        let procfs = Self(tempfile::tempdir().unwrap());
        procfs.write("loadavg", "0.0 0.0 0.0 1/92 500\n");
        procfs.write("passwd", "web:x:33:33::/:\n");
        procfs
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn process(&self, pid: u32, parent: u32, started: u64, name: &str) {
        self.write(
            &format!("{pid}/stat"),
            &format!("{pid} ({name}) S {parent} 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0"),
        );
        self.write(
            &format!("{pid}/cgroup"),
            &format!("0::/system.slice/{name}.service\n"),
        );
        fs::create_dir_all(self.path(&format!("{pid}/fd"))).unwrap();
    }

    fn holds(&self, pid: u32, number: u32, inode: u64) {
        self.link(&format!("{pid}/fd/{number}"), &format!("socket:[{inode}]"));
    }

    fn lets_go(&self, pid: u32, number: u32) {
        fs::remove_file(self.path(&format!("{pid}/fd/{number}"))).unwrap();
    }

    fn exits(&self, pid: u32) {
        fs::remove_dir_all(self.path(&pid.to_string())).unwrap();
    }

    fn owners(&self) -> Owners {
        Owners::new(self.0.path()).with_passwd(&self.path("passwd"))
    }
}

fn listener(inode: u64) -> Listener {
    Listener {
        port: Port::tcp(3476),
        address: Ipv4Addr::UNSPECIFIED.into(),
        cookie: None,
        inode: Some(inode),
        uid: Some(0),
        cgroup: None,
    }
}

fn owner(owners: &mut Owners, now: Instant, inode: u64) -> Owner {
    Owner::clone(&owners.resolve_at(now, &[listener(inode)]).owners[0])
}

fn pids(owner: &Owner) -> Vec<u32> {
    owner.holders().map(|process| process.pid).collect()
}

#[test]
fn a_socket_without_a_file_is_the_kernels() {
    let procfs = FakeProcfs::partial();
    assert_eq!(
        owner(&mut procfs.owners(), Instant::now(), 0),
        Owner::Kernel
    );
}

#[test]
fn a_socket_without_an_inode_is_unknown() {
    let unnumbered = Listener {
        inode: None,
        uid: Some(33),
        ..listener(7)
    };
    let resolution = FakeProcfs::whole().owners().resolve(&[unnumbered]);
    assert_eq!(
        *resolution.owners[0],
        Owner::Unknown {
            creator: Some("web".into())
        }
    );
    assert_eq!(resolution.unknown, 1);
}

#[test]
fn what_nobody_holds_is_the_kernels_at_the_second_look() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    let (mut owners, now) = (procfs.owners(), Instant::now());
    let first = owner(&mut owners, now, 7);
    assert!(first.is_unknown());
    assert_eq!([first.process(), first.user(), first.unit()], ["", "", ""]);
    let second = owner(&mut owners, now, 7);
    assert!(second.is_kernel());
    assert_eq!(
        [second.process(), second.user(), second.unit()],
        ["kernel", "", ""]
    );
}

#[test]
fn what_an_ordinary_user_created_is_never_the_kernels() {
    let procfs = FakeProcfs::whole();
    let created = |port, uid, inode| Listener {
        port,
        uid: Some(uid),
        ..listener(inode)
    };
    let all = [
        created(Port::tcp(3476), 998, 7),
        created(Port::udp(3476), 1000, 8),
        // A tunnel that a service of the system set up.
        created(Port::udp(4789), 998, 9),
    ];
    let (mut owners, now) = (procfs.owners(), Instant::now());
    for looks in 0..4 {
        let owners = owners.resolve_at(now + PATIENCE * 8 * looks, &all).owners;
        assert!(owners[0].is_unknown() && owners[1].is_unknown());
        assert_eq!(owners[2].is_kernel(), looks > 0);
    }
}

#[test]
fn a_second_look_at_one_is_the_first_at_another() {
    let procfs = FakeProcfs::whole();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owners.resolve_at(now, &[listener(7)]);
    let both = owners.resolve_at(now, &[listener(7), listener(8)]).owners;
    assert!(both[0].is_kernel() && both[1].is_unknown());
}

#[test]
fn processes_are_listed_from_the_last_one_started() {
    let procfs = FakeProcfs::partial();
    for pid in [7, 499, 500, 501, 900] {
        procfs.process(pid, 1, 5, "a");
    }
    // Process 500 is the last that loadavg knows of; 501 and 900 are from before the numbers began anew.
    let listed = process::Procfs::open(procfs.0.path()).unwrap().processes();
    assert_eq!(listed.unwrap(), [500, 499, 7, 900, 501]);
}

#[test]
fn what_nobody_in_sight_holds_stays_unknown_where_procfs_does_not_show_the_host() {
    let procfs = FakeProcfs::partial();
    procfs.process(10, 1, 5, "a");
    let (mut owners, now) = (procfs.owners(), Instant::now());
    for _ in 0..3 {
        let resolution = owners.resolve_at(now, &[listener(7)]);
        assert!(resolution.owners[0].is_unknown());
        assert!(resolution.coverage.partial && !resolution.coverage.is_whole());
    }
}

#[test]
fn what_an_unreadable_process_may_hold_stays_unknown() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    // A file where the directory should be is refused for everybody, root too.
    fs::remove_dir(procfs.path("10/fd")).unwrap();
    procfs.write("10/fd", "");
    let (mut owners, now) = (procfs.owners(), Instant::now());
    for _ in 0..3 {
        let resolution = owners.resolve_at(now, &[listener(7)]);
        assert!(resolution.owners[0].is_unknown());
        assert_eq!(resolution.coverage.unreadable, 1);
    }
}

#[test]
fn what_is_on_its_way_through_a_unix_socket_is_not_the_kernels() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    procfs.holds(10, 3, 99);
    procfs.link("10/task/10/fd/3", "socket:[99]");
    procfs.write("10/fdinfo/3", "pos:\t0\nino:\t99\nscm_fds: 1\n");
    let (mut owners, now) = (procfs.owners(), Instant::now());
    for _ in 0..3 {
        assert!(owner(&mut owners, now, 7).is_unknown());
    }
    procfs.write("10/fdinfo/3", "pos:\t0\nino:\t99\nscm_fds: 0\n");
    assert!(owner(&mut owners, now + PATIENCE * 8, 7).is_kernel());
}

#[test]
fn a_socket_that_only_an_io_uring_holds_has_an_owner() {
    let procfs = FakeProcfs::partial();
    procfs.process(10, 1, 5, "hidden");
    procfs.link("10/fd/3", "anon_inode:[io_uring]");
    procfs.write(
        "10/fdinfo/3",
        "UserFiles:\t2\n    0: socket:[6]\n    1: socket:[7]\nUserBufs:\t0\n",
    );
    let mut owners = procfs.owners();
    assert_eq!(owner(&mut owners, Instant::now(), 7).process(), "hidden");
    assert_eq!(
        owner(&mut owners, Instant::now(), 7).process(),
        "hidden",
        "and is confirmed"
    );
}

#[test]
fn a_socket_far_behind_in_a_long_ring_has_an_owner() {
    let procfs = FakeProcfs::partial();
    procfs.process(10, 1, 5, "hidden");
    procfs.link("10/fd/3", "anon_inode:[io_uring]");
    let files = (1000..5000).map(|inode| format!("{inode:5}: socket:[{inode}]\n"));
    let listed: String = files.collect();
    procfs.write("10/fdinfo/3", &format!("UserFiles:\t4000\n{listed}"));
    for inode in [1000, 4999] {
        let owner = owner(&mut procfs.owners(), Instant::now(), inode);
        assert_eq!(owner.process(), "hidden");
    }
}

#[test]
fn processes_with_very_many_files_end_one_look_and_not_the_next() {
    let procfs = FakeProcfs::whole();
    procfs.process(300, 1, 5, "known");
    procfs.holds(300, 3, 8);
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owners.search.links = 150;
    assert_eq!(owner(&mut owners, now, 8).process(), "known");
    procfs.process(10, 1, 5, "victim");
    procfs.holds(10, 3, 7);
    for pid in [400, 401] {
        procfs.process(pid, 1, 6, "many");
        for number in 0..100 {
            procfs.holds(pid, number, 1000 + u64::from(number));
        }
    }
    let both = [listener(7), listener(8)];
    let resolution = owners.resolve_at(now, &both);
    assert!(resolution.owners[0].is_unknown() && resolution.unknown == 1);
    assert_eq!(resolution.owners[1].process(), "known");
    assert!(resolution.coverage.cut_short && !resolution.coverage.is_whole());
    let resolution = owners.resolve_at(now, &both);
    assert_eq!(resolution.owners[0].process(), "victim");
    assert_eq!(resolution.unknown, 0);
}

/// Of seven files each; one of them has the socket 7 as well.
fn fifty_tables() -> FakeProcfs {
    let procfs = FakeProcfs::whole();
    for pid in (10..=500).step_by(10) {
        procfs.process(pid, 1, 5, "many");
        for number in 0..7 {
            procfs.holds(pid, number, 1000 + u64::from(number));
        }
    }
    procfs.holds(20, 9, 7);
    procfs
}

#[test]
fn looks_that_are_cut_come_to_every_process() {
    let procfs = fifty_tables();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owners.search.links = 50;
    // Seven tables in each look.
    let looks =
        (0..10).take_while(|&look| owner(&mut owners, now + PATIENCE * 64 * look, 7).is_unknown());
    assert_eq!(looks.count(), 6);
}

#[test]
fn a_look_for_what_is_new_does_not_begin_the_long_one_again() {
    let procfs = fifty_tables();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    // All have been looked through once, so none of them is new.
    owner(&mut owners, now, 6);
    owners.search.links = 50;
    let looks = (0..20).take_while(|&look| {
        let now = now + PATIENCE * 64 * look;
        let is_unknown = owner(&mut owners, now, 7).is_unknown();
        let inode = 9000 + u64::from(look);
        procfs.process(1000 + look, 1, 5, "new");
        procfs.holds(1000 + look, 3, inode);
        owners.resolve_at(
            now + Duration::from_secs(1),
            &[listener(7), listener(inode)],
        );
        is_unknown
    });
    assert!(looks.count() < 20);
}

#[test]
fn what_could_be_in_a_thread_or_ring_that_was_not_come_to_is_not_the_kernels() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    for thread in 10..20 {
        for number in 0..10 {
            procfs.link(&format!("10/task/{thread}/fd/{number}"), "pipe:[1]");
        }
    }
    let looks = |links| {
        let (mut owners, now) = (procfs.owners(), Instant::now());
        owners.search.links = links;
        owners.resolve_at(now, &[listener(7)]);
        let resolution = owners.resolve_at(now, &[listener(7)]);
        (
            resolution.owners[0].is_kernel(),
            resolution.coverage.cut_short,
        )
    };
    assert_eq!(looks(99), (false, true));
    assert_eq!(looks(100), (true, false));
    procfs.link("10/fd/3", "anon_inode:[io_uring]");
    procfs.write("10/fdinfo/3", &"x\n".repeat(64 * 1024));
    assert_eq!(looks(1000), (false, true));
    assert_eq!(looks(1100), (true, false));
}

#[test]
fn a_socket_in_the_table_of_a_single_thread_has_an_owner() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "threads");
    procfs.link("10/task/12/fd/3", "socket:[7]");
    let (mut owners, now) = (procfs.owners(), Instant::now());
    assert!(owner(&mut owners, now, 7).is_unknown());
    for _ in 0..2 {
        assert_eq!(owner(&mut owners, now, 7).process(), "threads");
    }
}

#[test]
fn an_owner_that_was_not_found_is_looked_for_again_but_ever_more_seldom() {
    let procfs = FakeProcfs::partial();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owner(&mut owners, now, 7);
    owner(&mut owners, now, 7);
    procfs.process(10, 1, 5, "late");
    procfs.holds(10, 3, 7);
    assert!(owner(&mut owners, now + PATIENCE / 2, 7).is_unknown());
    assert_eq!(owner(&mut owners, now + PATIENCE, 7).process(), "late");
}

#[test]
fn a_look_for_one_finds_the_others_too() {
    let procfs = FakeProcfs::partial();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owner(&mut owners, now, 7);
    owner(&mut owners, now, 7);
    procfs.process(10, 1, 5, "late");
    procfs.holds(10, 3, 7);
    procfs.holds(10, 4, 8);
    let resolution = owners.resolve_at(now, &[listener(7), listener(8)]);
    assert_eq!(resolution.unknown, 0);
}

#[test]
fn all_holders_are_named_and_the_oldest_is_the_label() {
    let procfs = FakeProcfs::whole();
    // The manager has it under another number; the second worker has wrapped around to a low process id.
    procfs.process(50, 1, 100, "manager");
    procfs.process(400, 50, 200, "worker");
    procfs.process(40, 50, 300, "worker");
    procfs.process(450, 50, 250, "bystander");
    procfs.holds(50, 45, 7);
    procfs.holds(400, 3, 7);
    procfs.holds(40, 3, 7);
    procfs.holds(450, 3, 8);
    let owner = owner(&mut procfs.owners(), Instant::now(), 7);
    assert_eq!(pids(&owner), [50, 400, 40]);
    assert_eq!(
        (owner.process(), owner.unit()),
        ("manager", "manager.service")
    );
}

/// The directories of the processes belong to this one's user.
#[test]
fn whoever_else_holds_a_socket_its_user_is_its_creators_and_its_unit_no_strangers() {
    let procfs = FakeProcfs::whole();
    let own = fs::metadata(procfs.0.path()).unwrap().uid();
    let (creator, number) = (own + 34, (own + 34).to_string());
    let created = Listener {
        uid: Some(creator),
        ..listener(7)
    };
    let labels = || {
        let owner = &procfs
            .owners()
            .resolve(std::slice::from_ref(&created))
            .owners[0];
        [owner.process(), owner.user(), owner.unit()].map(str::to_owned)
    };
    procfs.process(10, 1, 5, "su");
    procfs.holds(10, 3, 7);
    assert_eq!(labels(), ["su", &number, ""]);
    // In a user namespace that the creator is root of, every user is one of the creator's.
    procfs.write("10/uid_map", &format!("0 {creator} 1\n7 {own} 1\n"));
    let all = labels();
    assert!(all[1] != number && all[2] == "su.service", "{all:?}");
}

#[test]
fn a_caller_is_described_by_what_has_its_number_only_if_that_is_of_its_user() {
    let procfs = FakeProcfs::whole();
    let own = fs::metadata(procfs.0.path()).unwrap().uid();
    procfs.process(10, 1, 5, "su");
    let mut owners = procfs.owners();
    owners.resolve(&[listener(7)]);
    let mut ask = |thread, uid| {
        let owner = owners.caller(&Caller {
            pid: 10,
            thread,
            uid,
            name: "su",
            cgroup: None,
        });
        (owner.user().to_owned(), owner.unit().to_owned())
    };
    for thread in [10, 11] {
        let stranger = ((own + 34).to_string(), String::new());
        assert_eq!(ask(thread, own + 34), stranger);
        assert_eq!(ask(thread, own).1, "su.service");
        assert_eq!(ask(thread, 0).1, "su.service", "root's, handed down");
    }
}

#[test]
fn a_known_socket_costs_no_look_at_any_process() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    procfs.holds(10, 3, 7);
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owner(&mut owners, now, 7);
    for _ in 0..RECHECKS {
        owner(&mut owners, now, 7);
    }
    // With nothing left to spend, even a procfs that is gone goes unnoticed.
    procfs.exits(10);
    assert_eq!(owner(&mut owners, now, 7).process(), "a");
    assert!(
        owner(&mut owners, now + Duration::from_secs(1), 7).is_unknown(),
        "until a second has passed"
    );
}

#[test]
fn a_socket_that_was_given_away_is_its_new_holders() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "old");
    procfs.process(11, 1, 6, "new");
    procfs.holds(10, 3, 7);
    let (mut owners, now) = (procfs.owners(), Instant::now());
    assert_eq!(owner(&mut owners, now, 7).process(), "old");
    procfs.lets_go(10, 3);
    procfs.holds(11, 9, 7);
    assert_eq!(pids(&owner(&mut owners, now, 7)), [11]);
}

#[test]
fn an_inode_that_comes_again_is_its_new_holders() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "old");
    procfs.holds(10, 3, 7);
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owner(&mut owners, now, 7);
    procfs.exits(10);
    // The same process id and number, too.
    procfs.process(10, 1, 80, "new");
    procfs.holds(10, 3, 7);
    assert_eq!(owner(&mut owners, now, 7).process(), "new");
}

#[test]
fn a_new_cookie_is_a_new_socket_whatever_its_inode() {
    let procfs = FakeProcfs::whole();
    procfs.process(10, 1, 5, "a");
    procfs.holds(10, 3, 7);
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owners.rechecks.saved = 0;
    owners.resolve_at(
        now,
        &[Listener {
            cookie: NonZeroU64::new(1),
            ..listener(7)
        }],
    );
    procfs.exits(10);
    procfs.process(20, 1, 9, "b");
    procfs.holds(20, 3, 7);
    let resolution = owners.resolve_at(
        now,
        &[Listener {
            cookie: NonZeroU64::new(2),
            ..listener(7)
        }],
    );
    assert_eq!(resolution.owners[0].process(), "b");
}

#[test]
fn what_is_no_longer_asked_about_is_forgotten() {
    let procfs = FakeProcfs::whole();
    let mut owners = procfs.owners();
    owners.resolve(&[listener(7), listener(8)]);
    owners.resolve(&[listener(8)]);
    assert_eq!(owners.known.len(), 1);
    assert!(owners.resolve([]).owners.is_empty());
    assert!(owners.known.is_empty());
}

#[test]
fn a_procfs_that_is_none_is_said() {
    let mut owners = Owners::new(Path::new("/nonexistent/proc"));
    let resolution = owners.resolve(&[listener(7)]);
    assert!(resolution.owners[0].is_unknown());
    assert!(
        resolution.coverage.failed && resolution.coverage.to_string().contains("--path.procfs")
    );
}

#[test]
fn rechecks_come_round_to_every_listener() {
    let procfs = FakeProcfs::whole();
    let count = 3 * u64::from(RECHECKS);
    procfs.process(10, 1, 5, "old");
    for inode in 1..=count {
        procfs.holds(10, u32::try_from(inode).unwrap(), inode);
    }
    let listeners: Vec<Listener> = (1..=count).map(listener).collect();
    let (mut owners, now) = (procfs.owners(), Instant::now());
    owners.resolve_at(now, &listeners);
    procfs.process(10, 1, 5, "new");
    let renamed = |seconds, owners: &mut Owners| {
        let resolution = owners.resolve_at(now + Duration::from_secs(seconds), &listeners);
        resolution
            .owners
            .iter()
            .filter(|owner| owner.process() == "new")
            .count()
    };
    assert_eq!(renamed(0, &mut owners), RECHECKS as usize);
    assert_eq!(renamed(15, &mut owners), RECHECKS as usize + 15);
    assert_eq!(renamed(75, &mut owners), 2 * RECHECKS as usize + 15);
}

#[test]
fn bounded_names_end_between_characters() {
    assert_eq!(bounded("é"), "é");
    let long = "é".repeat(NAME_LENGTH);
    assert_eq!(bounded(&format!("x{long}")).len(), NAME_LENGTH - 1);
}
