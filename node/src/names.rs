//! `NAME.ORG.internal` for programs of this machine, and the way back from an overlay address: `[names] listen`,
//! off unless it is set.
//!
//! Each question is asked of the member list at that moment, so a name follows a rename and ends with a
//! revocation. What the list says is nobody's business but this machine's: it listens on the loopback only,
//! answers for its own zone and refuses every other name, so that a resolver asks elsewhere.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use control::local::{Answer, MemberStatus, Request as Ask};
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{AAAA, PTR},
        },
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use identity::{
    limits::{NAMES_CLIENT_IDLE_MS, NAMES_RESPONSES_QUEUED_MAX},
    overlay_prefix,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{OnceCell, mpsc, oneshot},
    time::timeout,
};

use crate::sockets::Asked;

/// Opens the ports and answers until the returned server is dropped.
///
/// # Errors
/// The operating system refuses, or the address is not of the loopback.
pub async fn serve(at: SocketAddr, asked: mpsc::Sender<Asked>) -> io::Result<impl Sized + Send> {
    if !at.ip().is_loopback() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let (udp, tcp) = (UdpSocket::bind(at).await?, TcpListener::bind(at).await?);
    let mut server = Server::new(Names { asked, org: OnceCell::new() });
    server.register_socket(udp);
    let idle = Duration::from_millis(NAMES_CLIENT_IDLE_MS);
    server.register_listener(tcp, idle, NAMES_RESPONSES_QUEUED_MAX);
    Ok(server)
}

struct Names {
    asked: mpsc::Sender<Asked>,
    org: OnceCell<Org>,
}

/// What names and addresses of its members have in common.
struct Org {
    name: String,
    prefix: Ipv6Addr,
}

impl Org {
    fn has(&self, address: Ipv6Addr) -> bool {
        let host = u128::MAX >> PREFIX_BITS;
        address.to_bits() & !host == self.prefix.to_bits()
    }
}

#[async_trait::async_trait]
impl RequestHandler for Names {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let answered = match request.request_info() {
            Ok(info) if request.metadata.op_code == OpCode::Query => {
                let name = Name::from(info.query.name());
                self.look_up(&name, info.query.query_type()).await
            }
            Ok(_) => Err(ResponseCode::NotImp),
            Err(_) => Err(ResponseCode::FormErr),
        };
        let records = answered.unwrap_or_else(|code| {
            metadata.response_code = code;
            None
        });
        let builder = MessageResponseBuilder::from_message_request(request);
        let message = builder.build(metadata, &records, [], [], []);
        response.send_response(message).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a name was asked for, and the answer did not go out");
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

impl Names {
    async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Option<Record>, ResponseCode> {
        let org = self.org.get_or_try_init(|| self.own_org()).await?;
        if let Ok(net) = name.parse_arpa_name() {
            return match (net.addr(), net.prefix_len()) {
                (IpAddr::V6(address), length) if length >= PREFIX_BITS && org.has(address) => match length {
                    ADDRESS_BITS => self.name_at(name, kind, address, &org.name).await,
                    _ => Ok(None),
                },
                (IpAddr::V4(_) | IpAddr::V6(_), _) => Err(ResponseCode::Refused),
            };
        }
        let org = &*org.name;
        let Some(label) = label_in(name, org) else { return Err(ResponseCode::Refused) };
        let Some(label) = label else { return Ok(None) };
        let Some(address) = self.address_of(&label).await? else { return Err(ResponseCode::NXDomain) };
        let record = || Record::from_rdata(name.clone(), TTL_S, RData::AAAA(AAAA(address)));
        Ok(matches!(kind, RecordType::AAAA | RecordType::ANY).then(record))
    }

    /// The way back: whose overlay address it is, by the name under which it is found.
    async fn name_at(
        &self,
        asked: &Name,
        kind: RecordType,
        address: Ipv6Addr,
        org: &str,
    ) -> Result<Option<Record>, ResponseCode> {
        let member = match self.ask(Ask::Whois { address: address.to_string() }).await {
            Some(Answer::Whois(member)) if member.status == MemberStatus::Good => member,
            Some(Answer::Whois(_) | Answer::Failed(_)) => return Err(ResponseCode::NXDomain),
            Some(_) | None => return Err(ResponseCode::ServFail),
        };
        let name = Name::from_ascii(format!("{}.{org}.{SUFFIX}.", member.name));
        let name = name.map_err(|_| ResponseCode::ServFail)?;
        let record = || Record::from_rdata(asked.clone(), TTL_S, RData::PTR(PTR(name)));
        Ok(matches!(kind, RecordType::PTR | RecordType::ANY).then(record))
    }

    async fn own_org(&self) -> Result<Org, ResponseCode> {
        match self.ask(Ask::Status {}).await {
            Some(Answer::Status(status)) => {
                let org = status.org.ok_or(ResponseCode::ServFail)?;
                Ok(Org { name: org.name.to_string(), prefix: overlay_prefix(&org.id.0) })
            }
            Some(_) | None => Err(ResponseCode::ServFail),
        }
    }

    /// Of the one member in good standing that people call so.
    async fn address_of(&self, label: &str) -> Result<Option<Ipv6Addr>, ResponseCode> {
        // Two machines of one name are told apart by the first digits of their keys behind it.
        let digits = label.rsplit_once('-').map(|(_, digits)| digits.to_owned());
        for wanted in [Some(label.to_owned()), digits].into_iter().flatten() {
            match self.ask(Ask::Member { node: wanted }).await {
                Some(Answer::Members(members)) => {
                    let is_it =
                        |m: &&control::local::Member| m.name == label && m.status == MemberStatus::Good;
                    if let Some(member) = members.iter().find(is_it) {
                        return Ok(Some(member.address));
                    }
                }
                // No such member, or several.
                Some(Answer::Failed(_)) => {}
                Some(_) | None => return Err(ResponseCode::ServFail),
            }
        }
        Ok(None)
    }

    async fn ask(&self, request: Ask) -> Option<Answer> {
        let (reply, answered) = oneshot::channel();
        self.asked.send(Asked { request, reply, stream: None }).await.ok()?;
        timeout(PATIENCE, answered).await.ok()?.ok()
    }
}

/// Which member's name it is: none in an answer for another zone, none in it for the zone itself.
fn label_in(name: &Name, org: &str) -> Option<Option<String>> {
    let labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let zone = [org, SUFFIX];
    match labels.as_slice() {
        [label, own @ ..] if own == zone => Some(Some(label.clone())),
        own if own == zone => Some(None),
        // Below a member's name there is nothing, and nobody else answers for it.
        [.., org, suffix] if [org, suffix] == zone => Some(Some(labels.join("."))),
        _ => None,
    }
}

/// The domain that is kept for private names.
const SUFFIX: &str = "internal";
/// Of every member's address, the org's; and all of it.
const PREFIX_BITS: u8 = 48;
const ADDRESS_BITS: u8 = 128;
/// A name that ends with a revocation is not kept for longer by whoever asked.
const TTL_S: u32 = 5;
/// A daemon that does not answer for so long is not well.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_orgs_own_zone_are_answered_for() {
        let of = |name: &str| label_in(&Name::from_ascii(name).unwrap(), "home");
        assert_eq!(of("web-1.home.internal."), Some(Some("web-1".to_owned())));
        assert_eq!(of("WEB-1.Home.Internal."), Some(Some("web-1".to_owned())));
        assert_eq!(of("home.internal."), Some(None));
        assert_eq!(of("a.web-1.home.internal."), Some(Some("a.web-1.home.internal".to_owned())));
        for other in ["web-1.work.internal.", "internal.", "example.org.", "home.internal.example.org.", "."]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
