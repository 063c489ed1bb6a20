//! Who the caller is, where somebody stands between: the PROXY protocol, and `X-Forwarded-For`.
//!
//! The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2) is one header before everything else on a
//! connection, TLS included. Where it is asked for it must be there: a listener that took connections with and without
//! would let every caller say who they are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::{Buf, BytesMut};
use http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;
use tokio::io::AsyncReadExt;

use super::wire::Wire;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The longest header of version 1, with its line end (proxy-protocol.txt, 2.1).
const LONGEST_TEXT: usize = 107;

/// The longest header of version 2 that is taken, after its first 16 bytes: addresses, and what a load balancer says of
/// the caller's certificate. The specification allows 64 KiB and uses less than one.
const LONGEST_BINARY: usize = 4096;

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
const TEXT: &[u8] = b"PROXY ";

/// Reads the header of the PROXY protocol, and gives back what came behind it. The address is the one that it tells, or
/// the socket's own where it tells none: of a health check, or of a protocol that it does not know.
pub(super) async fn announced(wire: &mut Wire, socket: SocketAddr) -> io::Result<SocketAddr> {
    let mut seen = BytesMut::new();
    loop {
        match header(&seen) {
            Ok(Some((length, told))) => {
                seen.advance(length);
                wire.unread(seen.freeze());
                return Ok(told.unwrap_or(socket));
            }
            Ok(None) if wire.read_buf(&mut seen).await? > 0 => {}
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        }
    }
}

/// How long the header is and what it tells; nothing while it is not whole.
type Header = Result<Option<(usize, Option<SocketAddr>)>, &'static str>;

fn header(seen: &[u8]) -> Header {
    let begins = |with: &[u8]| seen.iter().zip(with).all(|(one, other)| one == other);
    if begins(SIGNATURE) {
        binary(seen)
    } else if begins(TEXT) {
        text(seen)
    } else {
        Err("no header of the PROXY protocol")
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn text(seen: &[u8]) -> Header {
    let Some(end) = seen.iter().take(LONGEST_TEXT).position(|byte| *byte == b'\n') else {
        return if seen.len() < LONGEST_TEXT { Ok(None) } else { Err("a header without an end") };
    };
    let line = seen[..end].strip_suffix(b"\r").ok_or("a header that ends without CR")?;
    let line = std::str::from_utf8(line).map_err(|_| "a header that is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let told = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(addresses::<Ipv6Addr>(words)?),
        _ => return Err("a protocol that is none"),
    };
    Ok(Some((end + 1, told)))
}

/// Source and destination, then their ports. All must be there, although only the source is of use.
fn addresses<'w, T: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'w str>,
) -> Result<SocketAddr, &'static str> {
    let mut ip = || words.next().and_then(|word| word.parse::<T>().ok()).ok_or("an address that is none");
    let (source, _) = (ip()?, ip()?);
    let mut port = || {
        // `parse` would take a sign.
        let digits = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|word| word.parse::<u16>().ok()).ok_or("a port that is none")
    };
    let (from, _) = (port()?, port()?);
    match words.next() {
        None => Ok(SocketAddr::new(source.into(), from)),
        Some(_) => Err("more than two addresses and ports"),
    }
}

fn binary(seen: &[u8]) -> Header {
    let Some(&[version_and_command, family, high, low]) = seen.get(SIGNATURE.len()..SIGNATURE.len() + 4) else {
        return Ok(None);
    };
    if version_and_command >> 4 != 2 {
        return Err("a version that is not 2");
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_BINARY {
        return Err("a header that is too long");
    }
    let begin = SIGNATURE.len() + 4;
    let Some(rest) = seen.get(begin..begin + length) else { return Ok(None) };
    let told = match version_and_command & 15 {
        0 => None, // LOCAL: the proxy's own, as a health check
        1 => match family >> 4 {
            1 => Some(from_bytes::<4>(rest)?),
            2 => Some(from_bytes::<16>(rest)?),
            _ => None, // unspecified, or a unix socket
        },
        _ => return Err("a command that is none"),
    };
    Ok(Some((begin + length, told)))
}

/// Source and destination, then their ports, in the order of the network.
fn from_bytes<const N: usize>(bytes: &[u8]) -> Result<SocketAddr, &'static str>
where
    IpAddr: From<[u8; N]>,
{
    let source = bytes.first_chunk::<N>().ok_or("too few addresses")?;
    let Some(&[high, low, _, _]) = bytes.get(2 * N..2 * N + 4) else { return Err("too few ports") };
    Ok(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([high, low])))
}

/// Who asks: the peer, or whoever the trusted proxies before it say it was (read from the nearest to the farthest).
pub(super) fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut nearest = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(&nearest) {
        return nearest;
    }
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for ip in entries.map(address) {
        // What stands before something that is no address was said by nobody whom we know.
        let Some(ip) = ip else { break };
        nearest = ip;
        if !is_trusted(&ip) {
            break;
        }
    }
    nearest
}

/// An address; some write a port to it, and then brackets around one of IPv6.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(header: &[u8]) -> Option<String> {
        super::header(header).unwrap().unwrap().1.map(|address| address.to_string())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_tell_the_source() {
        assert_eq!(told(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET").unwrap(), "192.0.2.1:56324");
        assert_eq!(told(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n").unwrap(), "[2001:db8::1]:1");
        assert_eq!(told(b"PROXY UNKNOWN ffff:f...f:ffff whatever\r\n"), None);
        assert_eq!(told(&v2(1, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 1, 0, 0, 80])).unwrap(), "192.0.2.1:256");
        let mut six = [0; 36 + 7]; // with something behind the addresses
        (six[15], six[33]) = (1, 9);
        assert_eq!(told(&v2(1, 0x21, &six)).unwrap(), "[::1]:9");
        assert_eq!(told(&v2(0, 0, &[1, 2, 3])), None);
        assert_eq!(told(&v2(1, 0x31, &[0; 216])), None);
    }

    #[test]
    fn a_header_is_taken_only_when_it_is_whole() {
        let text = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
        for whole in [text, v2(1, 0x11, &[1; 12]), v2(0, 0, &[])] {
            for length in 0..whole.len() {
                assert_eq!(header(&whole[..length]), Ok(None), "{length} of {whole:?}");
            }
            assert_eq!(header(&whole).unwrap().unwrap().0, whole.len());
        }
    }

    #[test]
    fn what_is_ill_formed_is_refused_as_soon_as_it_is_seen() {
        for bad in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXX".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            [&b"PROXY UNKNOWN "[..], &[b'a'; LONGEST_TEXT]].concat(),
            [SIGNATURE, &[0x11, 0x11, 0, 12]].concat(),
            [SIGNATURE, &[0x22, 0x11, 0, 0]].concat(),
            [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
            v2(1, 0x11, &[1; 11]),
            v2(1, 0x21, &[1; 35]),
        ] {
            assert!(header(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_caller_is_the_nearest_that_no_trusted_proxy_is() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
        for (peer, lines, expected) in [
            ("192.0.2.9", &["1.1.1.1"][..], "192.0.2.9"), // not believed
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1 , 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2,10.0.0.3"], "1.1.1.1"),
            ("2001:db8::1", &["[2001:db8::2]:80, 1.1.1.1:9, [2001:db8::3]"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["6.6.6.6,"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(caller(peer.parse().unwrap(), &headers, &trusted).to_string(), expected, "{peer} {lines:?}");
        }
        assert_eq!(caller("10.0.0.1".parse().unwrap(), &HeaderMap::new(), &[]).to_string(), "10.0.0.1");
    }
}
