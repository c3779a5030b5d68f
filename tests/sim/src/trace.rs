//! What happened, as one hash that two runs of a seed must share, and as lines for a person.

/// The run so far.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: blake3::Hasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        Self { hash: blake3::Hasher::new(), lines: keeps_lines.then(Vec::new) }
    }

    /// Something happened. `words` are for a person, the rest for the hash.
    pub(crate) fn note(
        &mut self,
        at: u64,
        what: &str,
        who: [usize; 2],
        bytes: &[u8],
        words: impl FnOnce() -> String,
    ) {
        self.hash.update(&at.to_le_bytes());
        self.hash.update(what.as_bytes());
        for who in who {
            self.hash.update(&who.to_le_bytes());
        }
        self.hash.update(&bytes.len().to_le_bytes());
        self.hash.update(bytes);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} {what:<10} {:>4} {:>4}  {}", seconds(at), who[0], who[1], words()));
        }
    }

    /// A remark that the hash does not depend on.
    pub(crate) fn remark(&mut self, at: u64, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} -- {}", seconds(at), words()));
        }
    }

    pub(crate) fn end(self) -> (String, Vec<String>) {
        (self.hash.finalize().to_hex().to_string(), self.lines.unwrap_or_default())
    }
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
