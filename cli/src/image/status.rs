//! `muster image status`: what this machine runs, could start, and passes on.

use control::local::{Answer, Images, Request};
use serde_json::json;

use crate::{
    args::Everywhere,
    failure::Outcome,
    local::{self, Daemon},
    output,
    place::Places,
};

pub(super) fn run(everywhere: &Everywhere) -> Outcome<()> {
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let Answer::Images(images) = daemon.ask(&Request::Images {})? else { return Err(local::unexpected()) };
    output::print(everywhere.format(), value(&images), || screen(&images));
    Ok(())
}

fn value(images: &Images) -> serde_json::Value {
    json!({
        "running": images.running.as_ref().map(|image| json!({
            "release": image.release,
            "lowest": image.floor,
            "ready": image.ready,
            "starts_left": image.tries_left,
            "given_up": image.given_up,
            "slot": image.slot,
        })),
        "slots": images.slots.iter().map(|slot| json!({
            "name": slot.name,
            "release": slot.release,
            "ready": slot.ready,
        })).collect::<Vec<_>>(),
        "wanted": images.wanted.as_ref().map(|image| json!({
            "release": image.release,
            "minimum": image.minimum,
            "bytes": image.bytes,
            "blake3": image.hash,
        })),
    })
}

fn screen(images: &Images) -> String {
    let ready = |ready| if ready { "it was ready" } else { "it has not been ready yet" };
    let mut rows = Vec::new();
    let title = match &images.running {
        None => "none: this machine was not booted by an image".to_owned(),
        Some(image) => {
            if let Some(release) = image.given_up {
                rows.push(["given up".into(), format!("release {release}, which never became ready")]);
            }
            rows.push(["lowest".into(), format!("release {}", image.floor)]);
            format!("release {}, {}", image.release, ready(image.ready))
        }
    };
    for slot in &images.slots {
        rows.push([
            format!("slot {}", slot.name),
            format!("release {}, {}", slot.release, ready(slot.ready)),
        ]);
    }
    if let Some(image) = &images.wanted {
        let passed_on = format!("release {}, {} bytes, to machines that boot", image.release, image.bytes);
        rows.push(["passed on".into(), passed_on]);
    }
    output::columns(["IMAGE", &title], &rows)
}
