//! The part of the disk's key that gateways give: asked for at each start, told apart when there is none.

use identity::{Code, DiskShare};

use crate::{
    attestation::Speaker,
    console::Console,
    failure::{Failure, Outcome},
    gateway,
    start::{Started, try_each},
};

/// Of which epochs a disk wants shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epochs {
    /// To open it.
    pub(crate) opens: Option<u32>,
    /// To open it from now on.
    pub(crate) next: Option<u32>,
}

/// What the gateways gave.
#[derive(Debug)]
pub(crate) struct Shares {
    pub(crate) epochs: Epochs,
    /// With which the disk opens now; nothing where it wants none.
    pub(crate) opens: Outcome<Option<DiskShare>>,
    /// With which it is to open from now on, where that is another.
    pub(crate) next: Option<DiskShare>,
}

/// Asks for what the disk wants. That there is none is for the one who opens it to say.
pub(crate) async fn get(started: &Started, epochs: Epochs, console: &mut Console) -> Shares {
    let opens = match epochs.opens {
        None => Ok(None),
        Some(epoch) => one(started, epoch, console).await.map(Some),
    };
    let next = match epochs.next.filter(|_| epochs.next != epochs.opens && opens.is_ok()) {
        None => None,
        Some(epoch) => match one(started, epoch, console).await {
            Ok(share) => Some(share),
            Err(failure) => {
                console.note(format_args!("the disk keeps the key it has: {failure}"));
                None
            }
        },
    };
    Shares { epochs, opens, next }
}

/// For a start that asked nobody.
pub(crate) fn unasked(epochs: Epochs) -> Shares {
    let opens = match epochs.opens {
        None => Ok(None),
        Some(_) => Err(Failure::new(Code::ShareOutOfReach, "no gateway was asked")),
    };
    Shares { epochs, opens, next: None }
}

async fn one(started: &Started, epoch: u32, console: &mut Console) -> Outcome<DiskShare> {
    let speaker = Speaker::of(started.store.tpm())?;
    let member = &started.member;
    let mut chain = member.chain.clone();
    let mut failures = Vec::new();
    let asked = try_each(ROUNDS, &member.gateways, console, async |gateway| {
        let share = gateway::share(gateway, member, &mut chain, &started.boot, &speaker, epoch).await;
        share.inspect_err(|failure: &Failure| failures.push(failure.clone()))
    });
    let asked = Box::pin(asked).await;
    match asked {
        Ok((gateway, share)) => {
            console.checkpoint(format_args!("{gateway} gave its share of the disk's key, epoch {epoch}"));
            Ok(share)
        }
        Err(_) => Err(told(failures, epoch)),
    }
}

/// Why there is none: what a gateway holds against this machine before that none has one, and that before
/// that none was reached.
fn told(failures: Vec<Failure>, epoch: u32) -> Failure {
    let mut weightiest = Failure::new(Code::ShareOutOfReach, "no gateway is named");
    let mut weight = 0;
    for failure in failures {
        let (its, failure) = if failure.code == Code::ShareNotHeld {
            (2, Failure::new(failure.code, format_args!("epoch {epoch}")))
        } else if failure.passes() {
            (1, Failure::new(Code::ShareOutOfReach, failure))
        } else {
            (3, failure)
        };
        if its > weight {
            (weight, weightiest) = (its, failure);
        }
    }
    weightiest
}

/// One of them has answered a moment ago.
const ROUNDS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_share_is_told_apart() {
        let code = |codes: &[Code]| told(codes.iter().map(|code| Failure::new(*code, "")).collect(), 1).code;
        assert_eq!(code(&[]), Code::ShareOutOfReach);
        assert_eq!(code(&[Code::GatewayUnreachable, Code::Busy]), Code::ShareOutOfReach);
        assert_eq!(code(&[Code::GatewayRefused, Code::ShareNotHeld]), Code::ShareNotHeld);
        assert_eq!(code(&[Code::ShareNotHeld, Code::GatewayUnreachable]), Code::ShareNotHeld);
        for held in [Code::Revoked, Code::Suspended, Code::BootNotAccepted, Code::ShareWithheld] {
            assert_eq!(code(&[Code::ShareNotHeld, held, Code::GatewayUnreachable]), held);
        }
    }
}
