//! Scrub and gc on a running server: a thread of their own, told what to do over the admin address.
//!
//! One run at a time. `POST` starts it and comes back at once; `GET` tells how far it is and, when
//! it is over, what came of it. The thread also starts the background scrub.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::maintenance_runs::{RunStatus, Runs};
use super::start::ServeError;
use crate::catalog::CatalogError;
use crate::config::Storage;
use crate::registry::{GcReport, Progress, Pruned, Shared, Upkeep, VerifyReport};
use crate::runtime::clock;

/// How often it is looked whether the background scrub is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// When links and tags whose content has gone are pruned, and hosted tags that their rule keeps no
/// longer removed: first after the start, and then again.
const PRUNE_DELAY: Duration = Duration::from_secs(3600);
const PRUNE_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// How often idle uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);
/// After each thousand of them, so that the thread of the catalog and its disk have others to serve.
const PRUNE_PAUSE: Duration = Duration::from_millis(10);

/// The sending side, for all workers.
pub(super) struct Maintenance {
    jobs: crossbeam_channel::Sender<Job>,
    board: Arc<Board>,
    verify_rate: u64,
}

enum Job {
    Verify { bytes_per_second: u64 },
    Gc { dry_run: bool },
    Stop,
}

/// What the thread and the workers share. Its locks are held for a copy only.
#[derive(Default)]
struct Board {
    runs: Mutex<Runs>,
    registry: OnceLock<Arc<Shared>>,
    blobs: AtomicU64,
    damaged: AtomicU64,
}

const VERIFY: &str = "verify";
const GC: &str = "gc";

impl Maintenance {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused it.
    pub(super) fn start(
        upkeep: Upkeep,
        storage: &Storage,
    ) -> Result<(Arc<Self>, JoinHandle<()>), ServeError> {
        // One job is accepted at a time; the second place is for `Stop`.
        let (jobs, queue) = crossbeam_channel::bounded(2);
        let board = Arc::<Board>::default();
        let thread = Thread {
            upkeep,
            board: board.clone(),
            interval: storage.verify_interval,
            bytes_per_second: storage.verify_rate,
            last_verify: clock::now(),
            next_prune: clock::now() + PRUNE_DELAY,
            next_expiry: clock::now() + EXPIRY_INTERVAL,
        };
        let handle = std::thread::Builder::new()
            .name("maintenance".into())
            .spawn(move || thread.run(&queue))
            .map_err(|source| ServeError::System { what: "the maintenance thread", source })?;
        Ok((Arc::new(Self { jobs, board, verify_rate: storage.verify_rate }), handle))
    }

    /// Lets the background scrub see how many downloads run.
    pub(super) fn attach(&self, registry: &Arc<Shared>) {
        // All workers attach the same one.
        let _ = self.board.registry.set(registry.clone());
    }

    /// Starts a scrub at this rate, or at the configured one.
    ///
    /// # Errors
    /// What goes on instead, as a sentence.
    pub(super) fn start_verify(&self, bytes_per_second: Option<u64>) -> Result<(), String> {
        let bytes_per_second = bytes_per_second.unwrap_or(self.verify_rate);
        self.start_run(VERIFY, Job::Verify { bytes_per_second })
    }

    /// Starts a collection.
    ///
    /// # Errors
    /// What goes on instead, as a sentence.
    pub(super) fn start_gc(&self, dry_run: bool) -> Result<(), String> {
        self.start_run(GC, Job::Gc { dry_run })
    }

    fn start_run(&self, name: &'static str, job: Job) -> Result<(), String> {
        self.board.begin(name)?;
        self.jobs.try_send(job).map_err(|_| {
            self.board.runs().current = None;
            "the maintenance thread has ended; see the log".to_owned()
        })
    }

    /// The scrub that runs, or the last one.
    pub(super) fn verify_status(&self) -> RunStatus<VerifyReport> {
        let runs = self.board.runs();
        runs.status(VERIFY, &runs.verify)
    }

    /// The collection that runs, or the last one.
    pub(super) fn gc_status(&self) -> RunStatus<GcReport> {
        let runs = self.board.runs();
        runs.status(GC, &runs.gc)
    }

    /// Ends what goes on, and the thread. Join its handle afterwards.
    pub(super) fn stop(&self) {
        let mut runs = self.board.runs();
        runs.is_stopping = true;
        if let Some((_, _, progress)) = &runs.current {
            progress.stop();
        }
        drop(runs);
        // A thread that has ended already needs no asking.
        let _ = self.jobs.try_send(Job::Stop);
    }

    /// Contents looked at by scrubs since the start.
    pub(super) fn verified(&self) -> u64 {
        self.board.blobs.load(Ordering::Relaxed)
    }

    /// Contents found damaged by scrubs since the start.
    pub(super) fn damaged(&self) -> u64 {
        self.board.damaged.load(Ordering::Relaxed)
    }
}

impl Board {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a run begins, unless another goes on.
    fn begin(&self, name: &'static str) -> Result<(), String> {
        let mut runs = self.runs();
        if runs.is_stopping {
            return Err("the server is stopping".to_owned());
        }
        if let Some((running, since, _)) = &runs.current {
            let seconds = since.elapsed().as_secs();
            return Err(format!("{running} has been running for {seconds} s; wait for its end"));
        }
        runs.current = Some((name, clock::now(), Arc::default()));
        Ok(())
    }

    fn progress(&self) -> Arc<Progress> {
        self.runs().current.as_ref().map(|(_, _, progress)| progress.clone()).unwrap_or_default()
    }
}

/// The thread's own.
struct Thread {
    upkeep: Upkeep,
    board: Arc<Board>,
    interval: Option<Duration>,
    bytes_per_second: u64,
    last_verify: Instant,
    next_prune: Instant,
    next_expiry: Instant,
}

impl Thread {
    fn run(mut self, queue: &crossbeam_channel::Receiver<Job>) {
        loop {
            let job = match queue.recv_timeout(LOOK_INTERVAL) {
                Ok(job) => job,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Job::Stop,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    if clock::now() >= self.next_expiry {
                        self.expire_uploads();
                    }
                    if clock::now() >= self.next_prune {
                        self.prune();
                        self.next_prune = clock::now() + PRUNE_INTERVAL;
                    }
                    if !self.is_verify_due() || self.board.begin(VERIFY).is_err() {
                        continue;
                    }
                    Job::Verify { bytes_per_second: self.bytes_per_second }
                }
            };
            match job {
                Job::Stop => return,
                Job::Verify { bytes_per_second } => self.verify(bytes_per_second),
                Job::Gc { dry_run } => self.collect(dry_run),
            }
        }
    }

    /// Whether its time has come and the server has nothing better to do.
    fn is_verify_due(&self) -> bool {
        let is_time = self.interval.is_some_and(|wait| self.last_verify.elapsed() >= wait);
        is_time && self.board.registry.get().is_some_and(|registry| registry.fills_active() == 0)
    }

    fn verify(&mut self, bytes_per_second: u64) {
        let progress = self.board.progress();
        tracing::info!(bytes_per_second, "verify begins");
        let result = guarded(|| self.upkeep.verify(bytes_per_second, &progress));
        self.last_verify = clock::now();
        match &result {
            Ok(report) => {
                self.board.blobs.fetch_add(report.blobs, Ordering::Relaxed);
                self.board.damaged.fetch_add(report.damage(), Ordering::Relaxed);
                let VerifyReport { blobs, bytes, missing, orphans, unrepaired, stopped, .. } =
                    *report;
                tracing::info!(
                    blobs,
                    bytes,
                    damaged = report.damaged,
                    missing,
                    orphans,
                    unrepaired,
                    damaged_hosted = report.damaged_hosted,
                    stopped,
                    missing_hosted = report.missing_hosted,
                    "verify ends"
                );
            }
            Err(error) => tracing::error!(%error, "verify failed"),
        }
        let mut runs = self.board.runs();
        runs.verify = runs.end(result);
    }

    /// Names that nothing is served by any more.
    fn prune(&self) {
        let go_on = || {
            std::thread::sleep(PRUNE_PAUSE);
            !self.board.runs().is_stopping
        };
        match guarded(|| self.upkeep.prune(clock::unix_seconds(), false, go_on)) {
            Ok(Pruned { links, tags }) => tracing::info!(links, tags, "names were pruned"),
            Err(error) => tracing::error!(%error, "names could not be pruned"),
        }
        match guarded(|| self.upkeep.expire_tags(clock::unix_seconds(), go_on)) {
            Ok(0) => {}
            Ok(tags) => tracing::info!(tags, "tags were removed that their rule keeps no longer"),
            Err(error) => tracing::error!(%error, "tags could not be removed"),
        }
    }

    /// Uploads whose client has not been heard of for too long.
    fn expire_uploads(&mut self) {
        self.next_expiry = clock::now() + EXPIRY_INTERVAL;
        if let Some(registry) = self.board.registry.get()
            && let Err(error) = guarded(|| {
                registry.expire_uploads();
                Ok(())
            })
        {
            tracing::error!(%error, "idle uploads stay");
        }
    }

    fn collect(&self, dry_run: bool) {
        let progress = self.board.progress();
        tracing::info!(dry_run, "gc begins");
        let result = guarded(|| self.upkeep.collect(dry_run, &progress));
        match &result {
            Ok(report) => tracing::info!(
                dry_run,
                freed_bytes = report.freed_bytes(),
                links = report.unreachable_links.count,
                blobs = report.unreachable_blobs.count,
                stopped = report.stopped,
                "gc ends"
            ),
            Err(error) => tracing::error!(%error, "gc failed"),
        }
        let mut runs = self.board.runs();
        runs.gc = runs.end(result);
    }
}

/// A panic in here ends the run, not the thread.
fn guarded<R>(work: impl FnOnce() -> Result<R, CatalogError>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it ran into a bug of ringport; see its log".to_owned()),
    }
}
