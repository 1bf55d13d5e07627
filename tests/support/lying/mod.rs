//! The scripted lying upstream: a registry that answers right until a script says otherwise.
//!
//! Resources are added by path; a script maps (method, path) to the answers of the first, second,
//! ... request, the last one for all that follow. Every request is logged with its headers and
//! the body bytes that were sent for it, so that a test can count fetches and look for secrets.

mod answer;

pub use answer::{Answer, End, Ranges};

use super::images;
use super::listener::{Listener, Received, read_request};
use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a path names.
#[derive(Clone)]
pub struct Resource {
    /// The bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The Content-Type it is sent with.
    pub content_type: String,
    /// The digest for Docker-Content-Digest and ETag, when it is content.
    pub digest: Option<String>,
}

/// One request that came in.
#[derive(Clone)]
pub struct Seen {
    /// The request.
    pub request: Received,
    /// Body bytes sent in answer to it, so far.
    pub sent: Arc<AtomicU64>,
}

/// A registry on 127.0.0.1 under the test's control.
pub struct LyingUpstream {
    listener: Listener,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    resources: Mutex<HashMap<String, Resource>>,
    scripts: Mutex<HashMap<(String, String), VecDeque<Answer>>>,
    everywhere: Mutex<Option<Answer>>,
    guard: Mutex<Option<Guard>>,
    log: Mutex<Vec<Seen>>,
}

/// Answers 401 with the challenge to any request whose Authorization is not the right one.
#[derive(Clone)]
struct Guard {
    challenge: String,
    authorization: String,
}

impl LyingUpstream {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> LyingUpstream {
        LyingUpstream::start_on([127, 0, 0, 1])
    }

    /// Starts on a free port of another loopback address.
    pub fn start_on(ip: [u8; 4]) -> LyingUpstream {
        let state = Arc::new(State::default());
        let for_handler = Arc::clone(&state);
        let listener = Listener::start_on(SocketAddr::from((ip, 0)), move |stream| {
            let _ = for_handler.serve(stream);
        });
        LyingUpstream { listener, state }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// `http://<address>`, as an endpoint of the config.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.listener.accepted()
    }

    /// From now on the kernel refuses its port.
    pub fn stop(&mut self) {
        self.listener.stop();
    }

    /// Adds a blob; gives back its digest.
    pub fn add_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = images::sha256(bytes);
        let path = format!("/v2/{repository}/blobs/{digest}");
        self.add(&path, "application/octet-stream", bytes, Some(&digest));
        digest
    }

    /// Adds a manifest by digest and under `tag`; gives back its digest.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = images::sha256(bytes);
        for reference in [tag, &digest] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.add(&path, media_type, bytes, Some(&digest));
        }
        digest
    }

    /// Adds anything at a path.
    pub fn add(&self, path: &str, content_type: &str, bytes: &[u8], digest: Option<&str>) {
        let resource = Resource {
            bytes: Arc::new(bytes.to_vec()),
            content_type: content_type.to_owned(),
            digest: digest.map(str::to_owned),
        };
        self.state.resources.lock().unwrap().insert(path.to_owned(), resource);
    }

    /// Takes a path away.
    pub fn remove(&self, path: &str) {
        self.state.resources.lock().unwrap().remove(path);
    }

    /// Answers requests of `method` (`*` for any) to `path` by the list, the last for ever.
    pub fn script(&self, method: &str, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let key = (method.to_owned(), path.to_owned());
        self.state.scripts.lock().unwrap().insert(key, answers.into_iter().collect());
    }

    /// Answers every request that has no script of its own this way; `None` ends that.
    pub fn script_everything(&self, answer: Option<Answer>) {
        *self.state.everywhere.lock().unwrap() = answer;
    }

    /// Asks for exactly this Authorization on every request; others get 401 and the challenge.
    pub fn require(&self, authorization: &str, challenge: &str) {
        *self.state.guard.lock().unwrap() = Some(Guard {
            challenge: challenge.to_owned(),
            authorization: authorization.to_owned(),
        });
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.log.lock().unwrap().clone()
    }

    /// Requests of a method to a path so far.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let log = self.state.log.lock().unwrap();
        log.iter().filter(|s| s.request.method == method && s.request.path == path).count()
    }

    /// All requests so far.
    pub fn requests(&self) -> usize {
        self.state.log.lock().unwrap().len()
    }

    /// Body bytes sent for a path so far.
    pub fn bytes_sent(&self, path: &str) -> u64 {
        let log = self.state.log.lock().unwrap();
        let of_path = log.iter().filter(|s| s.request.path == path);
        of_path.map(|s| s.sent.load(Ordering::SeqCst)).sum()
    }

    /// Whether a text stands anywhere in any request that came in.
    pub fn heard(&self, secret: &str) -> bool {
        self.seen().iter().any(|s| format!("{:?}", s.request).contains(secret))
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let _ = stream.set_nodelay(true);
        while let Some(request) = read_request(stream)? {
            let sent = Arc::new(AtomicU64::new(0));
            let seen = Seen { request: request.clone(), sent: Arc::clone(&sent) };
            self.log.lock().unwrap().push(seen);
            let resource = self.resources.lock().unwrap().get(&request.path).cloned();
            let answer = self.choose(&request);
            if !answer.write(stream, &request, resource.as_ref(), &sent)? {
                break;
            }
        }
        Ok(())
    }

    fn choose(&self, request: &Received) -> Answer {
        if let Some(guard) = self.guard.lock().unwrap().clone()
            && request.header("authorization") != Some(guard.authorization.as_str())
        {
            return Answer::status(401).header("WWW-Authenticate", &guard.challenge);
        }
        let mut scripts = self.scripts.lock().unwrap();
        for method in [request.method.as_str(), "*"] {
            let key = (method.to_owned(), request.path.clone());
            if let Some(list) = scripts.get_mut(&key) {
                let next = if list.len() > 1 { list.pop_front() } else { list.front().cloned() };
                return next.unwrap_or_default();
            }
        }
        drop(scripts);
        self.everywhere.lock().unwrap().clone().unwrap_or_default()
    }
}
