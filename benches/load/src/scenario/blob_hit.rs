//! Blobs that are stored and in memory: the rate at which one core sends them.

use crate::house::{House, NGINX, NGINX_CACHE, REGISTRY, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, hits, size};

pub(crate) struct BlobHit;

const KIB_64: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const MIB_64: u64 = 64 << 20;

impl Scenario for BlobHit {
    fn about(&self) -> About {
        let target = |case: &str, peer: &str, bound: f64| {
            Target::least("bytes_per_second", bound).times(peer).in_case(case)
        };
        About {
            scenario: "blob_hit".to_owned(),
            measures: "Blobs that are stored and in memory, by connections that ask again as soon \
                       as they have one: bytes per second of one core."
                .to_owned(),
            headline: "bytes_per_second".to_owned(),
            more_is_better: true,
            also: ["cpu_ms_per_gib", "latency_p99_us", "rss_peak_bytes"].map(str::to_owned).into(),
            peer: Some(NGINX.to_owned()),
            targets: vec![
                target("MiB", NGINX, 1.0),
                target("MiB x 256", NGINX, 1.05),
                target("64 MiB", REGISTRY, 5.0),
                target("1 MiB", REGISTRY, 18.0),
            ],
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |bytes: u64, connections: u64, files: u64| {
            let files_are = if files > 1 { format!(", {files} files") } else { String::new() };
            let name = format!("{} x {connections}{files_are}", size(bytes));
            Case::new(name, &[("bytes", bytes), ("connections", connections), ("files", files)])
        };
        if quick {
            return vec![case(KIB_64, 64, 1), case(MIB, 16, 1), case(MIB_64, 16, 1)];
        }
        let mut cases = Vec::new();
        for bytes in [KIB_64, MIB, MIB_64] {
            for connections in [1, 16, 64, 256] {
                cases.push(case(bytes, connections, 1));
                if connections >= 64 && bytes > KIB_64 {
                    cases.push(case(bytes, connections, if bytes == MIB { 32 } else { 8 }));
                }
            }
        }
        cases
    }

    fn servers(&self, quick: bool) -> Servers {
        Servers::and_given(match quick {
            true => &[RINGPORT, NGINX, REGISTRY],
            false => &[RINGPORT, NGINX, NGINX_CACHE, REGISTRY, REGISTRY_PROXY],
        })
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        hits::of_blobs(house, case, server)
    }
}
