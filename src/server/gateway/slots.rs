//! How many connections there may be: in all, and from one address, so that one machine cannot take every place.

use crate::server::{
    config::{Config, Network},
    metrics::Refused,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The part of an IPv6 address that names a network; one machine has all addresses in it.
const IPV6_NETWORK: u128 = !0 << 64;

/// All places, and who has how many.
#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    max: u32,
    per_address_max: u32,
    /// Many clients come through these.
    uncounted: Vec<Network>,
    /// No more entries than there are slots taken.
    taken: Mutex<BTreeMap<IpAddr, u32>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _counted: Option<Counted>,
    _permit: OwnedSemaphorePermit,
}

/// One of the places of an address, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(config.connections_max as usize)),
            max: config.connections_max,
            per_address_max: config.connections_per_address_max,
            uncounted: config.trusted_proxies.clone(),
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from `peer`. Loopback is not counted by address: it is this machine, or a proxy on it.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Slot, Refused> {
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Refused::Full)?;
        let peer = peer.to_canonical();
        let is_counted = !peer.is_loopback() && !self.uncounted.iter().any(|network| network.contains(peer));
        let counted = is_counted.then(|| self.count(peer)).transpose()?;
        Ok(Slot {
            _counted: counted,
            _permit: permit,
        })
    }

    /// One of the places of an address: that of a peer, or what a trusted proxy says of its client.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr) -> Result<Counted, Refused> {
        let address = machine(address.to_canonical());
        let mut taken = self.taken();
        let count = taken.entry(address).or_default();
        if *count >= self.per_address_max {
            return Err(Refused::FullForAddress);
        }
        *count += 1;
        Ok(Counted {
            slots: Arc::clone(self),
            address,
        })
    }

    /// Waits until every place is free.
    pub(super) async fn all_free(&self) {
        let all = self.all.acquire_many(self.max).await;
        drop(all.expect("the semaphore is never closed"));
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.address);
            }
        }
    }
}

fn machine(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Arc<Slots> {
        let trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
        Slots::new(&Config {
            connections_max: 6,
            connections_per_address_max: 2,
            trusted_proxies,
            ..Config::default()
        })
    }

    fn take(slots: &Arc<Slots>, peer: &str) -> Result<Slot, Refused> {
        slots.take(peer.parse().expect("an address"))
    }

    #[test]
    fn one_address_gets_its_share_and_gives_it_back() {
        let slots = slots();
        let first = take(&slots, "192.0.2.1").expect("a place");
        let _second = take(&slots, "::ffff:192.0.2.1").expect("a place");
        assert_eq!(take(&slots, "192.0.2.1").err(), Some(Refused::FullForAddress));
        let _other = take(&slots, "192.0.2.2").expect("a place");
        drop(first);
        let _third = take(&slots, "192.0.2.1").expect("a place");
        assert_eq!(take(&slots, "192.0.2.1").err(), Some(Refused::FullForAddress));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let slots = slots();
        let _one = take(&slots, "2001:db8::1").expect("a place");
        let _two = take(&slots, "2001:db8::2:0:0:0:1").expect("another network");
        let _three = take(&slots, "2001:db8::ffff").expect("a place");
        assert_eq!(take(&slots, "2001:db8::3").err(), Some(Refused::FullForAddress));
    }

    #[test]
    fn this_machine_and_proxies_are_limited_only_in_all() {
        let slots = slots();
        let mut taken = Vec::new();
        for peer in [
            "127.0.0.1",
            "127.0.0.1",
            "127.0.0.1",
            "10.1.2.3",
            "10.1.2.3",
            "10.1.2.3",
        ] {
            taken.push(take(&slots, peer).expect(peer));
        }
        assert_eq!(take(&slots, "127.0.0.1").err(), Some(Refused::Full));
        taken.pop();
        assert!(take(&slots, "192.0.2.1").is_ok());
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let slots = slots();
        drop(take(&slots, "192.0.2.1"));
        drop(take(&slots, "2001:db8::1"));
        assert!(slots.taken().is_empty());
    }
}
