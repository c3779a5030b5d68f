//! `muster org create`: founds an org on its first machine.
//!
//! Everything is made in memory and in directories beside their places first; what the org cannot do
//! without, the key files, is put in place before anything that uses them, and the hand-over to musterd
//! last. Nothing that exists is ever overwritten.

use std::{
    fs,
    path::{Path, PathBuf},
};

use age::secrecy::SecretString;
use identity::{Code, Name, overlay_address};
use org_trust::CharterChain;
use serde_json::json;
use tpm_seal::{BootSecrets, Custody, NodeSecrets, Seed};
use transport::Address;

use crate::{
    args::{Everywhere, KeyStorage, OrgCreate},
    failure::{Failure, Outcome},
    files,
    founding::{Founding, Names},
    handover, keys,
    output::{self, talk},
    passphrase::Source,
    place::{self, Places},
    profile::{ADMIN_KEY_FILE, ORG_KEYS_FILE, PROFILE_FILE, Profile},
    recovery_sheet,
};

pub(crate) const GATEWAY_CONFIG: &str = "muster-gateway.toml";
pub(crate) const GATEWAY_CERTIFICATE: &str = "gateway.crt";
pub(crate) const GATEWAY_KEY: &str = "gateway.key";
/// Where muster-gateway listens unless it is told otherwise.
const GATEWAY_PORT: u16 = 443;

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere, args: &OrgCreate) -> Outcome<()> {
    let address = Address::parse(&args.gateway)
        .map_err(|e| Failure::usage(format_args!("--gateway {}: {e}", args.gateway)))?;
    let places = Places::find(everywhere)?;
    let storage = storage(args.key_storage, &places)?;
    let admin_dir = match &args.admin_dir {
        Some(directory) => directory.clone(),
        None => place::admin_root()?.join(args.name.as_str()),
    };
    refuse_existing(&places, &everywhere.config_dir, &admin_dir, args.recovery_sheet.as_deref())?;
    if places.configured && places.gateway_socket.is_none() {
        let path = everywhere.config_dir.join(place::CONFIG);
        return Err(Failure::new(
            Code::ConfigBadValue,
            format_args!("{} has no gateway socket", path.display()),
        )
        .remedy(format_args!("Add to it: [gateway] socket = \"{}\"", place::GATEWAY_SOCKET)));
    }

    let node_name = args.node_name.clone().map_or_else(host_name, Ok)?;
    let admin_name =
        args.admin_name.clone().map_or_else(|| Name::parse("admin").map_err(Failure::usage), Ok)?;
    let device = args.tpm.as_ref().unwrap_or(&places.tpm);
    let (custody, assurance) = keys::custody(storage, device)?;
    let source = Source::new(everywhere.passphrase_file.as_deref(), everywhere.no_input);
    let passphrase = source.new_one(&format!("the keys of org {}", args.name))?;
    let admin_passphrase = match &args.admin_passphrase_file {
        Some(file) => Source::file_only(file).new_one("the admin key")?,
        None => passphrase.clone(),
    };

    let names = Names { org: args.name.clone(), admin: admin_name, node: node_name };
    let founding = Founding::new(names, assurance)?;
    let org_keys = founding.org_keys.encrypt(passphrase)?;
    write_key_files(&founding, &admin_dir, &org_keys, admin_passphrase, &address)?;
    let sheet = recovery_sheet::text(&founding, &org_keys);
    match &args.recovery_sheet {
        Some(path) => files::create(path, files::SECRET, sheet.as_bytes())?,
        None => talk(&sheet),
    }
    write_node_keys(&founding, &custody, &places.state)?;
    write_gateway(&founding, &everywhere.config_dir, &address, &places)?;
    if !places.configured {
        let config = config(&places, storage, device);
        files::create(&everywhere.config_dir.join(place::CONFIG), files::PUBLIC, config.as_bytes())?;
    }
    handover::pin(
        &places.state,
        &founding.genesis,
        founding.ca.certificate_pem(),
        &address,
        &founding.admit,
    )?;
    handover::write(&places.state, &founding.genesis, founding.ca.certificate_pem(), &founding.admit)?;
    report(everywhere, &founding, &admin_dir, &address, assurance.as_str(), args.recovery_sheet.as_deref());
    Ok(())
}

fn storage(flag: Option<KeyStorage>, places: &Places) -> Outcome<KeyStorage> {
    match (flag, places.storage) {
        (Some(flag), Some(set)) if flag != set => Err(Failure::new(
            Code::ConfigBadValue,
            "--key-storage and [keys] storage in muster.toml say different things",
        )
        .remedy("Correct one of them.")),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        // Without a muster.toml the default of musterd; with one that does not say, the same.
        (None, None) => Ok(KeyStorage::Tpm),
    }
}

fn refuse_existing(places: &Places, config: &Path, admin: &Path, sheet: Option<&Path>) -> Outcome<()> {
    let state = &places.state;
    let mut taken: Vec<PathBuf> =
        [ADMIN_KEY_FILE, ORG_KEYS_FILE, PROFILE_FILE].iter().map(|f| admin.join(f)).collect();
    taken.extend([GATEWAY_CONFIG, GATEWAY_CERTIFICATE, GATEWAY_KEY].iter().map(|f| config.join(f)));
    taken.extend(
        ["node.sealed", "node.key", "boot.sealed", "boot.key"].iter().map(|f| state.join("keys").join(f)),
    );
    taken.extend([handover::DIRECTORY, "preboot", "store"].iter().map(|d| state.join(d)));
    taken.extend(sheet.map(Path::to_owned));
    match taken.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Failure::new(Code::OrgExists, format_args!("{} exists", path.display())).remedy(
            "Give other directories. If it is left from an `org create` that failed, remove it and try again.",
        )),
        None => files::refuse_open_directory(state),
    }
}

/// The org's key file, the admin's, the public file and the journal, all at once.
fn write_key_files(
    founding: &Founding,
    directory: &Path,
    org_keys: &str,
    admin_passphrase: SecretString,
    address: &Address,
) -> Outcome<()> {
    let failed = |e| Failure::new(Code::ChartersInvalid, e);
    let profile = Profile {
        chain: CharterChain::start(founding.genesis.clone()).map_err(failed)?,
        gateways: vec![address.to_string()],
        bundle: founding.ca.certificate_pem().to_owned(),
        admin_name: founding.admin.name.clone(),
        admin_key: founding.admin.key.public(),
    };
    let temporary = files::with_suffix(directory, ".new");
    files::remove_directory(&temporary)?;
    files::create_directory(&temporary, files::SECRET_DIRECTORY)?;
    files::create(&temporary.join(ORG_KEYS_FILE), files::SECRET, org_keys.as_bytes())?;
    let admin = founding.admin.encrypt(admin_passphrase)?;
    files::create(&temporary.join(ADMIN_KEY_FILE), files::SECRET, admin.as_bytes())?;
    files::create(&temporary.join(PROFILE_FILE), files::PUBLIC, &profile.encode()?)?;
    let journal = crate::journal::Journal::open(&temporary.join(ADMIN_KEY_FILE), founding.admin.org)?;
    journal.record(&founding.admit)?;
    drop(journal);
    // An empty directory of that name may be there; rename takes its place.
    fs::rename(&temporary, directory)
        .and_then(|()| files::sync_parent(directory))
        .map_err(|e| Failure::file(directory, &e))
}

fn write_node_keys(founding: &Founding, custody: &Custody, state: &Path) -> Outcome<()> {
    files::create_directory(state, files::SECRET_DIRECTORY)?;
    let directory = state.join("keys");
    files::create_directory(&directory, files::SECRET_DIRECTORY)?;
    let seed = |key: &identity::SecretKey| key.expose_seed(Seed::new);
    let node = NodeSecrets {
        identity: seed(&founding.node),
        wireguard: seed(&founding.wireguard),
        gateway: Some(seed(&founding.gateway)),
    };
    let boot = BootSecrets {
        preboot_secret: Seed::new(&founding.preboot_secret),
        boot: seed(&founding.boot),
        anchor: *founding.genesis.id().as_bytes(),
        floor: 0,
    };
    custody.store(&directory, &node).map_err(keys::failed)?;
    custody.test(&directory, &node).map_err(keys::failed)?;
    custody.store(&directory, &boot).map_err(keys::failed)?;
    custody.test(&directory, &boot).map_err(keys::failed)
}

fn write_gateway(founding: &Founding, directory: &Path, address: &Address, places: &Places) -> Outcome<()> {
    files::create_directory(directory, 0o755)?;
    let (certificate, key) = (directory.join(GATEWAY_CERTIFICATE), directory.join(GATEWAY_KEY));
    let issued = founding.ca.issue(address.host())?;
    let chain = format!("{}{}", issued.certificate_pem, founding.ca.certificate_pem());
    files::create(&certificate, files::PUBLIC, chain.as_bytes())?;
    files::create(&key, files::SECRET, issued.key_pem.as_bytes())?;
    let config = gateway_config(directory, address, places);
    files::create(&directory.join(GATEWAY_CONFIG), files::PUBLIC, config.as_bytes())
}

/// The settings of the gateway's front.
pub(crate) fn gateway_config(directory: &Path, address: &Address, places: &Places) -> String {
    let socket = places.gateway_socket.as_deref().unwrap_or_else(|| Path::new(place::GATEWAY_SOCKET));
    format!(
        "{}certificate = {}\nkey = {}\nmusterd = {}\n",
        listen(address),
        quoted(&directory.join(GATEWAY_CERTIFICATE)),
        quoted(&directory.join(GATEWAY_KEY)),
        quoted(socket),
    )
}

/// The line that says where the front listens.
fn listen(address: &Address) -> String {
    if address.through_edge() {
        // Host and port are the edge's: they say nothing of this machine.
        return format!(
            "# Machines dial {address}. What stands there passes them on to the address below.\n\
             listen = \"[::]:{GATEWAY_PORT}\"\n"
        );
    }
    let any = if address.host().parse::<std::net::Ipv4Addr>().is_ok() { "0.0.0.0" } else { "[::]" };
    format!("listen = \"{any}:{}\"\n", address.port())
}

fn config(places: &Places, storage: KeyStorage, device: &Path) -> String {
    let storage = match storage {
        KeyStorage::Tpm => "tpm",
        KeyStorage::File => "file",
    };
    format!(
        "state_dir = {}\n\n[keys]\nstorage = \"{storage}\"\ntpm = {}\n\n[control]\nsocket = {}\n\n\
         [gateway]\nsocket = \"{}\"\n",
        quoted(&places.state),
        quoted(device),
        quoted(&places.socket),
        place::GATEWAY_SOCKET,
    )
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn host_name() -> Outcome<Name> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().to_ascii_lowercase();
    let first = host.split('.').next().unwrap_or_default();
    Name::parse(first).map_err(|e| {
        Failure::usage(format_args!("the host name {first:?} is no name for a member: {e}"))
            .remedy("Give one: --node-name NAME.")
    })
}

fn report(
    everywhere: &Everywhere,
    founding: &Founding,
    admin_dir: &Path,
    address: &Address,
    key_storage: &str,
    sheet: Option<&Path>,
) {
    let (charter, org) = (founding.genesis.charter(), founding.genesis.org());
    let (node, overlay) = (founding.node.public(), overlay_address(&org, &founding.node.public()));
    let name = founding.admit.payload().admit().map(|admit| admit.name.to_string()).unwrap_or_default();
    let value = json!({
        "org": { "id": org.to_string(), "name": charter.name.as_str(), "settings": charter.version },
        "node": {
            "name": name,
            "key": node.to_string(),
            "address": overlay.to_string(),
            "key_storage": key_storage,
        },
        "gateway": { "address": address.to_string(), "key": founding.gateway.public().to_string() },
        "admin": {
            "name": founding.admin.name.as_str(),
            "key": founding.admin.key.public().to_string(),
            "key_file": admin_dir.join(ADMIN_KEY_FILE),
        },
        "org_key_file": admin_dir.join(ORG_KEYS_FILE),
        "recovery_sheet": sheet,
    });
    output::print(everywhere.format(), value, || {
        output::columns(
            ["ORG", charter.name.as_str()],
            &[
                ["id".into(), org.to_string()],
                ["member".into(), format!("{name}, this machine, gateway, key storage {key_storage}")],
                ["address".into(), overlay.to_string()],
                ["gateway".into(), address.to_string()],
                [
                    "admin".into(),
                    format!("{} in {}", founding.admin.name, admin_dir.join(ADMIN_KEY_FILE).display()),
                ],
                ["org keys".into(), admin_dir.join(ORG_KEYS_FILE).display().to_string()],
            ],
        )
    });
    let directory = admin_dir.display();
    let start = if Path::new(place::SYSTEMD).exists() {
        "systemctl enable --now musterd muster-gateway"
    } else {
        "musterd & muster-gateway &"
    };
    talk(&format!(
        "\nThe admin key lies on this machine, which is a member: whoever takes the machine has the file, and\n\
         needs only the passphrase. Move it to the machine you work at, then it is gone from here:\n\
         \x20 scp -rp {directory} YOU@YOUR-MACHINE:.config/muster/ && rm -r {directory}\n\
         The org keys ({ORG_KEYS_FILE}) belong offline: keep a copy on a stick and the recovery sheet on paper.\n\n\
         Next: {start}  and then: muster invite create"
    ));
}
