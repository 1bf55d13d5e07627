//! `[server]`, `[storage]` and `[log]`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::{Checker, flag, items, text};
use crate::config::model::{AccessTarget, Driver, Log, LogFormat, LogLevel, Pool, Server, Storage};
use crate::config::schema::{LogTable, PoolTable, ServerTable, StorageTable, Values};
use crate::config::text::{AdminAddress, As, Interval, Size};
use crate::config::{EndpointUrl, ROOT_POOL};

const LISTEN: &str = "127.0.0.1:5000";
const ADMIN: &str = "127.0.0.1:5001";
const ROOT: &str = "ringport-data";
const MAX_SIZE: u64 = 100 << 30;
pub(super) const MAX_SIZE_MIN: u64 = 1 << 20;
/// Their numbers are bytes, and never given out again.
const POOLS_MAX: usize = 32;
const VERIFY_RATE: u64 = 200 << 20;
const VERIFY_RATE_MIN: u64 = 1 << 20;
const VERIFY_INTERVAL_MIN: Duration = Duration::from_secs(1);
const WORKERS_MAX: u64 = 1024;
const CONNECTIONS_MAX: usize = 4096;
const CONNECTIONS_MAX_MAX: u64 = 1 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Checker<'_> {
    pub(super) fn server(&mut self, mut table: ServerTable) -> Server {
        let listen = self.listen(&table);
        let tls = self.server_tls(&mut table, &listen);
        let admin_public = flag(table.admin_public, false);
        let taken = tls.iter().flat_map(|tls| &tls.listen).chain(&listen).copied();
        let taken: Vec<SocketAddr> = taken.collect();
        Server {
            admin: self.admin(table.admin, admin_public, &taken),
            admin_public,
            listen,
            tls,
            workers: self.count(table.workers, 0, 0..=WORKERS_MAX),
            driver: text(table.driver, Driver::Auto),
            drain_timeout: self.limit(table.drain_timeout, DRAIN_TIMEOUT),
            connections_max: self.count(
                table.connections_max,
                CONNECTIONS_MAX,
                1..=CONNECTIONS_MAX_MAX,
            ),
            head_timeout: self.limit(table.head_timeout, crate::limits::HEAD_TIMEOUT),
            idle_timeout: self.limit(table.idle_timeout, crate::limits::IDLE_TIMEOUT),
        }
    }

    fn listen(&mut self, table: &ServerTable) -> Vec<SocketAddr> {
        let Some(list) = &table.listen else { return LISTEN.parse().into_iter().collect() };
        if list.get_ref().is_empty() && table.tls_listen.is_none() {
            let remedy = "`tls_listen` may have addresses instead";
            self.refuse(list.span(), "at least one address", "an empty list", remedy);
        }
        let mut listen: Vec<SocketAddr> = Vec::new();
        for address in list.get_ref() {
            let socket = address.get_ref().0;
            // Port 0 is a new port each time, so two of them are not the same address.
            if socket.port() != 0 && listen.contains(&socket) {
                self.refuse(address.span(), "each address once", format!("{socket} twice"), "");
            }
            listen.push(socket);
        }
        listen
    }

    fn admin(
        &mut self,
        value: Option<Spanned<As<AdminAddress>>>,
        public: bool,
        listen: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let Some(value) = value else { return ADMIN.parse().ok() };
        let span = value.span();
        let admin = value.into_inner().0.0?;
        if !admin.ip().is_loopback() && !public {
            let remedy = "it tells everyone who reaches it what is pulled and from where; \
                          if that is meant, add `admin_public = true`";
            self.refuse(span.clone(), "a loopback address", admin.to_string(), remedy);
        }
        if admin.port() != 0 && listen.contains(&admin) {
            let remedy = "the registry listens there, choose another port";
            self.refuse(span, "an address of its own", admin.to_string(), remedy);
        }
        Some(admin)
    }

    pub(super) fn storage(&mut self, table: StorageTable) -> Storage {
        let root = table.root.map_or_else(|| ROOT.into(), |root| self.path(root));
        let max_size = match table.max_size {
            None => MAX_SIZE,
            Some(value) => self.size(&value, MAX_SIZE_MIN),
        };
        let verify_rate = match table.verify_rate {
            None => VERIFY_RATE,
            Some(value) => self.size(&value, VERIFY_RATE_MIN),
        };
        let verify_interval = self.verify_interval(table.verify_interval);
        let remote_tiers = self.remote_tiers(table.remote_tiers);
        let pools = self.pools(table.pool, &root);
        let remote_allow_private = items(table.remote_allow_private);
        let remote_allow_private =
            remote_allow_private.into_iter().map(|network| network.into_inner().0).collect();
        Storage {
            root,
            max_size,
            verify_rate,
            verify_interval,
            remote_tiers,
            remote_allow_private,
            pools,
        }
    }

    /// Origins without a path, by https unless they are on this machine: what is signed for them
    /// must not be read on the way.
    fn remote_tiers(&mut self, list: Values<As<EndpointUrl>>) -> Vec<EndpointUrl> {
        let mut tiers: Vec<EndpointUrl> = Vec::new();
        for tier in items(list) {
            let url = &tier.get_ref().0;
            if !url.path.is_empty() {
                self.refuse(tier.span(), "an address without a path", url.to_string(), "");
            }
            if !url.https && !url.is_loopback_literal() {
                let remedy = "requests to it are signed; in the clear they go to loopback only";
                self.refuse(tier.span(), "an https:// address", url.to_string(), remedy);
            }
            if tiers.contains(url) {
                self.refuse(tier.span(), "each address once", format!("{url} twice"), "");
            }
            tiers.push(tier.into_inner().0);
        }
        tiers
    }

    fn pools(&mut self, tables: Vec<Spanned<PoolTable>>, root: &Path) -> Vec<Pool> {
        let mut pools: Vec<Pool> = Vec::new();
        for table in tables {
            let span = table.span();
            let PoolTable { name, path, max_size } = table.into_inner();
            if pools.len() == POOLS_MAX {
                let expected = format!("at most {POOLS_MAX} pools");
                self.refuse(span, expected, "one more", "");
                return pools;
            }
            self.name(&name);
            let known = name.get_ref();
            if known == ROOT_POOL {
                let remedy = "storage.root itself is called so";
                self.refuse(name.span(), "a name of its own", format!("{known:?}"), remedy);
            }
            if pools.iter().any(|other| other.name == *known) {
                self.refuse(name.span(), "a name of its own", format!("{known:?} twice"), "");
            }
            let folder = path.get_ref();
            if folder == root || pools.iter().any(|other| other.path == *folder) {
                let found = format!("{} twice", folder.display());
                self.refuse(path.span(), "a folder of its own", found, "");
            }
            let max_size = max_size.map(|value| self.size(&value, MAX_SIZE_MIN));
            pools.push(Pool { name: name.into_inner(), path: self.path(path), max_size });
        }
        pools
    }

    pub(super) fn size(&mut self, value: &Spanned<As<Size>>, min: u64) -> u64 {
        let size = value.get_ref().0.0;
        if size < min {
            let expected = format!("a size of at least {}", crate::config::format_size(min));
            let found = crate::config::format_size(size);
            self.refuse(value.span(), expected, found, "");
        }
        size
    }

    fn verify_interval(&mut self, value: Option<Spanned<As<Interval>>>) -> Option<Duration> {
        let value = value?;
        let interval = value.get_ref().0.0?;
        if interval < VERIFY_INTERVAL_MIN {
            let found = crate::config::format_duration(interval);
            self.refuse(value.span(), "1s or more", found, "for never, write \"off\"");
        }
        Some(interval)
    }

    pub(super) fn log(&mut self, table: LogTable) -> Log {
        Log {
            level: text(table.level, LogLevel::Info),
            format: text(table.format, LogFormat::Text),
            access: text(table.access, AccessTarget::Stdout),
        }
    }
}
