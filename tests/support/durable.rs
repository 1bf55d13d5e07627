//! The example `durable_commit` as a process: it stores content durably and says which digests it
//! has acknowledged, until it is killed or its disk is gone.

use super::process::run;
use super::secs;
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

    /// How many digests it has acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it; every digest that it has acknowledged.
    pub fn kill(mut self) -> Vec<String> {
        self.end();
        let acknowledged = self.acknowledged.lock().unwrap();
        // A line may have been cut off by the kill.
        acknowledged.iter().filter(|digest| digest.len() == 71).cloned().collect()
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
