//! Whole starts, against a gateway that is played on the loopback.

mod bench;
mod damage;
mod images;
mod sealed;
mod starts;
