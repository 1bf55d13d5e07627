//! What a `credential_command` prints. Pure.

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::token_reply::parse_rfc3339;

/// How long an answer without an expiry is used: what docker's credential helpers give. The
/// shortest-lived of the clouds' passwords live 15 minutes and more.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// No answer is used longer: a machine's clock may be wrong by any amount.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest user name, password or token.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// What docker's helpers call an identity token, and who takes it for a password all the same.
const IDENTITY_TOKEN: &str = "<token>";
const AZURE_HOSTS: [&str; 3] = [".azurecr.io", ".azurecr.cn", ".azurecr.us"];
const AZURE_USERNAME: &str = "00000000-0000-0000-0000-000000000000";

/// An answer.
pub(super) struct Printed {
    pub(super) login: PrintedLogin,
    /// From now.
    pub(super) lifetime: Duration,
}

/// What it lets us in with. No `Debug`.
pub(super) enum PrintedLogin {
    Password { username: String, password: Zeroizing<String> },
    Token(Zeroizing<String>),
}

#[derive(Deserialize)]
struct Reply {
    #[serde(alias = "Username")]
    username: Option<String>,
    #[serde(alias = "Secret")]
    password: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
    /// Seconds from now.
    expires_in: Option<serde_json::Value>,
    /// RFC 3339.
    expires_at: Option<serde_json::Value>,
}

/// Reads what was printed for the registry `host`. `now` is in seconds since 1970.
///
/// # Errors
/// What was expected; never any part of the answer.
pub(super) fn parse(text: &[u8], host: &str, now: u64) -> Result<Printed, &'static str> {
    let reply: Reply = serde_json::from_slice(text).map_err(
        |_| "expected a JSON object with `username` and `password` (or `Secret`), or `token`",
    )?;
    let lifetime = lifetime(&reply, now)?;
    let login = match (reply.username, reply.password, reply.token) {
        (Some(username), Some(password), None) => password_login(username, password, host)?,
        (None, None, Some(token)) => {
            let is_plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
            if !is_plain || token.len() > TEXT_BYTES_MAX {
                return Err("expected a token of at most 16 KiB of printable ASCII");
            }
            PrintedLogin::Token(token)
        }
        _ => return Err("expected either `username` with `password` (or `Secret`), or `token`"),
    };
    Ok(Printed { login, lifetime })
}

fn password_login(
    username: String,
    password: Zeroizing<String>,
    host: &str,
) -> Result<PrintedLogin, &'static str> {
    let username = match username == IDENTITY_TOKEN {
        false => username,
        true if AZURE_HOSTS.iter().any(|azure| host.ends_with(azure)) => AZURE_USERNAME.to_owned(),
        true => {
            return Err("expected a user name, found `<token>` (an identity token), which only \
                        the registries of Azure take");
        }
    };
    let is_name = !username.is_empty() && !username.contains(':');
    let is_plain = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    if !is_name || !is_plain(&username) || password.is_empty() || !is_plain(&password) {
        return Err("expected a user name without colons and a password, neither empty nor with \
                    control characters, at most 16 KiB each");
    }
    Ok(PrintedLogin::Password { username, password })
}

/// How long it is good for. An expiry that can't be read is an error: taking the default for it
/// would go unnoticed until the first 401.
fn lifetime(reply: &Reply, now: u64) -> Result<Duration, &'static str> {
    let seconds = match (&reply.expires_in, &reply.expires_at) {
        (None, None) => return Ok(LIFETIME_DEFAULT),
        (Some(_), Some(_)) => return Err("expected `expires_in` or `expires_at`, found both"),
        (Some(value), None) => {
            value.as_u64().ok_or("expected `expires_in` to be a number of seconds")?
        }
        (None, Some(value)) => {
            let at = value.as_str().and_then(parse_rfc3339);
            let at = at.ok_or("expected `expires_at` to be a time such as 2026-01-02T03:04:05Z")?;
            at.saturating_sub(now)
        }
    };
    match seconds {
        0 => Err("it has expired already; is the clock right?"),
        _ => Ok(Duration::from_secs(seconds).min(LIFETIME_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_260_960;

    fn read(text: &str, host: &str) -> Result<(String, u64), &'static str> {
        let printed = parse(text.as_bytes(), host, NOW)?;
        let login = match printed.login {
            PrintedLogin::Password { username, password } => format!("{username}:{}", &*password),
            PrintedLogin::Token(token) => format!("token {}", &*token),
        };
        Ok((login, printed.lifetime.as_secs()))
    }

    #[test]
    fn answers_are_read() {
        let cases = [
            (r#"{"username":"u","password":"p"}"#, "u:p", 600),
            (r#"{"username":"u","password":"p","expires_in":43200}"#, "u:p", 43_200),
            (r#"{"token":"t","expires_at":"2026-11-21T11:46:00Z"}"#, "token t", 600),
            (r#"{"token":"t","expires_in":9999999999}"#, "token t", 86_400),
            (r#"{"ServerURL":"https://r.test","Username":"AWS","Secret":"s"}"#, "AWS:s", 600),
            (
                r#"{"Username":"oauth2accesstoken","Secret":"ya29.x","more":[1]}"#,
                "oauth2accesstoken:ya29.x",
                600,
            ),
            (r#"{"username":"u","password":"a:b c"}"#, "u:a:b c", 600),
        ];
        for (text, login, seconds) in cases {
            assert_eq!(read(text, "r.test"), Ok((login.to_owned(), seconds)), "{text}");
        }
        let identity = r#"{"Username":"<token>","Secret":"s"}"#;
        let azure = format!("{AZURE_USERNAME}:s");
        assert_eq!(read(identity, "mine.azurecr.io"), Ok((azure, 600)));
        assert!(read(identity, "r.test").is_err_and(|error| error.contains("Azure")));
    }

    #[test]
    fn what_is_no_answer_is_refused_without_showing_it() {
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        let cases = [
            "",
            "canary",
            "[]",
            "{}",
            "credentials not found in native keychain canary",
            r#"{"username":"canary"}"#,
            r#"{"password":"canary"}"#,
            r#"{"username":"u","password":"canary","token":"t"}"#,
            r#"{"username":"","password":"canary"}"#,
            r#"{"username":"u","password":""}"#,
            r#"{"username":"a:b","password":"canary"}"#,
            r#"{"username":"u","password":"can\r\nary"}"#,
            r#"{"token":"can ary"}"#,
            r#"{"token":""}"#,
            r#"{"token":7}"#,
            r#"{"token":"canary","expires_in":0}"#,
            r#"{"token":"canary","expires_in":-5}"#,
            r#"{"token":"canary","expires_in":"soon"}"#,
            r#"{"token":"canary","expires_at":"soon"}"#,
            r#"{"token":"canary","expires_at":"2026-11-21T11:35:59Z"}"#,
            r#"{"token":"canary","expires_at":"2026-11-22T11:36:00Z","expires_in":5}"#,
            long.as_str(),
        ];
        for text in cases {
            let error = read(text, "r.test").expect_err(text);
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
