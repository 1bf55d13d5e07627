//! What is known of the runs of scrub and gc: the one that goes on, and the last of each.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::registry::{GcReport, Progress, ProgressNow, VerifyReport};

/// How a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// There was none since the start.
    #[default]
    Idle,
    /// It goes on.
    Running,
    /// It has ended and left a report.
    Done,
    /// It has ended without one.
    Failed,
}

/// A run of scrub or gc, as `GET` tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStatus<R> {
    /// How it stands.
    pub state: RunState,
    /// How long it has taken, in seconds.
    pub seconds: f64,
    /// How far it is; all zero for gc.
    pub progress: ProgressNow,
    /// What it found, when it is over.
    pub report: Option<R>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What goes on, and what came of the last runs.
#[derive(Default)]
pub(super) struct Runs {
    /// What goes on now: its name, since when, how far.
    pub(super) current: Option<(&'static str, Instant, Arc<Progress>)>,
    pub(super) verify: RunStatus<VerifyReport>,
    pub(super) gc: RunStatus<GcReport>,
    pub(super) is_stopping: bool,
}

impl Runs {
    /// The run of this name that goes on, or the last one.
    pub(super) fn status<R: Clone>(&self, name: &str, last: &RunStatus<R>) -> RunStatus<R> {
        match &self.current {
            Some((running, since, progress)) if *running == name => RunStatus {
                state: RunState::Running,
                seconds: since.elapsed().as_secs_f64(),
                progress: progress.now(),
                report: None,
                error: None,
            },
            _ => last.clone(),
        }
    }

    /// What the run that ends now leaves behind.
    pub(super) fn end<R>(&mut self, result: Result<R, String>) -> RunStatus<R> {
        let (seconds, progress) = match self.current.take() {
            Some((_, since, progress)) => (since.elapsed().as_secs_f64(), progress.now()),
            None => (0.0, ProgressNow::default()),
        };
        let (state, report, error) = match result {
            Ok(report) => (RunState::Done, Some(report), None),
            Err(error) => (RunState::Failed, None, Some(error)),
        };
        RunStatus { state, seconds, progress, report, error }
    }
}
