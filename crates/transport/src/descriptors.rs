//! Room for as many sockets as the bounds allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many descriptors as it may at all. What a process begins with, usually 1,024,
/// is less than the connections that a daemon holds at once, and is so low only for programs that use
/// `select`. Returns how many it may open now.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let now = if raised.is_ok() { maximum } else { current };
    // None is no limit.
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_open_as_much_as_its_hard_limit_allows() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let low = current.map_or(256, |current| current.min(256));
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), maximum }).unwrap();
        let now = raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
        assert_eq!(now, maximum.unwrap_or(u64::MAX));
    }
}
