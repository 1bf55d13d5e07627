//! Hits over TLS. The client decrypts heads only and has a thread for each connection: what it
//! costs is no part of the server's CPU time, which is what is compared.

use crate::client::Ask;
use crate::client::tls::config;
use crate::content::Image;
use crate::drive::{Door, Load, drive};
use crate::house::{Goods, House, NGINX, RINGPORT, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, hits, manifests, size};

/// One of the two scenarios.
pub(crate) struct TlsHit {
    is_small: bool,
}

impl TlsHit {
    /// Large blobs.
    pub(crate) const BLOBS: TlsHit = TlsHit { is_small: false };
    /// Manifests.
    pub(crate) const MANIFESTS: TlsHit = TlsHit { is_small: true };
}

const CIPHER: &str = "TLS 1.3 with TLS_AES_128_GCM_SHA256";
const BLOB_BYTES: u64 = 64 << 20;

impl Scenario for TlsHit {
    fn about(&self) -> About {
        let (scenario, measures, headline, also) = match self.is_small {
            true => (
                "tls_manifest",
                format!(
                    "Stored manifests of 4 KiB over {CIPHER}: CPU time of the server for each."
                ),
                "cpu_us_per_request",
                "requests_per_second",
            ),
            false => (
                "tls_blob",
                format!("Stored blobs of {} over {CIPHER}: bytes per second.", size(BLOB_BYTES)),
                "bytes_per_second",
                "cpu_ms_per_gib",
            ),
        };
        let target = Target::least(headline, 0.9).times(NGINX);
        About {
            scenario: scenario.to_owned(),
            measures,
            headline: headline.to_owned(),
            more_is_better: !self.is_small,
            also: [also, "client_busy_percent"].map(str::to_owned).into(),
            peer: Some(NGINX.to_owned()),
            targets: if self.is_small { Vec::new() } else { vec![target] },
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |what: &str, connections: u64| {
            Case::new(format!("{what} x {connections}"), &[("connections", connections)])
        };
        match (self.is_small, quick) {
            (true, _) => vec![case("by digest", hits::CONNECTIONS)],
            (false, true) => vec![case(&size(BLOB_BYTES), 4)],
            (false, false) => [1, 4, 16].map(|n| case(&size(BLOB_BYTES), n)).into(),
        }
    }

    fn servers(&self, _: bool) -> Servers {
        // The certificates of others are not ours to make.
        Servers::only(&[RINGPORT, NGINX])
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let (goods, asks): (_, Vec<Ask>) = if self.is_small {
            let goods = manifests::goods(house)?;
            let ask = |image: &Image| Ask::manifest(image, &image.by_digest());
            let asks = goods.images.iter().map(ask).collect();
            (goods, asks)
        } else {
            let blobs = house.content.blobs("hit", BLOB_BYTES, 1)?;
            let asks = blobs.iter().map(Ask::blob).collect();
            (Goods { blobs, ..Goods::default() }, asks)
        };
        let (running, addr) = house.open_secure(server, &goods)?;
        let config = config()?;
        let load = Load {
            tls: Some(Door { addr, config: &config }),
            ..Load::of(&house.settings, &asks, case.count("connections"))
        };
        Ok(Outcome::of(&drive(&running, &load, &house.interrupted)?))
    }
}
