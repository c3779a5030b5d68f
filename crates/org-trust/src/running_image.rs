//! What preboot tells musterd of the image that both belong to: a file in /run, which only a machine that
//! was booted by an image has.

use identity::{
    codec::{DecodeError, Fault, Reader, Writer},
    limits::SLOT_PATH_BYTES_MAX,
};

/// The node image that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// Its number.
    pub release: u32,
    /// The lowest that this machine starts.
    pub floor: u32,
    /// The directory it lies in; none when it came from the boot disk and could not be kept.
    pub slot: Option<String>,
    /// How often it may be started again before it is given up; none once it was ready.
    pub tries_left: Option<u8>,
    /// A release that was to run instead and never became ready.
    pub given_up: Option<u32>,
}

impl RunningImage {
    /// The file's name in the directory of musterd's control socket.
    pub const FILE: &'static str = "image";
    /// In a slot: the OS was ready.
    pub const READY: &'static str = "ready";

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u32(self.release).u32(self.floor);
        out.long_bytes(self.slot.as_deref().unwrap_or_default().as_bytes());
        match self.tries_left {
            None => out.u8(0),
            Some(tries) => out.u8(1).u8(tries),
        };
        match self.given_up {
            None => out.u8(0),
            Some(release) => out.u8(1).u32(release),
        };
        out.into_bytes()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.exactly("version", VERSION)?;
        let (release, floor) = (r.u32("release")?, r.u32("floor")?);
        let slot = r.long_bytes("slot", SLOT_PATH_BYTES_MAX)?;
        let slot = core::str::from_utf8(slot)
            .map_err(|_| DecodeError { field: "slot", fault: Fault::BadText })?
            .to_owned();
        let image = Self {
            release,
            floor,
            slot: Some(slot).filter(|slot| !slot.is_empty()),
            tries_left: flag(&mut r, "tries")?.then(|| r.u8("tries left")).transpose()?,
            given_up: flag(&mut r, "given up")?.then(|| r.u32("release given up")).transpose()?,
        };
        r.finish("end of image")?;
        Ok(image)
    }
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, DecodeError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(DecodeError { field, fault: Fault::Unknown { got: got.into() } }),
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_preboot_says_reads_back_and_a_torn_file_does_not() {
        let slot = Some("/state/slots/b".to_owned());
        for image in [
            RunningImage { release: 3, floor: 2, slot, tries_left: Some(1), given_up: None },
            RunningImage { release: 2, floor: 0, slot: None, tries_left: None, given_up: Some(3) },
        ] {
            let file = image.encode();
            assert_eq!(RunningImage::decode(&file), Ok(image));
            for end in 0..file.len() {
                assert!(RunningImage::decode(&file[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
