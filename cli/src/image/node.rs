//! `muster image node`: the OS that preboot hands over to, and the signature of the org on it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use boot_image::{Archive, Entry};
use identity::{Code, limits::NODE_IMAGE_BYTES_MAX};
use org_trust::Generation;
use serde_json::json;

use super::{
    inputs,
    tools::{self, Scratch},
    unusable,
};
use crate::{
    args::{Everywhere, ImageNode},
    failure::{Failure, Outcome},
    files, org_keys, output, program,
    progress::Progress,
};

pub(super) fn run(everywhere: &Everywhere, args: &ImageNode) -> Outcome<()> {
    if args.minimum > args.release {
        let detail =
            format_args!("--minimum {} would shut out release {} itself", args.minimum, args.release);
        return Err(Failure::new(Code::Usage, detail));
    }
    let (profile, path) = super::org(everywhere, args.org.as_deref(), &args.org_keys)?;
    let keys = org_keys::unlock(everywhere, &args.org_keys, &path, profile.org())?;
    let (image, signed) = (args.out.join("node.squashfs"), args.out.join("node.release"));
    let progress = Progress::steps(everywhere, 3);
    progress.step("collecting programs and their libraries");
    let scratch = Scratch::beside(&image)?;
    let settings = match &args.settings {
        Some(path) => inputs::read(path)?,
        None => SETTINGS.as_bytes().to_vec(),
    };
    let from = program::directory(args.programs.as_deref())?;
    let mut tree = Archive::default();
    for name in ["musterd", "muster"] {
        inputs::program(&mut tree, &format!("usr/bin/{name}"), &from.join(name), &scratch)?;
    }
    tree.file("bin/busybox", inputs::read(&args.busybox)?, true);
    tree.link("sbin/init", "/bin/busybox");
    tree.file("etc/inittab", INITTAB.as_bytes().to_vec(), false);
    tree.file("usr/lib/muster/dhcp", DHCP.as_bytes().to_vec(), true);
    tree.file("usr/lib/muster/lease", LEASE.as_bytes().to_vec(), true);
    tree.file("etc/muster/muster.toml", settings, false);
    tree.file("etc/os-release", os_release(args.release).into_bytes(), false);
    // What is mounted over, and what programs expect.
    for dir in ["dev", "persist", "proc", "root", "run", "state", "sys", "tmp", "var"] {
        tree.directory(dir);
    }
    let root = scratch.path().join("root");
    write(&tree, &root)?;
    progress.step("packing the file system");
    let packed = scratch.path().join("node.squashfs");
    let same_each_time = ["-all-root", "-all-time", "0", "-mkfs-time", "0", "-no-xattrs", "-noappend"];
    let arguments = [root.as_os_str(), packed.as_os_str()].into_iter();
    let arguments = arguments.chain(same_each_time.iter().chain(COMPRESSION).map(|word| word.as_ref()));
    tools::run("mksquashfs", "squashfs-tools", arguments)?;
    let bytes = inputs::read(&packed)?;

    progress.step("signing");
    let generation = Generation {
        number: args.release,
        image: *blake3::hash(&bytes).as_bytes(),
        image_bytes: u64::try_from(bytes.len()).map_err(unusable)?,
        minimum: args.minimum,
    };
    if generation.image_bytes > NODE_IMAGE_BYTES_MAX {
        return Err(Failure::new(Code::NodeImageTooLarge, format_args!("{} bytes", generation.image_bytes)));
    }
    files::replace(&image, files::PUBLIC, &bytes)?;
    files::replace(&signed, files::PUBLIC, &generation.sign(&profile.org(), &keys.release))?;
    drop(progress);
    let hash = identity::encode_hex(&generation.image);
    let value = json!({
        "file": image,
        "signature": signed,
        "release": generation.number,
        "minimum": generation.minimum,
        "bytes": generation.image_bytes,
        "blake3": hash.as_str(),
        "org": profile.org().to_string(),
    });
    output::print(everywhere.format(), value, || {
        output::columns(
            ["IMAGE", &image.display().to_string()],
            &[
                ["signature".into(), signed.display().to_string()],
                ["release".into(), generation.number.to_string()],
                ["size".into(), format!("{} bytes", generation.image_bytes)],
                ["BLAKE3".into(), hash.clone()],
            ],
        )
    });
    Ok(())
}

/// Writes a tree into a directory, with the modes it is to have.
fn write(tree: &Archive, root: &Path) -> Outcome<()> {
    fs::create_dir(root).map_err(|e| Failure::file(root, &e))?;
    for (name, entry) in tree.iter() {
        let path = root.join(name);
        let mode = match entry {
            Entry::File { executable: false, .. } => 0o644,
            Entry::Directory | Entry::File { .. } | Entry::Link(_) => 0o755,
        };
        let written = match entry {
            Entry::Directory => fs::create_dir(&path),
            Entry::File { content, .. } => fs::write(&path, content),
            Entry::Link(target) => symlink(target, &path),
        };
        let is_link = matches!(entry, Entry::Link(_));
        written
            .and_then(
                |()| if is_link { Ok(()) } else { fs::set_permissions(&path, Permissions::from_mode(mode)) },
            )
            .map_err(|e| Failure::file(&path, &e))?;
    }
    Ok(())
}

fn os_release(release: u32) -> String {
    format!(
        "ID=muster-node\nNAME=\"muster node\"\nVERSION_ID={}\nIMAGE_VERSION={release}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// busybox's init starts both and starts them again when they end. Nothing else runs.
const INITTAB: &str = "\
::respawn:/usr/bin/musterd
::respawn:/usr/lib/muster/dhcp
::ctrlaltdel:/bin/busybox reboot
::shutdown:/bin/busybox sync
";
/// Keeps the address that preboot got: the server is asked for it again, and before each lease ends.
const DHCP: &str = "\
#!/bin/busybox sh
read -r interface address prefix 2> /dev/null < /run/network/lease || exec /bin/busybox sleep 86400
echo \"$address/$prefix\" > /run/network/address
exec /bin/busybox udhcpc -f -i \"$interface\" -r \"$address\" -s /usr/lib/muster/lease
";
/// What udhcpc calls. An address stays when its lease is lost: links outlive a server that is away.
const LEASE: &str = "\
#!/bin/busybox sh
case \"$1\" in bound | renew) ;; *) exit 0 ;; esac
/bin/busybox ip address replace \"$ip/$mask\" dev \"$interface\"
old=$(/bin/busybox cat /run/network/address)
[ \"$old\" = \"$ip/$mask\" ] || /bin/busybox ip address del \"$old\" dev \"$interface\"
echo \"$ip/$mask\" > /run/network/address
[ -z \"$router\" ] || /bin/busybox ip route replace default via \"${router%% *}\" dev \"$interface\"
for server in $dns; do echo \"nameserver $server\"; done > /etc/resolv.conf
[ \"$1\" = renew ] || echo \"network: $interface keeps $ip/$mask for ${lease} s, and asks again before that\"
";
const SETTINGS: &str = "\
state_dir = \"/state/muster\"

[keys]
storage = \"tpm\"
tpm = \"/dev/tpmrm0\"

[control]
socket = \"/run/muster/musterd.sock\"
";
const COMPRESSION: &[&str] = &["-comp", "zstd", "-no-progress", "-quiet"];
