//! How much of the host's processes could be seen, and what would show the rest.

use std::fmt;

/// What stood in the way of finding owners, at the last look through the processes.
///
/// Prints as one clause for the log, with the cure: `40 processes could not be read: CAP_SYS_PTRACE is missing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Processes whose files could not be read.
    pub unreadable: usize,
    /// Whether procfs leaves processes out: it is that of a container, or mounted with `hidepid`.
    pub partial: bool,
    /// Whether more files are open than a look reads.
    pub cut_short: bool,
    /// Whether procfs itself could not be read.
    pub failed: bool,
    /// Whether this process lacks CAP_DAC_READ_SEARCH, needed to list another user's files.
    pub lacks_dac_read_search: bool,
    /// Whether this process lacks CAP_SYS_PTRACE, needed to see what those files are.
    pub lacks_sys_ptrace: bool,
}

impl Coverage {
    /// Whether every process was there to be read and was read.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.unreadable == 0 && !self.partial && !self.cut_short && !self.failed
    }

    fn cause(&self) -> &'static str {
        match (self.lacks_sys_ptrace, self.lacks_dac_read_search) {
            (true, true) => "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing",
            (true, false) => "CAP_SYS_PTRACE is missing",
            (false, true) => "CAP_DAC_READ_SEARCH is missing",
            (false, false) => "a security module or a user namespace forbids it",
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failed {
            return f
                .write_str("the processes could not be listed: --path.procfs must name a procfs");
        }
        if self.is_whole() {
            return f.write_str(
                "all processes were read: what is missing is on its way between them, or hidden",
            );
        }
        let mut joint = "";
        if self.unreadable > 0 {
            let noun = if self.unreadable == 1 {
                "process"
            } else {
                "processes"
            };
            write!(
                f,
                "{} {noun} could not be read: {}",
                self.unreadable,
                self.cause()
            )?;
            joint = "; ";
        }
        if self.cut_short {
            write!(
                f,
                "{joint}more files are open than are looked at in one go: the next look goes on from there"
            )?;
            joint = "; ";
        }
        if self.partial {
            write!(
                f,
                "{joint}procfs does not show all processes: --path.procfs must name the host's, mounted without hidepid"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clause_names_the_cure() {
        let none = Coverage::default();
        let forbidden = Coverage {
            unreadable: 1,
            ..none
        };
        let both = Coverage {
            unreadable: 40,
            lacks_dac_read_search: true,
            lacks_sys_ptrace: true,
            ..none
        };
        assert_eq!(
            none.to_string(),
            "all processes were read: what is missing is on its way between them, or hidden"
        );
        assert_eq!(
            both.to_string(),
            "40 processes could not be read: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing"
        );
        assert_eq!(
            forbidden.to_string(),
            "1 process could not be read: a security module or a user namespace forbids it"
        );
        let partial = Coverage {
            partial: true,
            cut_short: true,
            ..none
        };
        let text = partial.to_string();
        assert!(
            text.starts_with("more files")
                && text.contains("there; procfs")
                && text.contains("hidepid"),
            "{text}"
        );
        assert!(none.is_whole() && !both.is_whole());
    }
}
