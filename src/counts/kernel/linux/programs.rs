//! Loading and attaching the programs, and saying in words what a host lacks for one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;

use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSock, Iter, Program, ProgramError};
use aya::{Btf, Ebpf};
use rustix::io::Errno;
use tracing::debug;

use crate::counts::kernel::{Missing, Part};
use crate::privileges::{Capability, lacking};

/// Why a program is not in place.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) cure: String,
}

impl Refusal {
    pub(super) fn of(self, part: Part) -> Missing {
        Missing {
            part,
            why: self.why,
            cure: self.cure,
        }
    }

    pub(super) fn new(why: impl ToString, cure: impl ToString) -> Self {
        Self {
            why: why.to_string(),
            cure: cure.to_string(),
        }
    }
}

/// Loads a program on a tracepoint and attaches it.
pub(super) fn trace(
    ebpf: &mut Ebpf,
    name: &str,
    tracepoint: &str,
    btf: &Btf,
) -> Result<(), Refusal> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    persist(|| program.load(tracepoint, btf))
        .and_then(|()| program.attach())
        .map(drop)
        .map_err(|error| refusal(name, &error))
}

/// Loads a program on a control group and everything below it, and attaches it, by a link: that leaves other programs
/// there in place, whatever the mode is called.
pub(super) fn on_group(ebpf: &mut Ebpf, name: &str, group: &File) -> Result<(), Refusal> {
    let program: &mut CgroupSock = program(ebpf, name)?;
    persist(|| program.load())
        .and_then(|()| program.attach(group, CgroupAttachMode::Single))
        .map(drop)
        .map_err(|error| {
            let refusal = refusal(name, &error);
            match lacking(&[Capability::NetAdmin]) {
                Ok(lacked) if !lacked.is_empty() => Refusal {
                    cure: "grant CAP_NET_ADMIN".to_owned(),
                    ..refusal
                },
                _ => refusal,
            }
        })
}

/// Detaches and unloads a program on a control group.
pub(super) fn detach_from_group(ebpf: &mut Ebpf, name: &str) -> Result<(), Refusal> {
    let program: &mut CgroupSock = program(ebpf, name)?;
    program.unload().map_err(|error| refusal(name, &error))
}

/// The root of the version 2 control groups, under which every process of the host is. In a control group namespace of
/// its own, or where it is not mounted, this process cannot see it.
pub(super) fn root_group() -> Result<File, Refusal> {
    const CURE: &str = "mount the host's cgroup2 file system, for a container: --cgroupns=host and \
                        --volume=/sys/fs/cgroup:/sys/fs/cgroup:ro";
    /// Inode of the root, and of nothing else, in a cgroup2 file system.
    const ROOT: u64 = 1;
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| Refusal::new(format!("/proc/self/mounts: {error}"), CURE))?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(path)
        })
        .filter_map(|path| File::open(path).ok())
        .find(|group| group.metadata().is_ok_and(|data| data.ino() == ROOT))
        .ok_or_else(|| {
            Refusal::new(
                "the root of the version 2 control groups is not in sight",
                CURE,
            )
        })
}

/// Loads the walk over TCP sockets.
pub(super) fn load_walk(ebpf: &mut Ebpf, name: &str, btf: &Btf) -> Result<(), Refusal> {
    let program: &mut Iter = program(ebpf, name)?;
    persist(|| program.load("tcp", btf)).map_err(|error| refusal(name, &error))
}

/// Runs the walk over TCP sockets once.
pub(super) fn walk(ebpf: &mut Ebpf, name: &str) -> Result<(), Refusal> {
    let program: &mut Iter = program(ebpf, name)?;
    let failed = |error: &dyn std::error::Error| Refusal::new(error, "this is a defect: report it");
    let link = program
        .attach()
        .and_then(|link| program.take_link(link))
        .map_err(|error| refusal(name, &error))?;
    let mut file = link.into_file().map_err(|error| failed(&error))?;
    to_the_end(&mut file).map_err(|error| failed(&error))
}

/// Reads to the end, which is what makes the walk run: it writes nothing. After a million sockets without a byte the kernel
/// says to try again (EAGAIN), and goes on where it was.
fn to_the_end(file: &mut impl Read) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The verifier gives up when a signal comes, and says to try again.
fn persist(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const TIMES: usize = 5;
    for _ in 1..TIMES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if Errno::from_io_error(&io_error) == Some(Errno::AGAIN) => {}
            result => return result,
        }
    }
    load()
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, Refusal>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    const DEFECT: &str = "this is a defect of the build: report it";
    ebpf.program_mut(name)
        .ok_or_else(|| Refusal::new(format!("the eBPF object has no program {name}"), DEFECT))?
        .try_into()
        .map_err(|error: ProgramError| Refusal::new(error, DEFECT))
}

/// In words for the user; what the verifier said goes to the debug log.
fn refusal(name: &str, error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!(program = name, %io_error, verifier = %verifier_log, "program not loaded");
            Refusal::new(
                format!("the kernel does not load the program {name}: {io_error}"),
                cure(io_error),
            )
        }
        ProgramError::SyscallError(call) => {
            debug!(program = name, error = %call, "program not attached");
            Refusal::new(
                format!(
                    "the kernel does not attach the program {name}: {}",
                    call.io_error
                ),
                cure(&call.io_error),
            )
        }
        ProgramError::Btf(error) => Refusal::new(
            format!("the program {name} finds no place in this kernel: {error}"),
            "a newer kernel has it",
        ),
        other => Refusal::new(format!("program {name}: {other}"), "see the debug log"),
    }
}

/// What helps against an error of bpf(2).
pub(super) fn cure(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "grant CAP_BPF and CAP_PERFMON in the host's own user namespace, and let no seccomp profile stand in the \
             way of bpf(2)"
        }
        Some(Errno::NOMEM | Errno::NOSPC) => "the host, or the control group, is short of memory",
        Some(Errno::NOSYS) => "the kernel has no bpf(2): it wants CONFIG_BPF_SYSCALL",
        // Where lockdown forbids a program to read the kernel's memory, the verifier says that there is no such call; and
        // /sys/kernel/security, where lockdown would be told, may not be in sight.
        Some(Errno::INVAL) => {
            "a newer kernel may have what it wants, or this one is locked down for confidentiality; the debug log has the \
             verifier's words"
        }
        _ => "a newer kernel may have what it wants; the debug log has the verifier's words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as a kernel would that walks over millions of sockets.
    struct Walk(Vec<io::Result<usize>>);

    impl Read for Walk {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.remove(0)
        }
    }

    #[test]
    fn a_walk_goes_on_where_the_kernel_paused() {
        let pause = || Err(ErrorKind::WouldBlock.into());
        let mut walk = Walk(vec![pause(), pause(), Ok(0), pause()]);
        to_the_end(&mut walk).unwrap();
        assert_eq!(walk.0.len(), 1, "read until the end, and no further");
        let mut broken = Walk(vec![pause(), Err(ErrorKind::PermissionDenied.into())]);
        assert!(to_the_end(&mut broken).is_err());
    }
}
