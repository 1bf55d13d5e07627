//! `proxy`, `proxy_username` and `proxy_password_file` of an upstream.

use super::Checker;
use super::upstream::has_secrets;
use crate::config::ProxyConfig;
use crate::config::schema::UpstreamTable;

impl Checker<'_> {
    pub(super) fn proxy(&mut self, table: &UpstreamTable) -> ProxyConfig {
        let proxy = table.proxy.as_ref().map(|proxy| proxy.get_ref().0.clone());
        let proxy = proxy.unwrap_or_default();
        self.proxy_login(table, matches!(proxy, ProxyConfig::Through(_)));
        let has_secrets = has_secrets(table);
        let endpoints = table.endpoints.iter().flat_map(|list| list.get_ref());
        let plain = endpoints.map(|url| &url.get_ref().0).find(|url| !url.https);
        if let (Some(value), ProxyConfig::Through(_), Some(url), true) =
            (&table.proxy, &proxy, plain, has_secrets)
        {
            let remedy = "this upstream has credentials, and a proxy reads what goes to http:// \
                          endpoints; use https://, or proxy = \"none\"";
            self.refuse(value.span(), "https:// endpoints", url.to_string(), remedy);
        }
        proxy
    }

    fn proxy_login(&mut self, table: &UpstreamTable, has_url: bool) {
        let (username, file) = (&table.proxy_username, &table.proxy_password_file);
        if let Some(username) = username {
            self.username(username);
            if file.is_none() {
                let remedy = "add `proxy_password_file`, the path of a file with the password";
                self.refuse(username.span(), "`proxy_password_file` beside it", "none", remedy);
            }
        }
        if let (Some(file), None) = (file, username) {
            let remedy = "add `proxy_username`";
            self.refuse(file.span(), "`proxy_username` beside it", "none", remedy);
        }
        if let (Some(username), Some(_), false) = (username, file, has_url) {
            let remedy = "add `proxy`; the environment's proxies have their login in the variable";
            self.refuse(username.span(), "`proxy` with a URL beside it", "none", remedy);
        }
    }
}
