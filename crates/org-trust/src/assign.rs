//! An Assign: what a member is called and what it is for.

use identity::{
    Name, PublicKey, StatementId, Tag,
    codec::{DecodeError, Reader, Writer, ascending},
    limits::{ASSIGNS_REPLACED_MAX, LABELS_MAX, ROLES_MAX},
};

use crate::charter::list;

/// Name, roles and labels of a member, all three anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// A node key of the member.
    pub node: PublicKey,
    /// Its name, for people.
    pub name: Name,
    /// What it may do beyond what every member may, ascending.
    pub roles: Vec<Tag>,
    /// What people sort it by, ascending.
    pub labels: Vec<Tag>,
    /// The Assigns of this member that the author knew and that end with this one, ascending.
    pub replaces: Vec<StatementId>,
}

impl Assign {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.bytes(self.node.as_bytes()).short_bytes(self.name.as_str().as_bytes());
        write_tags(out, &self.roles);
        write_tags(out, &self.labels);
        write_ids(out, &self.replaces);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: r.key("assigned node")?,
            name: r.name("name")?,
            roles: read_tags(r, "roles", "role", ROLES_MAX)?,
            labels: read_tags(r, "labels", "label", LABELS_MAX)?,
            replaces: read_ids(r, "replaced assigns", "replaced assign", ASSIGNS_REPLACED_MAX)?,
        })
    }
}

pub(crate) fn write_tags(out: &mut Writer, tags: &[Tag]) {
    out.count(tags.len());
    for tag in tags {
        out.short_bytes(tag.as_str().as_bytes());
    }
}

/// A set of tags: `field` is at fault when it is none, `each` when one of them is no tag.
pub(crate) fn read_tags(
    r: &mut Reader<'_>,
    field: &'static str,
    each: &'static str,
    max: usize,
) -> Result<Vec<Tag>, DecodeError> {
    let tags = list(r, field, max, |r| r.tag(each))?;
    ascending(field, &tags)?;
    Ok(tags)
}

pub(crate) fn write_ids(out: &mut Writer, ids: &[StatementId]) {
    out.count(ids.len());
    for id in ids {
        out.bytes(id.as_bytes());
    }
}

/// A set of ids, in the same way.
pub(crate) fn read_ids(
    r: &mut Reader<'_>,
    field: &'static str,
    each: &'static str,
    max: usize,
) -> Result<Vec<StatementId>, DecodeError> {
    let ids = list(r, field, max, |r| r.array(each).map(StatementId))?;
    ascending(field, &ids)?;
    Ok(ids)
}
