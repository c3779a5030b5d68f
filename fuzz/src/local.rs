//! What this machine's own people and programs say: the JSON of the local sockets, which says the same
//! when it is written and read again, and the configuration.

use core::fmt::Debug;

use control::{
    framing,
    gateway::{FromGateway, ToGateway},
    local::{Answer, Request},
};
use identity::limits::{CONTROL_MESSAGE_BYTES_MAX, ENDPOINTS_MAX, GATEWAY_MESSAGE_BYTES_MAX};
use musterd::config::Config;
use serde::{Serialize, de::DeserializeOwned};

/// `muster` and musterd.
pub fn control(data: &[u8]) {
    read_again::<Request>(data, CONTROL_MESSAGE_BYTES_MAX);
    read_again::<Answer>(data, CONTROL_MESSAGE_BYTES_MAX);
}

/// muster-gateway and musterd.
pub fn gateway(data: &[u8]) {
    read_again::<FromGateway>(data, GATEWAY_MESSAGE_BYTES_MAX);
    read_again::<ToGateway>(data, GATEWAY_MESSAGE_BYTES_MAX);
}

/// `muster.toml`.
pub fn config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match Config::of_text("muster.toml", text) {
        Ok(config) => {
            assert!(config.port != 0 && config.auth_port != 0);
            assert!(config.endpoints.len() <= ENDPOINTS_MAX);
            assert!(config.state_dir.is_absolute() && config.control_socket.is_absolute());
            assert_ne!(config.gateway_socket.as_ref(), Some(&config.control_socket));
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// `muster-gateway.toml`. The front is a program without a library: its source is compiled in here.
pub fn gateway_config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match front::Config::of_text("muster-gateway.toml".as_ref(), text) {
        Ok(config) => {
            assert!(!config.listen.is_empty());
            assert!(
                [&config.certificate, &config.key, &config.musterd].iter().all(|path| path.is_absolute())
            );
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

#[path = "../../gateway/src/config.rs"]
#[expect(dead_code, reason = "shared with the program, which uses all of it")]
mod front;

fn read_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8], max: usize) {
    if let Some((length, _)) = data.split_first_chunk::<4>() {
        let said = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        assert_eq!(framing::body_length(*length, max).ok(), Some(said).filter(|said| *said <= max));
    }
    let Ok(message) = framing::decode::<T>(data) else { return };
    let written = framing::encode(&message, max).unwrap();
    let (length, body) = written.split_first_chunk::<4>().unwrap();
    assert_eq!(framing::body_length(*length, max).unwrap(), body.len());
    assert_eq!(framing::decode::<T>(body).unwrap(), message);
}
