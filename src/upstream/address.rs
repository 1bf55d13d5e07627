//! Which addresses may be connected to. Pure; asked with the resolved address, on every hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An upstream's rule about addresses: public unicast ones, and those `allow_private` lists.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Box<[IpNet]>,
}

/// An address that is not public and not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address {address} is {class}, which is only reached when `allow_private` of this \
     upstream (`storage.remote_allow_private` for a remote tier) lists a network that holds it"
)]
pub struct BlockedAddress {
    /// What the name resolved to.
    pub address: IpAddr,
    /// What kind of address it is.
    pub class: &'static str,
}

impl AddressPolicy {
    /// The rule for an upstream whose `allow_private` is `allowed`.
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether `address` may be connected to.
    ///
    /// # Errors
    /// [`BlockedAddress`] for every address that is not public unicast and not listed. An IPv4
    /// address inside an IPv6 one (mapped, NAT64, 6to4) is only passed by an IPv6 network: a list
    /// of IPv4 networks says nothing about who translates.
    pub fn check(&self, address: IpAddr) -> Result<(), BlockedAddress> {
        let Some(class) = special_class(address) else { return Ok(()) };
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(BlockedAddress { address, class })
    }
}

/// What makes `address` other than public unicast (IANA special-purpose registries, RFC 6890, and
/// the metadata services of clouds); `None` for a public one.
fn special_class(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => class_in(V4, v4.to_bits().into(), 32),
        IpAddr::V6(v6) => class_in(V6, v6.to_bits(), 128).or_else(|| {
            // 2000::/3 is all the global unicast space there is (RFC 4291 §2.4).
            (v6.to_bits() >> 125 != 1).then_some("outside the global unicast space")
        }),
    }
}

fn class_in(table: &[Block], bits: u128, width: u32) -> Option<&'static str> {
    let holds = |block: &&Block| (bits ^ block.0).checked_shr(width - block.1).unwrap_or(0) == 0;
    table.iter().find(holds).map(|block| block.2)
}

/// Network, prefix length, what it is. The first that holds an address names it.
type Block = (u128, u32, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u128 {
    Ipv4Addr::new(a, b, c, d).to_bits() as u128
}

const fn v6(a: u16, b: u16, c: u16, h: u16) -> u128 {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h).to_bits()
}

const V4: &[Block] = &[
    (v4(0, 0, 0, 0), 32, "unspecified"),
    (v4(0, 0, 0, 0), 8, "of this network (0.0.0.0/8)"),
    (v4(10, 0, 0, 0), 8, "private"),
    (v4(100, 100, 100, 200), 32, "a metadata service"),
    (v4(100, 64, 0, 0), 10, "carrier-grade NAT"),
    (v4(127, 0, 0, 0), 8, "loopback"),
    (v4(168, 63, 129, 16), 32, "a metadata service"),
    (v4(169, 254, 169, 254), 32, "a metadata service"),
    (v4(169, 254, 0, 0), 16, "link-local"),
    (v4(172, 16, 0, 0), 12, "private"),
    (v4(192, 0, 0, 0), 24, "protocol assignments"),
    (v4(192, 0, 2, 0), 24, "documentation"),
    (v4(192, 31, 196, 0), 24, "AS112"),
    (v4(192, 52, 193, 0), 24, "AMT"),
    (v4(192, 88, 99, 0), 24, "a 6to4 relay"),
    (v4(192, 168, 0, 0), 16, "private"),
    (v4(192, 175, 48, 0), 24, "AS112"),
    (v4(198, 18, 0, 0), 15, "benchmarking"),
    (v4(198, 51, 100, 0), 24, "documentation"),
    (v4(203, 0, 113, 0), 24, "documentation"),
    (v4(224, 0, 0, 0), 4, "multicast"),
    (v4(255, 255, 255, 255), 32, "broadcast"),
    (v4(240, 0, 0, 0), 4, "reserved"),
];

const V6: &[Block] = &[
    (v6(0, 0, 0, 0), 128, "unspecified"),
    (v6(0, 0, 0, 1), 128, "loopback"),
    (0xffff << 32, 96, "IPv4-mapped"),
    (0, 96, "IPv4-compatible"),
    (v6(0x64, 0xff9b, 0, 0), 96, "NAT64"),
    (v6(0x64, 0xff9b, 1, 0), 48, "NAT64"),
    (v6(0x100, 0, 0, 0), 64, "discard-only"),
    (v6(0x2001, 0, 0, 0), 32, "Teredo"),
    (v6(0x2001, 0, 0, 0), 23, "protocol assignments"),
    (v6(0x2001, 0xdb8, 0, 0), 32, "documentation"),
    (v6(0x2002, 0, 0, 0), 16, "6to4"),
    (v6(0x2620, 0x4f, 0x8000, 0), 48, "AS112"),
    (v6(0x3fff, 0, 0, 0), 20, "documentation"),
    (v6(0x5f00, 0, 0, 0), 16, "segment routing"),
    (v6(0xfd00, 0xec2, 0, 0x254), 128, "a metadata service"),
    (v6(0xfc00, 0, 0, 0), 7, "unique-local"),
    (v6(0xfe80, 0, 0, 0), 10, "link-local"),
    (v6(0xfec0, 0, 0, 0), 10, "site-local"),
    (v6(0xff00, 0, 0, 0), 8, "multicast"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> Option<&'static str> {
        special_class(address.parse().expect(address))
    }

    #[test]
    fn every_special_address_is_named() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "of this network (0.0.0.0/8)"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("100.100.100.200", "a metadata service"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "a metadata service"),
            ("169.254.169.254", "a metadata service"),
            ("169.254.0.1", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "protocol assignments"),
            ("192.0.2.7", "documentation"),
            ("192.88.99.1", "a 6to4 relay"),
            ("192.168.255.255", "private"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:8.8.8.8", "IPv4-mapped"),
            ("::ffff:127.0.0.1", "IPv4-mapped"),
            ("::127.0.0.1", "IPv4-compatible"),
            ("64:ff9b::a00:1", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("100::1", "discard-only"),
            ("2001::1", "Teredo"),
            ("2001:10::1", "protocol assignments"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::", "6to4"),
            ("3fff::1", "documentation"),
            ("fd00:ec2::254", "a metadata service"),
            ("fc00::1", "unique-local"),
            ("fdff::1", "unique-local"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("4000::1", "outside the global unicast space"),
            ("1::1", "outside the global unicast space"),
        ];
        for (address, expected) in cases {
            assert_eq!(class(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "3ffe::1",
        ];
        for address in public {
            assert_eq!(class(address), None, "{address}");
            AddressPolicy::default().check(address.parse().expect(address)).expect(address);
        }
    }

    #[test]
    fn only_a_listed_network_opens_a_special_address() {
        let list = ["10.1.0.0/16", "127.0.0.1/32", "fd00::/8", "::ffff:0:0/96"];
        let allowed: Vec<IpNet> = list.iter().map(|text| text.parse().expect(text)).collect();
        let policy = AddressPolicy::new(&allowed);
        let cases = [
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("::ffff:10.9.9.9", true),
            ("::10.1.2.3", false),
            ("64:ff9b::a01:203", false),
            ("169.254.169.254", false),
        ];
        for (address, passes) in cases {
            assert_eq!(policy.check(address.parse().expect(address)).is_ok(), passes, "{address}");
        }
        let mapped = AddressPolicy::new(&["10.0.0.0/8".parse().expect("net")]);
        assert!(mapped.check("::ffff:10.1.2.3".parse().expect("address")).is_err());
    }
}
