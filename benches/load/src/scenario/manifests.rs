//! Manifests that are stored: fetched by digest or by fresh tag, looked for by HEAD, or had by the
//! client already. What counts is the server's CPU time: with such small answers a client on one
//! core may be the slower of the two, and then the rate is the client's.

use crate::client::Ask;
use crate::content::Image;
use crate::house::{
    Goods, House, NGINX, NGINX_CACHE, REGISTRY, RINGPORT, RINGPORT_LOGGED, Trouble,
};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, hits};

/// How many different ones are asked for.
const IMAGES: u64 = 16;

pub(crate) struct ManifestHit;
pub(crate) struct HeadStorm;
pub(crate) struct NotModified;

impl Scenario for ManifestHit {
    fn about(&self) -> About {
        about("manifest_hit", "Manifests of 4 KiB that are stored, by digest and by fresh tag")
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        by_digest_and_by_tag()
    }

    fn servers(&self, quick: bool) -> Servers {
        let mut all = servers(quick);
        if !quick {
            all.known.push(RINGPORT_LOGGED);
        }
        all
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        measure(house, case, server, |image, target| Ok(Ask::manifest(image, target)))
    }
}

impl Scenario for HeadStorm {
    fn about(&self) -> About {
        about("head_storm", "HEADs of manifests by tag, with which every pull begins")
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        vec![case("by tag", true)]
    }

    fn servers(&self, quick: bool) -> Servers {
        servers(quick)
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        measure(house, case, server, |image, target| Ok(Ask::manifest_head(image, target)))
    }
}

impl Scenario for NotModified {
    fn about(&self) -> About {
        about("not_modified", "Manifests that the client has already: If-None-Match and 304")
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        vec![case("by digest", false)]
    }

    fn servers(&self, quick: bool) -> Servers {
        servers(quick)
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let goods = goods(house)?;
        let images = goods.images.clone();
        hits::measure(house, server, &goods, case.count("connections"), |house, running| {
            let ask = |image: &Image| {
                let target = image.by_digest();
                // Each server has its own names for what it serves.
                let etag = house.etag(running, &Ask::manifest(image, &target))?;
                Ok(Ask::not_modified(&target, &etag))
            };
            images.iter().map(ask).collect()
        })
    }
}

/// Loads a server with one request for each image.
fn measure(
    house: &mut House,
    case: &Case,
    server: &str,
    ask: impl Fn(&Image, &str) -> Result<Ask, Trouble>,
) -> Result<Outcome, Trouble> {
    let goods = goods(house)?;
    let images = goods.images.clone();
    let is_by_tag = case.number("by_tag") == 1;
    hits::measure(house, server, &goods, case.count("connections"), |_, _| {
        let target = |image: &Image| if is_by_tag { image.by_tag() } else { image.by_digest() };
        images.iter().map(|image| ask(image, &target(image))).collect()
    })
}

/// The images of all scenarios of small requests.
///
/// # Errors
/// The file system's.
pub(crate) fn goods(house: &House) -> Result<Goods, Trouble> {
    let images = house.content.images("small", IMAGES, &[4096])?;
    Ok(Goods { images, ..Goods::default() })
}

/// What all scenarios of small requests aim at.
pub(crate) fn about(scenario: &str, measures: &str) -> About {
    let cpu = "cpu_us_per_request";
    About {
        scenario: scenario.to_owned(),
        measures: format!("{measures}: CPU time of the server for each, on 64 connections."),
        headline: cpu.to_owned(),
        more_is_better: false,
        also: ["requests_per_second", "latency_p99_us", "client_busy_percent"]
            .map(str::to_owned)
            .into(),
        peer: Some(NGINX.to_owned()),
        targets: vec![
            Target::most(cpu, 7.5),
            Target::most(cpu, 0.7).times(NGINX),
            Target::least("requests_per_second", 80.0).times(REGISTRY),
        ],
    }
}

/// Those that answer small requests.
fn servers(quick: bool) -> Servers {
    Servers::and_given(match quick {
        true => &[RINGPORT, NGINX, REGISTRY],
        false => &[RINGPORT, NGINX, NGINX_CACHE, REGISTRY],
    })
}

fn by_digest_and_by_tag() -> Vec<Case> {
    vec![case("by digest", false), case("by tag", true)]
}

fn case(name: &str, by_tag: bool) -> Case {
    Case::new(name, &[("connections", hits::CONNECTIONS), ("by_tag", u64::from(by_tag))])
}
