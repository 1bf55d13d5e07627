//! `/v2/`, which many clients ask before everything else.

use crate::client::Ask;
use crate::house::{Goods, House, NGINX, REGISTRY, RINGPORT, Trouble};
use crate::record::About;
use crate::scenario::{Case, Outcome, Scenario, Servers, hits, manifests};

pub(crate) struct Base;

impl Scenario for Base {
    fn about(&self) -> About {
        manifests::about("base", "GET /v2/, which many clients ask before everything else")
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        vec![Case::new("/v2/", &[("connections", hits::CONNECTIONS)])]
    }

    fn servers(&self, _: bool) -> Servers {
        Servers::and_given(&[RINGPORT, NGINX, REGISTRY])
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let connections = case.count("connections");
        hits::measure(house, server, &Goods::default(), connections, |_, _| Ok(vec![Ask::base()]))
    }
}
