//! `[server]`: TLS to clients.

use std::net::SocketAddr;

use toml::Spanned;

use super::{Checker, text};
use crate::config::model::{ClientCertificate, ServerTls};
use crate::config::schema::{ServerTable, Value, Values};
use crate::config::text::As;

impl Checker<'_> {
    /// `tls_listen`, certificate and key are there together or not at all. `listen` are the plain
    /// addresses.
    pub(super) fn server_tls(
        &mut self,
        table: &mut ServerTable,
        listen: &[SocketAddr],
    ) -> Option<ServerTls> {
        let addresses = self.tls_addresses(&table.tls_listen, listen);
        let certificate = span(&table.tls_certificate);
        let key = span(&table.tls_key);
        let ca = span(&table.client_ca_file);
        let asked = table.client_certificate.as_ref().map(Spanned::span);
        let listened = table.tls_listen.as_ref().map(Spanned::span);
        let needs = [
            (&listened, &certificate, "`tls_certificate` beside it"),
            (&listened, &key, "`tls_key` beside it"),
            (&certificate, &key, "`tls_key` beside it"),
            (&key, &certificate, "`tls_certificate` beside it"),
            (&certificate, &listened, "`tls_listen` beside it, the addresses that speak TLS"),
            (&ca, &certificate, "`tls_certificate` beside it"),
            (&asked, &ca, "`client_ca_file` beside it, whose certificates are verified"),
        ];
        for (there, needed, expected) in needs {
            if let (Some(there), None) = (there, needed) {
                self.refuse(there.clone(), expected, "none", "");
            }
        }
        let certificate = self.file(table.tls_certificate.take(), false);
        let key = self.file(table.tls_key.take(), true);
        let client_ca_file = self.file(table.client_ca_file.take(), false);
        let asked = text(table.client_certificate.take(), ClientCertificate::Optional);
        Some(ServerTls {
            listen: addresses,
            certificate: certificate?,
            key: key?,
            client_ca_file,
            client_certificate: asked,
        })
    }

    fn tls_addresses(
        &mut self,
        list: &Values<As<SocketAddr>>,
        plain: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        let Some(list) = list else { return Vec::new() };
        if list.get_ref().is_empty() {
            self.refuse(list.span(), "at least one address", "an empty list", "");
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in list.get_ref() {
            let socket = address.get_ref().0;
            if socket.port() != 0 && (addresses.contains(&socket) || plain.contains(&socket)) {
                let remedy = "`listen` has it by itself when it is left out; an address speaks \
                              either plain HTTP or TLS";
                self.refuse(address.span(), "each address once", format!("{socket} twice"), remedy);
            }
            addresses.push(socket);
        }
        addresses
    }
}

fn span<T>(value: &Value<T>) -> Option<std::ops::Range<usize>> {
    value.as_ref().map(Spanned::span)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Config, ConfigError};

    const TLS: &str = "tls_listen = [\"0.0.0.0:5443\"]\ntls_certificate = \"/c\"\ntls_key = \"/k\"";

    fn parse(lines: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("[server]\n{lines}"), "t.toml")
    }

    #[test]
    fn plain_and_tls_stand_side_by_side_or_alone() {
        let both = parse(TLS).unwrap().server;
        assert_eq!(both.listen, ["127.0.0.1:5000".parse().unwrap()]);
        let tls = both.tls.unwrap();
        assert_eq!(tls.listen, ["0.0.0.0:5443".parse().unwrap()]);
        assert_eq!(tls.client_certificate, ClientCertificate::Optional);
        assert!(parse(&format!("{TLS}\nlisten = []")).unwrap().server.listen.is_empty());
        let required = format!("{TLS}\nclient_ca_file = \"/a\"\nclient_certificate = \"required\"");
        let config = parse(&required).unwrap();
        let tls = config.server.tls.as_ref().unwrap();
        assert_eq!(tls.client_certificate, ClientCertificate::Required);
        let written = config.to_toml().unwrap();
        assert_eq!(Config::parse(&written, "w").unwrap(), config, "{written}");
        assert_eq!(parse("").unwrap().server.tls, None);
    }

    #[test]
    fn the_command_line_keeps_off_the_addresses_for_tls() {
        let mut config = parse(TLS).unwrap();
        let taken = config.override_with(vec!["0.0.0.0:5443".parse().unwrap()], None);
        let taken = taken.unwrap_err().to_string();
        assert!(taken.contains("server.tls_listen") && taken.contains("0.0.0.0:5443"), "{taken}");
        let other = "127.0.0.1:7000".parse().unwrap();
        config.override_with(vec![other], None).unwrap();
        assert_eq!(config.server.addresses().collect::<Vec<_>>().first(), Some(&other));
    }

    #[test]
    fn what_lacks_and_what_is_there_twice_is_told() {
        let cases = [
            ("tls_listen = [\"0.0.0.0:1\"]\ntls_key = \"/k\"", "expected `tls_certificate`"),
            ("tls_certificate = \"/c\"\ntls_key = \"/k\"", "expected `tls_listen`"),
            ("client_ca_file = \"/a\"", "expected `tls_certificate`"),
            (&format!("{TLS}\nclient_certificate = \"required\""), "expected `client_ca_file`"),
            (&TLS.replace("0.0.0.0:5443", "127.0.0.1:5000"), "127.0.0.1:5000 twice"),
            (&format!("{TLS}\nadmin = \"0.0.0.0:5443\"\nadmin_public = true"), "another port"),
            (&TLS.replace("\"0.0.0.0:5443\"", ""), "an empty list"),
            ("listen = []", "an empty list"),
            (&format!("{TLS}\nclient_ca_file = \"/a\"\nclient_certificate = \"on\""), "required"),
        ];
        for (lines, expected) in cases {
            let printed = parse(lines).expect_err(lines).to_string();
            assert!(printed.contains("key `server."), "{printed}");
            assert!(printed.contains(expected), "{expected:?} is not in: {printed}");
        }
    }

    #[test]
    fn the_key_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let text = format!(
            "[server]\ntls_listen = [\"127.0.0.1:0\"]\ntls_certificate = {certificate:?}\n\
             tls_key = {key:?}"
        );
        for path in [&certificate, &key] {
            std::fs::write(path, "").unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        std::fs::write(&file, text).unwrap();
        let open = Config::load(&file).unwrap_err().to_string();
        assert!(open.contains("key `server.tls_key`") && open.contains("chmod 600"), "{open}");
        assert_eq!(open.lines().count(), 1, "the certificate is no secret: {open}");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(Config::load(&file).is_ok());
    }
}
