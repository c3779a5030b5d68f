//! Which of the image's kernel modules are loaded, and when: those that are always needed, and drivers, each
//! for the devices that a machine has. A device says what it is in its modalias, as the kernel gives it; a
//! driver is for it by one of its aliases, as the kernel's `modules.alias` has them.

/// The modules of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// Files that are loaded on every machine, in this order.
    pub always: Vec<String>,
    /// What is loaded where a device is there for it.
    pub drivers: Vec<Driver>,
}

/// A module for devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The module's own file.
    pub file: String,
    /// Files of those that it needs, in the order in which they load before it.
    pub needs: Vec<String>,
    /// Patterns of the devices that it is for.
    pub aliases: Vec<String>,
}

impl Modules {
    /// Where an image has this list, beside the modules themselves.
    pub const FILE: &str = "lib/modules/list";

    /// The list: a line for each module, lines with a driver's aliases behind it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text: String = self.always.iter().map(|file| format!("always {file}\n")).collect();
        for Driver { file, needs, aliases } in &self.drivers {
            let words = [&["driver".to_owned(), file.clone()], needs.as_slice()].concat();
            text.push_str(&words.join(" "));
            text.push('\n');
            text.extend(aliases.iter().map(|alias| format!("alias {alias}\n")));
        }
        text
    }

    /// Reads the list; nothing when a line is none of it.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut modules = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ').map(str::to_owned);
            match (words.next()?.as_str(), words.next()?, words) {
                ("always", file, _) => modules.always.push(file),
                ("alias", alias, _) => modules.drivers.last_mut()?.aliases.push(alias),
                ("driver", file, needs) => {
                    modules.drivers.push(Driver { file, needs: needs.collect(), aliases: Vec::new() });
                }
                _ => return None,
            }
        }
        Some(modules)
    }
}

impl Driver {
    /// Whether it is for the device that says so of itself.
    #[must_use]
    pub fn is_for(&self, modalias: &str) -> bool {
        self.aliases.iter().any(|alias| matches(alias.as_bytes(), modalias.as_bytes()))
    }
}

/// A pattern of the kernel's: `*`, `?` and sets like `[0-9a]`, and nothing else of a shell's.
fn matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // After the last `*`: the rest of the pattern, and where it was tried last.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            star = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (text.split_first(), one(pattern)) {
            (None, _) => return pattern.is_empty(),
            (Some((first, behind)), Some((takes, rest))) if takes(*first) => {
                (pattern, text) = (rest, behind);
            }
            (Some(_), _) => {
                let Some((rest, [_, behind @ ..])) = star else { return false };
                star = Some((rest, behind));
                (pattern, text) = (rest, behind);
            }
        }
    }
}

/// What the first place of a pattern takes, and the rest of the pattern; nothing when it is over.
fn one(pattern: &[u8]) -> Option<(impl Fn(u8) -> bool, &[u8])> {
    let (first, rest) = pattern.split_first()?;
    let (set, rest) = match (first, rest.iter().position(|byte| *byte == b']')) {
        (b'[', Some(end)) => (rest.get(..end)?, rest.get(end + 1..)?),
        _ => (core::slice::from_ref(first), rest),
    };
    let (any, is_set) = (*first == b'?', *first == b'[');
    let takes = move |byte: u8| {
        let range = |window: &[u8]| matches!(window, [from, b'-', to] if (*from..=*to).contains(&byte));
        any || set.contains(&byte) || (is_set && set.windows(3).any(range))
    };
    Some((takes, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_for_the_devices_of_its_aliases_and_for_no_others() {
        let driver = |alias: &str| Driver { aliases: vec![alias.to_owned()], ..Driver::default() };
        for (alias, device) in [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4"),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"),
            ("pci:v*d*sv*sd*bc0Csc03i30*", "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30"),
            ("usb:v0421p0019d059[2-9]dc*ic*", "usb:v0421p0019d0597dc00ic08"),
            ("usb:v0421p0019d[ab1-3]*", "usb:v0421p0019d2"),
            ("acpi*:VMBUS:*", "acpi:VMBUS:"),
            ("scsi:t-0x00*", "scsi:t-0x00"),
            ("a?c", "abc"),
            ("*b*bc", "abbbbc"),
        ] {
            assert!(driver(alias).is_for(device), "{alias} {device}");
        }
        for (alias, device) in [
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4"),
            ("virtio:d00000001v*", "virtio:d00000001"),
            ("usb:v0421p0019d059[2-9]dc*", "usb:v0421p0019d0591dc00"),
            ("usb:v0421p0019d059[2-9]", "usb:v0421p0019d059"),
            ("scsi:t-0x00", "scsi:t-0x001"),
            ("a?c", "ac"),
            ("[ab", "a"),
            ("[]", "a"),
            ("", "a"),
            ("a", ""),
        ] {
            assert!(!driver(alias).is_for(device), "{alias} {device}");
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_no_other_is() {
        let driver = |file: &str, needs: &[&str], aliases: &[&str]| Driver {
            file: file.to_owned(),
            needs: needs.iter().map(|file| (*file).to_owned()).collect(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        };
        let modules = Modules {
            always: vec!["loop.ko".to_owned(), "tun.ko".to_owned()],
            drivers: vec![
                driver("virtio_net.ko", &["virtio_ring.ko", "virtio.ko"], &["virtio:d00000001v*"]),
                driver("nvme.ko", &[], &["pci:a*", "pci:b*"]),
            ],
        };
        assert_eq!(Modules::decode(&modules.encode()), Some(modules));
        assert_eq!(Modules::decode(""), Some(Modules::default()));
        for wrong in ["always", "alias pci:a*", "loop.ko", "often loop.ko", "always loop.ko\n\nalways tun.ko"]
        {
            assert_eq!(Modules::decode(wrong), None, "{wrong}");
        }
    }
}
