//! What a service of this machine reads in front of a connection, if only musterd reaches it.

use muster_peer::Header;

/// A header is read, written and read again to the same; a text that is too long is cut once.
pub fn proxy_header(data: &[u8]) {
    let Ok(header) = Header::decode(data) else { return };
    let again = Header::decode(&header.encode()).unwrap();
    for (address, before) in [(again.source, header.source), (again.destination, header.destination)] {
        assert_eq!(
            (address.ip().to_canonical(), address.port()),
            (before.ip().to_canonical(), before.port())
        );
    }
    assert!(header.peer.is_some() || again.peer.is_none(), "nobody becomes somebody");
    assert_eq!(Header::decode(&again.encode()), Ok(again));
}
