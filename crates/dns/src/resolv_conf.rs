//! The resolvers that the node itself uses, as `resolv.conf` names them.

use std::net::{IpAddr, SocketAddr};

/// More name servers than this are not used, as by libc.
const MOST_SERVERS: usize = 3;

/// The name servers in the text of a `resolv.conf`, without `own`: asking itself would never end.
pub(crate) fn parse(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        // An address may have a zone, such as fe80::1%eth0, which only the system could make sense of.
        let ip: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(ip, 53))
    };
    let foreign = |server: &SocketAddr| !own.contains(server);
    text.lines().filter_map(server).filter(foreign).take(MOST_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_name_servers_only() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\n; nameserver 192.0.2.9\n\tnameserver\t2001:db8::1 \n\
                    nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nnameserver 10.96.0.10\noptions ndots:5\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let own = ["10.96.0.10:53".parse().unwrap()];
        let servers: Vec<String> = parse(text, &own).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
        assert_eq!(parse("", &own), []);
    }
}
