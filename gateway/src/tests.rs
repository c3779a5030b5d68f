//! The front against real sockets, with a musterd that this file plays.
