//! Values of flags as upstream spells them: durations, lists, key=value pairs, addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// A duration in Go's form: `1m30s`, `500ms`, `1h0m0s`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as 15s or 1m30s");
        let nanos = api::duration::parse(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).ok_or_else(wrong)?;
        Ok(GoDuration(Duration::from_nanos(nanos)))
    }
}

/// A number of bytes, as a quantity: `256Mi`, `1G`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a number of bytes such as 256Mi");
        let quantity = api::Quantity::parse(text).map_err(|_| wrong())?;
        u64::try_from(quantity.value()).map(ByteSize).map_err(|_| wrong())
    }
}

/// `HOST:PORT`, or an address alone with its usual port, as upstream's `--healthz-bind-address` and the like take it.
pub fn address(text: &str, usual_port: u16) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| format!("{text:?} has no valid port"))?;
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, usual_port)),
        Err(_) => Err(format!("{text:?} is not an address such as 127.0.0.1:{usual_port}")),
    }
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// A taint as `--register-with-taints` has it: `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintFlag {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

impl FromStr for TaintFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, effect) = text
            .rsplit_once(':')
            .filter(|(_, effect)| matches!(*effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"))
            .ok_or_else(|| {
                format!("{text:?} is not KEY=VALUE:EFFECT with an effect NoSchedule, PreferNoSchedule or NoExecute")
            })?;
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned()).filter(|v| !v.is_empty())),
            None => (rest, None),
        };
        if key.is_empty() {
            return Err(format!("{text:?} has no key"));
        }
        Ok(TaintFlag { key: key.to_owned(), value, effect: effect.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let read = |text: &str| text.parse::<GoDuration>().map(|d| d.0);
        assert_eq!(read("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("1h0m0s"), Ok(Duration::from_secs(3600)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("0"), Ok(Duration::ZERO));
        for bad in ["", "15", "s", "1x", "-1s", "1m3"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_quantities() {
        assert_eq!("256Mi".parse(), Ok(ByteSize(256 << 20)));
        assert_eq!("0".parse(), Ok(ByteSize(0)));
        for bad in ["", "-1", "much"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn taints_and_addresses_are_checked() {
        let taint: TaintFlag = "dedicated=db:NoSchedule".parse().expect("a taint");
        assert_eq!((taint.key.as_str(), taint.value.as_deref()), ("dedicated", Some("db")));
        assert!("dedicated=db".parse::<TaintFlag>().is_err());
        assert!("a:Sometimes".parse::<TaintFlag>().is_err());
        assert_eq!(address("127.0.0.1", 10249), Ok(SocketAddr::from(([127, 0, 0, 1], 10249))));
        assert_eq!(address(":5", 1), Ok(SocketAddr::from(([0, 0, 0, 0], 5))));
        assert!(address("x", 1).is_err());
    }
}
