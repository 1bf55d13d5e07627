//! The server under test, and what it can do: Ringport, or docker-registry 2.8.2, which has less
//! and proves the harness.

use super::clock::Clock;
use super::wire::Life;
use crate::support::http;
use crate::support::origin::{Access, Origin};
use crate::support::registry::yardstick;
use crate::support::scratch::Scratch;
use crate::support::server::{Server, Setup};
use crate::support::{secs, wait_until};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a server has beyond the common.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Deletes of tags, `?tag=` beside a digest, referrers, gc on demand, other digests.
    pub is_full: bool,
}

/// A running server.
pub enum Subject {
    /// With a clock that can be moved.
    Ringport { server: Box<Server>, clock: Clock, life: Arc<Life> },
    /// Debian's.
    DockerRegistry { origin: Origin, life: Arc<Life>, _scratch: Scratch },
}

/// Everyone may do everything: who may is another test's business.
pub const OPEN: &str = "[auth]\ncatalog = [\"anonymous\"]\n[[hosted]]\nrepositories = [\"*\"]\n\
    push = [\"anonymous\"]\ndelete = [\"anonymous\"]\n";

impl Subject {
    /// Starts Ringport, or the yardstick; `None` when that is missing and may be.
    pub fn start(what: &str) -> Option<Subject> {
        let life = Arc::new(Life::default());
        if yardstick() {
            let scratch = Scratch::new(what);
            let storage = scratch.dir("storage");
            let origin = Origin::start_with_deletes(&scratch, &storage, &Access::Open)?;
            return Some(Subject::DockerRegistry { origin, life, _scratch: scratch });
        }
        let setup = Setup::new(what).routing("hosted = [\"*\"]").more(OPEN);
        let clock = Clock::new(setup.scratch());
        let setup = clock
            .environment()
            .iter()
            .fold(setup, |setup, (name, value)| setup.environment(name, value));
        Some(Subject::Ringport { server: Box::new(setup.start()), clock, life })
    }

    /// What it can do.
    pub fn abilities(&self) -> Abilities {
        Abilities { is_full: matches!(self, Subject::Ringport { .. }) }
    }

    /// Where it listens, for as long as this lives.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Subject::Ringport { server, .. } => server.addr,
            Subject::DockerRegistry { origin, .. } => origin.addr(),
        }
    }

    /// How often it was started and ended.
    pub fn life(&self) -> Arc<Life> {
        match self {
            Subject::Ringport { life, .. } | Subject::DockerRegistry { life, .. } => {
                Arc::clone(life)
            }
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.life().turn();
        match self {
            Subject::Ringport { server, .. } => server.kill(),
            Subject::DockerRegistry { origin, .. } => origin.stop(),
        }
    }

    /// Starts it again after `kill`.
    pub fn start_again(&mut self) {
        match self {
            Subject::Ringport { server, .. } => server.start_again(),
            Subject::DockerRegistry { origin, .. } => origin.start_again(),
        }
        self.life().turn();
    }

    /// Ends it in order and starts it again.
    pub fn restart(&mut self) {
        self.life().turn();
        match self {
            Subject::Ringport { server, .. } => server.restart(),
            Subject::DockerRegistry { origin, .. } => {
                origin.stop();
                origin.start_again();
            }
        }
        self.life().turn();
    }

    /// Moves its clock on.
    pub fn advance(&mut self, hours: u64) {
        if let Subject::Ringport { server, clock, .. } = self {
            let blobs = server.root().join("blobs");
            clock.advance(hours, &blobs);
        }
    }

    /// Runs a gc to its end; why it is not well, if it is not.
    pub fn collect(&mut self) -> Result<(), String> {
        let Subject::Ringport { server, .. } = self else { return Ok(()) };
        collect_at(server.admin)
    }

    /// Where a gc can be asked for by somebody else.
    pub fn admin(&self) -> Option<SocketAddr> {
        match self {
            Subject::Ringport { server, .. } => Some(server.admin),
            Subject::DockerRegistry { .. } => None,
        }
    }

    /// Nothing panicked, and every stored file hashes to its name.
    pub fn check(&mut self) {
        if let Subject::Ringport { server, .. } = self {
            server.assert_alive();
            assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0, "panics");
            server.assert_store_is_right();
        }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = match self {
            Subject::Ringport { server, .. } => server.log_text(),
            Subject::DockerRegistry { origin, .. } => origin.log_text(),
        };
        let of_requests = |line: &&str| line.contains(" HTTP/1.1\" ") || line.contains("err.code");
        let lines: Vec<&str> = text.lines().filter(|line| !of_requests(line)).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Runs a gc at this admin address to its end.
pub fn collect_at(admin: SocketAddr) -> Result<(), String> {
    let post = http::send_body(admin, "POST", "/gc", "text/plain", b"");
    if post.status() != 202 {
        return Err(format!("POST /gc: {} {}", post.status(), post.text()));
    }
    let mut status = serde_json::Value::Null;
    wait_until("gc to end", secs(60), || {
        status = http::get(admin, "/gc").json();
        status["state"] != "running"
    });
    let is_well =
        status["state"] == "done" && status["report"]["problems"]["told"] == serde_json::json!([]);
    if is_well { Ok(()) } else { Err(format!("gc: {status}")) }
}
