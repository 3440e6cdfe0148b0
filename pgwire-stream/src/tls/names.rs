//! Does a certificate name this host? By libpq's rules, which know common names.
//!
//! A subject alternative name of the host's own kind (name or address) takes the common name out of
//! the game. An address may stand in a DNS name, as certificates had it before PostgreSQL 15.

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::der::Result;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The names for which a certificate is good, in text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    common: Option<String>,
}

impl Names {
    pub(super) fn of(certificate: &Certificate) -> Result<Self> {
        let certificate = certificate.tbs_certificate();
        let mut names = Self::default();
        if let Some((_, SubjectAltName(alternatives))) = certificate.get_extension()? {
            for alternative in alternatives {
                match alternative {
                    GeneralName::DnsName(name) => names.dns.push(name.as_str().to_owned()),
                    GeneralName::IpAddress(bytes) => {
                        names.addresses.extend(address(bytes.as_bytes()))
                    }
                    _ => {}
                }
            }
        }
        names.common = certificate
            .subject()
            .iter()
            .find(|attribute| attribute.oid == COMMON_NAME)
            .and_then(|attribute| str::from_utf8(attribute.value.value()).ok())
            .map(str::to_owned);
        Ok(names)
    }

    pub(super) fn include(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        let of_its_kind = match address {
            Some(_) => !self.addresses.is_empty(),
            None => !self.dns.is_empty(),
        };
        address.is_some_and(|address| self.addresses.contains(&address))
            || self.dns.iter().any(|name| matches(name, host, address.is_some()))
            || !of_its_kind
                && self.common.as_deref().is_some_and(|name| matches(name, host, address.is_some()))
    }

    /// All of them, for telling people.
    pub(super) fn listed(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let listed: Vec<_> = self.dns.iter().cloned().chain(addresses).collect();
        match &self.common {
            Some(common) if listed.is_empty() => vec![common.clone()],
            _ => listed,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

/// A wildcard stands for the whole first label and for nothing else, and never within an address.
fn matches(pattern: &str, host: &str, is_address: bool) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(parent), Some((label, domain))) = (pattern.strip_prefix("*."), host.split_once('.'))
    else {
        return false;
    };
    !is_address && !label.is_empty() && !parent.is_empty() && domain.eq_ignore_ascii_case(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dns: &[&str], addresses: &[&str], common: Option<&str>) -> Names {
        Names {
            dns: dns.iter().map(ToString::to_string).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            common: common.map(str::to_owned),
        }
    }

    #[test]
    fn names_match_as_in_libpq() {
        for (pattern, host, expected) in [
            ("db.example.com", "db.example.com", true),
            ("DB.example.com", "db.EXAMPLE.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*", "db", false),
            ("*.", "db.", false),
            ("*.0.0.1", "10.0.0.1", false),
            ("db.example.com\0.evil.org", "db.example.com", false),
        ] {
            let names = names(&[pattern], &[], None);
            assert_eq!(names.include(host), expected, "{pattern} for {host}");
        }
    }

    #[test]
    fn the_common_name_counts_only_without_alternatives_of_the_hosts_kind() {
        assert!(names(&[], &[], Some("db")).include("db"));
        assert!(!names(&["other"], &[], Some("db")).include("db"));
        assert!(names(&[], &["10.0.0.1"], Some("db")).include("db"));
        assert!(!names(&[], &["10.0.0.2"], Some("10.0.0.1")).include("10.0.0.1"));
        assert!(names(&["db"], &[], Some("10.0.0.1")).include("10.0.0.1"));
    }

    #[test]
    fn addresses_match_by_value_or_as_dns_names() {
        assert!(names(&[], &["::1"], None).include("0:0:0:0:0:0:0:1"));
        assert!(names(&["10.0.0.1"], &[], None).include("10.0.0.1"));
        assert!(!names(&[], &["10.0.0.1"], None).include("10.0.0.2"));
    }
}
