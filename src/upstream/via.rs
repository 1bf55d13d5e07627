//! `Via` (RFC 9110 §7.6.3): through whom a request has come, so that mirrors of mirrors notice a
//! loop.
//!
//! Every request of ours names this process. What a client's request says is passed on with the
//! requests that it causes, because a loop is only seen where it began: all of it to a mirror that
//! is told the namespace (`forward_ns`), and of it the names of Ringports, which tell nothing about
//! the network they run in, to everybody else. A download that serves many clients carries what the
//! one that started it had.
//!
//! It travels beside the calls, like a span of the log: [`Hops::carry`] sets it for a future and
//! what that awaits. Work that moves to another worker or task takes [`Hops::current`] with it.
//! Where that is forgotten a loop is noticed late, by its length in time, and nothing else is lost.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use crate::limits::VIA_HOPS_MAX;

/// What the name of every Ringport begins with; eight hexadecimal digits follow.
const PREFIX: &str = "ringport-";
/// Longest hop that is passed on or shown.
const HOP_BYTES_MAX: usize = 128;

thread_local! {
    static CURRENT: RefCell<Hops> = const { RefCell::new(Hops(None)) };
}

/// The hops of a request that was received, each as `1.1 name`; comments are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hops(Option<Arc<[Box<str>]>>);

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loop {
    /// It has been here before.
    #[error(
        "a loop of mirrors: the request has come through this mirror before (Via: {hops}); the \
         endpoints of one of them lead back to another"
    )]
    Closed {
        /// What it came through.
        hops: Hops,
    },
    /// It has come too far to believe that it ends.
    #[error(
        "a loop of mirrors, or a chain that is too long: the request has come through {found} \
         others, at most {VIA_HOPS_MAX} are allowed (Via: {hops})"
    )]
    TooLong {
        /// How many.
        found: usize,
        /// The first of them.
        hops: Hops,
    },
}

/// What this process calls itself in `Via`: another name at each start.
pub(super) fn pseudonym() -> &'static str {
    static PSEUDONYM: OnceLock<String> = OnceLock::new();
    PSEUDONYM.get_or_init(|| {
        // As in telemetry's names of requests: it has to be different, not unguessable.
        let hash = RandomState::new().hash_one(std::process::id());
        format!("{PREFIX}{:08x}", hash >> 32)
    })
}

impl Hops {
    /// Reads a `Via` field, its lines joined. What is no hop is counted and not passed on.
    ///
    /// # Errors
    /// [`Loop`] when we are among the hops, or there are too many.
    pub fn read(field: &str) -> Result<Self, Loop> {
        let mut hops = Vec::new();
        let mut found = 0;
        for hop in Elements(field) {
            found += 1;
            if found <= VIA_HOPS_MAX {
                hops.extend(plain_hop(hop));
            } else if name_of(hop).eq_ignore_ascii_case(pseudonym()) {
                hops.extend(plain_hop(hop));
                break;
            }
        }
        let is_closed = hops.iter().any(|hop| name_of(hop).eq_ignore_ascii_case(pseudonym()));
        let hops = Self(Some(hops.into()).filter(|hops: &Arc<[_]>| !hops.is_empty()));
        match is_closed {
            true => Err(Loop::Closed { hops }),
            false if found > VIA_HOPS_MAX => Err(Loop::TooLong { found, hops }),
            false => Ok(hops),
        }
    }

    /// What the future that is running on this worker carries.
    pub fn current() -> Self {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// Runs `work` with these hops for [`Hops::current`].
    pub async fn carry<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut carried = self;
        poll_fn(move |context| {
            let _set = Set::now(&mut carried);
            work.as_mut().poll(context)
        })
        .await
    }

    /// The `Via` of a request that these hops cause; `all` of them are told to an upstream that is
    /// a mirror.
    pub(super) fn field(&self, all: bool) -> String {
        let hops = self.0.iter().flat_map(|hops| hops.iter());
        let told = hops.filter(|hop| all || is_ringport(name_of(hop)));
        let mut field: String = told.flat_map(|hop| [&**hop, ", "]).collect();
        field.push_str("1.1 ");
        field.push_str(pseudonym());
        field
    }
}

/// Hops while they are the current ones; a panic puts back what was before, too.
struct Set<'a>(&'a mut Hops);

impl<'a> Set<'a> {
    fn now(hops: &'a mut Hops) -> Self {
        let mut set = Self(hops);
        set.swap();
        set
    }

    fn swap(&mut self) {
        CURRENT.with(|current| std::mem::swap(&mut *current.borrow_mut(), self.0));
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}

impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hops: Vec<&str> = self.0.iter().flat_map(|hops| hops.iter()).map(|h| &**h).collect();
        f.write_str(&hops.join(", "))
    }
}

/// The elements of a list whose commas may also stand in comments; empty ones are none.
struct Elements<'a>(&'a str);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while !self.0.is_empty() {
            let (mut depth, mut is_escaped) = (0_usize, false);
            let end = self.0.find(|c| {
                let was_escaped = std::mem::take(&mut is_escaped);
                match c {
                    _ if was_escaped => {}
                    '\\' if depth > 0 => is_escaped = true,
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    ',' => return depth == 0,
                    _ => {}
                }
                false
            });
            let (element, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
            self.0 = rest.strip_prefix(',').unwrap_or(rest);
            if !element.trim().is_empty() {
                return Some(element.trim());
            }
        }
        None
    }
}

/// `1.1 name` of `HTTP/1.1 name (comment)`; `None` for what is no hop.
fn plain_hop(text: &str) -> Option<Box<str>> {
    let is_plain = |word: &&str| {
        word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/:[]".contains(&b))
    };
    let mut words = text.split_ascii_whitespace();
    let protocol = words.next().filter(is_plain)?;
    let name = words.next().filter(is_plain)?;
    let hop = format!("{protocol} {name}");
    (hop.len() <= HOP_BYTES_MAX).then(|| hop.into())
}

fn name_of(hop: &str) -> &str {
    hop.split_ascii_whitespace().nth(1).unwrap_or_default()
}

fn is_ringport(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(field: &str, all: bool) -> String {
        let field = Hops::read(field).expect(field).field(all);
        let own = format!("1.1 {}", pseudonym());
        field.strip_suffix(&own).expect("ours last").trim_end_matches(", ").to_owned()
    }

    #[test]
    fn hops_are_passed_on_as_far_as_they_are_hops() {
        let cases = [
            ("", ""),
            (" , ,", ""),
            ("1.1 a", "1.1 a"),
            ("1.0 fred, 1.1 p.example.net", "1.0 fred, 1.1 p.example.net"),
            ("HTTP/1.1 [::1]:80 (nginx, (1.2\\), 3)),2 b", "HTTP/1.1 [::1]:80, 2 b"),
            ("1.1 a (never closed, 1.1 b", "1.1 a"),
            ("garbage, 1.1 b\u{e9}, 1.1 ok, 1.1 \"x\"", "1.1 ok"),
        ];
        for (field, passed_on) in cases {
            assert_eq!(told(field, true), passed_on, "{field}");
        }
        assert_eq!(told(&format!("1.1 {}", "x".repeat(200)), true), "");
        let mixed = "1.1 proxy.corp, 1.1 ringport-0123abcd, 1.1 ringport-x, 1.1 ringport-0123abcde";
        assert_eq!(told(mixed, false), "1.1 ringport-0123abcd");
    }

    #[test]
    fn loops_are_refused() {
        let own = pseudonym();
        assert!(is_ringport(own), "{own}");
        let closed = [
            format!("1.1 {own}"),
            format!("HTTP/1.1 {}", own.to_ascii_uppercase()),
            format!("1.1 a, 1.1 {own} (me, again), 1.1 b"),
            format!("{}1.1 {own}", "1.1 a, ".repeat(30)),
        ];
        for field in closed {
            let refused = Hops::read(&field).expect_err("a loop");
            assert!(matches!(refused, Loop::Closed { .. }), "{field}: {refused}");
            assert!(refused.to_string().to_ascii_lowercase().contains(own), "{refused}");
        }
        for harmless in [format!("1.1 a ({own})"), format!("1.1 {own}.example"), own.to_owned()] {
            assert!(Hops::read(&harmless).is_ok(), "{harmless}");
        }
        assert!(Hops::read(&"1.1 a,".repeat(VIA_HOPS_MAX)).is_ok());
        let long = Hops::read(&"1.1 a,".repeat(3000)).expect_err("too long");
        assert!(matches!(long, Loop::TooLong { found: 3000, .. }));
        assert!(long.to_string().len() < 1000, "{long}");
    }

    #[test]
    fn what_is_carried_is_seen_inside_only() {
        let hops = |field| Hops::read(field).expect("hops");
        let inner = hops("1.1 b").carry(async { Hops::current() });
        let both = hops("1.1 a").carry(async { (Hops::current(), inner.await, Hops::current()) });
        let seen = pollster::block_on(both);
        assert_eq!(seen, (hops("1.1 a"), hops("1.1 b"), hops("1.1 a")));
        assert_eq!(Hops::current(), Hops::default());
    }
}
