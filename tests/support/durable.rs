//! The example `durable_commit` as a process: it stores content durably, deletes some of it, and says
//! what it has acknowledged, until it is killed or its disk is gone.

use super::process::run;
use super::scratch::Scratch;
use super::secs;
use super::server::Server;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// The repository it stores into, hosted here.
pub const REPOSITORY: &str = "durable/app";

/// The running process. Dropped: killed.
pub struct DurableCommits {
    child: Child,
    acknowledged: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl DurableCommits {
    /// Starts it on a store that nobody has open; `seed` chooses the content.
    pub fn start(root: &Path, seed: u64, log: &Path) -> DurableCommits {
        let errors = std::fs::File::options().create(true).append(true).open(log);
        let mut child = Command::new(built())
            .args([root.as_os_str(), seed.to_string().as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.expect("the log file"))
            .spawn()
            .unwrap_or_else(|e| panic!("durable_commit does not start: {e}"));
        let acknowledged = Arc::<Mutex<Vec<String>>>::default();
        let journal = Arc::clone(&acknowledged);
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                journal.lock().unwrap().push(line);
            }
        });
        DurableCommits { child, acknowledged, reader: Some(reader) }
    }

    /// How much it has acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it; what it has acknowledged.
    pub fn kill(mut self) -> Journal {
        self.end();
        let mut journal = Journal::default();
        for line in self.acknowledged.lock().unwrap().iter() {
            let words: Vec<&str> = line.split(' ').collect();
            // A line may have been cut off by the kill.
            let [state, kind, name, value, "."] = words[..] else { continue };
            let state = match state {
                "there" => State::There(value.to_owned()),
                "maybe" => State::Maybe,
                "gone" => State::Gone,
                _ => panic!("durable_commit says {line}"),
            };
            journal.0.insert((kind.to_owned(), name.to_owned()), state);
        }
        journal
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for DurableCommits {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one process acknowledged, by kind and name.
#[derive(Default)]
pub struct Journal(BTreeMap<(String, String), State>);

/// What was last said of a name.
enum State {
    /// It is there, with this value.
    There(String),
    /// It is being changed: before and after are both right.
    Maybe,
    /// It was deleted.
    Gone,
}

impl Journal {
    /// How many names there are in it, and how many of them were deleted.
    pub fn count(&self) -> (usize, usize) {
        let gone = self.0.values().filter(|state| matches!(state, State::Gone)).count();
        (self.0.len() - gone, gone)
    }

    /// What was acknowledged is among `names`, and nothing that was deleted is.
    #[track_caller]
    pub fn check_names(&self, names: &Names, round: u64) {
        for (key @ (kind, name), state) in &self.0 {
            let found = names.0.get(key);
            let tombstone = names.0.contains_key(&("tombstone".to_owned(), name.clone()));
            let leaves_tombstone = kind == "content" || kind == "tag";
            match (state, found) {
                (State::There(value), Some(found)) if kind == "upload" => {
                    let bytes = |text: &str| text.parse::<u64>().unwrap();
                    // More may have been written than was acknowledged.
                    assert!(bytes(found) >= bytes(value), "round {round}: {kind} {name} went back");
                }
                (State::There(value), found) => {
                    assert_eq!(found, Some(value), "round {round}: {kind} {name} is lost");
                    assert!(
                        !tombstone,
                        "round {round}: {kind} {name} is there and has a tombstone"
                    );
                }
                (State::Maybe, _) => {}
                (State::Gone, found) => {
                    assert_eq!(found, None, "round {round}: {kind} {name} has come back");
                    let is_told = tombstone == leaves_tombstone;
                    assert!(is_told, "round {round}: the tombstone of {kind} {name}: {tombstone}");
                }
            }
        }
    }

    /// What was acknowledged is served, byte for byte, and what was deleted is not; how many
    /// contents were asked for.
    #[track_caller]
    pub fn check_served(&self, server: &Server, round: u64) -> usize {
        let mut asked = 0;
        for ((kind, name), state) in &self.0 {
            let expected = match state {
                State::There(_) => 200,
                State::Gone => 404,
                State::Maybe => continue,
            };
            if kind != "content" {
                continue;
            }
            let answer = server.get(&format!("/v2/{REPOSITORY}/blobs/{name}"));
            let (status, text) = (answer.status(), || answer.text());
            assert_eq!(status, expected, "round {round}: {name}: {}", text());
            if expected == 200 {
                assert_eq!(super::images::sha256(&answer.body), *name, "round {round}");
            }
            asked += 1;
        }
        asked
    }
}

/// Every name that a catalog holds.
pub struct Names(BTreeMap<(String, String), String>);

impl Names {
    /// Those of a store that no process has open: read from a copy, so that the next start finds
    /// what the crash left.
    pub fn of(root: &Path, scratch: &Scratch) -> Names {
        let copy = scratch.path().join("copy.redb");
        std::fs::copy(root.join("catalog.redb"), &copy).expect("a copy of the catalog");
        let mut command = Command::new(built());
        command.arg("names").arg(&copy);
        let text = run(command, secs(60)).expect_ok();
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, name, value] = words[..] else { panic!("durable_commit tells {line}") };
            ((kind.to_owned(), name.to_owned()), value.to_owned())
        };
        Names(text.lines().map(line).collect())
    }
}

/// The example's program. `cargo test --test NAME` does not build examples, so this does.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let tests = std::env::current_exe().expect("the test's own path");
        let profile = tests.parent().and_then(Path::parent).expect("the folder of the profile");
        let target = profile.parent().expect("the target folder");
        let name = profile.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--offline", "--example", "durable_commit"]);
        command.args(["--profile", if name == "debug" { "dev" } else { &name }]);
        command.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What Cargo has set for this test would look like a change to build scripts that watch it.
        let of_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if of_test.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        run(command, secs(600)).expect_ok();
        profile.join("examples").join("durable_commit")
    })
}
