//! The sheet that is printed when an org is founded: the org's key file as text, and how to use it.

use crate::{founding::Founding, profile::ORG_KEYS_FILE};

/// The sheet. It holds the encrypted file and no bare secret.
pub(crate) fn text(founding: &Founding, org_keys: &str) -> String {
    let charter = founding.genesis.charter();
    let root = founding.org_keys.root.public();
    format!(
        "\
RECOVERY SHEET of the muster org {name}

  org id    {id}
  root key  {root}

Print this sheet and keep it where the org's papers are. Below is the org's key file, encrypted
with the passphrase that was given when the org was founded; write the passphrase on another paper
and keep it elsewhere. Who has both can change everything in the org. Who has lost both, and the file
{ORG_KEYS_FILE}, can never change the org's settings again.

To use it: type or scan the lines from BEGIN to END into a file, chmod 600 it, and give it to muster
as {ORG_KEYS_FILE}; or open it with any age program: age -d FILE.

{org_keys}
",
        name = charter.name,
        id = founding.genesis.org(),
        org_keys = org_keys.trim_end(),
    )
}
