//! The pod's network interface: MAC, MTU, addresses, routes, as the host says.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nix::net::if_::if_nametoindex;

use super::netlink::{octets, Netlink, Request};
use crate::error::{Context, Error, Result};
use crate::pb::NetworkInterface;

/// Virtio 1.2, 5: as sysfs writes it.
const VIRTIO_ID_NET: &str = "0x0001";

/// Brings the loopback up.
pub fn loopback() -> Result<()> {
    let netlink = Netlink::open().context("open rtnetlink")?;
    let index = if_nametoindex("lo").context("find the loopback")?;
    netlink
        .ask(Request::new(libc::RTM_NEWLINK, 0, &link(index, true)))
        .context("bring the loopback up")
}

/// Has the driver, which is loaded already, take the VM's only network device.
pub fn probe() -> Result<()> {
    for entry in fs::read_dir("/sys/bus/virtio/devices")
        .context("list the virtio devices")?
        .flatten()
    {
        let kind = fs::read_to_string(entry.path().join("device")).unwrap_or_default();
        if kind.trim() == VIRTIO_ID_NET && !entry.path().join("driver").exists() {
            let name = entry.file_name();
            fs::write("/sys/bus/virtio/drivers_probe", name.as_encoded_bytes())
                .context("have the network device probed")?;
        }
    }
    Ok(())
}

/// Configures the VM's only network device, which the kernel has just found.
pub fn configure(wanted: &NetworkInterface) -> Result<()> {
    let parsed = Parsed::of(wanted)?;
    let netlink = Netlink::open().context("open rtnetlink")?;
    let device = the_device()?;
    let index = if_nametoindex(device.as_str()).context(format!("find {device}"))?;
    let name = [wanted.name.as_bytes(), b"\0"].concat();
    // The name and the MAC can only change while it is down.
    let mut change = Request::new(libc::RTM_NEWLINK, 0, &link(index, false))
        .attribute(libc::IFLA_ADDRESS, &parsed.mac);
    if wanted.mtu > 0 {
        change = change.attribute(libc::IFLA_MTU, &wanted.mtu.to_ne_bytes());
    }
    if wanted.name != device {
        change = change.attribute(libc::IFLA_IFNAME, &name);
    }
    netlink.ask(change).context(format!("set up {device}"))?;
    for (file, value) in [
        // The host has given the addresses; nobody else can have them.
        (format!("ipv6/conf/{}/accept_dad", wanted.name), "0"),
        (format!("ipv6/conf/{}/accept_ra", wanted.name), "0"),
        (format!("ipv4/conf/{}/arp_notify", wanted.name), "1"),
    ] {
        let path = Path::new("/proc/sys/net").join(file);
        if path.exists() {
            fs::write(&path, value).context(format!("write {}", path.display()))?;
        }
    }
    netlink
        .ask(Request::new(libc::RTM_NEWLINK, 0, &link(index, true)))
        .context(format!("bring {} up", wanted.name))?;
    for (address, prefix) in &parsed.addresses {
        add_address(&netlink, index, *address, *prefix)
            .context(format!("add the address {address}/{prefix}"))?;
    }
    // Routes to gateways' own networks come first: the others go through them.
    let (on_link, through): (Vec<_>, Vec<_>) =
        parsed.routes.iter().partition(|r| r.gateway.is_none());
    for route in on_link.into_iter().chain(through) {
        add_route(&netlink, index, route).context(format!(
            "add the route to {}/{}",
            route.destination, route.prefix
        ))?;
    }
    Ok(())
}

/// The only interface that is not the loopback.
fn the_device() -> Result<String> {
    fs::read_dir("/sys/class/net")
        .context("list the network devices")?
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .next()
        .ok_or_else(|| Error::precondition("the VM has no network device"))
}

/// struct ifinfomsg
fn link(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let flag = (libc::IFF_UP as u32).to_ne_bytes();
        fixed[8..12].copy_from_slice(&flag);
        fixed[12..16].copy_from_slice(&flag);
    }
    fixed
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn add_address(netlink: &Netlink, index: u32, address: IpAddr, prefix: u8) -> std::io::Result<()> {
    // struct ifaddrmsg: family, prefix, flags, scope, index
    let mut fixed = [
        family(address),
        prefix,
        libc::IFA_F_NODAD as u8,
        0,
        0,
        0,
        0,
        0,
    ];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let data = octets(address);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request =
        Request::new(libc::RTM_NEWADDR, flags, &fixed).attribute(libc::IFA_LOCAL, &data);
    request = request.attribute(libc::IFA_ADDRESS, &data);
    if let IpAddr::V4(v4) = address {
        if prefix < 31 {
            let host = u32::MAX >> prefix;
            let broadcast = (u32::from(v4) | host).to_be_bytes();
            request = request.attribute(libc::IFA_BROADCAST, &broadcast);
        }
    }
    netlink.ask(request)
}

fn add_route(netlink: &Netlink, index: u32, route: &Route) -> std::io::Result<()> {
    let scope = if route.gateway.is_some() {
        libc::RT_SCOPE_UNIVERSE
    } else {
        libc::RT_SCOPE_LINK
    };
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    let mut fixed = [0; 12];
    fixed[0] = family(route.destination);
    fixed[1] = route.prefix;
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = libc::RTPROT_STATIC;
    fixed[6] = scope;
    fixed[7] = libc::RTN_UNICAST;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request = Request::new(libc::RTM_NEWROUTE, flags, &fixed)
        .attribute(libc::RTA_OIF, &index.to_ne_bytes());
    if route.prefix > 0 {
        request = request.attribute(libc::RTA_DST, &octets(route.destination));
    }
    if let Some(gateway) = route.gateway {
        request = request.attribute(libc::RTA_GATEWAY, &octets(gateway));
    }
    netlink.ask(request)
}

struct Route {
    destination: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
}

struct Parsed {
    mac: [u8; 6],
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
}

impl Parsed {
    /// Reads all of it before any of it is done.
    fn of(wanted: &NetworkInterface) -> Result<Self> {
        let name = &wanted.name;
        if name.is_empty() || name.len() > 15 || name.contains(['/', '\0', ' ']) {
            return Err(Error::invalid(format!("{name:?} is no interface's name")));
        }
        let addresses = wanted.addresses.iter().map(|a| cidr(&a.cidr));
        let routes = wanted.routes.iter().map(|route| {
            let (destination, prefix) = cidr(&route.destination)?;
            let gateway = match route.gateway.as_str() {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_| Error::invalid(format!("{text:?} is no gateway's address")))?,
                ),
            };
            Ok(Route {
                destination,
                prefix,
                gateway,
            })
        });
        Ok(Self {
            mac: mac(&wanted.mac)?,
            addresses: addresses.collect::<Result<_>>()?,
            routes: routes.collect::<Result<_>>()?,
        })
    }
}

fn cidr(text: &str) -> Result<(IpAddr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= most)?;
        Some((address, prefix))
    });
    parsed.ok_or_else(|| Error::invalid(format!("{text:?} is no ADDRESS/PREFIX")))
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.len() == 2)
        })
        .collect();
    bytes
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| Error::invalid(format!("{text:?} is no MAC address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        assert!(cidr("10.0.0.2/24").is_ok_and(|(_, p)| p == 24));
        assert!(cidr("fd00::2/64").is_ok());
        for bad in ["", "10.0.0.2", "10.0.0.2/33", "fd00::/129", "x/8"] {
            assert!(cidr(bad).is_err(), "{bad:?}");
        }
        assert!(mac("02:00:00:00:00:0a").is_ok_and(|m| m[5] == 10));
        for bad in ["", "02:00", "02:00:00:00:00:0g", "2:0:0:0:0:0"] {
            assert!(mac(bad).is_err(), "{bad:?}");
        }
    }
}
