//! What is left to do when a start does not come as far as the node image, as the person at the console
//! chooses it, or time when nobody is there. Pure: what is typed in, what is done out. Nothing in here weakens
//! anything, and there is no shell.

use core::fmt;
use std::time::Duration;

use crate::failure::Failure;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The machine starts anew.
    Again,
    /// It starts the last release that was ready, without having asked anybody.
    Cached,
    /// It tries its next network interface.
    Other,
    /// It is switched off.
    Off,
}

/// What there is to choose beside starting anew and switching off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The next network interface.
    pub(crate) other: Option<String>,
    /// The last release that was ready, where the image lets it start without a gateway.
    pub(crate) cached: Option<u32>,
    /// What is done by itself when nothing is typed.
    by_itself: Choice,
}

/// What can be done about a failure, from what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Means {
    /// The next network interface.
    pub(crate) other: Option<String>,
    /// Whether that one was not tried in this start.
    pub(crate) is_new: bool,
    /// The last release that was ready, where the image lets it start without a gateway.
    pub(crate) cached: Option<u32>,
    /// Whether the disk wants a share that only gateways give.
    pub(crate) wants_share: bool,
}

impl Offer {
    /// Another interface and the release that is kept help where no gateway was reached, and nowhere else: what a
    /// gateway that answered holds against this machine, no choice undoes.
    pub(crate) fn of(failure: &Failure, means: Means) -> Self {
        if !failure.passes() {
            return Self { other: None, cached: None, by_itself: Choice::Again };
        }
        let Means { other, is_new, cached, wants_share } = means;
        let by_itself = match (&other, cached) {
            (Some(_), _) if is_new => Choice::Other,
            (_, Some(_)) if !wants_share => Choice::Cached,
            _ => Choice::Again,
        };
        Self { other, cached, by_itself }
    }

    /// What a line means; nothing for one that means nothing here.
    pub(crate) fn read(&self, line: &str) -> Option<Choice> {
        match line.trim() {
            "" => Some(Choice::Again),
            "o" => Some(Choice::Off),
            "n" if self.other.is_some() => Some(Choice::Other),
            "c" if self.cached.is_some() => Some(Choice::Cached),
            _ => None,
        }
    }

    /// What is done when nothing is typed.
    pub(crate) const fn by_itself(&self) -> Choice {
        self.by_itself
    }

    /// How long nothing is typed before that: not long where it costs nothing.
    pub(crate) fn waits(&self) -> Duration {
        if self.by_itself == Choice::Other { AT_ONCE } else { AGAIN_AFTER }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enter tries again, o and Enter switches off")?;
        if let Some(name) = &self.other {
            write!(f, ", n tries {name}")?;
        }
        if let Some(release) = self.cached {
            write!(f, ", c starts release {release}, which was ready, without a gateway")?;
        }
        Ok(())
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Again => "it tries again",
            Self::Cached => "it starts the release that was ready",
            Self::Off => "it is switched off",
            Self::Other => "it tries the other network",
        })
    }
}

pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use identity::Code;

    use super::*;

    fn all() -> Means {
        Means { other: Some("eth1".to_owned()), is_new: true, cached: Some(4), wants_share: false }
    }

    fn offer(code: Code, means: Means) -> Offer {
        Offer::of(&Failure::new(code, ""), means)
    }

    #[test]
    fn what_a_gateway_holds_against_a_machine_no_choice_undoes() {
        for code in [
            Code::Revoked,
            Code::Suspended,
            Code::BootNotAccepted,
            Code::ShareWithheld,
            Code::GenerationTooOld,
            Code::NodeImageInvalid,
            Code::ImageNotApproved,
            Code::TpmAbsent,
            Code::TpmReplaced,
            Code::SealedKeyDamaged,
        ] {
            let none = offer(code, all());
            assert_eq!((none.read("n"), none.read("c"), none.read("sh")), (None, None, None), "{code}");
        }
        let none = offer(Code::Revoked, all());
        assert_eq!((none.read("\n"), none.read(" o ")), (Some(Choice::Again), Some(Choice::Off)));
    }

    #[test]
    fn another_network_comes_before_the_release_that_is_kept_and_that_before_starting_anew() {
        for code in [Code::NoNetwork, Code::GatewayUnreachable, Code::GatewayRefused, Code::NameNotResolved] {
            let by_itself = |means| offer(code, means).by_itself;
            assert_eq!(by_itself(all()), Choice::Other);
            assert_eq!(by_itself(Means { is_new: false, ..all() }), Choice::Cached);
            assert_eq!(by_itself(Means { other: None, ..all() }), Choice::Cached);
            let shared = Means { is_new: false, wants_share: true, ..all() };
            assert_eq!(by_itself(shared.clone()), Choice::Again, "its disk would stay shut");
            assert_eq!(offer(code, shared).read("c"), Some(Choice::Cached), "whoever has the passphrase may");
            assert_eq!(by_itself(Means { other: None, cached: None, ..all() }), Choice::Again);
        }
    }
}
