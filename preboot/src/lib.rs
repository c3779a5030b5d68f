//! What of muster-preboot is bytes in, bytes out, and comes from whoever is on the cable: read here, so
//! that it can be driven without a machine. Everything else is the program.

pub mod dhcp;
