//! A unified kernel image: systemd's stub, a PE program, with kernel and initramfs as further sections
//! of the same file. The firmware loads and measures it as one.

use core::fmt;

/// A stub and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    stub: Vec<u8>,
    parts: Vec<(String, Vec<u8>)>,
    signed: bool,
}

impl Uki {
    /// Begins with a stub as its package ships it.
    ///
    /// # Errors
    /// It is no 64-bit PE program, or has parts already.
    pub fn new(stub: &[u8]) -> Result<Self, UkiError> {
        let layout = Layout::read(stub)?;
        if layout.sections.iter().any(|section| PARTS.contains(&section.name.as_str())) {
            return Err(UkiError::NotAStub);
        }
        Ok(Self { stub: stub.to_vec(), parts: Vec::new(), signed: false })
    }

    /// Adds a part, as `.linux`. The stub finds parts by their names.
    ///
    /// # Errors
    /// The stub knows no such part, or it is there already.
    pub fn add(&mut self, name: &str, content: Vec<u8>) -> Result<(), UkiError> {
        if !PARTS.contains(&name) || self.part(name).is_some() || content.is_empty() {
            return Err(UkiError::Part(name.to_owned()));
        }
        self.parts.push((name.to_owned(), content));
        Ok(())
    }

    /// A part's content.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        self.parts.iter().find(|(part, _)| part == name).map(|(_, content)| content.as_slice())
    }

    /// Whether the file that was read carries signatures for Secure Boot; whose, firmware tells.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.signed
    }

    /// All parts, in the order of the file.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    /// The file, unsigned.
    ///
    /// # Errors
    /// The stub's head has no room for so many sections, or the file would be too large for one.
    pub fn assemble(&self) -> Result<Vec<u8>, UkiError> {
        let layout = Layout::read(&self.stub)?;
        let head_end = layout.table + (layout.sections.len() + self.parts.len()) * SECTION_BYTES;
        let first = layout.sections.iter().map(|s| s.file_at).filter(|at| *at > 0).min().unwrap_or(0);
        if head_end > first || head_end > layout.size_of_headers {
            return Err(UkiError::NoRoom);
        }
        // Symbols behind the sections would lie where the parts go; nothing needs them.
        let end_of_sections =
            layout.sections.iter().map(|s| s.file_at.saturating_add(s.file_bytes)).max().unwrap_or(0);
        let mut file = self.stub.get(..end_of_sections).ok_or(UkiError::NotAStub)?.to_vec();
        let mut address = layout
            .sections
            .iter()
            .map(|s| s.address.saturating_add(s.bytes.max(s.file_bytes)))
            .max()
            .unwrap_or(0)
            .next_multiple_of(PAGE);
        let mut added = 0_usize;
        for (number, (name, content)) in self.parts.iter().enumerate() {
            file.resize(file.len().next_multiple_of(layout.file_alignment), 0);
            let file_at = file.len();
            file.extend_from_slice(content);
            file.resize(file.len().next_multiple_of(layout.file_alignment), 0);
            let file_bytes = file.len() - file_at;
            let at = layout.table + (layout.sections.len() + number) * SECTION_BYTES;
            let mut head = [0; SECTION_BYTES];
            put(&mut head, 0, name.as_bytes())?;
            put(&mut head, 8, &word(content.len())?)?;
            put(&mut head, 12, &word(address)?)?;
            put(&mut head, 16, &word(file_bytes)?)?;
            put(&mut head, 20, &word(file_at)?)?;
            put(&mut head, 36, &INITIALIZED_AND_READABLE.to_le_bytes())?;
            put(&mut file, at, &head)?;
            address = (address + content.len()).next_multiple_of(PAGE);
            added += file_bytes;
        }
        let count = u16::try_from(layout.sections.len() + self.parts.len()).map_err(|_| UkiError::NoRoom)?;
        put(&mut file, layout.coff + 2, &count.to_le_bytes())?;
        put(&mut file, layout.coff + 8, &[0; 8])?;
        let optional = layout.coff + COFF_BYTES;
        put(&mut file, optional + 8, &word(layout.initialized.saturating_add(added))?)?;
        put(&mut file, optional + 56, &word(address.next_multiple_of(layout.section_alignment))?)?;
        // Of the whole file; firmware looks at none.
        put(&mut file, optional + 64, &[0; 4])?;
        Ok(file)
    }

    /// Takes a file apart, signed or not. Of two parts of one name the stub takes one and whoever looks
    /// at the file perhaps the other, so such a file is none; and what is read is never more than the
    /// stub knows parts, each at most as long as the file.
    ///
    /// # Errors
    /// It is no such image.
    pub fn read(file: &[u8]) -> Result<Self, UkiError> {
        let layout = Layout::read(file)?;
        let mut parts = Vec::new();
        for section in &layout.sections {
            if PARTS.contains(&section.name.as_str()) {
                let end = section.file_at.checked_add(section.bytes).ok_or(UkiError::NotAnImage)?;
                let content = file.get(section.file_at..end).ok_or(UkiError::NotAnImage)?;
                if content.is_empty() || parts.iter().any(|(name, _)| *name == section.name) {
                    return Err(UkiError::Part(section.name.clone()));
                }
                parts.push((section.name.clone(), content.to_vec()));
            }
        }
        if parts.is_empty() {
            return Err(UkiError::NotAnImage);
        }
        Ok(Self { stub: Vec::new(), parts, signed: layout.signed })
    }
}

/// Why bytes are no image, or no image comes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UkiError {
    /// The stub's head has no room for more sections.
    NoRoom,
    /// A file that is no unified kernel image.
    NotAnImage,
    /// A file that is no stub for x86-64.
    NotAStub,
    /// A part that the stub does not know, that is there twice, or empty.
    Part(String),
    /// More than 4 GiB.
    TooLarge,
}

impl fmt::Display for UkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("the stub has no room for more sections"),
            Self::NotAnImage => f.write_str("not a unified kernel image"),
            Self::NotAStub => f.write_str("not systemd's stub for x86-64"),
            Self::Part(name) => write!(f, "{name} is empty, there twice, or nothing the stub knows"),
            Self::TooLarge => f.write_str("the image would be larger than a PE file can be"),
        }
    }
}

impl core::error::Error for UkiError {}

struct Layout {
    /// Where the COFF header begins.
    coff: usize,
    /// Where the section table begins.
    table: usize,
    sections: Vec<Section>,
    section_alignment: usize,
    file_alignment: usize,
    size_of_headers: usize,
    initialized: usize,
    signed: bool,
}

struct Section {
    name: String,
    bytes: usize,
    address: usize,
    file_bytes: usize,
    file_at: usize,
}

impl Layout {
    fn read(file: &[u8]) -> Result<Self, UkiError> {
        let not = || UkiError::NotAStub;
        if !file.starts_with(b"MZ") {
            return Err(not());
        }
        let signature = number(file, 0x3c, 4)?;
        let coff = signature.checked_add(4).ok_or_else(not)?;
        if file.get(signature..coff) != Some(b"PE\0\0") || number(file, coff, 2)? != MACHINE_X86_64 {
            return Err(not());
        }
        let optional = coff + COFF_BYTES;
        if number(file, optional, 2)? != PE32_PLUS {
            return Err(not());
        }
        let table = optional + number(file, coff + 16, 2)?;
        let mut sections = Vec::new();
        for index in 0..number(file, coff + 2, 2)? {
            let at = table + index * SECTION_BYTES;
            let name = file.get(at..at + 8).ok_or_else(not)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            sections.push(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                bytes: number(file, at + 8, 4)?,
                address: number(file, at + 12, 4)?,
                file_bytes: number(file, at + 16, 4)?,
                file_at: number(file, at + 20, 4)?,
            });
        }
        let alignment = |at: usize| number(file, optional + at, 4).map(|n| n.clamp(1, PAGE));
        Ok(Self {
            coff,
            table,
            sections,
            section_alignment: alignment(32)?,
            file_alignment: alignment(36)?,
            size_of_headers: number(file, optional + 60, 4)?,
            initialized: number(file, optional + 8, 4)?,
            // The length of the certificate table, the fifth of the directories, if there are so many.
            signed: number(file, optional + 108, 4)? > 4 && number(file, optional + 148, 4)? > 0,
        })
    }
}

fn number(file: &[u8], at: usize, bytes: usize) -> Result<usize, UkiError> {
    let end = at.checked_add(bytes).ok_or(UkiError::NotAStub)?;
    let digits = file.get(at..end).ok_or(UkiError::NotAStub)?;
    Ok(digits.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn word(value: usize) -> Result<[u8; 4], UkiError> {
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| UkiError::TooLarge)
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), UkiError> {
    into.get_mut(at..at + bytes.len()).map(|place| place.copy_from_slice(bytes)).ok_or(UkiError::NoRoom)
}

/// What systemd's stub looks for.
const PARTS: [&str; 8] =
    [".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey", ".pcrsig", ".linux"];
const MACHINE_X86_64: usize = 0x8664;
const PE32_PLUS: usize = 0x20b;
const COFF_BYTES: usize = 20;
const SECTION_BYTES: usize = 40;
const PAGE: usize = 4096;
/// IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ.
const INITIALIZED_AND_READABLE: u32 = 0x4000_0040;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest program with one section and room in its head.
    pub(crate) fn stub() -> Vec<u8> {
        let mut file = vec![0; 0x600];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        let coff = 0x44;
        file[coff..coff + 2].copy_from_slice(&0x8664_u16.to_le_bytes());
        file[coff + 2] = 1;
        file[coff + 16] = 112;
        let optional = coff + COFF_BYTES;
        file[optional..optional + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        file[optional + 32..optional + 36].copy_from_slice(&4096_u32.to_le_bytes());
        file[optional + 36..optional + 40].copy_from_slice(&512_u32.to_le_bytes());
        file[optional + 60..optional + 64].copy_from_slice(&1024_u32.to_le_bytes());
        let table = optional + 112;
        file[table..table + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 0x200_u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            file[table + at..table + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file
    }

    #[test]
    fn what_was_put_together_comes_apart_again() {
        let mut uki = Uki::new(&stub()).unwrap();
        uki.add(".cmdline", b"quiet".to_vec()).unwrap();
        uki.add(".linux", vec![7; 5000]).unwrap();
        let file = uki.assemble().unwrap();
        let read = Uki::read(&file).unwrap();
        assert_eq!(read.part(".cmdline"), Some(&b"quiet"[..]));
        assert_eq!(read.part(".linux"), Some(&[7; 5000][..]));
        let layout = Layout::read(&file).unwrap();
        assert_eq!(layout.sections.len(), 3);
        for pair in layout.sections.windows(2) {
            assert!(pair[0].address + pair[0].bytes <= pair[1].address, "sections overlap in memory");
            assert!(pair[0].file_at + pair[0].file_bytes <= pair[1].file_at, "sections overlap in the file");
            assert_eq!(pair[1].file_at % layout.file_alignment, 0);
        }
        let end = layout.sections.last().map(|s| s.address + s.bytes).unwrap();
        assert!(number(&file, layout.coff + COFF_BYTES + 56, 4).unwrap() >= end);
    }

    #[test]
    fn a_part_the_stub_does_not_know_is_refused_and_so_is_a_second_of_one_name() {
        let mut uki = Uki::new(&stub()).unwrap();
        assert!(uki.add(".secret", vec![1]).is_err());
        assert!(uki.add(".linux", Vec::new()).is_err());
        uki.add(".linux", vec![1]).unwrap();
        assert!(uki.add(".linux", vec![2]).is_err());
        assert_eq!(Uki::new(&uki.assemble().unwrap()), Err(UkiError::NotAStub), "it has parts already");
    }

    #[test]
    fn a_file_with_two_parts_of_one_name_or_an_empty_one_is_no_image() {
        let mut uki = Uki::new(&stub()).unwrap();
        uki.add(".linux", vec![1]).unwrap();
        uki.add(".cmdline", b"quiet".to_vec()).unwrap();
        let file = uki.assemble().unwrap();
        let command_line = Layout::read(&file).unwrap().table + 2 * SECTION_BYTES;
        let mut twice = file.clone();
        twice[command_line..command_line + 8].copy_from_slice(b".linux\0\0");
        assert_eq!(Uki::read(&twice), Err(UkiError::Part(".linux".to_owned())));
        let mut empty = file;
        empty[command_line + 8..command_line + 12].fill(0);
        assert_eq!(Uki::read(&empty), Err(UkiError::Part(".cmdline".to_owned())));
    }

    #[test]
    fn a_stub_without_room_for_more_sections_is_refused() {
        let mut uki = Uki::new(&stub()).unwrap();
        for name in PARTS {
            uki.add(name, vec![1]).unwrap();
        }
        assert!(uki.assemble().is_ok());
        let mut full = stub();
        let size_of_headers = 0x44 + COFF_BYTES + 60;
        full[size_of_headers..size_of_headers + 2].copy_from_slice(&0x120_u16.to_le_bytes());
        uki.stub = full;
        assert_eq!(uki.assemble(), Err(UkiError::NoRoom));
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(at in 0usize..0x600, value in any::<u8>(), length in 0usize..0x600) {
            let mut file = stub();
            file[at] = value;
            file.truncate(length);
            drop(Uki::read(&file));
            if let Ok(mut uki) = Uki::new(&file) {
                uki.add(".linux", vec![1]).unwrap();
                drop(uki.assemble());
            }
        }
    }
}
