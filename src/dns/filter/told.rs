//! What a client could do with an answer, seen from the other end.

use std::net::IpAddr;

use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::HTTPS;
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};

use super::Filtered;

impl Filtered {
    /// Every address that the records hold, hints included, read from the records themselves. Each is one of
    /// [`Filtered::addresses`] or open without a lease; tests hold the filter to that.
    pub fn told(&self) -> Vec<IpAddr> {
        let mut told = Vec::new();
        for record in &self.answer.records {
            match &record.data {
                RData::A(address) => told.push(IpAddr::V4(address.0)),
                RData::AAAA(address) => told.push(IpAddr::V6(address.0)),
                RData::HTTPS(HTTPS(service)) | RData::SVCB(service) => {
                    for (_, value) in &service.svc_params {
                        match value {
                            SvcParamValue::Ipv4Hint(IpHint(hints)) => {
                                told.extend(hints.iter().map(|hint| IpAddr::V4(hint.0)));
                            }
                            SvcParamValue::Ipv6Hint(IpHint(hints)) => {
                                told.extend(hints.iter().map(|hint| IpAddr::V6(hint.0)));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        told
    }

    /// Whether the records hide the name in a later connection (`ech`); the filter takes that out.
    pub fn tells_ech(&self) -> bool {
        self.answer.records.iter().any(|record| match &record.data {
            RData::HTTPS(HTTPS(service)) | RData::SVCB(service) => {
                service.svc_params.iter().any(|(key, _)| *key == SvcParamKey::EchConfigList)
            }
            _ => false,
        })
    }
}
