//! What a machine boots, as bytes: the unified kernel image, the archive in it, and what firmware will
//! measure of it.
//!
//! * [`Uki`] puts a kernel, its command line and an initramfs behind systemd's stub, and takes such a
//!   file apart again.
//! * [`Pcr`] is a register of the TPM as it will be: the stub measures the parts of the image, and
//!   preboot ends each phase by one more value. Whoever knows the file knows the register.
//! * [`Archive`] is an initramfs: the same tree gives the same bytes.
//! * [`ImageSecretKey`] signs that a register's value is an image of the org, so that TPMs open keys to it.
//! * [`Pins`] is what an image holds of its org, inside the initramfs and so inside the measurement.
//! * [`Modules`] says which kernel modules of an image a machine loads, by the devices that it has.
//! * [`DiskToken`] is what a machine that booted writes into the header of its encrypted disk.
//!
//! Pure: bytes in, bytes out. `muster image` reads and writes the files, `muster-preboot` reads the pins.

mod archive;
mod disk_token;
mod image_key;
mod modules;
mod pcr;
mod pins;
mod uki;

pub use archive::{Archive, ArchiveError, Entry};
pub use disk_token::DiskToken;
pub use image_key::{ImageSecretKey, image_signature_holds};
pub use modules::{Driver, Modules};
pub use pcr::{LEAVE_PREBOOT, Pcr};
pub use pins::{PINS_DIRECTORY, Pins, PinsError};
pub use uki::{Uki, UkiError};
