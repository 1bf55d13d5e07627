//! Memory of a server that sends large blobs to many clients at once.

use crate::house::{House, NGINX, REGISTRY, RINGPORT, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, hits, size};

pub(crate) struct Memory;

const CONNECTIONS: u64 = 256;
const BLOB_BYTES: u64 = 64 << 20;

impl Scenario for Memory {
    fn about(&self) -> About {
        About {
            scenario: "memory".to_owned(),
            measures: format!(
                "The most memory that a server has had since its start, when {CONNECTIONS} clients \
                 have been pulling {} blobs from it.",
                size(BLOB_BYTES)
            ),
            headline: "rss_peak_bytes".to_owned(),
            more_is_better: false,
            also: ["bytes_per_second"].map(str::to_owned).into(),
            peer: Some(NGINX.to_owned()),
            targets: vec![Target::most("rss_peak_bytes", (40_u64 << 20) as f64)],
        }
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        let name = format!("{CONNECTIONS} x {}", size(BLOB_BYTES));
        vec![Case::new(name, &[("connections", CONNECTIONS), ("bytes", BLOB_BYTES), ("files", 4)])]
    }

    fn servers(&self, quick: bool) -> Servers {
        let all = [RINGPORT, NGINX, REGISTRY];
        Servers::and_given(if quick { all.split_at(2).0 } else { &all })
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        hits::of_blobs(house, case, server)
    }
}
