//! Service bindings (SVCB and HTTPS records, RFC 9460).

use std::net::IpAddr;

use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, SVCB};
use hickory_proto::rr::{RData, Record};

use super::Filter;
use crate::core::judge::Judge;

impl<J: Judge + ?Sized> Filter<'_, J> {
    /// A service binding without `ech` and with only those address hints that are leased with this answer. Hints for a
    /// name that is not on the chain go: the agent asks for that name itself, if it may.
    pub(super) fn service(&mut self, record: &Record, service: &SVCB, wrap: impl Fn(SVCB) -> RData) -> Option<Record> {
        if !self.target(&service.target_name) {
            self.changed = true;
            return None;
        }
        let own = service.target_name.is_root() || self.chain.contains(&service.target_name);
        let mut params = Vec::with_capacity(service.svc_params.len());
        for (key, value) in &service.svc_params {
            match value {
                SvcParamValue::EchConfigList(_) => {}
                SvcParamValue::Ipv4Hint(IpHint(hints)) => {
                    let told: Vec<A> = hints.iter().copied().filter(|hint| own && self.hint(hint.0.into())).collect();
                    if !told.is_empty() {
                        params.push((*key, SvcParamValue::Ipv4Hint(IpHint(told))));
                    }
                }
                SvcParamValue::Ipv6Hint(IpHint(hints)) => {
                    let told: Vec<AAAA> =
                        hints.iter().copied().filter(|hint| own && self.hint(hint.0.into())).collect();
                    if !told.is_empty() {
                        params.push((*key, SvcParamValue::Ipv6Hint(IpHint(told))));
                    }
                }
                _ if matches!(key, SvcParamKey::EchConfigList | SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint) => {}
                _ => params.push((*key, value.clone())),
            }
        }
        keep_mandatory_true(&mut params);
        self.changed |= params != service.svc_params;
        let mut told = record.clone();
        told.data = wrap(SVCB::new(service.svc_priority, service.target_name.clone(), params));
        Some(told)
    }

    /// A hint may be told like an address, but a bad one is no reason to refuse the answer.
    fn hint(&mut self, address: IpAddr) -> bool {
        let before = self.refused.take();
        let told = self.address(address);
        self.refused = before;
        told
    }
}

/// `mandatory` may name only keys that are there (RFC 9460 section 8).
fn keep_mandatory_true(params: &mut Vec<(SvcParamKey, SvcParamValue)>) {
    let present: Vec<SvcParamKey> = params.iter().map(|(key, _)| *key).collect();
    params.retain_mut(|(_, value)| match value {
        SvcParamValue::Mandatory(keys) => {
            keys.0.retain(|key| present.contains(key));
            !keys.0.is_empty()
        }
        _ => true,
    });
}
