//! Randomness from the operating system, and nothing in its place.

use boot_image::ImageSecretKey;
use identity::{Code, SecretKey};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Fresh random bytes.
pub(crate) fn bytes<const N: usize>() -> Outcome<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|e| Failure::new(Code::FileProblem, format_args!("no randomness from the system: {e}")))?;
    Ok(bytes)
}

/// A fresh key.
pub(crate) fn key() -> Outcome<SecretKey> {
    Ok(SecretKey::from_seed(&*bytes()?))
}

/// A fresh image key.
pub(crate) fn image_key() -> Outcome<ImageSecretKey> {
    loop {
        // One draw in 2^32 is no number of the curve.
        if let Some(key) = ImageSecretKey::from_bytes(&*bytes()?) {
            return Ok(key);
        }
    }
}
