//! Whole starts, against a gateway that this file plays.
