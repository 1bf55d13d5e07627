//! The morning of a CI platform: many jobs pull images, some images far more often than others.
//!
//! A pull is what containerd asks: the tag by HEAD, the manifest by its digest, its configuration
//! and its layers. Which images are pulled follows Zipf's law, from one seed, so that every server
//! gets the same requests in the same order. The connections take them one by one, as they come
//! free.

use crate::client::Ask;
use crate::content::Image;
use crate::drive::{Load, drive};
use crate::house::{Goods, House, NGINX_CACHE, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::record::About;
use crate::scenario::{Case, Outcome, Scenario, hits};
use crate::servers::counting::Counting;
use crate::stock;

pub(crate) struct CiWave;

const LAYERS: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20];
const CONNECTIONS: u64 = 32;
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

    fn servers(&self, quick: bool) -> Vec<&'static str> {
        match quick {
            true => vec![RINGPORT, NGINX_CACHE],
            false => vec![RINGPORT, NGINX_CACHE, REGISTRY_PROXY],
        }
    }

    fn takes_given(&self) -> bool {
        // What somebody else starts cannot be made to forget.
        false
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let images = house.content.images("wave", case.number("images"), &LAYERS)?;
        let origin = Counting::start(house.content.root(), &house.settings.client_cores)?;
        let asks = wave(&images, case.number("pulls"));
        let targets: Vec<String> =
            images.iter().flat_map(|image| image.blobs.iter().map(|blob| blob.target())).collect();
        let goods = Goods { blobs: Vec::new(), images };
        let running = house.start_cold(server, origin.addr)?;
        let load = Load {
            asks: &asks,
            connections: usize::try_from(CONNECTIONS).unwrap_or(1),
            once: true,
            seconds: house.settings.seconds,
            beside: None,
            client_cores: &house.settings.client_cores,
            server_cores: &house.settings.server_cores,
        };
        let mut measured = drive(&running, &load, &house.interrupted)?;
        let mut wrong = measured.wrong();
        let taken = || targets.iter().map(|target| origin.take_gets(target)).sum::<u64>();
        let mut gets = taken();
        if case.number("warm") == 1 {
            stock::prove_all(running.addr, &goods)?;
            taken();
            measured = drive(&running, &load, &house.interrupted)?;
            wrong.extend(measured.wrong());
            gets = taken();
        }
        let mut outcome = hits::outcome(&measured);
        outcome.wrong = wrong;
        let mut put = |name: &str, value: f64| outcome.metrics.insert(name.to_owned(), value);
        put("pulls_per_second", case.number("pulls") as f64 / measured.seconds);
        put("upstream_gets", gets as f64);
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
