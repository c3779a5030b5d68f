//! What makes each record hold, and every way of it not holding.

#![cfg(test)]

mod bundles;
mod charters;
mod exchange;
mod fixture;
mod invites;
mod reports;
mod statements;
mod vectors;
