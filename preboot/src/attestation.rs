//! This machine's TPM speaks for it: where the invite asks for that, and for its share of its disk's key.

use attest::{certificate_in, tpm_of};
use identity::{Code, TpmId};
use org_trust::{Challenge, EnrolRequest, Offer, Quote};
use tpm_seal::Tpm;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// A TPM that can say who made it.
#[derive(Debug)]
pub(crate) struct Speaker<'a> {
    tpm: &'a Tpm,
    certificate: Vec<u8>,
    id: TpmId,
}

impl<'a> Speaker<'a> {
    /// The TPM that keeps the keys; keys in files have none.
    pub(crate) fn of(tpm: Option<&'a Tpm>) -> Outcome<Self> {
        let tpm = tpm.ok_or_else(|| Failure::new(Code::AttestationRequired, "the keys are kept in files"))?;
        let kept = tpm.endorsement_certificate()?;
        let missing = |why| Failure::new(Code::EkCertificateMissing, why);
        let certificate = certificate_in(&kept).map_err(missing)?.to_vec();
        let id = tpm_of(&certificate).map_err(missing)?;
        Ok(Self { tpm, certificate, id })
    }

    /// Its id, by which an invite may name it.
    pub(crate) const fn id(&self) -> TpmId {
        self.id
    }

    /// What goes to the gateway first.
    pub(crate) fn offer(&self, request: &EnrolRequest) -> Outcome<Offer> {
        Ok(Offer { request: request.encode(), certificate: self.certificate.clone(), key: self.key()? })
    }

    /// The certificate of its endorsement key.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key that will speak.
    pub(crate) fn key(&self) -> Outcome<Vec<u8>> {
        Ok(self.tpm.attestation_key()?)
    }

    /// What the TPM says to what the gateway asks in this session; `question` makes of the opened credential
    /// what it is to sign.
    pub(crate) fn answer(
        &self,
        challenge: &Challenge,
        question: impl FnOnce(&[u8; 32]) -> [u8; 32],
    ) -> Outcome<Quote> {
        let opened = self.tpm.open_credential(&challenge.credential, &challenge.seed)?;
        let opened: Result<Zeroizing<[u8; 32]>, _> = opened.as_slice().try_into().map(Zeroizing::new);
        let opened = opened
            .map_err(|_| Failure::new(Code::FrameMalformed, "the gateway's credential is of another size"))?;
        let tpm_seal::Quote { registers, attest, signature } = self.tpm.quote(&question(&opened))?;
        Ok(Quote { registers, attest, signature })
    }
}
