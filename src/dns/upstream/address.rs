//! How the settings write an upstream.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::ServerName;

/// The ports of DNS (RFC 1035), DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484).
const PORTS: (u16, u16, u16) = (53, 853, 443);
/// The path of a DoH server that names none.
const DOH_PATH: &str = "/dns-query";

/// A resolver that allowed names are asked of.
///
/// Written `1.1.1.1`, `1.1.1.1:5353`, `[::1]:53`, `tls://9.9.9.9#dns.quad9.net` or `https://9.9.9.9/dns-query#dns.quad9.net`;
/// after `#` comes the name in the server's certificate (absent: the certificate must hold the address).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// UDP, and TCP for what does not fit.
    Plain,
    /// DNS over TLS; the name in the certificate.
    Tls(Arc<str>),
    /// DNS over HTTPS; the name in the certificate and the path.
    Https(Arc<str>, Arc<str>),
}

/// Why a text names no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no upstream: {why}")]
pub struct UpstreamError {
    text: String,
    why: String,
}

impl Upstream {
    /// A resolver asked by UDP and TCP.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, protocol: Protocol::Plain }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        let fail = |why: String| UpstreamError { text: text.to_owned(), why };
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("", text.trim()));
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (place, path) = match rest.find('/') {
            Some(at) if scheme == "https" => (&rest[..at], &rest[at..]),
            _ => (rest, DOH_PATH),
        };
        let port = match scheme {
            "" => PORTS.0,
            "tls" => PORTS.1,
            "https" => PORTS.2,
            other => {
                return Err(fail(format!(
                    "{other}:// is not known; use ADDRESS, tls://ADDRESS#NAME or https://ADDRESS/PATH#NAME"
                )));
            }
        };
        if scheme.is_empty() && name.is_some() {
            return Err(fail("a name after # only goes with tls:// or https://".to_owned()));
        }
        let address = place_of(place, port).ok_or_else(|| match scheme {
            "https" | "tls" => fail(format!(
                "it must be reached without asking the DNS: write its address, and its name after #, as {scheme}://9.9.9.9{}#{}",
                if scheme == "https" { path } else { "" },
                place.split(':').next().unwrap_or(place),
            )),
            _ => fail("expected an IP address, with :PORT if it is not 53 ([ADDRESS]:PORT for IPv6)".to_owned()),
        })?;
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(fail("nobody can be reached there".to_owned()));
        }
        let certificate = || {
            let name = name.map_or_else(|| address.ip().to_string(), str::to_owned);
            match ServerName::try_from(name.clone()) {
                Ok(_) => Ok(Arc::from(name)),
                Err(_) => Err(fail(format!("{name:?} is not a name that a certificate can have"))),
            }
        };
        let protocol = match scheme {
            "" => Protocol::Plain,
            "tls" => Protocol::Tls(certificate()?),
            _ => Protocol::Https(certificate()?, Arc::from(path)),
        };
        Ok(Self { address, protocol })
    }
}

fn place_of(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).or_else(|_| text.parse()).ok()
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.protocol {
            Protocol::Plain => write!(f, "{}", self.address),
            Protocol::Tls(name) => write!(f, "tls://{}#{name}", self.address),
            Protocol::Https(name, path) => write!(f, "https://{}{path}#{name}", self.address),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_one() {
        for (text, normal) in [
            ("1.1.1.1", "1.1.1.1:53"),
            ("1.1.1.1:5353", "1.1.1.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:54", "[::1]:54"),
            ("tls://9.9.9.9#dns.quad9.net", "tls://9.9.9.9:853#dns.quad9.net"),
            ("tls://9.9.9.9:8853#dns.quad9.net", "tls://9.9.9.9:8853#dns.quad9.net"),
            ("tls://[2620:fe::fe]#dns.quad9.net", "tls://[2620:fe::fe]:853#dns.quad9.net"),
            ("tls://1.1.1.1", "tls://1.1.1.1:853#1.1.1.1"),
            ("https://9.9.9.9/dns-query#dns.quad9.net", "https://9.9.9.9:443/dns-query#dns.quad9.net"),
            ("https://9.9.9.9:444/q/x#d.example", "https://9.9.9.9:444/q/x#d.example"),
            ("https://1.1.1.1", "https://1.1.1.1:443/dns-query#1.1.1.1"),
        ] {
            let upstream: Upstream = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(upstream.to_string(), normal);
            assert_eq!(normal.parse::<Upstream>().unwrap(), upstream);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("dns.quad9.net", "expected an IP address"),
            ("https://dns.quad9.net/dns-query", "https://9.9.9.9/dns-query#dns.quad9.net"),
            ("tls://dns.quad9.net:853", "tls://9.9.9.9#dns.quad9.net"),
            ("quic://9.9.9.9", "quic:// is not known"),
            ("1.1.1.1#one", "only goes with"),
            ("tls://9.9.9.9#bad name", "certificate"),
            ("0.0.0.0", "nobody"),
            ("1.1.1.1:0", "nobody"),
            ("", "expected an IP address"),
        ] {
            let error = text.parse::<Upstream>().expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
