//! A gateway of the org, reached over TLS with the admin key: for an admin's machine without a musterd.

use core::time::Duration;

use conn_auth::Action;
use identity::{Code, Heads, PublicKey, SecretKey, limits::CHARTERS_MAX};
use org_trust::{
    CharterChain, Lane, Outcome as Fate, Place, Record, Reply, Request, Select, Statement, Submitted,
    TrustBundle, UnverifiedStatement,
};
use tokio::{runtime::Runtime, time::timeout};
use transport::{
    Address, ClientTls,
    client::{self, DialError, GatewayDial},
};

use crate::{
    author::Accepted,
    failure::{Failure, Outcome},
    output::talk,
    profile::Profile,
};

/// For each frame of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The gateways of one org and how to reach them.
pub(crate) struct Remote {
    runtime: Runtime,
    addresses: Vec<Address>,
}

impl Remote {
    pub(crate) fn new(profile: &Profile) -> Outcome<Self> {
        let mut addresses = Vec::new();
        for text in &profile.gateways {
            let address = Address::parse(text)
                .map_err(|e| Failure::new(Code::ConfigBadValue, format_args!("gateway {text:?}: {e}")))?;
            addresses.push(address);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(Code::FileProblem, e))?;
        Ok(Self { runtime, addresses })
    }

    /// Sends records; each is applied and on the gateway's disk afterwards. Says so if nobody else can
    /// have heard of them yet.
    pub(crate) fn submit(
        &self,
        key: &SecretKey,
        profile: &mut Profile,
        records: Vec<Record>,
    ) -> Outcome<Accepted> {
        let sent = records.len();
        let replies = self.ask(key, profile, &Request::Submit(records))?;
        let Some(Reply::Submitted(Submitted { outcomes: fates, told, others })) = replies.first() else {
            return Err(unexpected());
        };
        let refused = fates.iter().find_map(|fate| match fate {
            Fate::Refused(code) => Some(*code),
            Fate::Applied | Fate::Known => None,
        });
        match refused {
            Some(code) => Err(Failure::new(code, "the gateway's musterd refused the change")),
            None if fates.len() == sent => {
                if *told == 0 && *others > 0 {
                    let seen = format_args!(
                        "stored at the gateway, which is in contact with none of {others} other members"
                    );
                    talk(Failure::new(Code::ChangeUnheard, seen).text().trim_end());
                }
                Ok(Accepted { at_unix_ns: None, told: (*told).into(), others: (*others).into() })
            }
            None => Err(unexpected()),
        }
    }

    /// Everything the gateway holds.
    pub(crate) fn everything(&self, key: &SecretKey, profile: &mut Profile) -> Outcome<Vec<Record>> {
        self.fetch(key, profile, Select::Everything)
    }

    /// Where the next change of `author` in `lane` stands, by what the gateway holds.
    pub(crate) fn place(
        &self,
        key: &SecretKey,
        profile: &mut Profile,
        author: &PublicKey,
        lane: Lane,
    ) -> Outcome<Place> {
        let records = self.fetch(key, profile, Select::Author(*author))?;
        place_after(&profile.chain, author, lane, &records)
    }

    fn fetch(&self, key: &SecretKey, profile: &mut Profile, select: Select) -> Outcome<Vec<Record>> {
        let mut records = Vec::new();
        for reply in self.ask(key, profile, &Request::Fetch(select))? {
            match reply {
                Reply::Records(batch) => records.extend(batch),
                Reply::End { .. } => return Ok(records),
                Reply::Admitted(_)
                | Reply::Challenge(_)
                | Reply::Share(_)
                | Reply::Submitted(_)
                | Reply::Refused(_) => break,
            }
        }
        Err(unexpected())
    }

    /// The replies of the first gateway that can be reached.
    fn ask(&self, key: &SecretKey, profile: &mut Profile, request: &Request) -> Outcome<Vec<Reply>> {
        let mut last = Failure::new(Code::GatewayUnreachable, "org.json names no gateway");
        for address in &self.addresses {
            match self.runtime.block_on(exchange(address, key, profile, request)) {
                Ok(replies) => return Ok(replies),
                // The next one may be up; a refusal would be the same there.
                Err(failure) if is_out_of_reach(failure.code()) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }
}

/// The place that follows what `records` hold of an author's lane.
fn place_after(chain: &CharterChain, author: &PublicKey, lane: Lane, records: &[Record]) -> Outcome<Place> {
    let mut last: Option<Statement> = None;
    for record in records {
        let Record::Statement(bytes) = record else { continue };
        let wrong = |why: &dyn core::fmt::Display| {
            Failure::new(Code::ChangeMalformed, format_args!("a change from the gateway: {why}"))
        };
        let change = UnverifiedStatement::decode(bytes).map_err(|e| wrong(&e))?;
        let change = change.verify(&chain.org()).map_err(|e| wrong(&e))?;
        if change.author() != author || change.lane() != lane {
            continue;
        }
        match &last {
            Some(known) if known.seq() == change.seq() && known.id() != change.id() => {
                return Err(Failure::new(
                    Code::ForkDetected,
                    format_args!("key {} signed {} and {}", author.short(), known.id(), change.id()),
                ));
            }
            Some(known) if known.seq() >= change.seq() => {}
            Some(_) | None => last = Some(change),
        }
    }
    let charter = chain.head().id();
    match last {
        Some(last) => Ok(last.next_place(charter)),
        None => {
            let named = chain.named(author).ok_or_else(|| {
                Failure::new(Code::ChangeNotAuthorised, format_args!("key {}", author.short()))
            })?;
            Ok(Place { charter, lane, seq: 0, prev: *named.id().as_bytes() })
        }
    }
}

async fn exchange(
    address: &Address,
    key: &SecretKey,
    profile: &mut Profile,
    request: &Request,
) -> Outcome<Vec<Reply>> {
    let bundle = |e: org_trust::BundleError| Failure::new(e.code(), e);
    let given = TrustBundle::read(profile.bundle.as_bytes()).map_err(bundle)?;
    let trusted = TrustBundle::accepted(Some(&given), profile.charter()).map_err(bundle)?;
    let tls = ClientTls::trusting(&trusted).map_err(|e| Failure::new(e.code(), e))?;
    let action = Action::new(request.action(), &[]).map_err(|e| Failure::new(Code::ActionUnknown, e))?;
    let dial = GatewayDial { address, tls: &tls, anchor: None, key, action, heads: Heads([0; 32]), count: 0 };
    let dialled = client::dial_gateway(dial, &mut profile.chain).await;
    let (mut session, _) = dialled.map_err(|e| dial_failed(address, &e))?;
    let lost = |e: transport::SessionError| Failure::new(e.code(), format_args!("{address}: {e}"));
    session.send(request.encode()).await.map_err(lost)?;
    let mut replies = Vec::new();
    // A batch holds many records; an org of the largest size fits in far fewer frames.
    for _ in 0..=CHARTERS_MAX {
        let frame = timeout(PATIENCE, session.recv())
            .await
            .map_err(|_| Failure::new(Code::ConnectionLost, format_args!("{address}: no answer in 20 s")))?
            .map_err(lost)?;
        let reply = Reply::decode(&frame)
            .map_err(|e| Failure::new(Code::RequestMalformed, format_args!("{address}: {e}")))?;
        match reply {
            Reply::Refused(code) => {
                return Err(Failure::new(code, format_args!("{address} refused the request")));
            }
            Reply::End { .. } | Reply::Submitted(_) => {
                replies.push(reply);
                session.close().await;
                return Ok(replies);
            }
            Reply::Records(_) | Reply::Admitted(_) | Reply::Challenge(_) | Reply::Share(_) => {
                replies.push(reply)
            }
        }
    }
    Err(unexpected())
}

fn dial_failed(address: &Address, error: &DialError) -> Failure {
    let failure = Failure::new(error.code(), format_args!("gateway {address}: {error}"));
    if error.code() == Code::UnknownKey { failure.remedy(Code::AdminKeyUnknown.remedy()) } else { failure }
}

fn is_out_of_reach(code: Code) -> bool {
    matches!(
        code,
        Code::NameNotResolved
            | Code::GatewayRefused
            | Code::GatewayUnreachable
            | Code::GatewayUnavailable
            | Code::GatewayBehind
            | Code::HandshakeTimeout
            | Code::ConnectionLost
            | Code::EdgeRefused
            | Code::TlsFailed
            | Code::Busy
            | Code::ShuttingDown
            | Code::ChangeUnheard
    )
}

fn unexpected() -> Failure {
    Failure::new(Code::RequestMalformed, "the gateway answered another question")
        .remedy("Check that this machine and the gateway run the same release.")
}

#[cfg(test)]
mod tests {
    use identity::Name;
    use org_trust::Assurance;

    use super::*;
    use crate::founding::{Founding, Names};

    #[test]
    fn a_place_follows_the_last_change_of_its_lane() {
        let name = |text| Name::parse(text).unwrap();
        let names = Names { org: name("acme"), admin: name("anna"), node: name("gw") };
        let founding = Founding::new(names, Assurance::File).unwrap();
        let chain = CharterChain::start(founding.genesis.clone()).unwrap();
        let admin = founding.admin.key.public();
        let records = [Record::from(&founding.genesis), Record::from(&founding.admit)];
        let main = place_after(&chain, &admin, Lane::Main, &records).unwrap();
        assert_eq!((main.seq, main.prev), (1, founding.admit.id().0));
        let revokes = place_after(&chain, &admin, Lane::Revokes, &records).unwrap();
        assert_eq!((revokes.seq, revokes.prev), (0, founding.genesis.id().0));
        let stranger = SecretKey::from_seed(&[1; 32]).public();
        let refused = place_after(&chain, &stranger, Lane::Main, &records).unwrap_err();
        assert_eq!(refused.code(), Code::ChangeNotAuthorised);
    }
}
