//! A simulated Docker Hub: so many GETs of manifests in any window of time, for each login. HEAD is
//! free; both tell what is left. What is above the limit is answered with 429.

#![allow(unreachable_pub)]

use crate::support::images::{self, OCI_MANIFEST};
use crate::support::listener::{Listener, Received, read_request};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Its registry.
pub struct Hub {
    listener: Listener,
    state: Arc<State>,
}

struct State {
    limit: usize,
    window: Duration,
    logins: Vec<String>,
    tags: Mutex<HashMap<String, Vec<u8>>>,
    spent: Mutex<HashMap<String, Window>>,
    counts: Mutex<Counts>,
}

/// When requests were counted, as the upstream keeps it: a window that slides.
#[derive(Default)]
pub struct Window(VecDeque<Duration>);

/// What it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// GETs of manifests that were answered.
    pub gets: usize,
    /// HEADs.
    pub heads: usize,
    /// 429s.
    pub refused: usize,
    /// Everything.
    pub requests: usize,
}

impl Window {
    /// Counts one request at `now` if there is room; what is left after it.
    pub fn spend(&mut self, limit: usize, window: Duration, now: Duration) -> Option<usize> {
        let left = self.left(limit, window, now);
        if left == 0 {
            return None;
        }
        self.0.push_back(now);
        Some(left - 1)
    }

    /// What is left at `now`.
    pub fn left(&mut self, limit: usize, window: Duration, now: Duration) -> usize {
        while self.0.front().is_some_and(|&at| now.saturating_sub(at) >= window) {
            self.0.pop_front();
        }
        limit - self.0.len()
    }

    /// How long until something is left.
    fn wait(&self, window: Duration, now: Duration) -> Duration {
        self.0.front().map_or(Duration::ZERO, |&at| (at + window).saturating_sub(now))
    }
}

impl Hub {
    /// `limit` GETs of manifests in any `window`; without `logins` for everybody together,
    /// otherwise for each of these users, and nobody else gets in.
    pub fn start(limit: usize, window: Duration, logins: &[&str]) -> Hub {
        let state = Arc::new(State {
            limit,
            window,
            logins: logins.iter().map(|&name| name.to_owned()).collect(),
            tags: Mutex::default(),
            spent: Mutex::default(),
            counts: Mutex::default(),
        });
        let (for_handler, began) = (state.clone(), Instant::now());
        let listener = Listener::start(move |stream| {
            let _ = stream.set_nodelay(true);
            while let Ok(Some(request)) = read_request(stream) {
                if for_handler.answer(stream, &request, began.elapsed()).is_err() {
                    break;
                }
            }
        });
        Hub { listener, state }
    }

    /// As an endpoint of the config.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.addr())
    }

    /// Binds a tag to another manifest.
    pub fn set_tag(&self, repository: &str, tag: &str, body: &[u8]) {
        let mut tags = self.state.tags.lock().unwrap();
        for reference in [tag, &images::sha256(body)] {
            tags.insert(format!("/v2/{repository}/manifests/{reference}"), body.to_vec());
        }
    }

    /// What it was asked so far.
    pub fn counts(&self) -> Counts {
        *self.state.counts.lock().unwrap()
    }
}

impl State {
    fn answer(
        &self,
        mut stream: &TcpStream,
        request: &Received,
        now: Duration,
    ) -> std::io::Result<()> {
        self.counts.lock().unwrap().requests += 1;
        let Some(login) = self.login(request) else {
            return stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"hub\"\r\n\
                  Content-Length: 0\r\n\r\n",
            );
        };
        let body = self.tags.lock().unwrap().get(&request.path).cloned();
        let mut spent = self.spent.lock().unwrap();
        let window = spent.entry(login).or_default();
        let mut counts = self.counts.lock().unwrap();
        let is_get = request.method == "GET";
        let left = match is_get && body.is_some() {
            true => window.spend(self.limit, self.window, now),
            false => Some(window.left(self.limit, self.window, now)),
        };
        let seconds = self.window.as_secs();
        let told = |left: usize| {
            format!(
                "ratelimit-limit: {};w={seconds}\r\nratelimit-remaining: {left};w={seconds}\r\n",
                self.limit
            )
        };
        let Some(left) = left else {
            counts.refused += 1;
            let wait = window.wait(self.window, now).as_secs_f64().ceil();
            let head = format!(
                "HTTP/1.1 429 Too Many Requests\r\n{}Retry-After: {wait}\r\n\
                 Content-Length: 0\r\n\r\n",
                told(0)
            );
            return stream.write_all(head.as_bytes());
        };
        let Some(body) = body else {
            let head = format!("HTTP/1.1 404 x\r\n{}Content-Length: 0\r\n\r\n", told(left));
            return stream.write_all(head.as_bytes());
        };
        counts.gets += usize::from(is_get);
        counts.heads += usize::from(!is_get);
        drop((spent, counts));
        let head = format!(
            "HTTP/1.1 200 OK\r\n{}Content-Type: {OCI_MANIFEST}\r\nContent-Length: {}\r\n\
             Docker-Content-Digest: {}\r\n\r\n",
            told(left),
            body.len(),
            images::sha256(&body)
        );
        stream.write_all(head.as_bytes())?;
        if is_get { stream.write_all(&body) } else { Ok(()) }
    }

    /// Who asks; `None` if nobody that it knows.
    fn login(&self, request: &Received) -> Option<String> {
        if self.logins.is_empty() {
            return Some(String::new());
        }
        let proof = request.header("authorization")?;
        let is_theirs = |name: &&String| {
            use base64::Engine;
            let pair =
                base64::engine::general_purpose::STANDARD.encode(format!("{name}:{name}-pw"));
            proof == format!("Basic {pair}")
        };
        self.logins.iter().find(is_theirs).cloned()
    }
}
