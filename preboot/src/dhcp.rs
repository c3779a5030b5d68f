//! DHCP (RFC 2131), as far as a machine needs it that wants an address: its messages as bytes.

use std::net::Ipv4Addr;

/// What identifies one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Chosen at random.
    pub id: u32,
    /// The interface's hardware address.
    pub hardware: [u8; 6],
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This could be had.
    Offer(Lease),
    /// This is given.
    Acknowledged(Lease),
    /// What was asked for is not to be had.
    Refused,
}

/// An address and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// Who gives it.
    pub server: Ipv4Addr,
    /// Ways out, at most [`ADDRESSES_MAX`].
    pub routers: Vec<Ipv4Addr>,
    /// Who knows names, as many.
    pub name_servers: Vec<Ipv4Addr>,
}

/// More routers or name servers are of no use.
pub const ADDRESSES_MAX: usize = 4;

impl Exchange {
    /// Asks who has an address.
    #[must_use]
    pub fn discover(self) -> Vec<u8> {
        self.message(DISCOVER, &[])
    }

    /// Asks for the one that was offered.
    #[must_use]
    pub fn request(self, offer: &Lease) -> Vec<u8> {
        let wanted =
            [&[REQUESTED_ADDRESS, 4][..], &offer.address.octets(), &[SERVER, 4], &offer.server.octets()];
        self.message(REQUEST, &wanted.concat())
    }

    /// Reads an answer to this exchange; anything else is none.
    #[must_use]
    pub fn read(self, packet: &[u8]) -> Option<Answer> {
        let (head, options) = packet.split_at_checked(HEAD_BYTES)?;
        let is_ours = head.first() == Some(&REPLY)
            && head.get(4..8) == Some(&self.id.to_be_bytes())
            && head.get(28..34) == Some(&self.hardware);
        let options = options.strip_prefix(&COOKIE).filter(|_| is_ours)?;
        let address = address(head.get(16..20)?)?;
        let kind = option(options, MESSAGE_TYPE)?;
        if kind == [REFUSE] {
            return Some(Answer::Refused);
        }
        let mask = u32::from_be_bytes(option(options, SUBNET_MASK)?.try_into().ok()?);
        if mask.leading_ones() + mask.trailing_zeros() != 32 || !is_usable(address) {
            return None;
        }
        let lease = Lease {
            address,
            prefix: u8::try_from(mask.leading_ones()).ok()?,
            server: self::address(option(options, SERVER)?)?,
            routers: addresses(options, ROUTERS),
            name_servers: addresses(options, NAME_SERVERS),
        };
        match kind {
            [OFFER] => Some(Answer::Offer(lease)),
            [ACKNOWLEDGE] => Some(Answer::Acknowledged(lease)),
            _ => None,
        }
    }

    fn message(self, kind: u8, more: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = packet.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &[ASK, ETHERNET, 6, 0]);
        put(4, &self.id.to_be_bytes());
        // Broadcast: an answer to an address that nobody has yet would not be taken.
        put(10, &[0x80, 0]);
        put(28, &self.hardware);
        packet.extend_from_slice(&COOKIE);
        packet.extend_from_slice(&[MESSAGE_TYPE, 1, kind]);
        packet.extend_from_slice(more);
        packet.extend_from_slice(&[PARAMETERS, 3, SUBNET_MASK, ROUTERS, NAME_SERVERS, END]);
        // Some servers drop what is shorter than BOOTP was.
        packet.resize(packet.len().max(300), 0);
        packet
    }
}

fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&code, rest) = options.split_first()?;
        match code {
            END => return None,
            0 => options = rest,
            code => {
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(length))?;
                if code == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn addresses(options: &[u8], code: u8) -> Vec<Ipv4Addr> {
    let bytes = option(options, code).unwrap_or_default();
    bytes
        .chunks_exact(4)
        .filter_map(address)
        .filter(|address| is_usable(*address))
        .take(ADDRESSES_MAX)
        .collect()
}

const fn is_usable(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast() && !address.is_loopback()
}

const HEAD_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const ASK: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACKNOWLEDGE: u8 = 5;
const REFUSE: u8 = 6;
const SUBNET_MASK: u8 = 1;
const ROUTERS: u8 = 3;
const NAME_SERVERS: u8 = 6;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: Exchange = Exchange { id: 0x1234_5678, hardware: [2, 0, 0, 0, 0, 1] };

    fn answer(kind: u8, mask: [u8; 4]) -> Vec<u8> {
        let mut packet = EXCHANGE.discover();
        packet.truncate(HEAD_BYTES);
        packet[0] = REPLY;
        packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
        packet.extend_from_slice(&COOKIE);
        packet.extend_from_slice(&[0, MESSAGE_TYPE, 1, kind, SERVER, 4, 10, 0, 2, 2, SUBNET_MASK, 4]);
        packet.extend_from_slice(&mask);
        packet.extend_from_slice(&[ROUTERS, 4, 10, 0, 2, 2, NAME_SERVERS, 8, 10, 0, 2, 3, 10, 0, 2, 4, END]);
        packet
    }

    #[test]
    fn an_offer_is_read_and_asked_for() {
        let Some(Answer::Offer(lease)) = EXCHANGE.read(&answer(OFFER, [255, 255, 255, 0])) else {
            panic!("no offer")
        };
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 2, 15), 24));
        assert_eq!(lease.routers, [Ipv4Addr::new(10, 0, 2, 2)]);
        assert_eq!(lease.name_servers.len(), 2);
        let request = EXCHANGE.request(&lease);
        assert_eq!(option(&request[HEAD_BYTES + 4..], REQUESTED_ADDRESS), Some(&[10, 0, 2, 15][..]));
        assert_eq!(option(&request[HEAD_BYTES + 4..], SERVER), Some(&[10, 0, 2, 2][..]));
        assert!(request.len() >= 300);
    }

    #[test]
    fn what_is_not_an_answer_to_us_is_none() {
        let good = answer(ACKNOWLEDGE, [255, 255, 255, 0]);
        assert!(matches!(EXCHANGE.read(&good), Some(Answer::Acknowledged(_))));
        assert_eq!(EXCHANGE.read(&answer(REFUSE, [0; 4])), Some(Answer::Refused));
        assert_eq!(Exchange { id: 1, ..EXCHANGE }.read(&good), None, "another exchange");
        assert_eq!(Exchange { hardware: [9; 6], ..EXCHANGE }.read(&good), None, "another machine");
        assert_eq!(EXCHANGE.read(&answer(OFFER, [255, 0, 255, 0])), None, "no mask");
        assert_eq!(EXCHANGE.read(&EXCHANGE.discover()), None, "a question");
        for length in 0..good.len() - 1 {
            // Never a panic; without the last options it may still be an answer.
            drop(EXCHANGE.read(&good[..length]));
        }
        let mut nobody = good;
        nobody[16..20].copy_from_slice(&[0; 4]);
        assert_eq!(EXCHANGE.read(&nobody), None, "no address");
    }
}
