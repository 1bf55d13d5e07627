//! Servers with a second door, for TLS.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Goods, House, NGINX, RINGPORT, Trouble};
use crate::servers::nginx::{self, Role};
use crate::servers::{How, Running, Tls, free_addr, ringport, write_file};

impl House {
    /// As `open`, with both doors, and says where that for TLS is.
    ///
    /// # Errors
    /// That it is not here, or not made for this; that it does not start; what was not right.
    pub(crate) fn open_secure(
        &mut self,
        server: &str,
        goods: &Goods,
    ) -> Result<(Running, SocketAddr), Trouble> {
        self.publish(goods)?;
        let (program, origin) = (self.program(server)?, self.origin()?);
        let folder = self.own_folder(server)?;
        let tls = certified(&folder)?;
        let addr = tls.addr;
        let how = How { tls: Some(tls), ..How::new(&self.settings.server_cores, folder) };
        let running = match server {
            RINGPORT => ringport::start(server, &program, origin, "off", &how),
            NGINX => nginx::start(server, &program, Role::Static, self.content.root(), &how),
            _ => Err(format!("{server} is not made for TLS here")),
        };
        let running = running?;
        self.prove(&running, goods)?;
        Ok((running, addr))
    }
}

/// An address, and a certificate of its own.
fn certified(folder: &Path) -> Result<Tls, String> {
    let failed = |e: rcgen::Error| format!("a certificate: {e}");
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let names = vec!["127.0.0.1".to_owned()];
    let parameters = rcgen::CertificateParams::new(names).map_err(failed)?;
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    let tls = Tls {
        addr: free_addr()?,
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
    };
    write_file(&tls.certificate, &certificate.pem())?;
    // Closed to others before the key is in it.
    let opened = std::fs::File::options().create(true).append(true).mode(0o600).open(&tls.key);
    opened.map_err(|e| format!("{}: {e}", tls.key.display()))?;
    write_file(&tls.key, &key.serialize_pem())?;
    Ok(tls)
}
