//! The morning of a CI platform: many jobs pull images, some images far more often than others.
//!
//! A pull is what containerd asks: the tag by HEAD, the manifest by its digest, its configuration
//! and its layers. Which images are pulled follows Zipf's law, from one seed, so that every server
//! gets the same requests in the same order. The connections take them one by one, as they come
//! free.

use crate::client::Ask;
use crate::content::Image;
use crate::house::{Goods, House, NGINX_CACHE, Trouble};
use crate::record::About;
use crate::scenario::{Case, Outcome, Scenario, Servers, cold};
use crate::stock;

pub(crate) struct CiWave;

const LAYERS: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20];
const CONNECTIONS: usize = 32;
/// Of Zipf's law: how much rarer each image is than the one before it.
const EXPONENT: f64 = 1.1;
const SEED: u64 = 20_261_122;

impl Scenario for CiWave {
    fn about(&self) -> About {
        About {
            scenario: "ci_wave".to_owned(),
            measures: format!(
                "Pulls as containerd makes them (HEAD, manifest, configuration, five layers of 64 \
                 KiB to 8 MiB) of images chosen by Zipf's law, over {CONNECTIONS} connections: by \
                 a mirror that has nothing yet, and again when it has everything."
            ),
            headline: "pulls_per_second".to_owned(),
            more_is_better: true,
            also: ["bytes_per_second", "cpu_ms_per_gib", "latency_p99_us", "upstream_gets"]
                .map(str::to_owned)
                .into(),
            peer: Some(NGINX_CACHE.to_owned()),
            targets: Vec::new(),
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let (images, pulls) = if quick { (8, 60) } else { (40, 800) };
        let case = |name: &str, warm: u64| {
            let params = [("images", images), ("pulls", pulls), ("warm", warm)];
            Case::new(format!("{name}, {pulls} pulls of {images} images"), &params)
        };
        vec![case("cold", 0), case("warm", 1)]
    }

    fn servers(&self, quick: bool) -> Servers {
        cold::servers(quick)
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let images = house.content.images("wave", case.number("images"), &LAYERS)?;
        let asks = wave(&images, case.number("pulls"));
        let goods = Goods { images, ..Goods::default() };
        let origin = house.counting()?;
        let running = house.start_cold(server, origin.addr)?;
        let mut measured = cold::pass(house, &running, &asks, CONNECTIONS)?;
        let mut gets = origin.take_gets();
        let mut wrong = Vec::new();
        stock::prove_all(running.addr, &goods)?;
        if case.number("warm") == 1 {
            origin.take_gets();
            wrong = measured.wrong();
            measured = cold::pass(house, &running, &asks, CONNECTIONS)?;
            gets = origin.take_gets();
        }
        let mut outcome = Outcome::of(&measured);
        outcome.wrong.extend(wrong);
        let pulls = case.number("pulls") as f64;
        outcome
            .put([("pulls_per_second", pulls / measured.seconds), ("upstream_gets", gets as f64)]);
        Ok(outcome)
    }
}

/// What all pulls ask, one behind the other.
fn wave(images: &[Image], pulls: u64) -> Vec<Ask> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let weights: Vec<f64> = (1..=images.len()).map(|rank| (rank as f64).powf(-EXPONENT)).collect();
    let all: f64 = weights.iter().sum();
    let mut asks = Vec::new();
    for _ in 0..pulls {
        let mut left = random.f64() * all;
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let Some(image) = images.get(chosen.unwrap_or(0)) else { continue };
        asks.push(Ask::manifest_head(image, &image.by_tag()));
        asks.push(Ask::manifest(image, &image.by_digest()));
        asks.extend(image.blobs.iter().map(Ask::blob));
    }
    asks
}
