//! nginx: the tree of files as it is, or a cache in front of the origin.

use std::net::SocketAddr;
use std::path::Path;

use super::{How, Running, free_addr, launch, write_file};
use crate::content::{MANIFEST_TYPE, REPOSITORY};

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Files, by sendfile on its own thread.
    Static,
    /// Files, by sendfile on threads for them: what nginx offers against cold disks.
    StaticThreads,
    /// `proxy_cache` in front of the origin.
    Cache(SocketAddr),
}

/// Starts it; `root` is the tree of files.
///
/// # Errors
/// What could not be written or started, with what it said.
pub(crate) fn start(
    name: &str,
    program: &Path,
    role: Role,
    root: &Path,
    how: &How,
) -> Result<Running, String> {
    let addr = free_addr()?;
    let folder = how.folder.display();
    let config = how.folder.join("nginx.conf");
    // Workers of root's become somebody else, who may not read what is root's.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let threads = if role == Role::StaticThreads { "aio threads;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/temp-{kind};\n"))
        .concat();
    let (outer, inner) = match role {
        Role::Cache(origin) => cache(origin, &folder.to_string()),
        Role::Static | Role::StaticThreads => (String::new(), files(root)),
    };
    let tls = how.tls.as_ref().map_or_else(String::new, |tls| {
        format!(
            "listen {} ssl;\nssl_certificate {};\nssl_certificate_key {};\n\
             ssl_protocols TLSv1.3;\n",
            tls.addr,
            tls.certificate.display(),
            tls.key.display()
        )
    });
    let reuse = if how.workers > 1 { " reuseport" } else { "" };
    let text = format!(
        "{user}daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\n\
         error_log {folder}/log crit;\nworker_rlimit_nofile 65536;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\n{threads}\
         open_file_cache max=10000;\nopen_file_cache_valid 1h;\n\
         keepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         default_type application/octet-stream;\n{temporary}{outer}\
         server {{\nlisten {addr}{reuse};\n{tls}\
         location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}\n{inner}}}\n}}\n",
        workers = how.workers,
    );
    write_file(&config, &text)?;
    let arguments = ["-c", &config.to_string_lossy(), "-p", &folder.to_string(), "-e", "stderr"]
        .map(str::to_owned);
    let files = match role {
        Role::Cache(_) => how.folder.join("cache"),
        Role::Static | Role::StaticThreads => root.to_owned(),
    };
    launch(name, addr, files, (program, &arguments), &[], how)
}

fn files(root: &Path) -> String {
    format!(
        "root {};\n\
         location /v2/{REPOSITORY}/manifests/ {{ types {{}} default_type {MANIFEST_TYPE}; }}\n\
         location /v2/{REPOSITORY}/blobs/ {{ types {{}} }}\n",
        root.display()
    )
}

fn cache(origin: SocketAddr, folder: &str) -> (String, String) {
    let outer = format!(
        "proxy_cache_path {folder}/cache levels=2 keys_zone=all:64m max_size=60g inactive=7d \
         use_temp_path=off;\n"
    );
    let inner = format!(
        "location /v2/ {{\nproxy_pass http://{origin};\nproxy_cache all;\n\
         proxy_cache_key $uri;\nproxy_cache_valid 200 7d;\nproxy_buffering on;\n\
         proxy_cache_lock on;\nproxy_max_temp_file_size 4096m;\n}}\n"
    );
    (outer, inner)
}
