//! The manifest of an image: what was backed up, when, how it went, and the root of its tree.
//! See `docs/formats/manifest.md`.
//!
//! A CBOR map of text keys in one fixed order. Holds no references but the root's.

use std::collections::BTreeMap;

use crate::cbor::{self, Malformed, Parsed, Reader};
use crate::error::{Error, Result};
use crate::finding::{Finding, Findings, Severity};
use crate::ids::Id;
use crate::tree::codec;
use crate::tree::entry::Entry;

/// The only version there is.
pub const VERSION: u64 = 1;

/// What an option's name begins with that whoever ordered the backup gave.
pub const LABEL: &str = "label.";

/// The option that has when the reading of files began, in ns by the clock of the machine that
/// they are on, where that is not the one which the manifest's times are from.
pub const BEGAN_READING: &str = "began_reading_ns";

/// How a backup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Completed,
    /// Some files are missing from the image, or not whole.
    CompletedWithErrors,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::CompletedWithErrors => "completed with errors",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Status::Completed, Status::CompletedWithErrors]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What was backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub host: String,
    /// What relates an image to those before it: "host:path1,path2".
    pub name: String,
    pub paths: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub id: Id,
    /// One more than the highest in the pool when the job began.
    pub number: u64,
    pub source: Source,
    pub started_ns: i64,
    pub finished_ns: i64,
    /// The directory "/".
    pub root: Entry,
    pub parent: Option<Id>,
    pub status: Status,
    pub stats: BTreeMap<String, u64>,
    /// The first [`Findings::KEPT`].
    pub findings: Vec<Finding>,
    pub findings_total: u64,
    /// How the job was asked to work; with [`LABEL`] before it, what whoever ordered it says.
    pub options: BTreeMap<String, String>,
    pub software: String,
}

const FIELDS: [&str; 14] = [
    "version",
    "id",
    "number",
    "source",
    "started_ns",
    "finished_ns",
    "root",
    "parent",
    "status",
    "stats",
    "findings",
    "findings_total",
    "options",
    "software",
];

impl Manifest {
    /// Where an image's manifest lies in a store.
    pub fn key(id: &Id) -> String {
        format!("images/{id}")
    }

    /// What whoever ordered the backup said of it, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.options.iter();
        labels.filter_map(|(name, value)| Some((name.strip_prefix(LABEL)?, value.as_str())))
    }

    /// When the reading of files began, by the clock that stamps those files.
    pub fn began_reading_ns(&self) -> i64 {
        let noted = self.options.get(BEGAN_READING).and_then(|text| text.parse().ok());
        noted.unwrap_or(self.started_ns)
    }

    /// The plain bytes, to be sealed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        let mut fields = FIELDS.iter();
        let mut key = |out: &mut Vec<u8>| {
            if let Some(field) = fields.next() {
                cbor::write_text(out, field);
            }
        };
        let out = &mut out;
        cbor::write_map(out, FIELDS.len());
        key(out);
        cbor::write_uint(out, VERSION);
        key(out);
        cbor::write_bytes(out, &self.id.0);
        key(out);
        cbor::write_uint(out, self.number);
        key(out);
        write_source(&self.source, out);
        key(out);
        cbor::write_int(out, self.started_ns);
        key(out);
        cbor::write_int(out, self.finished_ns);
        key(out);
        codec::encode_root(&self.root, out)?;
        key(out);
        match &self.parent {
            Some(parent) => cbor::write_bytes(out, &parent.0),
            None => cbor::write_null(out),
        }
        key(out);
        cbor::write_text(out, self.status.as_str());
        key(out);
        cbor::write_map(out, self.stats.len());
        for (name, value) in &self.stats {
            cbor::write_text(out, name);
            cbor::write_uint(out, *value);
        }
        key(out);
        let kept = &self.findings[..self.findings.len().min(Findings::KEPT)];
        cbor::write_array(out, kept.len());
        for finding in kept {
            write_finding(finding, out);
        }
        key(out);
        cbor::write_uint(out, self.findings_total);
        key(out);
        cbor::write_map(out, self.options.len());
        for (name, value) in &self.options {
            cbor::write_text(out, name);
            cbor::write_text(out, value);
        }
        key(out);
        cbor::write_text(out, &self.software);
        Ok(std::mem::take(out))
    }

    /// Reads the plain bytes of a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let version = read_version(&mut reader).map_err(within)?;
        if version > VERSION {
            let object = "an image manifest".into();
            return Err(Error::NewerFormat { object, found: version, known: VERSION });
        }
        if version != VERSION {
            return Err(Error::integrity("an image manifest", "it has no known version"));
        }
        let (mut manifest, root) = read_fields(&mut reader).map_err(within)?;
        manifest.root = codec::decode_root(root)?;
        Ok(manifest)
    }
}

fn within(malformed: Malformed) -> Error {
    malformed.within("an image manifest")
}

fn write_source(source: &Source, out: &mut Vec<u8>) {
    cbor::write_map(out, 3);
    cbor::write_text(out, "host");
    cbor::write_text(out, &source.host);
    cbor::write_text(out, "name");
    cbor::write_text(out, &source.name);
    cbor::write_text(out, "paths");
    cbor::write_array(out, source.paths.len());
    for path in &source.paths {
        cbor::write_bytes(out, path);
    }
}

fn write_finding(finding: &Finding, out: &mut Vec<u8>) {
    cbor::write_array(out, 4);
    cbor::write_bytes(out, &finding.path);
    cbor::write_text(out, &finding.code);
    cbor::write_text(out, &finding.message);
    cbor::write_text(out, finding.severity.as_str());
}

fn read_version(reader: &mut Reader<'_>) -> Parsed<u64> {
    let fields = reader.map()?;
    key(reader, "version")?;
    let version = reader.uint()?;
    if version == VERSION && fields != FIELDS.len() {
        return reader.fail("a wrong number of fields");
    }
    Ok(version)
}

/// All after the version; and the root entry's bytes.
fn read_fields<'a>(reader: &mut Reader<'a>) -> Parsed<(Manifest, &'a [u8])> {
    let mut fields = FIELDS.iter().skip(1);
    let mut next = |reader: &mut Reader<'a>| key(reader, fields.next().unwrap_or(&""));
    next(reader)?;
    let id = Id(reader.fixed()?);
    next(reader)?;
    let number = reader.uint()?;
    next(reader)?;
    let source = read_source(reader)?;
    next(reader)?;
    let started_ns = reader.int()?;
    next(reader)?;
    let finished_ns = reader.int()?;
    next(reader)?;
    let start = reader.position();
    reader.skip()?;
    let root = reader.since(start);
    next(reader)?;
    let parent = if reader.null() { None } else { Some(Id(reader.fixed()?)) };
    next(reader)?;
    let Some(status) = Status::parse(reader.text()?) else {
        return reader.fail("an unknown status");
    };
    next(reader)?;
    let stats = read_map(reader, Reader::uint)?;
    next(reader)?;
    let findings = read_findings(reader)?;
    next(reader)?;
    let findings_total = reader.uint()?;
    next(reader)?;
    let options = read_map(reader, |reader| reader.text().map(str::to_owned))?;
    next(reader)?;
    let software = reader.text()?.to_owned();
    reader.end()?;
    let manifest = Manifest {
        id,
        number,
        source,
        started_ns,
        finished_ns,
        root: Entry::new(b"/", crate::tree::entry::EntryKind::Dir),
        parent,
        status,
        stats,
        findings,
        findings_total,
        options,
        software,
    };
    Ok((manifest, root))
}

fn key(reader: &mut Reader<'_>, expected: &str) -> Parsed<()> {
    if reader.text()? == expected {
        Ok(())
    } else {
        reader.fail("a field that is unknown or out of order")
    }
}

fn read_source(reader: &mut Reader<'_>) -> Parsed<Source> {
    if reader.map()? != 3 {
        return reader.fail("a wrong number of fields");
    }
    key(reader, "host")?;
    let host = reader.text()?.to_owned();
    key(reader, "name")?;
    let name = reader.text()?.to_owned();
    key(reader, "paths")?;
    let mut paths = Vec::new();
    for _ in 0..reader.array()? {
        paths.push(reader.bytes()?.to_vec());
    }
    Ok(Source { host, name, paths })
}

fn read_map<'a, T>(
    reader: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Parsed<T>,
) -> Parsed<BTreeMap<String, T>> {
    let mut map = BTreeMap::new();
    for _ in 0..reader.map()? {
        let name = reader.text()?;
        if map.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
            return reader.fail("names out of order");
        }
        map.insert(name.to_owned(), read(reader)?);
    }
    Ok(map)
}

fn read_findings(reader: &mut Reader<'_>) -> Parsed<Vec<Finding>> {
    let count = reader.array()?;
    if count > Findings::KEPT {
        return reader.fail("more findings than an image keeps");
    }
    let mut findings = Vec::with_capacity(count);
    for _ in 0..count {
        reader.tuple(4)?;
        let path = reader.bytes()?.to_vec();
        let code = reader.text()?.to_owned();
        let message = reader.text()?.to_owned();
        let Some(severity) = Severity::parse(reader.text()?) else {
            return reader.fail("an unknown severity");
        };
        findings.push(Finding { path, code, message, severity });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{Name, Ref};
    use crate::tree::entry::EntryKind;

    fn manifest() -> Manifest {
        let mut root = Entry::new(b"/", EntryKind::Dir);
        root.subtree = Some(Ref { name: Name([9; 32]), length: 77 });
        Manifest {
            id: Id([1; 16]),
            number: 7,
            source: Source {
                host: "häuschen".into(),
                name: "häuschen:/a,/b".into(),
                paths: vec![b"/a".to_vec(), b"/\xff".to_vec()],
            },
            started_ns: -5,
            finished_ns: 1_700_000_000_000_000_000,
            root,
            parent: Some(Id([2; 16])),
            status: Status::CompletedWithErrors,
            stats: [("files".to_owned(), 3), ("bytes_new".to_owned(), u64::MAX)].into(),
            findings: vec![Finding {
                path: b"/a/\xfe".to_vec(),
                code: "vanished".into(),
                message: "it vanished".into(),
                severity: Severity::Error,
            }],
            findings_total: 1,
            options: [("compression".to_owned(), "3".to_owned())].into(),
            software: "holdfast 0.1.0".into(),
        }
    }

    #[test]
    fn a_manifest_survives_its_bytes() {
        for parent in [None, Some(Id([2; 16]))] {
            let written = Manifest { parent, ..manifest() };
            let bytes = written.encode().unwrap();
            assert_eq!(Manifest::decode(&bytes).unwrap(), written);
        }
    }

    #[test]
    fn a_cut_or_changed_manifest_is_never_read_as_another_spelling() {
        let bytes = manifest().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x17, 0x18, 0x1b, 0x5f, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(read) = Manifest::decode(&changed) {
                    assert_eq!(read.encode().unwrap(), changed);
                }
            }
        }
    }

    #[test]
    fn a_newer_manifest_is_named_as_such() {
        let mut bytes = manifest().encode().unwrap();
        assert_eq!(&bytes[1..9], b"\x67version");
        bytes[9] = 2;
        assert_eq!(Manifest::decode(&bytes).unwrap_err().code(), "newer-format");
    }

    #[test]
    fn only_the_first_findings_are_kept() {
        let mut many = manifest();
        many.findings = vec![many.findings[0].clone(); Findings::KEPT + 5];
        many.findings_total = 1005;
        let read = Manifest::decode(&many.encode().unwrap()).unwrap();
        assert_eq!(read.findings.len(), Findings::KEPT);
        assert_eq!(read.findings_total, 1005);
    }

    #[test]
    fn the_root_is_the_directory_slash() {
        let mut wrong = manifest();
        wrong.root.name = b"x".to_vec();
        assert!(wrong.encode().is_err());
    }
}
