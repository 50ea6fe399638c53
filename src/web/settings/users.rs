//! `basic_auth_users`: names and bcrypt hashes.

use std::collections::BTreeMap;

use base64::alphabet::BCRYPT;
use base64::engine::{Engine as _, GeneralPurpose, general_purpose::NO_PAD};

use crate::yaml::{Field, Problems, quoted};

/// The costs that are taken. A hash of cost 18 takes seconds; each one more doubles it, and they are computed one at a time.
const COSTS: std::ops::RangeInclusive<u32> = 4..=18;

/// bcrypt's own base 64. Of the last characters some bits mean nothing, and not everybody leaves them zero.
const BASE_64: GeneralPurpose =
    GeneralPurpose::new(&BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// The names that may ask, each with its password's hash.
#[derive(Debug, Default)]
pub(in crate::web) struct Users {
    by_name: BTreeMap<String, Stored>,
}

impl Users {
    #[cfg(test)]
    pub(in crate::web) fn of<const N: usize>(users: [(&str, Stored); N]) -> Self {
        let named = users.map(|(name, stored)| (name.to_owned(), stored));
        Self {
            by_name: named.into_iter().collect(),
        }
    }

    /// Whether nobody is named.
    pub(in crate::web) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many there are.
    pub(in crate::web) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The hash of a user's password.
    pub(in crate::web) fn find(&self, name: &str) -> Option<&Stored> {
        self.by_name.get(name)
    }

    /// One of the hashes, the same for the same number; `None` where there are none.
    pub(in crate::web) fn any(&self, number: u64) -> Option<&Stored> {
        let count = u64::try_from(self.by_name.len()).ok()?;
        let index = usize::try_from(number.checked_rem(count)?).ok()?;
        self.by_name.values().nth(index)
    }
}

/// A bcrypt hash, in its parts.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::web) struct Stored {
    cost: u32,
    salt: [u8; 16],
    hash: [u8; 23],
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored(cost {})", self.cost)
    }
}

impl Stored {
    /// The most bytes of a password that count.
    pub(in crate::web) const PASSWORD_BYTES: usize = 72;

    /// Reads `$2y$10$` and 53 characters of salt and hash; the letter may be `a`, `b`, `x` or `y`, which all mean the same
    /// for a password that is not empty.
    pub(in crate::web) fn parse(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "not a bcrypt hash: write what `htpasswd -nBC 10 \"\" | tr -d ':\\n'` prints, 60 characters that begin with $2";
        let rest = ["$2a$", "$2b$", "$2x$", "$2y$"]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .ok_or(SHAPE)?;
        let (cost, rest) = rest.split_once('$').ok_or(SHAPE)?;
        let is_cost = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost = is_cost.then(|| cost.parse().ok()).flatten().ok_or(SHAPE)?;
        if rest.len() != 53 || !rest.is_ascii() {
            return Err(SHAPE);
        }
        let (salt, hash) = rest.split_at(22);
        let mut stored = Self {
            cost,
            salt: [0; 16],
            hash: [0; 23],
        };
        decode(salt, &mut stored.salt).ok_or(SHAPE)?;
        decode(hash, &mut stored.hash).ok_or(SHAPE)?;
        if !COSTS.contains(&cost) {
            return Err(
                "the cost must be 4 to 18: each password is hashed when it first comes, and at a higher cost that takes minutes",
            );
        }
        Ok(stored)
    }

    /// Whether this is the password's hash. Takes as long as its cost says, whatever the answer.
    pub(in crate::web) fn is_of(&self, password: &[u8]) -> bool {
        let mut terminated = password[..password.len().min(Self::PASSWORD_BYTES)].to_vec();
        if terminated.len() < Self::PASSWORD_BYTES {
            terminated.push(0);
        }
        let computed = bcrypt::bcrypt(self.cost, self.salt, &terminated);
        let differences = computed
            .iter()
            .zip(&self.hash)
            .fold(0, |differences, (a, b)| differences | (a ^ b));
        differences == 0
    }

    /// What tells this hash from others.
    pub(in crate::web) fn identity(&self) -> [&[u8]; 2] {
        [&self.salt, &self.hash]
    }
}

fn decode<const N: usize>(text: &str, into: &mut [u8; N]) -> Option<()> {
    let bytes = BASE_64.decode(text).ok()?;
    into.copy_from_slice(bytes.get(..N).filter(|all| all.len() == bytes.len())?);
    Some(())
}

pub(super) fn users(field: &Field<'_>, problems: &mut Problems) -> Option<Users> {
    let entries = field.entries("names and bcrypt hashes of their passwords", problems)?;
    let mut by_name = BTreeMap::new();
    for (name, field) in entries {
        if name.contains(':') || name.chars().any(char::is_control) {
            let message = format!(
                "nobody can log in as {}: a name has no colon and no control characters",
                quoted(name)
            );
            field.refuse(problems, message);
            continue;
        }
        let Some(text) = field.text("the bcrypt hash of the password", problems) else {
            continue;
        };
        match Stored::parse(text) {
            Ok(stored) => {
                by_name.insert(name.to_owned(), stored);
            }
            // What stands there is not shown: it may be the password itself.
            Err(message) => field.refuse(problems, message),
        }
    }
    Some(Users { by_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "password", by libxcrypt.
    const LIBXCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

    #[test]
    fn a_hash_is_of_its_password_only() {
        let stored = Stored::parse(LIBXCRYPT).unwrap();
        assert!(stored.is_of(b"password"));
        for wrong in [
            &b"passwore"[..],
            b"",
            b"password\0",
            b"passwor",
            b"Password",
        ] {
            assert!(!stored.is_of(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_without_being_shown() {
        for text in [
            "",
            "secret",
            "$2y$05$",
            "$1$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu",
            "$2y$5$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2apee",
            "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2ap",
            "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2aé",
            "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2a!e",
        ] {
            let message = Stored::parse(text).unwrap_err();
            assert!(message.contains("not a bcrypt hash"), "{text}: {message}");
        }
        let costly = LIBXCRYPT.replace("$05$", "$31$");
        assert!(Stored::parse(&costly).unwrap_err().contains("cost"));
    }

    #[test]
    fn bytes_beyond_the_72nd_do_not_count() {
        let long = vec![b'x'; 80];
        let salt = [7; 16];
        let computed = bcrypt::bcrypt(4, salt, &long[..72]);
        let mut hash = [0; 23];
        hash.copy_from_slice(&computed[..23]);
        let stored = Stored {
            cost: 4,
            salt,
            hash,
        };
        assert!(stored.is_of(&long) && stored.is_of(&long[..72]));
        assert!(!stored.is_of(&long[..71]));
    }
}
