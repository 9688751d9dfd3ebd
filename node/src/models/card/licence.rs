//! Licences as model cards name them, and as SPDX does.
//!
//! The names of cards are those of the list "Licenses" in the documentation of the Hugging Face Hub
//! (huggingface.co/docs/hub/repositories-licenses); the others are those of the SPDX licence list, version 3. Families on the
//! first list (`bsd`, `gpl`, `cc`, ...) are no licences on the second.

/// The name in a card, and the SPDX identifier. GNU licences keep the identifiers that SPDX calls deprecated: a card does not
/// say whether later versions will do too.
const KNOWN: &[(&str, &str)] = &[
    ("afl-3.0", "AFL-3.0"),
    ("agpl-3.0", "AGPL-3.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-3-clause-clear", "BSD-3-Clause-Clear"),
    ("bsl-1.0", "BSL-1.0"),
    ("c-uda", "C-UDA-1.0"),
    ("cc-by-2.0", "CC-BY-2.0"),
    ("cc-by-2.5", "CC-BY-2.5"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-nc-2.0", "CC-BY-NC-2.0"),
    ("cc-by-nc-3.0", "CC-BY-NC-3.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0"),
    ("cc-by-nc-nd-4.0", "CC-BY-NC-ND-4.0"),
    ("cc-by-nc-sa-2.0", "CC-BY-NC-SA-2.0"),
    ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0"),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
    ("cc-by-nd-4.0", "CC-BY-ND-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cdla-permissive-1.0", "CDLA-Permissive-1.0"),
    ("cdla-permissive-2.0", "CDLA-Permissive-2.0"),
    ("cdla-sharing-1.0", "CDLA-Sharing-1.0"),
    ("ecl-2.0", "ECL-2.0"),
    ("epl-1.0", "EPL-1.0"),
    ("epl-2.0", "EPL-2.0"),
    ("etalab-2.0", "etalab-2.0"),
    ("eupl-1.1", "EUPL-1.1"),
    ("eupl-1.2", "EUPL-1.2"),
    ("gpl-2.0", "GPL-2.0"),
    ("gpl-3.0", "GPL-3.0"),
    ("isc", "ISC"),
    ("lgpl-2.1", "LGPL-2.1"),
    ("lgpl-3.0", "LGPL-3.0"),
    ("lgpl-lr", "LGPLLR"),
    ("lppl-1.3c", "LPPL-1.3c"),
    ("mit", "MIT"),
    ("mpl-2.0", "MPL-2.0"),
    ("ms-pl", "MS-PL"),
    ("ncsa", "NCSA"),
    ("ofl-1.1", "OFL-1.1"),
    ("osl-3.0", "OSL-3.0"),
    ("pddl", "PDDL-1.0"),
    ("postgresql", "PostgreSQL"),
    ("unlicense", "Unlicense"),
    ("wtfpl", "WTFPL"),
    ("zlib", "Zlib"),
];

/// SPDX identifiers of licences by which anybody may have, use and pass on the work, for pay too.
const OPEN: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "PDDL-1.0",
    "Unlicense",
];

/// What a node calls a licence that nobody named.
pub(super) const UNSAID: &str = "other";

/// The licence of a card as an SPDX expression: `names` are what it has under `license`, and `own` what it has under
/// `license_name`, for a licence that is `other`. A name that SPDX does not know is kept as `LicenseRef-NAME`; of several, all
/// apply. None where the card says nothing of it.
pub(super) fn spdx(names: &[String], own: Option<&str>) -> Option<String> {
    let all: Vec<String> = names.iter().filter_map(|name| one(name.trim(), own)).collect();
    if all.is_empty() { None } else { Some(all.join(" AND ")) }
}

fn one(name: &str, own: Option<&str>) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    match (lower.as_str(), own) {
        ("" | "unknown", _) | ("other", None) => None,
        ("other", Some(own)) => Some(known(own).map_or_else(|| reference(own), str::to_owned)),
        (lower, _) => Some(known(lower).map_or_else(|| reference(name), str::to_owned)),
    }
}

fn known(name: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|(known, spdx)| known.eq_ignore_ascii_case(name) || spdx.eq_ignore_ascii_case(name))
        .map(|(_, spdx)| *spdx)
}

/// Letters, digits, `-` and `.` are what a reference may have.
fn reference(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '-' };
    let bare = name.strip_prefix("LicenseRef-").unwrap_or(name);
    format!("LicenseRef-{}", bare.trim().chars().map(plain).collect::<String>())
}

/// Whether anybody may have the work by this licence.
pub(super) fn is_open(spdx: &str) -> bool {
    OPEN.contains(&spdx)
}

/// What a card has under `license` for an SPDX identifier, if it has a name for it.
pub(super) fn in_a_card(spdx: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(_, known)| *known == spdx).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_of_cards_are_written_as_spdx_does() {
        for (names, own, expected) in [
            (&["apache-2.0"][..], None, Some("Apache-2.0")),
            (&["Apache-2.0"], None, Some("Apache-2.0")),
            (&["MIT"], None, Some("MIT")),
            (&["cc-by-4.0"], None, Some("CC-BY-4.0")),
            (&["gpl-3.0"], None, Some("GPL-3.0")),
            (&["llama3"], None, Some("LicenseRef-llama3")),
            (&["bsd"], None, Some("LicenseRef-bsd")),
            (&["openrail++"], None, Some("LicenseRef-openrail--")),
            (&["other"], None, None),
            (&["unknown"], None, None),
            (&[""], None, None),
            (&[], None, None),
            (&[], Some("mine"), None),
            (&["other"], Some("Tongyi Qianwen"), Some("LicenseRef-Tongyi-Qianwen")),
            (&["other"], Some("LicenseRef-x"), Some("LicenseRef-x")),
            (&["other"], Some("mit"), Some("MIT")),
            (&["mit", "cc-by-nc-4.0"], None, Some("MIT AND CC-BY-NC-4.0")),
        ] {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(spdx(&names, own).as_deref(), expected, "{names:?} {own:?}");
        }
        assert_eq!((in_a_card("Apache-2.0"), in_a_card("LicenseRef-x")), (Some("apache-2.0"), None));
        assert!(OPEN.iter().all(|open| known(open) == Some(open)) && is_open("MIT") && !is_open("CC-BY-NC-4.0"));
        assert!(KNOWN.is_sorted(), "in order, each once");
    }
}
