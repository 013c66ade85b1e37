//! Which names hosts were given addresses for, also after the lease has ended: a refusal that says no more than an address
//! makes people ask whose it was.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use crate::policy::model::HostName;
use crate::policy::name::Name;

/// Addresses that are remembered; of more the ones learned first are forgotten. Some two hundred octets each.
const MOST: usize = 1 << 14;

/// Whose address; `None`: sources of no host.
type Whose = (Option<HostName>, IpAddr);

/// The latest name of each address.
#[derive(Debug, Default)]
pub struct Told {
    names: HashMap<Whose, Name>,
    order: VecDeque<Whose>,
}

impl Told {
    /// Notes an answer.
    pub fn learn(&mut self, host: Option<&HostName>, name: &Name, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            let whose = (host.cloned(), *address);
            if self.names.insert(whose.clone(), name.clone()).is_some() {
                continue;
            }
            self.order.push_back(whose);
            if self.order.len() > MOST
                && let Some(first) = self.order.pop_front()
            {
                self.names.remove(&first);
            }
        }
    }

    /// The name for which the host was given the address last.
    pub fn name(&self, host: Option<&HostName>, address: IpAddr) -> Option<&Name> {
        self.names.get(&(host.cloned(), address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_name_is_told_and_memory_is_bounded() {
        let mut told = Told::default();
        let (one, other) = (Name::from_normal("one.example"), Name::from_normal("other.example"));
        let address = |n: u32| BTreeSet::from([IpAddr::V4(n.into())]);
        told.learn(None, &one, &address(0));
        told.learn(None, &other, &address(0));
        assert_eq!(told.name(None, IpAddr::from([0, 0, 0, 0])), Some(&other));
        for n in 1..40_000 {
            told.learn(None, &one, &address(n));
            assert_eq!(told.names.len(), told.order.len());
        }
        assert_eq!(told.names.len(), MOST);
        assert_eq!(told.name(None, IpAddr::from([0, 0, 0, 0])), None);
        assert_eq!(told.name(None, IpAddr::V4(39_999.into())), Some(&one));
    }
}
