//! Workers, a configuration and a client: the surroundings of every test here.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;
use crate::oci::{Namespace, RepositoryName};
use crate::runtime::{self, BlockingPool, WorkerContext};
use crate::upstream::dns::{LookUp, system_look_up};
use crate::upstream::{
    Client, Method, Observer, Request, Response, Shared, UpstreamError, UpstreamSet,
};

/// A secret that must never show up where it does not belong.
pub(super) const CANARY: &str = "canary-3f9a";

/// What is the same on all workers of a test.
pub(super) struct World {
    set: Arc<UpstreamSet>,
    shared: OnceLock<Arc<Shared>>,
    look_up: fn() -> Box<LookUp>,
    pub(super) counts: Arc<Counts>,
}

/// What the observer was told.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) requests: Mutex<Vec<Option<u16>>>,
    pub(super) tokens: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

impl Observer for Counts {
    fn upstream_request(&self, _: &Namespace, _: Method, status: Option<u16>) {
        self.requests.lock().expect("not poisoned").push(status);
    }

    fn token_request(&self, _: &Namespace, _: Option<u16>) {
        self.tokens.fetch_add(1, Ordering::SeqCst);
    }

    fn upstream_bytes(&self, _: &Namespace, bytes: u64) {
        self.bytes.fetch_add(bytes as usize, Ordering::SeqCst);
    }
}

impl World {
    /// The upstream `r.test` with these keys; 127.0.0.1 may be dialled, 127.0.0.2 may not.
    pub(super) fn new(keys: &str) -> Arc<Self> {
        Self::with_names(keys, || Box::new(system_look_up))
    }

    /// As [`new`](Self::new), with a resolver of the test's.
    pub(super) fn with_names(keys: &str, look_up: fn() -> Box<LookUp>) -> Arc<Self> {
        let text = format!(
            "[[upstream]]\nproxy = \"none\"\nnamespace = \"r.test\"\nallow_private = [\"127.0.0.1/32\"]\n{keys}\n"
        );
        let config = Config::parse(&text, "test.toml").expect("a valid configuration");
        let set = Arc::new(UpstreamSet::build(&config).expect("usable upstreams"));
        Arc::new(Self { set, shared: OnceLock::new(), look_up, counts: Arc::default() })
    }

    pub(super) fn client(&self, context: &WorkerContext) -> Client {
        let shared = self.shared.get_or_init(|| {
            let (counts, names) = (self.counts.clone(), (self.look_up)());
            Arc::new(Shared::with_look_up(&context.workers, counts, names))
        });
        Client::new(self.set.clone(), shared.clone())
    }

    /// Runs `test` on one worker with a client.
    pub(super) fn run<Fut: Future<Output = ()> + 'static>(
        self: &Arc<Self>,
        test: impl Fn(Client) -> Fut + Send + Sync + 'static,
    ) {
        let world = self.clone();
        on_workers(1, move |context| test(world.client(&context)));
    }
}

/// Runs `test` on `count` workers until it has ended on all of them.
pub(in crate::upstream) fn on_workers<Fut: Future<Output = ()> + 'static>(
    count: usize,
    test: impl Fn(WorkerContext) -> Fut + Send + Sync + 'static,
) {
    let driver = runtime::driver_for(None).expect("a driver");
    let pool = BlockingPool::start(2, 64).expect("threads");
    let running = Arc::new(AtomicUsize::new(count));
    let (_, workers) = runtime::start(
        count,
        driver,
        &pool,
        move |context| {
            let (running, test) = (Ended(running.clone()), test(context));
            async move {
                let running = running;
                test.await;
                let Ended(count) = &running;
                count.fetch_sub(1, Ordering::SeqCst);
                // The other workers may still need this one's mailbox.
                while count.load(Ordering::SeqCst) > 0 {
                    runtime::sleep(Duration::from_millis(2)).await;
                }
            }
        },
        |_, error| panic!("{error}"),
    )
    .expect("workers");
    for worker in workers {
        worker.join().expect("the test failed on a worker");
    }
}

/// Lets the other workers end when one of them panics.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(0, Ordering::SeqCst);
        }
    }
}

pub(super) fn namespace() -> Namespace {
    Namespace::parse("r.test").expect("a namespace")
}

pub(super) fn request(method: Method, path: &str) -> Request {
    Request::new(method, path, RepositoryName::parse("team/app").expect("a name"))
}

pub(super) async fn get(client: &Client, path: &str) -> Result<Response, UpstreamError> {
    client.exchange(&namespace(), request(Method::Get, path)).await
}

/// GET, and the whole body.
pub(super) async fn fetch(client: &Client, path: &str) -> Result<Bytes, UpstreamError> {
    get(client, path).await?.body.collect(1 << 20).await
}

/// The error of an exchange that must fail, checked for leaks.
pub(super) fn failure<T>(result: Result<T, UpstreamError>) -> UpstreamError {
    let error = result.err().expect("a failure");
    let told = format!("{error} {error:?}");
    assert!(!told.contains(CANARY), "{told}");
    assert!(told.contains("r.test"), "{told}");
    error
}

/// A file with `content` that is removed with the folder returned beside its path.
pub(super) fn file(content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, content).expect("a file");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

/// A resolver that knows `names`.
pub(super) fn only(names: &'static [(&'static str, &'static [&'static str])]) -> Box<LookUp> {
    Box::new(move |name| {
        let known = names.iter().find(|(known, _)| *known == name);
        let (_, addresses) = known.ok_or_else(|| std::io::Error::other("no such name"))?;
        Ok(addresses.iter().map(|a| a.parse::<IpAddr>().expect("an address")).collect())
    })
}
