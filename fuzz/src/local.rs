//! The JSON of the local sockets: whatever is read says the same when it is written and read again.

use core::fmt::Debug;

use control::{
    framing,
    gateway::{FromGateway, ToGateway},
    local::{Answer, Request},
};
use identity::limits::{CONTROL_MESSAGE_BYTES_MAX, GATEWAY_MESSAGE_BYTES_MAX};
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

fn read_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8], max: usize) {
    let Ok(message) = framing::decode::<T>(data) else { return };
    let written = framing::encode(&message, max).unwrap();
    let (length, body) = written.split_first_chunk::<4>().unwrap();
    assert_eq!(framing::body_length(*length, max).unwrap(), body.len());
    assert_eq!(framing::decode::<T>(body).unwrap(), message);
}
