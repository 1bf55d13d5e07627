//! Pushes to a registry that has nothing yet: a large layer by one client, and small images by
//! several. The client reads what it pushes from memory.
//!
//! What a server has done when it acknowledges is its own affair, and not the same: Ringport has
//! synchronised content, folder and catalog by then (docs/PUSHING.md), docker-registry has not.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::client::plain::Plain;
use crate::content::Image;
use crate::house::{Goods, House, REGISTRY, RINGPORT, Trouble};
use crate::machine::Usage;
use crate::record::About;
use crate::scenario::{Case, Outcome, Scenario, Servers, size};
use crate::servers::Running;
use crate::stock;

/// One of the two scenarios.
pub(crate) struct Pushes {
    is_small: bool,
}

impl Pushes {
    /// A layer in one streamed upload.
    pub(crate) const LAYER: Pushes = Pushes { is_small: false };
    /// Images of two small blobs and a manifest.
    pub(crate) const SMALL: Pushes = Pushes { is_small: true };
}

impl Scenario for Pushes {
    fn about(&self) -> About {
        let (scenario, measures, headline, also) = match self.is_small {
            true => (
                "push_small",
                "Images of a configuration, one layer of 4 KiB and a manifest of 4 KiB, pushed by \
                 several clients at a time: five requests for each image.",
                "images_per_second",
                ["cpu_us_per_image"],
            ),
            false => (
                "push_layer",
                "One layer, pushed in one streamed upload: from the first request until it is \
                 acknowledged.",
                "bytes_per_second",
                ["cpu_ms_per_gib"],
            ),
        };
        About {
            scenario: scenario.to_owned(),
            measures: measures.to_owned(),
            headline: headline.to_owned(),
            more_is_better: true,
            also: also.map(str::to_owned).into(),
            peer: Some(REGISTRY.to_owned()),
            targets: Vec::new(),
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let small = |images: u64, clients: u64| {
            let name = format!("{images} images, {clients} clients");
            Case::new(name, &[("images", images), ("connections", clients)])
        };
        let layer = |bytes: u64| Case::new(size(bytes), &[("bytes", bytes), ("connections", 1)]);
        match (self.is_small, quick) {
            (true, true) => vec![small(40, 8)],
            (true, false) => vec![small(100, 1), small(800, 16)],
            (false, true) => vec![layer(64 << 20)],
            (false, false) => vec![layer(64 << 20), layer(512 << 20)],
        }
    }

    fn servers(&self, _: bool) -> Servers {
        // What somebody else starts cannot be made to forget.
        Servers::only(&[RINGPORT, REGISTRY])
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let goods = match self.is_small {
            true => {
                let images = house.content.images("push", case.number("images"), &[4096])?;
                Goods { images, ..Goods::default() }
            }
            false => {
                let blobs = house.content.blobs("push", case.number("bytes"), 1)?;
                Goods { blobs, ..Goods::default() }
            }
        };
        let running = house.start_empty(server)?;
        let before = Usage::of(running.id());
        let began = Instant::now();
        match self.is_small {
            true => push_images(&running, &goods.images, case.count("connections"))?,
            false => push(&running, &goods)?,
        }
        let seconds = began.elapsed().as_secs_f64();
        let cpu = Usage::of(running.id()).cpu_since(&before).as_secs_f64();
        let images = goods.images.len() as f64;
        let blobs = goods.blobs.iter().map(|blob| blob.bytes);
        let bytes: u64 = blobs.chain(goods.images.iter().map(image_bytes)).sum();
        let gib = bytes as f64 / (1_u64 << 30) as f64;
        let requests = (2 * goods.blobs.len() + 5 * goods.images.len()) as u64;
        let mut outcome = Outcome { seconds, requests, body_bytes: bytes, ..Outcome::default() };
        outcome.put(match self.is_small {
            true => {
                [("images_per_second", images / seconds), ("cpu_us_per_image", cpu * 1e6 / images)]
            }
            false => {
                [("bytes_per_second", bytes as f64 / seconds), ("cpu_ms_per_gib", cpu * 1e3 / gib)]
            }
        });
        let memory = Usage::of(running.id()).rss_peak_bytes as f64;
        outcome.put([("rss_peak_bytes", memory)]);
        stock::prove_all(running.addr, &goods)?;
        Ok(outcome)
    }
}

fn image_bytes(image: &Image) -> u64 {
    image.body.len() as u64 + image.blobs.iter().map(|blob| blob.bytes).sum::<u64>()
}

fn push(running: &Running, goods: &Goods) -> Result<(), String> {
    let mut connection = Plain::open(running.addr).map_err(|e| format!("{}: {e}", running.name))?;
    stock::push(&mut connection, goods, &mut BTreeSet::new())
}

/// Each client pushes its share, one image after the other.
fn push_images(running: &Running, images: &[Image], clients: usize) -> Result<(), String> {
    let share = images.len().div_ceil(clients.max(1)).max(1);
    std::thread::scope(|scope| {
        let client = |images: &[Image]| {
            let goods = Goods { images: images.to_vec(), ..Goods::default() };
            scope.spawn(move || push(running, &goods))
        };
        let clients: Vec<_> = images.chunks(share).map(client).collect();
        for client in clients {
            client.join().map_err(|_| "a thread of the client panicked".to_owned())??;
        }
        Ok(())
    })
}
