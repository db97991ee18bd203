//! Which web pages may connect. Browsers send the `Origin` of the page; other programs send none, and may.
//!
//! The origin of the server itself passes, compared with `Host`; others only if listed. In development mode there are no
//! tokens, so there only pages from this machine pass: comparing with `Host` would let a page in whose name was made to
//! resolve to loopback.

use hyper::{HeaderMap, header};
use std::{fmt, net::IpAddr, str::FromStr};

/// A web origin: scheme, host and port. Hosts and schemes are in lower case, a scheme's default port is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an origin; give scheme, host and port, like https://app.example.com or http://localhost:5173")]
pub struct OriginError(String);

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct OriginPolicy<'a> {
    /// The foreign origins that may.
    pub(super) allowed: &'a [Origin],
    /// Whether only pages from this machine, and the listed ones, may.
    pub(super) development: bool,
}

impl OriginPolicy<'_> {
    /// Whether a request with these headers may connect.
    pub(super) fn permits(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return true,
            (Some(origin), None) => origin.to_str().ok().and_then(|text| text.parse::<Origin>().ok()),
            (Some(_), Some(_)) => None,
        };
        let Some(origin) = origin else { return false };
        if self.allowed.contains(&origin) {
            return true;
        }
        if self.development {
            origin.is_loopback()
        } else {
            origin.is_host(headers)
        }
    }
}

impl Origin {
    /// Whether the page came from this machine.
    fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// Whether `Host` names this origin's host and port. The scheme is left out: behind a proxy we do not see it.
    fn is_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let Some((name, port)) = host.to_str().ok().and_then(split_authority) else {
            return false;
        };
        name == self.host && port.or_else(|| default_port(&self.scheme)) == self.port
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError(text.to_owned());
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = scheme.to_ascii_lowercase();
        let scheme_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_allowed) {
            return Err(wrong());
        }
        let (host, port) = split_authority(authority).ok_or_else(wrong)?;
        let port = port.or_else(|| default_port(&scheme));
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Splits `host:port` or `[address]:port`; the host in lower case. `None` for anything else, a user or a path included.
fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        let port = if rest.is_empty() {
            None
        } else {
            Some(rest.strip_prefix(':')?)
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port)));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(allowed) {
            return None;
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(development: bool, host: &str, origin: Option<&str>) -> bool {
        let allowed = [
            "https://app.example.com",
            "http://localhost:5173",
            "capacitor://localhost",
        ];
        let allowed = allowed.map(|text| text.parse().expect("an origin"));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        }
        OriginPolicy {
            allowed: &allowed,
            development,
        }
        .permits(&headers)
    }

    #[test]
    fn none_own_and_listed_origins_pass_and_no_others() {
        let check = |host: &str, origin: &str, expected: bool| {
            assert_eq!(permits(false, host, Some(origin)), expected, "{origin} at {host}");
        };
        assert!(permits(false, "sync.example.com", None));
        check("sync.example.com", "https://sync.example.com", true);
        check("sync.example.com", "http://sync.example.com", true);
        check("SYNC.example.com:443", "https://Sync.Example.com", true);
        check("sync.example.com:4400", "http://sync.example.com:4400", true);
        check("[::1]:4400", "http://[0:0::1]:4400", true);
        check("sync.example.com:4400", "http://sync.example.com", false);
        check("sync.example.com", "https://sync.example.com:8443", false);
        check("sync.example.com", "https://app.example.com", true);
        check("sync.example.com", "https://app.example.com:443", true);
        check("sync.example.com", "http://app.example.com", false);
        check("sync.example.com", "https://app.example.com:8443", false);
        check("sync.example.com", "capacitor://localhost", true);
        check("sync.example.com", "http://localhost:5173", true);
        check("sync.example.com", "http://localhost:5174", false);
    }

    #[test]
    fn null_suffix_and_syntax_tricks_are_refused() {
        let check = |origin: &str| assert!(!permits(false, "sync.example.com", Some(origin)), "{origin}");
        check("null");
        check("");
        check("file://");
        check("https://");
        check("sync.example.com");
        check("https://sync.example.com.evil.com");
        check("https://evilsync.example.com");
        check("https://evil.com/sync.example.com");
        check("https://sync.example.com@evil.com");
        check("https://evil.com#sync.example.com");
        check("https://app.example.com.evil.com");
        check("https://app.example.comevil.com");
        check("https://xapp.example.com");
        check("https://app.example.com/");
        check("https://app.example.com:443x");
        check("https://app.example.com:+443");
        check("https://app.example.com:");
        check("https://app.example.com https://evil.com");
    }

    #[test]
    fn two_origins_or_two_hosts_are_refused() {
        let policy = OriginPolicy {
            allowed: &[],
            development: false,
        };
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "a".parse().expect("a header"));
        headers.append(header::ORIGIN, "http://a".parse().expect("a header"));
        assert!(policy.permits(&headers));
        headers.append(header::ORIGIN, "http://a".parse().expect("a header"));
        assert!(!policy.permits(&headers));
        headers.remove(header::ORIGIN);
        headers.append(header::ORIGIN, "http://a".parse().expect("a header"));
        headers.append(header::HOST, "b".parse().expect("a header"));
        assert!(!policy.permits(&headers));
    }

    #[test]
    fn in_development_only_pages_from_this_machine_pass() {
        let check = |host: &str, origin: &str, expected: bool| {
            assert_eq!(permits(true, host, Some(origin)), expected, "{origin} at {host}");
        };
        check("127.0.0.1:4400", "http://127.0.0.1:4400", true);
        check("127.0.0.1:4400", "http://localhost:3000", true);
        check("127.0.0.1:4400", "http://[::1]:3000", true);
        check("127.0.0.1:4400", "https://app.example.com", true);
        check("rebound.evil.com:4400", "http://rebound.evil.com:4400", false);
        check("127.0.0.1:4400", "http://localhost.evil.com", false);
        assert!(permits(true, "127.0.0.1:4400", None));
    }
}
