//! From a control-group path to the systemd unit or the container it stands for.
//!
//! Pure functions over what `/proc/PID/cgroup` holds (cgroups(7)); no input or output. The path is data from outside:
//! whoever may create a control group chooses its name, so of everything nested the *outermost* name is taken, the one
//! the host's own manager gave. A service cannot pass for `sshd.service`, or for a container, by making a group of such a
//! name below its own, and neither can a container; what a user's own manager runs bears the manager's name in front.

/// Units of the system in which a container runtime puts the groups of its containers, where it has no others for them.
const RUNTIMES: [&str; 14] = [
    "containerd.service",
    "crio.service",
    "docker.service",
    "incus.service",
    "k0scontroller.service",
    "k0sworker.service",
    "k3s-agent.service",
    "k3s.service",
    "lxd.service",
    "rke2-agent.service",
    "rke2-server.service",
    "snap.docker.dockerd.service",
    "snap.lxd.daemon.service",
    "snap.microk8s.daemon-containerd.service",
];

/// Digits in the id of a container, as Docker, containerd, CRI-O and Podman make them.
const CONTAINER_ID: usize = 64;

/// What systemd calls its units, by suffix. Slices group units and are none of their own for this purpose.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The unit in which a process runs, from the text of its `/proc/PID/cgroup`; empty if it runs in none.
///
/// One line a hierarchy, `id:controllers:path`. On a host with version 2 only there is one, `0::path`. With version 1
/// or both, systemd keeps its names in `name=systemd` (or `0::`), while a container manager without systemd may have
/// named only the resource hierarchies. So a container named by any of them counts, then a unit, systemd's word first.
#[must_use]
pub fn unit_of_process(cgroup_file: &str) -> String {
    let mut paths: Vec<(u8, &str)> = cgroup_file.lines().filter_map(ranked_path).collect();
    paths.sort_by_key(|&(rank, _)| rank);
    let first = |name: fn(&str) -> Option<String>| paths.iter().find_map(|&(_, path)| name(path));
    first(container)
        .or_else(|| first(unit))
        .or_else(|| first(slice))
        .unwrap_or_default()
}

/// The unit or container of one control-group path; empty if the path stands for none.
///
/// - A container gives its whole id, 64 hexadecimal digits: what `docker inspect`, `crictl inspect` and
///   kube-state-metrics' `container_id` know it by. One that a service of the system runs gives the service's name.
/// - A unit of the system gives its name as systemd writes it, escapes (`\x2d`) and instances (`@`) kept.
/// - A unit or container of a user's own manager gives both names, `user@1000.service/app.service`: what a user calls
///   `sshd.service` is not the system's.
/// - An LXC container gives its name, an OpenRC service `openrc.NAME`.
/// - Otherwise the innermost slice, which is where a Kubernetes pod shows that has no container of its own.
#[must_use]
pub fn unit_of_path(path: &str) -> String {
    container(path)
        .or_else(|| unit(path))
        .or_else(|| slice(path))
        .unwrap_or_default()
}

/// The path of a line of `/proc/PID/cgroup`, and how much its hierarchy's names are worth (less is better).
fn ranked_path(line: &str) -> Option<(u8, &str)> {
    let mut fields = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let rank = match (hierarchy, controllers) {
        (_, "name=systemd") => 0,
        ("0", "") => 1,
        _ => 2,
    };
    Some((rank, path))
}

/// The names in a path, outermost first. `..` stands where the reader's control-group namespace hides what is above.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != "..")
}

/// The outermost container on the path. What stands below a unit is the word of whoever runs in it, and counts only where
/// that is a runtime, or a user's manager, which is then named too.
fn container(path: &str) -> Option<String> {
    let mut manager = None;
    let mut below_lxc = false;
    for name in names(path) {
        let container = container_id(name)
            .or_else(|| name.strip_prefix("lxc.payload."))
            .or_else(|| below_lxc.then_some(name))
            .filter(|container| !container.is_empty());
        if let Some(container) = container {
            return Some(match manager {
                Some(manager) => format!("{manager}/{container}"),
                None => container.to_owned(),
            });
        }
        let unit = unescaped(name);
        if is_user_manager(unit) {
            manager = manager.or(Some(unit));
        } else if manager.is_none() && is_unit(unit) && !RUNTIMES.contains(&unit) {
            return None;
        }
        below_lxc = name == "lxc";
    }
    None
}

/// The id in a name such as `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `slice:cri-containerd:ID` or a
/// bare `ID`. The groups in which container monitors sit (`libpod-conmon-ID.scope`) are not the container.
fn container_id(name: &str) -> Option<&str> {
    let name = name.rsplit(':').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_id = id.len() == CONTAINER_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !runtime.ends_with("conmon")).then_some(id)
}

/// The unit on the path: as systemd itself reads it, the first name below the slices.
fn unit(path: &str) -> Option<String> {
    let mut names = names(path)
        .map(unescaped)
        .skip_while(|name| name.ends_with(".slice"));
    let outer = names.next()?;
    if is_user_manager(outer) {
        let inner = names.find(|name| !name.ends_with(".slice"));
        return Some(match inner.filter(|name| is_unit(name)) {
            Some(inner) => format!("{outer}/{inner}"),
            None => outer.to_owned(),
        });
    }
    (is_unit(outer) || outer.starts_with("openrc.")).then(|| outer.to_owned())
}

/// The innermost slice on the path.
fn slice(path: &str) -> Option<String> {
    names(path)
        .map(unescaped)
        .filter(|name| name.len() > ".slice".len() && name.ends_with(".slice"))
        .last()
        .map(str::to_owned)
}

fn is_unit(name: &str) -> bool {
    UNIT_SUFFIXES
        .iter()
        .any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

fn is_user_manager(name: &str) -> bool {
    name.starts_with("user@") && name.ends_with(".service")
}

/// systemd puts `_` before a name that would collide with one of the kernel's own files.
fn unescaped(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4f2a9c0d1e3b5a6978877665544332211000ffeeddccbbaa9988776655443322";

    #[test]
    fn paths_as_hosts_have_them() {
        let cases = [
            ("/", ""),
            ("", ""),
            ("/init.scope", "init.scope"),
            ("/system.slice/sshd.service", "sshd.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            (
                r"/system.slice/dev-disk-by\x2duuid-0a.swap",
                r"dev-disk-by\x2duuid-0a.swap",
            ),
            (
                r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
                r"machine-qemu\x2d1\x2dvm.scope",
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                "systemd-nspawn@web.service",
            ),
            ("/system.slice/_cpu.service", "cpu.service"),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                "user@1000.service/init.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-x.scope",
                "user@1000.service/app-gnome-x.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service",
                "user@1000.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice",
                "user@1000.service",
            ),
            // A delegated service names what is below it, and is not believed.
            ("/system.slice/evil.service/sshd.service", "evil.service"),
            (
                "/system.slice/evil.service/lxc/sshd.service",
                "evil.service",
            ),
            (
                "/system.slice/evil.service/lxc.payload.sshd.service",
                "evil.service",
            ),
            ("/system.slice/evil.service/docker/ID", "evil.service"),
            ("/system.slice/evil.service/docker-ID.scope", "evil.service"),
            (
                "/system.slice/evil.service/containerd.service/ID",
                "evil.service",
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope/lxc/sshd.service",
                "session-3.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/lxc.payload.sshd.service",
                "user@1000.service/sshd.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/containerd.service/ID",
                "user@1000.service/ID",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user@0.service/lxc/sshd.service",
                "user@1000.service/sshd.service",
            ),
            // Podman's --cgroups=split, as its systemd generator uses it.
            ("/system.slice/web.service/libpod-payload-ID", "web.service"),
            ("/system.slice/docker-ID.scope", "ID"),
            (
                "/system.slice/docker-ID.scope/system.slice/sshd.service",
                "ID",
            ),
            ("/docker/ID", "ID"),
            ("/docker/ID/kubepods/burstable/pod1/ID2", "ID"),
            ("/system.slice/containerd.service/ID", "ID"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                "user@1000.service/ID",
            ),
            ("/machine.slice/libpod-ID.scope", "ID"),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                "libpod-conmon-ID.scope",
            ),
            ("/libpod_parent/libpod-ID", "ID"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ID.scope",
                "ID",
            ),
            ("/kubepods.slice/kubepods-pod1_2.slice/crio-ID.scope", "ID"),
            (
                "/kubepods.slice/kubepods-pod1_2.slice/crio-conmon-ID.scope",
                "crio-conmon-ID.scope",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice",
                "kubepods-besteffort-pod1_2.slice",
            ),
            ("/kubepods/besteffort/pod0a-1b/ID", "ID"),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:ID",
                "ID",
            ),
            ("/k8s.io/ID", "ID"),
            ("/ecs/0123456789abcdef/ID", "ID"),
            ("/../../system.slice/cron.service", "cron.service"),
            ("/../cri-containerd-ID.scope", "ID"),
            ("/lxc/web", "web"),
            ("/lxc.payload.web/system.slice/nginx.service", "web"),
            ("/openrc.sshd", "openrc.sshd"),
            ("/process_api/f4b1ce6940a500e578c9d3f86915b927", ""),
            ("/.slice/.service", ""),
        ];
        let with_id = |text: &str| text.replace("ID2", &ID.replace('4', "5")).replace("ID", ID);
        for (path, expected) in cases {
            assert_eq!(unit_of_path(&with_id(path)), with_id(expected), "{path}");
        }
    }

    #[test]
    fn files_as_processes_have_them() {
        let docker_without_systemd = format!(
            "5:devices:/docker/{ID}\n1:name=systemd:/\n0::/system.slice/containerd.service\n"
        );
        let cases = [
            ("0::/system.slice/sshd.service\n", "sshd.service"),
            (
                "3:cpu,cpuacct:/\n1:name=systemd:/system.slice/sshd.service\n0::/system.slice/sshd.service\n",
                "sshd.service",
            ),
            (
                "4:memory:/system.slice\n1:name=systemd:/system.slice/cron.service\n",
                "cron.service",
            ),
            (
                "4:memory:/system.slice/cron.service\n2:cpu:/\n",
                "cron.service",
            ),
            (
                "9:name=systemd:/\n8:pids:/\n0::/test.slice/foo.service\n",
                "foo.service",
            ),
            (docker_without_systemd.as_str(), ID),
            ("4:memory:/process_api/0\n0::/\n", ""),
            ("", ""),
            ("nonsense\n::\n", ""),
        ];
        for (file, expected) in cases {
            assert_eq!(unit_of_process(file), expected, "{file}");
        }
    }

    /// Names of groups as somebody would choose them who wants to be taken for another.
    fn below() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            "[a-z@./-]{0,12}",
            prop::sample::select(vec![
                "lxc",
                "lxc.payload.sshd.service",
                "docker",
                "docker.service",
                "sshd.service",
                "user@0.service",
                "system.slice",
                "_sshd.service",
                "..",
            ])
            .prop_map(str::to_owned),
            Just(ID.to_owned()),
            Just(format!("docker-{ID}.scope")),
            Just(format!("a:cri-containerd:{ID}")),
        ];
        prop::collection::vec(name, 0..5).prop_map(|names| names.join("/"))
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_gives_nothing_that_is_not_in_it(text in "(?s).{0,200}") {
            for name in unit_of_path(&text).split('/') {
                prop_assert!(text.contains(name));
            }
            prop_assert!(unit_of_process(&text).len() <= text.len());
        }

        #[test]
        fn what_a_service_names_below_itself_is_never_its_unit(below in below()) {
            prop_assert_eq!(unit_of_path(&format!("/system.slice/evil.service/{below}")), "evil.service");
        }

        #[test]
        fn what_a_user_runs_bears_the_manager_s_name(below in below()) {
            let unit = unit_of_path(&format!("/user.slice/user-7.slice/user@7.service/{below}"));
            prop_assert_eq!(unit.split('/').next(), Some("user@7.service"));
        }
    }
}
