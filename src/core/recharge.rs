//! Flows that were open before it was known which caps their far end is charged to.

use std::collections::{BTreeMap, HashMap};

use super::classes::{Class, Way};
use super::doors::{self, Doors, Now, Scribe};
use super::forecast::Live;
use super::state::{Leased, State};
use crate::plan::ids::HostId;

/// Which live flows get which class, once the kernel has taken `leased`.
#[must_use]
#[derive(Debug, Default)]
pub struct Recharged {
    /// The transaction that makes the classes.
    pub leased: Leased,
    /// Flows by their place among those asked about, each with its new class.
    pub moves: Vec<(usize, u32)>,
    /// Flows for which there is no room for another class: they get a number without a door, so their next packet is
    /// judged like the first of a new flow.
    pub anew: usize,
}

impl State {
    /// The classes for those of `flows` whose far end is charged to caps that their own class is not: the host was
    /// given the address for a capped name after it had opened them.
    pub fn recharge(&mut self, flows: &[Live], now: impl Into<Now>) -> Recharged {
        let (now, mut out, mut opened) = (now.into(), Recharged::default(), Doors::new());
        let nets: HashMap<u32, (HostId, Way)> = self.nets.iter().map(|(id, host, way)| (id, (host, way))).collect();
        let mut done = HashMap::new();
        let mut none = None;
        for (index, flow) in flows.iter().enumerate() {
            let plain = || nets.get(&flow.class).map(|(host, way)| Class::new(*host, *way, [].into(), [].into()));
            let Some(class) = self.classes.get(flow.class).cloned().or_else(plain) else { continue };
            let peer = if class.way == Way::Inbound { flow.opener } else { flow.opened };
            let caps = self.charged.caps(class.host, peer);
            if class.way == Way::Monitored || caps.is_subset(&class.caps) {
                continue;
            }
            let caps = &caps | &class.caps;
            let target = match class.way {
                // It was made when the address came to be charged.
                Way::Nets | Way::Inbound => self.charged.class(class.host, peer, class.way).ok_or(()),
                _ => {
                    let key = (flow.class, caps.clone());
                    *done.entry(key).or_insert_with(|| {
                        let like = Class { caps, ..class };
                        self.open_like(like, now, &mut out.leased, &mut opened)
                    })
                }
            };
            let target = target.ok().or_else(|| {
                out.anew += 1;
                none = none.or_else(|| self.classes.fresh());
                none
            });
            out.moves.extend(target.map(|target| (index, target)));
        }
        let scribe = Scribe { classes: &self.classes, host: &|id| self.host_name(id), utc: now.utc };
        let (open, _) = doors::difference(&BTreeMap::new(), &opened, &scribe);
        out.leased.ops.extend(open);
        out
    }

    /// The class that is like `class`, alive.
    fn open_like(&mut self, class: Class, now: Now, out: &mut Leased, opened: &mut Doors) -> Result<u32, ()> {
        let snapshot = self.snapshot.clone().ok_or(())?;
        let (until, links) = (class.until, class.links.iter().cloned().collect::<Vec<_>>());
        let id = self.open_class(class, &snapshot, now.utc, out, opened).map_err(drop)?;
        self.classes.extend(id, until, &links);
        Ok(id)
    }
}
