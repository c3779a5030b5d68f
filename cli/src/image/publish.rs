//! `muster image publish`: hands a node image to this machine's musterd, which passes it on from then on.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use control::local::{Answer, ImageUpload, Request};
use identity::{
    Code, encode_hex,
    limits::{BLOB_UPLOAD_BYTES_MAX, GENERATION_BYTES_MAX},
};
use org_trust::UnverifiedGeneration;
use serde_json::json;

use super::inputs;
use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    local::{self, Daemon},
    output,
    place::Places,
    progress::Progress,
};

pub(super) fn run(everywhere: &Everywhere, dir: &Path) -> Outcome<()> {
    let (image, signed) = (dir.join("node.squashfs"), dir.join("node.release"));
    let release = inputs::read(&signed)?;
    let wrong = |why: &dyn core::fmt::Display| {
        Failure::new(Code::NodeImageInvalid, format_args!("{}: {why}", signed.display()))
    };
    if release.len() > GENERATION_BYTES_MAX {
        return Err(wrong(&"it is too long for one"));
    }
    let generation = UnverifiedGeneration::decode(&release).map_err(|e| wrong(&e))?.claimed().clone();
    let mut file = File::open(&image).map_err(|e| Failure::file(&image, &e))?;
    let length = file.metadata().map_err(|e| Failure::file(&image, &e))?.len();
    if length != generation.image_bytes {
        return Err(wrong(&format_args!(
            "it is of {} bytes, the image has {length}",
            generation.image_bytes
        )));
    }
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let mut done = uploaded(daemon.ask(&Request::OfferImage { release: release.clone().into() })?)?;
    let progress = Progress::bytes(everywhere, "to musterd", done.at, done.bytes);
    while done.at < done.bytes {
        progress.at(done.at);
        let mut part = Vec::new();
        let read = file
            .seek(SeekFrom::Start(done.at))
            .and_then(|_| (&file).take(BLOB_UPLOAD_BYTES_MAX as u64).read_to_end(&mut part));
        read.map_err(|e| Failure::file(&image, &e))?;
        let (release, at, before) = (release.clone().into(), done.at, done.at);
        done = uploaded(daemon.ask(&Request::UploadImage { release, at, part: part.into() })?)?;
        if done.at <= before {
            return Err(local::unexpected());
        }
    }
    drop(progress);
    let value = json!({
        "release": generation.number,
        "minimum": generation.minimum,
        "bytes": generation.image_bytes,
        "blake3": encode_hex(&generation.image),
    });
    output::print(everywhere.format(), value, || {
        format!("Machines that boot run release {} from now on.\n", generation.number)
    });
    Ok(())
}

fn uploaded(answer: Answer) -> Outcome<ImageUpload> {
    if let Answer::ImageUpload(upload) = answer { Ok(upload) } else { Err(local::unexpected()) }
}
