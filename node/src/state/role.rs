//! Becoming a gateway: the role's key is made on this machine, kept with its other keys, and named to
//! the holder of the org's keys in a request that the node key signs.

use control::local::{self, Answer, Failed};
use identity::{Code, SecretKey};
use org_trust::GatewayRequest;
use tokio::sync::oneshot;

use super::{Effect, Now, State, disk::answer};

/// A key that has to be made, and for what.
#[derive(Debug)]
pub struct RoleKeyOrder {
    /// The raw Ed25519 public key that the TLS certificate is for.
    tls_key: [u8; 32],
    /// Where machines will dial this one.
    address: String,
    reply: oneshot::Sender<Answer>,
}

impl State {
    /// Signs a request to be a gateway; before that, a key is made if there is none of use.
    pub(super) fn prepare_gateway(
        &mut self,
        tls_key: &[u8],
        address: String,
        reply: oneshot::Sender<Answer>,
    ) {
        let failed = |code: Code, detail: &str| {
            Answer::Failed(Failed { code: code.into(), detail: detail.to_owned() })
        };
        if !self.is_member() {
            return answer(reply, failed(Code::NotEnrolled, ""));
        }
        let Ok(tls_key) = <[u8; 32]>::try_from(tls_key) else {
            return answer(reply, failed(Code::RequestMalformed, "a TLS key has 32 bytes"));
        };
        let order = RoleKeyOrder { tls_key, address, reply };
        if self.usable_role_key().is_some() {
            return self.ask_for_role(order, false);
        }
        if !self.rotation.is_idle() {
            return answer(order.reply, failed(Code::RotationUnderWay, ""));
        }
        if std::mem::replace(&mut self.role_key_ordered, true) {
            return answer(order.reply, failed(Code::Busy, "the key is being made"));
        }
        self.effects.push_back(Effect::MakeRoleKey(Box::new(order)));
    }

    /// The key is made and kept, or it could not be.
    pub fn on_role_key(&mut self, made: Result<SecretKey, Failed>, order: RoleKeyOrder, _: Now) {
        self.role_key_ordered = false;
        match made {
            Ok(key) => {
                tracing::info!(MUSTER_PEER = key.public().short(), "made a key for the gateway role");
                self.role_key = Some(key);
                self.ask_for_role(order, true);
            }
            Err(failed) => answer(order.reply, Answer::Failed(failed)),
        }
    }

    fn ask_for_role(&self, order: RoleKeyOrder, new: bool) {
        let RoleKeyOrder { tls_key, address, reply } = order;
        let Some(key) = self.role_key() else { return };
        let request = GatewayRequest::sign(&self.org, &self.keys.node, key, tls_key, &address);
        let answered = match request {
            Ok(request) => Answer::GatewayRequest(local::GatewayRequest {
                line: request.to_line(),
                key: key.public().into(),
                new,
            }),
            Err(why) => Answer::Failed(Failed { code: why.code().into(), detail: why.to_string() }),
        };
        answer(reply, answered);
    }

    /// The key of the gateway role, whether or not the org's settings name it.
    pub(super) fn role_key(&self) -> Option<&SecretKey> {
        self.role_key.as_ref().or(self.keys.gateway.as_ref())
    }

    /// The same, if the settings name it or may name it: a key that lost the role never has it again.
    fn usable_role_key(&self) -> Option<&SecretKey> {
        let key = self.role_key()?;
        let chain = self.replica.chain();
        let named = chain.head().charter().gateway(&key.public()).is_some_and(|g| self.is_mine(&g.node));
        (named || chain.named(&key.public()).is_none()).then_some(key)
    }
}
