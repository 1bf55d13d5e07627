//! Names to addresses: getaddrinfo on the blocking pool, cached, one look-up a name at a time.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shards::{Perishable, Shards};
use crate::runtime::{SingleFlight, Workers, blocking_names, clock};

/// getaddrinfo tells no TTL; CDNs move within a minute or so.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failed look-up is not repeated.
const FAILURE_FRESH: Duration = Duration::from_secs(5);
/// How long an old answer stands in when the look-up fails.
const STALE_MAX: Duration = Duration::from_secs(600);
/// Names kept by each worker.
const NAMES_MAX: usize = 1024;
/// Addresses kept of one answer; a name with thousands of records costs no more.
const ADDRESSES_MAX: usize = 16;

/// What getaddrinfo does: a name to all its addresses.
pub(super) type LookUp = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

type Answer = Result<Arc<[IpAddr]>, Arc<str>>;

/// The cache, shared by all workers.
pub(super) struct Dns {
    flights: SingleFlight<Arc<str>, Answer>,
    names: Shards<Arc<str>, Entry>,
    look_up: Box<LookUp>,
}

#[derive(Clone)]
struct Entry {
    answer: Answer,
    fresh_until: Instant,
    perishes: Instant,
}

impl Perishable for Entry {
    fn perishes(&self) -> Instant {
        self.perishes
    }
}

impl Dns {
    pub(super) fn new(workers: &Workers, look_up: Box<LookUp>) -> Self {
        Self {
            flights: SingleFlight::new(workers.clone()),
            names: Shards::new(workers.clone(), NAMES_MAX),
            look_up,
        }
    }

    /// The addresses of `name`, at least one and at most 16, in the order the system prefers.
    /// Sets no time limit of its own; the look-up goes on for others if the caller gives up.
    pub(super) async fn resolve(self: &Arc<Self>, name: &Arc<str>) -> Answer {
        let (dns, key) = (self.clone(), name.clone());
        let flight = self.flights.run(name.clone(), move || async move { dns.obtain(key).await });
        flight.await.unwrap_or_else(|error| Err(error.to_string().into()))
    }

    /// On the owner of `name`.
    async fn obtain(self: Arc<Self>, name: Arc<str>) -> Answer {
        let known = self.names.find(&name);
        if let Some(entry) = &known
            && clock::now() < entry.fresh_until
        {
            return entry.answer.clone();
        }
        let (dns, asked) = (self.clone(), name.clone());
        let looked_up = blocking_names(move || (dns.look_up)(&asked)).await;
        let answer: Answer = match looked_up {
            Ok(Ok(addresses)) if addresses.is_empty() => Err("the name has no address".into()),
            Ok(Ok(addresses)) => Ok(distinct(addresses)),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(error) => Err(error.to_string().into()),
        };
        self.remember(name, answer, known)
    }

    fn remember(&self, name: Arc<str>, answer: Answer, known: Option<Entry>) -> Answer {
        let now = clock::now();
        let entry = match (answer, known) {
            (Ok(addresses), _) => {
                Entry { answer: Ok(addresses), fresh_until: now + FRESH, perishes: now + STALE_MAX }
            }
            (Err(error), Some(old)) if old.answer.is_ok() && now < old.perishes => {
                tracing::warn!(%name, %error, "name look-up failed; the last answer is used");
                Entry { fresh_until: now + FAILURE_FRESH, ..old }
            }
            (Err(error), _) => {
                let until = now + FAILURE_FRESH;
                Entry { answer: Err(error), fresh_until: until, perishes: until }
            }
        };
        let answer = entry.answer.clone();
        self.names.keep(name, entry);
        answer
    }
}

fn distinct(addresses: Vec<IpAddr>) -> Arc<[IpAddr]> {
    let mut kept = Vec::new();
    for address in addresses {
        if kept.len() < ADDRESSES_MAX && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept.into()
}

/// The system's resolver (/etc/hosts, nsswitch). Blocks.
pub(super) fn system_look_up(name: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).take(1024).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::on_workers;

    #[test]
    fn an_old_answer_stands_in_for_a_failure_within_bounds() {
        on_workers(1, |context| async move {
            let dns = Dns::new(&context.workers, Box::new(system_look_up));
            let name: Arc<str> = "name.test".into();
            let address: IpAddr = "127.0.0.1".parse().expect("an address");
            let fresh = dns.remember(name.clone(), Ok([address].into()), None);
            assert_eq!(fresh.as_deref(), Ok([address].as_slice()));
            let kept = dns.names.find(&name).expect("kept");
            assert!(kept.fresh_until > clock::now());

            let failed = || Err("gone".into());
            let stale = dns.remember(name.clone(), failed(), Some(kept.clone()));
            assert_eq!(stale.as_deref(), Ok([address].as_slice()));
            let again = dns.names.find(&name).expect("kept");
            assert_eq!(again.perishes, kept.perishes, "a failure does not prolong it");

            let perished = Entry { perishes: clock::now(), ..kept };
            assert!(dns.remember(name.clone(), failed(), Some(perished)).is_err());
            // The failure is kept too, for a short time.
            let kept = dns.names.find(&name).expect("kept");
            assert!(kept.answer.is_err() && kept.perishes <= clock::now() + FAILURE_FRESH);
        });
    }
}
