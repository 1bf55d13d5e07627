//! The file of users: `name:hash` a line, as `htpasswd -B` writes it.

use std::collections::HashMap;

/// Users of one file.
const USERS_MAX: usize = 100_000;
const NAME_BYTES_MAX: usize = 256;
/// Rounds are two to the power of this; each step doubles the time. Above it takes seconds.
const COST_MAX: u32 = 16;
const COST_MIN: u32 = 4;
/// Salt and hash of bcrypt, in its own base64.
const SALT_AND_HASH: usize = 22 + 31;

/// Users and the bcrypt hashes of their passwords. No `Debug`: hashes are not shown.
pub(super) struct Htpasswd {
    users: HashMap<Box<str>, Box<str>>,
    /// What an unknown user's password is compared with: of no password, and as costly as the
    /// costliest of the file.
    nobody: Box<str>,
}

/// Why a file is not taken. Never holds a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HtpasswdError {
    #[error("line {line}: expected `name:hash`, found no colon")]
    NoColon { line: usize },
    #[error(
        "line {line}: expected a user name of 1 to {NAME_BYTES_MAX} bytes without control \
         characters that is neither \"anonymous\" nor \"authenticated\", found another"
    )]
    Name { line: usize },
    #[error("line {line}: expected each user once, found {user} twice")]
    Twice { line: usize, user: String },
    #[error(
        "line {line}, user {user}: expected a bcrypt hash ($2y$, $2a$, $2b$), found {found}; \
         write it anew: htpasswd -B FILE {user}"
    )]
    Kind { line: usize, user: String, found: &'static str },
    #[error(
        "line {line}, user {user}: expected a bcrypt cost from {COST_MIN} to {COST_MAX}, found \
         {found}; write it anew: htpasswd -B -C 10 FILE {user}"
    )]
    Cost { line: usize, user: String, found: u32 },
    #[error("expected at most {USERS_MAX} users, found more")]
    TooMany,
}

impl Htpasswd {
    pub(super) fn parse(text: &str) -> Result<Self, HtpasswdError> {
        let mut users: HashMap<Box<str>, Box<str>> = HashMap::new();
        let mut cost_most = COST_MIN;
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let raw = raw.trim_end();
            if raw.is_empty() || raw.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = raw.split_once(':') else {
                return Err(HtpasswdError::NoColon { line });
            };
            let is_word = matches!(name, "anonymous" | "authenticated");
            let is_long = name.is_empty() || name.len() > NAME_BYTES_MAX;
            if is_long || is_word || name.chars().any(char::is_control) {
                return Err(HtpasswdError::Name { line });
            }
            let user = || name.to_owned();
            let cost = match cost_of(hash) {
                Some(cost) if (COST_MIN..=COST_MAX).contains(&cost) => cost,
                Some(found) => return Err(HtpasswdError::Cost { line, user: user(), found }),
                None => {
                    let found = kind_of(hash);
                    return Err(HtpasswdError::Kind { line, user: user(), found });
                }
            };
            cost_most = cost_most.max(cost);
            if users.insert(name.into(), hash.into()).is_some() {
                return Err(HtpasswdError::Twice { line, user: user() });
            }
            if users.len() > USERS_MAX {
                return Err(HtpasswdError::TooMany);
            }
        }
        let nobody = format!("$2b${cost_most:02}${}", ".".repeat(SALT_AND_HASH)).into();
        Ok(Self { users, nobody })
    }

    /// What the password of `name` is to be compared with, and whether there is such a user.
    pub(super) fn hash_of(&self, name: &str) -> (&str, bool) {
        match self.users.get(name) {
            Some(hash) => (hash, true),
            None => (&self.nobody, false),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

/// The cost of a bcrypt hash; `None` for anything else.
fn cost_of(hash: &str) -> Option<u32> {
    let rest = ["$2y$", "$2a$", "$2b$"].iter().find_map(|kind| hash.strip_prefix(kind))?;
    let (cost, rest) = rest.split_once('$')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
    let is_whole = rest.len() == SALT_AND_HASH && rest.bytes().all(plain);
    let is_number = cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit());
    if is_whole && is_number { cost.parse().ok() } else { None }
}

fn kind_of(hash: &str) -> &'static str {
    match hash {
        "" => "nothing",
        _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => "an MD5 hash",
        _ if hash.starts_with("{SHA}") => "a SHA-1 hash",
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "a SHA-2 hash",
        _ if hash.starts_with("$2") => "something like a bcrypt hash that is none",
        _ => "something else",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_file_as_htpasswd_writes_it() {
        let high = HASH.replace("$05$", "$11$");
        let text = format!("# users\n\nalice:{HASH}\r\nbob@example.org:{high}\n");
        let users = Htpasswd::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(users.len(), 2);
        assert_eq!(users.hash_of("alice"), (HASH, true));
        let (nobody, is_known) = users.hash_of("carol");
        assert!(!is_known && nobody.starts_with("$2b$11$"), "{nobody}");
        assert_eq!(cost_of(nobody), Some(11), "it is a hash that can be compared with");
        assert_eq!(Htpasswd::parse("").unwrap_or_else(|_| panic!("empty")).len(), 0);
    }

    #[test]
    fn what_is_refused_names_line_and_user_and_never_a_hash() {
        let cases = [
            ("alice".to_owned(), "line 1: expected `name:hash`"),
            (format!(":{HASH}"), "line 1: expected a user name"),
            (format!("anonymous:{HASH}"), "neither \"anonymous\""),
            (format!("a:{HASH}\na:{HASH}"), "line 2: expected each user once, found a twice"),
            ("\nbob:$apr1$salt$secrethash".into(), "line 2, user bob: expected a bcrypt hash"),
            (
                "bob:{SHA}secrethash".into(),
                "found a SHA-1 hash; write it anew: htpasswd -B FILE bob",
            ),
            ("bob:$6$s$secrethash".into(), "found a SHA-2 hash"),
            ("bob:secrethash".into(), "found something else"),
            ("bob:".into(), "found nothing"),
            (format!("bob:{HASH}x"), "that is none"),
            (format!("bob:{}", HASH.replace("$2y$", "$2x$")), "that is none"),
            (format!("bob:{}", HASH.replace("$05$", "$5$")), "that is none"),
            (format!("bob:{}", HASH.replace("$05$", "$17$")), "from 4 to 16, found 17"),
            (format!("bob:{}", HASH.replace("$05$", "$03$")), "from 4 to 16, found 3"),
        ];
        for (text, expected) in cases {
            let Err(error) = Htpasswd::parse(&text) else { panic!("accepted: {text}") };
            let printed = error.to_string();
            assert!(printed.contains(expected), "{printed}\n--- should contain {expected}");
            assert!(!printed.contains("secrethash") && !printed.contains("AAAA"), "{printed}");
        }
    }
}
