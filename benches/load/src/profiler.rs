//! Tells a profiler when a measurement begins and ends, so that its profile has nothing of what
//! comes before and after: storing, proofs, a server's start. The words are those of
//! `perf record --control fifo:FILE`; `benches/flamegraph` makes use of it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// While it lives, the profiler records.
#[derive(Debug)]
pub(crate) struct Recorded(Option<File>);

impl Recorded {
    /// Lets the profiler that listens at `control` record; nothing, if there is none.
    ///
    /// # Errors
    /// That nobody listens there.
    pub(crate) fn begin(control: Option<&Path>) -> Result<Recorded, String> {
        let Some(path) = control else { return Ok(Recorded(None)) };
        let failed = |e: std::io::Error| {
            format!("{}: {e}: does a profiler listen there, and still?", path.display())
        };
        // Who has gone is not waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().write(true).custom_flags(flags).open(path);
        let mut file = opened.map_err(failed)?;
        file.write_all(b"enable\n").map_err(failed)?;
        Ok(Recorded(Some(file)))
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(file) = &mut self.0 {
            // A profiler that has gone records nothing.
            let _ = file.write_all(b"disable\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profiler_hears_of_begin_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        std::fs::write(&path, "").unwrap();
        let heard = || std::fs::read_to_string(&path).unwrap();
        let recorded = Recorded::begin(Some(&path)).unwrap();
        assert_eq!(heard(), "enable\n");
        drop(recorded);
        assert_eq!(heard(), "enable\ndisable\n");
    }

    #[test]
    fn a_profiler_that_has_gone_is_told_of_instead_of_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let error = Recorded::begin(Some(&path)).unwrap_err();
        assert!(error.contains("does a profiler listen there"), "{error}");
    }
}
