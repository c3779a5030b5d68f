//! What a member that is to be a gateway gives the holder of the org's keys: the role key and the TLS
//! key it made for itself, signed by its node key, so that nobody on the way can put in another.

use core::fmt;

use identity::{
    Code, Label, OrgId, PublicKey, SecretKey, Signature,
    codec::{DecodeError, Fault, Reader, Writer},
    limits::{ADDRESS_BYTES_MAX, GATEWAY_REQUEST_BYTES_MAX},
};

use crate::{base64::Alphabet, endpoint::check_address};

/// A request whose signatures nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    node: PublicKey,
    gateway: PublicKey,
    tls_key: [u8; 32],
    address: String,
    node_signature: Signature,
    gateway_signature: Signature,
}

/// A request that the member signed, with the role key proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedGatewayRequest(GatewayRequest);

/// Why a request is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayRequestError {
    /// A signature is wrong, or it was made for another org.
    BadSignature,
    /// The bytes are none.
    Malformed(DecodeError),
    /// The text is no line of this kind, or a part of it was lost.
    NotARequest,
}

impl GatewayRequest {
    /// Begins every request of this format.
    pub const PREFIX: &str = "muster-gateway-1:";

    /// Signs a request with the member's node key and the new role key. `tls_key` is the raw Ed25519
    /// public key that the gateway's certificate is for, `address` where machines will dial it.
    ///
    /// # Errors
    /// [`GatewayRequestError`] when the address is none.
    pub fn sign(
        org: &OrgId,
        node: &SecretKey,
        gateway: &SecretKey,
        tls_key: [u8; 32],
        address: &str,
    ) -> Result<Self, GatewayRequestError> {
        let message = message(org, &node.public(), &gateway.public(), &tls_key, address);
        let request = Self {
            node: node.public(),
            gateway: gateway.public(),
            tls_key,
            address: address.to_owned(),
            node_signature: node.sign(Label::GATEWAY_NODE, &message),
            gateway_signature: gateway.sign(Label::GATEWAY_ROLE, &message),
        };
        Self::decode(&request.encode()).map_err(GatewayRequestError::Malformed)
    }

    /// The one line.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{}{}", Self::PREFIX, *Alphabet::Url.encode(&self.encode()))
    }

    /// Reads the line as it comes out of a mail or terminal.
    ///
    /// # Errors
    /// [`GatewayRequestError`].
    pub fn parse(text: &str) -> Result<Self, GatewayRequestError> {
        if text.len() > 4 * GATEWAY_REQUEST_BYTES_MAX {
            return Err(GatewayRequestError::NotARequest);
        }
        let line: String = text.lines().map(str::trim_ascii).collect();
        let digits = line.strip_prefix(Self::PREFIX).ok_or(GatewayRequestError::NotARequest)?;
        let bytes = Alphabet::Url.decode(digits.as_bytes()).map_err(|_| GatewayRequestError::NotARequest)?;
        Self::decode(&bytes).map_err(GatewayRequestError::Malformed)
    }

    /// Checks both signatures.
    ///
    /// # Errors
    /// [`GatewayRequestError::BadSignature`].
    pub fn verify(self, org: &OrgId) -> Result<VerifiedGatewayRequest, GatewayRequestError> {
        let message = message(org, &self.node, &self.gateway, &self.tls_key, &self.address);
        let wrong = |_| GatewayRequestError::BadSignature;
        self.node.verify(Label::GATEWAY_NODE, &message, &self.node_signature).map_err(wrong)?;
        self.gateway.verify(Label::GATEWAY_ROLE, &message, &self.gateway_signature).map_err(wrong)?;
        Ok(VerifiedGatewayRequest(self))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT).bytes(self.node.as_bytes()).bytes(self.gateway.as_bytes()).bytes(&self.tls_key);
        out.long_bytes(self.address.as_bytes());
        out.bytes(&self.node_signature.0).bytes(&self.gateway_signature.0);
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.exactly("gateway request format", FORMAT)?;
        let (node, gateway) = (r.key("node key")?, r.key("gateway key")?);
        let tls_key = r.array("tls key")?;
        let address = r.long_bytes("gateway address", ADDRESS_BYTES_MAX)?;
        let length = u64::try_from(address.len()).unwrap_or(u64::MAX);
        let address = core::str::from_utf8(address)
            .ok()
            .filter(|text| check_address(text).is_ok())
            .ok_or(DecodeError { field: "gateway address", fault: Fault::OutOfRange { got: length } })?;
        let request = Self {
            node,
            gateway,
            tls_key,
            address: address.to_owned(),
            node_signature: r.signature("node signature")?,
            gateway_signature: r.signature("gateway signature")?,
        };
        r.finish("end of gateway request")?;
        Ok(request)
    }
}

impl VerifiedGatewayRequest {
    /// The member's node key.
    #[must_use]
    pub const fn node(&self) -> PublicKey {
        self.0.node
    }

    /// The role key it made.
    #[must_use]
    pub const fn gateway(&self) -> PublicKey {
        self.0.gateway
    }

    /// The raw Ed25519 public key that its TLS certificate is for.
    #[must_use]
    pub const fn tls_key(&self) -> &[u8; 32] {
        &self.0.tls_key
    }

    /// Where machines will dial it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }
}

impl GatewayRequestError {
    /// The code people see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::BadSignature | Self::Malformed(_) | Self::NotARequest => Code::GatewayRequestInvalid,
        }
    }
}

impl fmt::Display for GatewayRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSignature => {
                f.write_str("its signatures are not the member's, or it is for another org")
            }
            Self::Malformed(why) => write!(f, "{why}"),
            Self::NotARequest => f.write_str("not such a line, or a part of it was lost"),
        }
    }
}

impl core::error::Error for GatewayRequestError {}

fn message(org: &OrgId, node: &PublicKey, gateway: &PublicKey, tls_key: &[u8; 32], address: &str) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(org.as_bytes()).bytes(node.as_bytes()).bytes(gateway.as_bytes()).bytes(tls_key);
    out.long_bytes(address.as_bytes());
    out.into_bytes()
}

const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: OrgId = OrgId([5; 32]);

    #[test]
    fn a_request_reads_back_and_holds_for_its_org_only() {
        let line = request().to_line();
        let folded = format!("  {}\n  {}\n", &line[..40], &line[40..]);
        let read = GatewayRequest::parse(&folded).unwrap();
        assert_eq!(read, request());
        let verified = read.clone().verify(&ORG).unwrap();
        assert_eq!((verified.node(), verified.address()), (key(1).public(), "gw2.example:8443"));
        assert_eq!(read.verify(&OrgId([6; 32])), Err(GatewayRequestError::BadSignature));
    }

    #[test]
    fn no_part_of_a_request_can_be_exchanged() {
        let bytes = request().encode();
        for at in 1..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let accepted = GatewayRequest::decode(&changed).map(|request| request.verify(&ORG).is_ok());
            assert_ne!(accepted, Ok(true), "byte {at}");
        }
        for end in 0..bytes.len() {
            assert!(GatewayRequest::decode(&bytes[..end]).is_err());
        }
        let other = "muster-invite-1:AAAA";
        assert_eq!(GatewayRequest::parse(other), Err(GatewayRequestError::NotARequest));
    }

    fn request() -> GatewayRequest {
        GatewayRequest::sign(&ORG, &key(1), &key(2), [3; 32], "gw2.example:8443").unwrap()
    }

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }
}
