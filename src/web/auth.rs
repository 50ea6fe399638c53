//! Basic authentication (RFC 7617) that gives nothing away and cannot be used to stop others.
//!
//! Passwords are hashed off the async threads and one at a time. What was found is remembered by a keyed hash, so that who
//! has been let in once passes while others are hashed. A name that nobody has costs the same as one that somebody has.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;

use super::settings::{Stored, Users};

mod line;

use line::{Line, Work};

/// How many passwords are remembered, the right and the wrong each.
const REMEMBERED: usize = 1024;

/// What a request's credentials are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A user with the right password.
    Welcome,
    /// There are no credentials, or none that can be read.
    Missing,
    /// Not the password of this user; `None` where there is no such user, whose name is not told: it may be a password.
    Wrong(Option<String>),
    /// Too many others wait to be looked at.
    Busy,
}

/// Looks at credentials.
#[derive(Debug)]
pub(super) struct Gate {
    /// Made anew in each process, and never told: what is remembered means nothing to anybody else.
    key: hmac::Key,
    seen: Arc<Mutex<Seen>>,
    line: Arc<Line>,
}

/// The outcome of the last passwords, by their keyed hash.
#[derive(Debug, Default)]
struct Seen {
    right: Recent,
    wrong: Recent,
}

impl Gate {
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn new() -> std::io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| std::io::Error::other("no random numbers"))?;
        Ok(Self {
            key,
            seen: Arc::default(),
            line: Arc::default(),
        })
    }

    /// Judges the credentials of a request. There must be users.
    pub(super) async fn judge(&self, users: &Users, headers: &HeaderMap, peer: IpAddr) -> Verdict {
        let Some((name, password)) = credentials(headers) else {
            return Verdict::Missing;
        };
        let known = users.find(&name);
        // Who asks as nobody is measured by the hash of somebody, and always by the same one's.
        let Some(stored) = known.or_else(|| users.any(self.number_of(&name))) else {
            return Verdict::Missing;
        };
        let mark = self.mark(&name, &password, known.is_some(), stored);
        let remembered = self.seen().outcome(&mark);
        let outcome = match remembered {
            Some(_) => remembered,
            None => {
                let work = self.work(stored.clone(), password, known.is_some(), mark);
                self.line.wait(peer, work).await
            }
        };
        match outcome {
            Some(true) => Verdict::Welcome,
            Some(false) => Verdict::Wrong(known.map(|_| name)),
            None => Verdict::Busy,
        }
    }

    /// The hashing of one password, unless somebody has had the same one hashed by then.
    fn work(&self, stored: Stored, password: Vec<u8>, is_known: bool, mark: Mark) -> Work {
        let seen = Arc::clone(&self.seen);
        Box::new(move || {
            let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(is_right) = lock().outcome(&mark) {
                return is_right;
            }
            let is_right = stored.is_of(&password) & is_known;
            lock().remember(mark, is_right);
            is_right
        })
    }

    fn number_of(&self, name: &str) -> u64 {
        let tag = hmac::sign(&self.key, name.as_bytes());
        tag.as_ref()
            .iter()
            .take(8)
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn mark(&self, name: &str, password: &[u8], is_known: bool, stored: &Stored) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        let [salt, hash] = stored.identity();
        let password = &password[..password.len().min(Stored::PASSWORD_BYTES)];
        for part in [name.as_bytes(), password, &[u8::from(is_known)], salt, hash] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mark = Mark::default();
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for a user, a password and the hash it was held against.
type Mark = [u8; 32];

impl Seen {
    fn outcome(&self, mark: &Mark) -> Option<bool> {
        if self.right.marks.contains(mark) {
            Some(true)
        } else {
            self.wrong.marks.contains(mark).then_some(false)
        }
    }

    /// The wrong ones are apart, so that no number of them drives out a right one.
    fn remember(&mut self, mark: Mark, is_right: bool) {
        let recent = if is_right {
            &mut self.right
        } else {
            &mut self.wrong
        };
        recent.add(mark);
    }
}

/// The last marks, [`REMEMBERED`] at most.
#[derive(Debug, Default)]
struct Recent {
    marks: HashSet<Mark>,
    order: VecDeque<Mark>,
}

impl Recent {
    fn add(&mut self, mark: Mark) {
        if !self.marks.insert(mark) {
            return;
        }
        self.order.push_back(mark);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
    }
}

/// Name and password of a request, if it has one pair that can be read.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return None;
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let name = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((name, decoded[colon + 1..].to_vec()))
}

/// A name and a password are what was encoded.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(super) fn fuzz(headers: &HeaderMap) {
    if let Some((name, password)) = credentials(headers) {
        assert!(!name.contains(':'));
        let pair = [name.as_bytes(), b":", password.as_slice()].concat();
        let value = format!("Basic {}", STANDARD.encode(pair));
        let mut again = HeaderMap::new();
        again.insert(
            AUTHORIZATION,
            value.parse().expect("base64 is a header's value"),
        );
        assert_eq!(credentials(&again), Some((name, password)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn credentials_are_one_readable_pair() {
        let read = |values: &[&str]| credentials(&headers(values));
        let alice = Some(("alice".to_owned(), b"a:b".to_vec()));
        assert_eq!(read(&["Basic YWxpY2U6YTpi"]), alice);
        assert_eq!(read(&["bAsIc YWxpY2U6YTpi"]), alice);
        assert_eq!(read(&["Basic Og=="]), Some((String::new(), vec![])));
        for bad in [
            &[][..],
            &["Basic"],
            &["Basic "],
            &["Basic YWxpY2U"],
            &["Basic YWxpY2U="],
            &["Basic !"],
            &["Bearer YWxpY2U6YTpi"],
            &["Basic /zph"],
            &["Basic YWxpY2U6YTpi", "Basic YWxpY2U6YTpi"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_mark_is_of_one_user_one_password_and_one_hash() {
        let gate = Gate::new().unwrap();
        let one = Stored::parse("$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu");
        let other = Stored::parse("$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2bwu");
        let (one, other) = (one.unwrap(), other.unwrap());
        let marks = [
            gate.mark("ab", b"c", true, &one),
            gate.mark("a", b"bc", true, &one),
            gate.mark("ab", b"d", true, &one),
            gate.mark("ab", b"c", false, &one),
            gate.mark("ab", b"c", true, &other),
            Gate::new().unwrap().mark("ab", b"c", true, &one),
        ];
        assert_eq!(HashSet::from(marks).len(), marks.len());
    }

    #[test]
    fn for_a_name_that_nobody_has_a_hash_is_computed_and_never_fits() {
        let gate = Gate::new().unwrap();
        let stored = Stored::parse("$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu");
        let stored = stored.unwrap();
        for (is_known, name) in [(true, "alice"), (false, "mallory")] {
            let mark = gate.mark(name, b"wrong", is_known, &stored);
            assert!(!gate.work(
                stored.clone(),
                b"wrong".to_vec(),
                is_known,
                mark
            )());
            // Remembered means that it was computed: nothing else writes there.
            assert_eq!(gate.seen().outcome(&mark), Some(false), "{name}");
        }
        let one = Users::of([("alice", stored.clone())]);
        assert_eq!(one.any(gate.number_of("mallory")), Some(&stored));
        assert_eq!(one.any(gate.number_of("trudy")), Some(&stored));
    }

    #[test]
    fn wrong_passwords_drive_out_no_right_one_and_no_memory_grows() {
        let mut seen = Seen::default();
        let mark = |number: usize| {
            let mut mark = Mark::default();
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        };
        seen.remember(mark(0), true);
        for number in 1..3 * REMEMBERED {
            seen.remember(mark(number), false);
        }
        assert_eq!(seen.outcome(&mark(0)), Some(true));
        assert_eq!(seen.outcome(&mark(1)), None);
        assert_eq!(seen.outcome(&mark(3 * REMEMBERED - 1)), Some(false));
        assert_eq!(seen.wrong.marks.len(), REMEMBERED);
        assert_eq!(seen.wrong.order.len(), REMEMBERED);
    }
}
