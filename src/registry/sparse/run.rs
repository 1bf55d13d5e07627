//! The task of a sparse fill: the first answer, then streams as the plan says, then the whole is
//! hashed and committed.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_lock::{Semaphore, SemaphoreGuardArc};
use futures_util::future::{Either, select};

use super::ask::{self, Broken, FirstAnswer, Turn};
use super::plan::{Piece, Plan};
use super::stream::Stream;
use super::{NotOpened, SparseFill};
use crate::limits::FILL_TRIES_MAX;
use crate::registry::fill_arriving::Lost;
use crate::registry::fill_download::{FRUITFUL_BYTES, PAUSE};
use crate::registry::space::Reservation;
use crate::registry::state::Registry;
use crate::registry::take_room::{NoPlace, take_room};
use crate::registry::tier_write::NewContent;
use crate::registry::{PullError, commit};
use crate::runtime::{catch_panic, clock, spawn, timeout};
use crate::storage::Staged;
use crate::telemetry::{ActiveFill, FillOutcome};
use crate::upstream::{Hops, Response};

/// How often it is looked whether a stream that is waited for is still the sooner one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// When nothing is on its way and nobody waits: whoever wants something says so.
const NOTHING_TO_DO: Duration = Duration::from_secs(60);

/// How streams ended so far.
#[derive(Default)]
struct Tries {
    /// In a row, without anything worth mentioning.
    fruitless: u32,
    /// The last of these, and when the next may begin.
    failed: Option<(Instant, Instant)>,
    /// Why it goes on no more.
    lost: Option<Lost>,
}

/// How it ended.
enum End {
    /// All bytes are there.
    Whole,
    /// Nobody reads it any more, and the rest is not wanted.
    Left,
}

/// What its task does next.
enum Step {
    Whole,
    Fetch(Piece, Option<SemaphoreGuardArc>),
    /// Waits for a turn to fetch of the rest.
    Queue,
    Wait {
        is_moving: bool,
    },
}

/// What the first answer made.
struct Opened {
    staged: Staged,
    place: Reservation,
    piece: Piece,
    ignores_ranges: bool,
    response: Response,
    turn: Turn,
}

/// Runs on the worker that owns the digest, until all is stored, given up or left. Returns why
/// there is no content. Between the last look at the readers and the return there is no wait.
pub(in crate::registry) async fn run(
    registry: &Rc<Registry>,
    fill: &Arc<SparseFill>,
) -> Option<NotOpened> {
    let active = registry.metrics().sparse_fill();
    let opened = match open(registry, fill).await {
        Ok(opened) => opened,
        Err(why) => {
            active.finish(match &why {
                NotOpened::Failed(_) => FillOutcome::UpstreamFailed,
                // Another kind of answer takes over.
                _ => FillOutcome::Dropped,
            });
            return Some(why);
        }
    };
    let Opened { staged, place, piece, ignores_ranges, response, turn } = opened;
    let tries = Rc::new(RefCell::new(Tries::default()));
    let size = fill.plan().map_or(0, |plan| plan.size());
    let (of, into, writer) = (registry.clone(), fill.clone(), staged.writer());
    let endpoints = Rc::default();
    let stream = Stream { registry: of, fill: into, writer, size, endpoints };
    let first = stream.clone();
    start(fill, &tries, piece, async move {
        let _turn = turn;
        first.receive(piece, response, ignores_ranges).await
    });
    let ended = match fetch(registry, fill, &tries, &stream).await {
        Ok(End::Whole) => verify(fill, staged).await.map(Some),
        Ok(End::Left) => Ok(None),
        Err(lost) => Err(lost),
    };
    match ended {
        Ok(Some(staged)) => {
            keep(registry, fill, staged, place, active).await;
            None
        }
        Ok(None) => {
            tracing::debug!(scope = %fill.scope, digest = %fill.digest, "nobody reads it any more");
            active.finish(FillOutcome::Dropped);
            fill.keep_place(place);
            None
        }
        Err(Lost { error, outcome }) => {
            tracing::warn!(scope = %fill.scope, digest = %fill.digest, %error,
                "a sparse fill failed; what has come of it is dropped");
            if outcome == FillOutcome::DigestMismatch {
                // One of them has lied: who pulls again is to have it from another one.
                let client = registry.client();
                stream.endpoints.borrow().iter().for_each(|endpoint| client.note_wrong(endpoint));
            }
            active.finish(outcome);
            fill.keep_place(place);
            Some(NotOpened::Failed(error))
        }
    }
}

/// Asks for the first range, and makes the file when its answer tells the size.
async fn open(registry: &Rc<Registry>, fill: &Arc<SparseFill>) -> Result<Opened, NotOpened> {
    let failed = |why: Broken| NotOpened::Failed(why.into_error());
    let turn = Turn::wait(registry, fill).await.map_err(failed)?;
    let asked = clock::now();
    let response = ask::range(registry, fill, fill.first).await.map_err(failed)?;
    let answer = ask::first_answer(registry, fill, &response)?;
    let FirstAnswer { size, first, end, ignores_ranges } = answer;
    let scope = (&fill.scope, &fill.digest);
    let taken = take_room(registry.shared(), scope, size, fill.placing.pool).await;
    let (staged, place) = taken.map_err(|why| {
        if let NoPlace::Failed(error) = why {
            tracing::debug!(digest = %fill.digest, %error, "passed through: the disks fail");
        }
        NotOpened::NoRoom
    })?;
    let policy = registry.shared().policy(&fill.scope);
    let mut plan = Plan::new(size, policy.is_none_or(|policy| policy.background_fill));
    let piece = plan.begin(first, end, asked);
    // Before anybody can ask for more: an upstream that sends everything must not be asked again.
    plan.answered(piece.id, ignores_ranges, clock::now());
    fill.opened(staged.shared(), plan);
    Ok(Opened { staged, place, piece, ignores_ranges, response, turn })
}

/// Starts what the plan says, until all is there.
async fn fetch(
    registry: &Rc<Registry>,
    fill: &Arc<SparseFill>,
    tries: &Rc<RefCell<Tries>>,
    stream: &Stream,
) -> Result<End, Lost> {
    let keep = registry.shared().policy(&fill.scope).map_or(Duration::ZERO, |p| p.extents_keep);
    let rest_turns = registry.shared().fills.rest_turns();
    let (mut left_at, mut turn): (Option<Instant>, Option<SemaphoreGuardArc>) = (None, None);
    loop {
        let listener = fill.asked.listen();
        if let Some(lost) = tries.borrow_mut().lost.take() {
            return Err(lost);
        }
        let now = clock::now();
        let pause = tries.borrow().failed.map(|(_, until)| until.saturating_duration_since(now));
        let pause = pause.filter(|pause| !pause.is_zero());
        let step = match fill.plan() {
            Some(mut plan) => step(&mut plan, now, pause.is_some(), turn.take(), rest_turns),
            None => return Ok(End::Left),
        };
        let is_moving = match step {
            Step::Whole => return Ok(End::Whole),
            Step::Fetch(piece, turn) => {
                let stream = stream.clone();
                start(fill, tries, piece, async move {
                    let _turn = turn;
                    stream.fetch(piece).await
                });
                continue;
            }
            Step::Queue => {
                let (listener, queue) = (pin!(listener), pin!(rest_turns.acquire_arc()));
                if let Either::Right((granted, _)) = select(listener, queue).await {
                    turn = Some(granted);
                }
                continue;
            }
            Step::Wait { is_moving } => is_moving,
        };
        let is_wanted = fill.readers.load(Ordering::Relaxed) > 0
            || fill.plan().is_some_and(|plan| plan.is_all_wanted());
        let is_left = !is_wanted && !is_moving;
        left_at = if is_left { left_at.or(Some(now)) } else { None };
        let wait = match (left_at, pause) {
            (Some(left_at), _) => keep.saturating_sub(now.saturating_duration_since(left_at)),
            (None, Some(pause)) => pause,
            (None, None) if is_moving => LOOK_AGAIN,
            (None, None) => NOTHING_TO_DO,
        };
        if is_left && wait.is_zero() {
            return Ok(End::Left);
        }
        // Woken or not, all is looked at again.
        let _ = timeout(wait, listener).await;
    }
}

/// What to do next. What readers wait for needs no turn; of the rest little is fetched at a time,
/// over all blobs, because somebody may be waiting for ranges of other ones.
fn step(
    plan: &mut Plan,
    now: Instant,
    pauses: bool,
    turn: Option<SemaphoreGuardArc>,
    rest_turns: &Arc<Semaphore>,
) -> Step {
    if plan.is_whole() {
        return Step::Whole;
    }
    let wait = Step::Wait { is_moving: plan.has_streams() };
    if pauses {
        return wait;
    }
    if let Some(piece) = plan.next(now) {
        return Step::Fetch(piece, None);
    }
    if !plan.has_time_for_rest() {
        return wait;
    }
    match turn.or_else(|| rest_turns.try_acquire_arc()) {
        Some(turn) => match plan.next_of_rest(now) {
            Some(piece) => Step::Fetch(piece, Some(turn)),
            None => wait,
        },
        None => Step::Queue,
    }
}

/// Runs a stream in a task of its own, which belongs to no reader.
fn start(
    fill: &Arc<SparseFill>,
    tries: &Rc<RefCell<Tries>>,
    piece: Piece,
    work: impl Future<Output = Result<(), Broken>> + 'static,
) {
    let (fill, tries, began) = (fill.clone(), tries.clone(), clock::now());
    spawn(Hops::current().carry(async move {
        let ended = catch_panic(work).await.unwrap_or_else(|message| {
            let error = PullError::Internal(format!("a stream panicked: {message}"));
            Err(Broken::Final(Lost { error, outcome: FillOutcome::Abandoned }))
        });
        let brought = fill.plan().map_or(0, |mut plan| plan.end(piece.id));
        tries.borrow_mut().ended(&fill, ended, brought, began);
        fill.asked.notify(1);
    }));
}

impl Tries {
    fn ended(
        &mut self,
        fill: &SparseFill,
        ended: Result<(), Broken>,
        brought: u64,
        began: Instant,
    ) {
        let lost = match ended {
            Ok(()) => {
                self.fruitless = 0;
                return;
            }
            Err(Broken::Final(lost)) => {
                self.lost.get_or_insert(lost);
                return;
            }
            Err(Broken::Retry(lost)) => lost,
        };
        let now = clock::now();
        tracing::info!(scope = %fill.scope, digest = %fill.digest, error = %lost.error, brought,
            "a range broke off");
        // Those that were under way together fail together: that is one failure.
        if self.failed.is_some_and(|(at, _)| began < at) {
            return;
        }
        self.fruitless = if brought >= FRUITFUL_BYTES { 1 } else { self.fruitless + 1 };
        if self.fruitless >= FILL_TRIES_MAX {
            self.lost.get_or_insert(lost);
        }
        let pause = PAUSE * 2_u32.saturating_pow(self.fruitless - 1);
        self.failed = Some((now, now + pause));
    }
}

/// Compares the digest of the whole. The file is read again, because it did not come in order.
async fn verify(fill: &Arc<SparseFill>, mut staged: Staged) -> Result<Staged, Lost> {
    let size = fill.plan().map_or(0, |plan| plan.size());
    staged.hash_all(size).await?;
    staged.verify()?;
    Ok(staged)
}

/// Readers get the rest at once, whether or not the disk keeps it.
async fn keep(
    registry: &Rc<Registry>,
    fill: &Arc<SparseFill>,
    staged: Staged,
    place: Reservation,
    active: ActiveFill,
) {
    let shared = registry.shared();
    let bytes = staged.size();
    fill.verified(bytes, shared.leases.take(&fill.digest));
    match commit::blob(shared, &fill.scope, &fill.digest, (staged, &fill.placing)).await {
        Ok(()) => {
            fill.stored();
            active.finish(FillOutcome::Stored);
            // What was promised to it is used by now.
            drop(place);
            let (scope, digest) = (fill.scope.clone(), fill.digest);
            registry.offer_to_tiers(NewContent { scope, digest, media_type: None, bytes });
        }
        Err(error) => {
            tracing::error!(scope = %fill.scope, digest = %fill.digest, %error,
                "content was served but could not be kept");
            active.finish(FillOutcome::StorageFailed);
            fill.keep_place(place);
        }
    }
}
