//! The way to a gateway, by whichever network interface has one behind it; and what is left where none has.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use identity::PublicKey;
use rustix::system::RebootCommand;
use tpm_seal::TpmError;

use super::{
    network, node_image, persist,
    recovery::{Choice, Means, Offer},
};
use crate::{
    console::Console,
    failure::{Failure, Outcome},
    settings::Arguments,
    start::{Image, Started, alone, start},
};

/// What the image says about starts without a gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) release: PublicKey,
    pub(super) share: Option<u32>,
    pub(super) without_gateway: bool,
}

/// How a start ends that does not come as far as the node image.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The person at the console has said what is next.
    Chosen(RebootCommand),
    /// Nobody was asked yet.
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<TpmError> for Stopped {
    fn from(error: TpmError) -> Self {
        Self::Failed(error.into())
    }
}

/// Until a gateway knows this machine, or it is to start without one; whether one does.
pub(super) async fn begin(
    arguments: &Arguments,
    image: &Image,
    policy: Policy,
    typed: &mpsc::Receiver<String>,
    console: &mut Console,
) -> Result<(Started, bool), Stopped> {
    let (mut used, mut next): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let begun = async {
            match &next {
                None => used.extend(network::up(console).await?),
                Some(to) => {
                    let from = used.last().cloned();
                    used.push(to.clone());
                    network::change(from.as_deref(), to, console).await?;
                }
            }
            Box::pin(start(arguments, Some(image.clone()), console)).await
        };
        let begun: Outcome<Started> = begun.await;
        let failure = match begun {
            Ok(started) => return Ok((started, true)),
            Err(failure) => failure,
        };
        let offer = Offer::of(&failure, means(image, policy, &used, console));
        if offer.other.is_none() && offer.cached.is_none() {
            return Err(failure.into());
        }
        console.failure(&failure);
        match ask(&offer, typed, console) {
            Choice::Again => return Err(Stopped::Chosen(RebootCommand::Restart)),
            Choice::Off => return Err(Stopped::Chosen(RebootCommand::PowerOff)),
            Choice::Cached => return Ok((alone(arguments, image, console)?, false)),
            Choice::Other => next = offer.other,
        }
    }
}

fn means(image: &Image, policy: Policy, used: &[String], console: &Console) -> Means {
    let other = network::other(used.last().map(String::as_str));
    let is_new = other.as_ref().is_some_and(|name| !used.contains(name));
    let cached =
        policy.without_gateway.then(|| node_image::good(&image.chain.org(), &policy.release, console));
    let disk = persist::Found::look();
    let wants_share = disk.is_ok_and(|disk| disk.epochs(policy.share).opens.is_some());
    Means { other, is_new, cached: cached.flatten(), wants_share }
}

fn ask(offer: &Offer, typed: &mpsc::Receiver<String>, console: &Console) -> Choice {
    console.note(offer);
    let (choice, wait) = (offer.by_itself(), offer.waits());
    console.note(format_args!("by itself {choice} in {} s", wait.as_secs()));
    loop {
        match typed.recv_timeout(wait) {
            Ok(line) => match offer.read(&line) {
                Some(choice) => return choice,
                None => console.note("that is none of them"),
            },
            Err(RecvTimeoutError::Timeout) => return choice,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(wait);
                return choice;
            }
        }
    }
}
