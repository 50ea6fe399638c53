//! User names, from the host's password file.
//!
//! The file is read directly, passwd(5): a static binary in a container has no NSS, and the container's own file would
//! name the host's users wrongly. A user who is not in the file, as with LDAP, is shown by number.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// The names of the host's users. Read when a name is needed, and again only when the file has changed.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    state: Option<State>,
    names: HashMap<u32, Arc<str>>,
}

/// By which a changed file is known.
type State = (SystemTime, u64);

impl Users {
    /// Names from the file at `path`; one that cannot be read names nobody.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: None,
            names: HashMap::new(),
        }
    }

    /// Looks whether the file has changed, and reads it if so.
    pub(super) fn refresh(&mut self) {
        let state = fs::metadata(&self.path)
            .and_then(|file| Ok((file.modified()?, file.len())))
            .ok();
        if state.is_some() && state == self.state {
            return;
        }
        let file = fs::read(&self.path).unwrap_or_default();
        self.names = parse(&String::from_utf8_lossy(&file));
        self.state = state;
    }

    /// The name of a user, or the number as text.
    pub(super) fn name(&mut self, uid: u32) -> Arc<str> {
        Arc::clone(
            self.names
                .entry(uid)
                .or_insert_with(|| uid.to_string().into()),
        )
    }
}

/// Names by user id; where two share one, the first, as `getpwuid` has it.
fn parse(file: &str) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in file.lines() {
        let mut fields = line.split(':');
        let (name, uid) = (
            fields.next(),
            fields.nth(1).and_then(|uid| uid.parse().ok()),
        );
        if let (Some(name), Some(uid)) = (name.filter(|name| !name.is_empty()), uid) {
            names
                .entry(uid)
                .or_insert_with(|| super::bounded(name).into());
        }
    }
    names
}

/// The password file: no name is empty, and none longer than is told.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for name in parse(&text).values() {
        assert!(!name.is_empty() && text.contains(&**name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_file_and_follow_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        fs::write(&path, "root:x:0:0::/root:/bin/sh\n# not a user\ntoor:x:0:0::/:/bin/sh\n:x:7:7:\nweb:x:33:33\n").unwrap();
        let mut users = Users::new(path.clone());
        users.refresh();
        assert_eq!(
            [users.name(0), users.name(33), users.name(7)].map(|name| name.to_string()),
            ["root", "web", "7"]
        );
        fs::write(&path, "www-data:x:33:33::/:/\n").unwrap();
        users.refresh();
        assert_eq!(&*users.name(33), "www-data");
        fs::remove_file(&path).unwrap();
        users.refresh();
        assert_eq!(&*users.name(33), "33");
    }

    #[test]
    fn no_file_names_nobody() {
        let mut users = Users::new("/nonexistent/passwd".into());
        users.refresh();
        assert_eq!(&*users.name(0), "0");
    }
}
