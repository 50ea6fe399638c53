//! Who may listen on a watched port.

use globset::{GlobBuilder, GlobMatcher};

/// What is known of a listener. An empty string means: not known, or there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The process' name; `kernel` where the kernel itself owns the socket.
    pub process: &'a str,
    /// The name of the user it runs as.
    pub user: &'a str,
    /// The systemd unit or container id.
    pub unit: &'a str,
    /// The local address, without port: `0.0.0.0`, `::1`.
    pub address: &'a str,
}

/// A rule that allows a listener: every pattern given must match.
///
/// A pattern never matches a fact that is not known, not even `*`: an owner that could not be read must not pass for an
/// expected one. Who lets the exporter read owners gets exact answers; who does not gets an alarm rather than silence.
/// A rule without a pattern would allow everyone; the configuration refuses one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The process' name.
    pub process: Option<Pattern>,
    /// The name of the user.
    pub user: Option<Pattern>,
    /// The systemd unit or container id.
    pub unit: Option<Pattern>,
    /// The local address.
    pub address: Option<Pattern>,
}

impl Expectation {
    /// Whether the rule allows a listener of which this is known.
    #[must_use]
    pub fn allows(&self, facts: &Facts<'_>) -> bool {
        [
            (&self.process, facts.process),
            (&self.user, facts.user),
            (&self.unit, facts.unit),
            (&self.address, facts.address),
        ]
        .into_iter()
        .filter_map(|(pattern, fact)| Some((pattern.as_ref()?, fact)))
        .all(|(pattern, fact)| !fact.is_empty() && pattern.matches(fact))
    }
}

/// A glob over a whole text: `*` and `?` match anything, `/` included; `[a-z]` and `{a,b}` are as in a shell.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    form: Form,
}

/// Most patterns are plain names, and a plain name needs no automaton.
#[derive(Clone, Debug)]
enum Form {
    Plain,
    Glob(GlobMatcher),
}

impl Pattern {
    /// How many bytes a pattern has at most. No process, user, unit or address is longer.
    pub const MAX_LENGTH: usize = 256;

    /// Compiles a pattern that heeds upper and lower case.
    ///
    /// # Errors
    /// When the text is empty, too long or not a glob.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::build(text, false)
    }

    /// Compiles a pattern to which upper and lower case are the same, as they are in service names (RFC 6335, section 5.1).
    ///
    /// # Errors
    /// When the text is empty, too long or not a glob.
    pub fn ignoring_case(text: &str) -> Result<Self, PatternError> {
        Self::build(text, true)
    }

    fn build(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(PatternError::TooLong(text.len()));
        }
        let form = if ignore_case || has_special(text) {
            let glob = GlobBuilder::new(text)
                .literal_separator(false)
                .case_insensitive(ignore_case)
                .backslash_escape(true)
                .build()
                .map_err(|error| PatternError::Glob {
                    pattern: text.to_owned(),
                    reason: error.kind().to_string(),
                })?;
            Form::Glob(glob.compile_matcher())
        } else {
            Form::Plain
        };
        Ok(Self {
            text: text.to_owned(),
            form,
        })
    }

    /// Whether the whole text fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.form {
            Form::Plain => self.text == text,
            Form::Glob(glob) => glob.is_match(text),
        }
    }

    /// Whether it can fit one text only, its own.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !has_special(&self.text)
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn has_special(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No text.
    #[error("an empty pattern matches nothing: write a name, or \"*\" for any")]
    Empty,
    /// Too much text.
    #[error("a pattern of {0} bytes is too long: at most {max}", max = Pattern::MAX_LENGTH)]
    TooLong(usize),
    /// Not a glob.
    #[error("{pattern:?} is not a valid pattern: {reason}")]
    Glob {
        /// What stands there.
        pattern: String,
        /// What the compiler of globs says.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Series, Watch};

    const NVIDIA: Facts<'_> = Facts {
        process: "nv-hostengine",
        user: "root",
        unit: "nvidia-dcgm.service",
        address: "127.0.0.1",
    };

    fn pattern(text: &str) -> Option<Pattern> {
        Some(Pattern::new(text).unwrap())
    }

    #[test]
    fn all_patterns_given_must_match() {
        let rule = |process, user| Expectation {
            process: pattern(process),
            user: pattern(user),
            ..Expectation::default()
        };
        assert!(rule("nv-hostengine", "root").allows(&NVIDIA));
        assert!(rule("nv-*", "ro?t").allows(&NVIDIA));
        assert!(!rule("nv-hostengine", "daemon").allows(&NVIDIA));
        assert!(
            !rule("nv-host", "root").allows(&NVIDIA),
            "the whole name must match"
        );
        assert!(
            !rule("NV-*", "root").allows(&NVIDIA),
            "names heed upper and lower case"
        );
    }

    #[test]
    fn globs_run_across_slashes_and_know_classes_and_alternatives() {
        let fits = |text, fact| Pattern::new(text).unwrap().matches(fact);
        assert!(fits("*", "a/b/c"));
        assert!(fits("kubepods*", "kubepods/pod1/abc"));
        assert!(fits("127.0.0.[12]", "127.0.0.2"));
        assert!(!fits("127.0.0.[12]", "127.0.0.3"));
        assert!(fits("{ssh,sshd}.service", "sshd.service"));
        assert!(fits(r"a\*b", "a*b") && !fits(r"a\*b", "axb"));
        assert!(fits("::", "::") && fits("fe80::*", "fe80::1"));
        assert!(!fits("0.0.0.0", "0a0b0c0"), "a dot is a dot");
    }

    #[test]
    fn what_is_not_known_is_never_expected() {
        let any_process = Expectation {
            process: pattern("*"),
            ..Expectation::default()
        };
        assert!(any_process.allows(&NVIDIA));
        let unread = Facts {
            process: "",
            ..NVIDIA
        };
        assert!(!any_process.allows(&unread));
        let any_address = Expectation {
            address: pattern("*"),
            ..Expectation::default()
        };
        assert!(any_address.allows(&unread), "a fact not asked for is free");
    }

    #[test]
    fn one_rule_of_an_entry_is_enough_and_no_rule_allows_nobody() {
        let mut watch = Watch {
            name: "nvidia".to_owned(),
            description: String::new(),
            series: Series::Dense,
            expect: Vec::new(),
            ports: crate::port::PortSet::new(),
        };
        assert!(!watch.expects(&NVIDIA));
        for process in ["other", "nv-*"] {
            watch.expect.push(Expectation {
                process: pattern(process),
                ..Expectation::default()
            });
        }
        assert!(watch.expects(&NVIDIA));
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        let message = |text: &str| Pattern::new(text).unwrap_err().to_string();
        assert!(message("").contains("empty pattern"));
        assert!(message(&"a".repeat(257)).contains("257 bytes"));
        assert!(message("[z-a]").contains("[z-a]"));
        assert!(message("[a").contains("not a valid pattern"));
        assert!(message("{a").contains("not a valid pattern"));
    }

    #[test]
    fn service_names_do_not_heed_case() {
        assert!(
            Pattern::ignoring_case("NPMP-*")
                .unwrap()
                .matches("npmp-gui")
        );
        assert!(
            Pattern::ignoring_case("Monitor")
                .unwrap()
                .matches("monitor")
        );
        assert!(Pattern::ignoring_case("Monitor").unwrap().is_literal());
    }
}
