//! `ringport check`: is this configuration right, and what does it amount to?

use std::io::{self, Write};
use std::path::Path;

use super::Exit;
use crate::auth::AuthFiles;
use crate::config::{Config, ConfigError};
use crate::server::check_certificates;

/// Loads the configuration at `path`. Well: the effective configuration goes to `out`, advice to
/// `remarks`. Failed: the problems go to `remarks`, one a line, and nothing to `out`.
pub fn run(path: &Path, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return refuse(&error, remarks),
    };
    if let Err(error) = check_certificates(&config) {
        writeln!(remarks, "{}: {error}", path.display())?;
        return Ok(Exit::Failed);
    }
    if let Err(error) = AuthFiles::check(&config.auth) {
        writeln!(remarks, "{}: {error}", path.display())?;
        return Ok(Exit::Failed);
    }
    let text = config.to_toml().map_err(io::Error::other)?;
    writeln!(out, "# The effective configuration of {}", path.display())?;
    out.write_all(text.as_bytes())?;
    let otherwise = config.hosted_otherwise.in_words();
    writeln!(out, "# Hosted repositories that no [[hosted]] matches: {otherwise}")?;
    for sentence in config.advice() {
        writeln!(remarks, "ringport: {}: advice: {sentence}", path.display())?;
    }
    Ok(Exit::Well)
}

fn refuse(error: &ConfigError, remarks: &mut impl Write) -> io::Result<Exit> {
    writeln!(remarks, "{error}")?;
    let count = error.problems().len();
    if count > 0 {
        let noun = if count == 1 { "problem" } else { "problems" };
        writeln!(remarks, "ringport: {count} {noun}")?;
    }
    Ok(Exit::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Exit, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ringport.toml");
        std::fs::write(&path, text).expect("written");
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        let exit = run(&path, &mut out, &mut remarks).expect("written");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (exit, text(out), text(remarks))
    }

    #[test]
    fn a_right_one_is_printed_as_it_is_in_force() {
        let (exit, out, remarks) = check("[[upstream]]\nnamespace = \"ghcr.io\"");
        assert_eq!((exit, remarks.as_str()), (Exit::Well, ""));
        let config = Config::parse(&out, "out").expect("the output is a configuration");
        assert_eq!(config.upstreams[0].endpoints[0].to_string(), "https://ghcr.io");
    }

    #[test]
    fn a_wrong_one_is_told_with_its_places() {
        let (exit, out, remarks) = check("[server]\nworkers = 9999\nlisten = []");
        assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
        assert!(remarks.contains("ringport.toml:2:11: key `server.workers`"), "{remarks}");
        assert!(remarks.ends_with("ringport: 2 problems\n"), "{remarks}");
    }

    #[test]
    fn users_and_keys_are_read_and_the_rule_behind_all_others_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = folder.path().join("htpasswd");
        std::fs::write(&users, "alice:{SHA}secret\n").expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&users, private).expect("mode set");
        let (exit, out, remarks) = check(&format!("[auth]\nhtpasswd_file = {users:?}"));
        assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
        assert!(remarks.contains("line 1, user alice") && !remarks.contains("secret"), "{remarks}");
        let (_, out, _) = check("");
        assert!(out.ends_with("pull everyone; push authenticated; delete nobody\n"), "{out}");
    }

    #[test]
    fn advice_does_not_make_it_fail() {
        let text = "[[upstream]]\nnamespace = \"a.io\"\nendpoints = [\"http://127.0.0.1:5711\"]";
        let (exit, _, remarks) = check(text);
        assert_eq!(exit, Exit::Well);
        assert!(remarks.contains("allow_private"), "{remarks}");
    }
}
