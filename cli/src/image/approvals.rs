//! The approvals of an image: made when it is, and checked as the TPM of a machine will.

use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr, image_signature_holds};
use identity::{HashContext, OrgId};
use tpm_seal::{Approval, Approvals, ImageKey};

/// Signs what the TPM will measure of an image, for each phase.
pub(super) fn sign(key: &ImageSecretKey, org: &OrgId, measured: Pcr) -> Approvals {
    let [preboot, node] = phases(org, measured).map(|unsigned| {
        let signature = key.sign(&unsigned.message());
        Approval { signature, ..unsigned }
    });
    Approvals { key: ImageKey(key.public()), preboot, node }
}

/// Whether the approvals in an image are those of this org for exactly this image, and hold.
pub(super) fn check(
    approvals: &Approvals,
    key: &[u8; 64],
    org: &OrgId,
    measured: Pcr,
) -> Result<(), &'static str> {
    if approvals.key.0 != *key {
        return Err("the approvals in it are of another key than it pins");
    }
    let wanted = phases(org, measured);
    for (approval, wanted) in [&approvals.preboot, &approvals.node].into_iter().zip(wanted) {
        if approval.phase != wanted.phase {
            return Err("the approvals in it are of another org");
        }
        if approval.image != wanted.image {
            return Err("the approvals in it are of another image");
        }
        if !image_signature_holds(key, &approval.message(), &approval.signature) {
            return Err("the image key did not sign the approvals in it");
        }
    }
    Ok(())
}

fn phases(org: &OrgId, measured: Pcr) -> [Approval; 2] {
    let unsigned = |context: HashContext, image: Pcr| Approval {
        phase: context.hash(&[org.as_bytes()]),
        image: *image.as_bytes(),
        signature: [0; 64],
    };
    [
        unsigned(HashContext::IMAGE_PREBOOT_PHASE, measured),
        unsigned(HashContext::IMAGE_NODE_PHASE, measured.extended(LEAVE_PREBOOT)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approvals_hold_for_one_image_of_one_org_by_one_key() {
        let (org, measured) = (OrgId([1; 32]), Pcr::ZERO.extended(b"image"));
        let key = ImageSecretKey::from_bytes(&[7; 32]).unwrap();
        let approvals = sign(&key, &org, measured);
        let public = key.public();
        assert_eq!(check(&approvals, &public, &org, measured), Ok(()));
        assert!(check(&approvals, &public, &OrgId([2; 32]), measured).is_err());
        assert!(check(&approvals, &public, &org, measured.extended(b"more")).is_err());
        assert!(check(&approvals, &[3; 64], &org, measured).is_err());
        let mut wrong = approvals.clone();
        wrong.node.signature[5] ^= 1;
        assert!(check(&wrong, &public, &org, measured).is_err());
        // One phase's approval is none for the other.
        let swapped = Approvals { preboot: approvals.node, node: approvals.preboot, ..approvals };
        assert!(check(&swapped, &public, &org, measured).is_err());
    }
}
