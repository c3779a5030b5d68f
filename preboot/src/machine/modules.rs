//! The kernel's modules: drivers for the devices that this machine has, before anything else, and those that
//! every machine needs, beside what follows. Of the time until a machine is a member, loading what it does
//! not need would be a good part.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread::{self, JoinHandle},
};

use boot_image::{Driver, Modules};
use identity::Code;
use rustix::io::Errno;

use super::watchdog;
use crate::{
    console::Console,
    failure::{Failure, Outcome},
};

/// Drivers of the image, and which files were loaded for them.
#[derive(Debug)]
pub(crate) struct Drivers {
    drivers: Vec<Driver>,
    loaded: BTreeSet<String>,
}

/// Modules that load while something else is done.
#[derive(Debug)]
pub(crate) struct Loading(JoinHandle<Vec<Failure>>);

/// What the image brings: what every machine loads, and drivers, of which none is loaded yet.
pub(crate) fn brought() -> Outcome<(Vec<String>, Drivers)> {
    let path = Path::new("/").join(Modules::FILE);
    let text = fs::read_to_string(&path).map_err(|e| Failure::file(&path, &e))?;
    let Modules { always, drivers } = Modules::decode(&text)
        .ok_or_else(|| Failure::new(Code::ImageIncomplete, "its list of modules is damaged"))?;
    Ok((always, Drivers { drivers, loaded: BTreeSet::new() }))
}

/// Loads these beside what follows.
pub(crate) fn load_beside(files: Vec<String>) -> Loading {
    Loading(thread::spawn(move || load_each(files.iter().map(String::as_str))))
}

/// Loads one, where the image has it and the kernel has it not.
pub(crate) fn load(file: &str, console: &Console) {
    if in_image(file).exists() {
        load_each([file]).iter().for_each(|failure| console.note(failure));
    }
}

impl Drivers {
    /// Loads those for the devices that are there; a bus that shows for it may have more of them. How many
    /// files that were.
    pub(crate) fn load(&mut self, console: &Console) -> usize {
        let before = self.loaded.len();
        loop {
            let devices = devices();
            let wanted = |driver: &&Driver| devices.iter().any(|device| driver.is_for(device));
            if !self.load_where(wanted, console) {
                return self.loaded.len() - before;
            }
        }
    }

    /// Loads all of them: something is missing that a device may be behind which does not say what it is.
    pub(crate) fn load_all(&mut self, console: &Console) {
        self.load_where(|_| true, console);
    }

    /// Whether there was one that was not loaded before.
    fn load_where(&mut self, wanted: impl Fn(&&Driver) -> bool, console: &Console) -> bool {
        let mut files = Vec::new();
        for driver in self.drivers.iter().filter(|driver| !self.loaded.contains(&driver.file)).filter(wanted)
        {
            files.extend(driver.needs.iter().chain([&driver.file]).map(String::as_str));
        }
        files.retain(|file| self.loaded.insert((*file).to_owned()));
        load_each(files.iter().copied()).iter().for_each(|failure| console.note(failure));
        !files.is_empty()
    }
}

impl Loading {
    /// Returns when all are loaded that do load. What is missing shows where it is needed.
    pub(crate) fn finish(self, console: &Console) {
        let failures = self.0.join().unwrap_or_default();
        failures.iter().for_each(|failure| console.note(failure));
    }
}

/// In this order; what was not loaded, and is not merely of no use on this machine.
fn load_each<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<Failure> {
    let (mut failures, mut absent) = (Vec::new(), false);
    for name in files {
        let path = in_image(name);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                failures.push(Failure::file(&path, &error));
                continue;
            }
        };
        let parameters = if name == watchdog::MODULE { watchdog::PARAMETERS } else { c"" };
        match rustix::system::finit_module(&file, parameters, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            // Not a machine with that bus; then its drivers lack what they build on.
            Err(Errno::NODEV) => absent = true,
            Err(Errno::NOENT) if absent => {}
            Err(why) => {
                let detail = format_args!("module {name} not loaded: {why}").to_string();
                failures.push(Failure::new(Code::KernelRefused, detail));
            }
        }
    }
    failures
}

fn in_image(file: &str) -> std::path::PathBuf {
    Path::new("/lib/modules").join(file)
}

/// What the devices of this machine say that they are.
fn devices() -> BTreeSet<String> {
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let devices = below(Path::new("/sys/bus")).flat_map(|bus| below(&bus.join("devices")));
    let said = devices.filter_map(|device| fs::read_to_string(device.join("modalias")).ok());
    said.map(|modalias| modalias.trim_end().to_owned()).collect()
}
