//! What a plugin asks of the host in `configure`.

use std::time::Duration;

use ringport_plugin_abi as abi;

use super::text::{shorter_than, shown};
use super::{Answer, Phase, Refused};

/// Request headers that no plugin gets: they carry secrets.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// What a plugin asked for; an instance and its successors by refresh keep it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Names of request headers, in lower case, in the order asked for.
    pub(crate) headers: Vec<String>,
    /// How often it is refreshed.
    pub(crate) refresh: Option<Duration>,
}

impl Answer {
    pub(crate) fn want_header(&mut self, name: &[u8]) -> Result<(), Refused> {
        let is_allowed = matches!(self.phase, Phase::Configure { .. });
        self.expect_phase(is_allowed, "want_header", "configure")?;
        let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let text = shorter_than(name, abi::HEADER_NAME_BYTES_MAX);
        let Some(text) = text.filter(|t| !t.is_empty() && name.iter().all(is_token)) else {
            let problem = format!("it asked for {}, which is no header's name", shown(name));
            return self.refuse(problem);
        };
        let text = text.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&text.as_str()) {
            return self.refuse(format!("it asked for the header {text}, which carries secrets"));
        }
        if self.wishes.headers.contains(&text) {
            return self.refuse(format!("it asked for the header {text} twice"));
        }
        if self.wishes.headers.len() == abi::HEADERS_MAX {
            return self.refuse(format!("it asked for more than {} headers", abi::HEADERS_MAX));
        }
        self.wishes.headers.push(text);
        Ok(())
    }

    pub(crate) fn want_refresh(&mut self, interval_ms: u64) -> Result<(), Refused> {
        let Phase::Configure { can_refresh } = self.phase else {
            return self.expect_phase(false, "want_refresh", "configure");
        };
        if !can_refresh {
            return self.refuse("it asked for refreshes without RINGPORT_CAN_REFRESH".into());
        }
        if !(abi::REFRESH_MS_MIN..=abi::REFRESH_MS_MAX).contains(&interval_ms) {
            let problem = format!("it asked for a refresh every {interval_ms} ms: 1 s to 1 day");
            return self.refuse(problem);
        }
        self.wishes.refresh = Some(Duration::from_millis(interval_ms));
        Ok(())
    }
}
