//! The texts that come with the program: the baseline of the alliance and the packs of its founding members.
//!
//! They are where an authority starts from. What counts on a node is what the authority signed, never the text here.

use alliance_protocol::{
    gate::{Pack, PackOwner},
    vocabulary::Country,
};

/// The number of this text of the baseline. Raised whenever a rule changes, so that records say which one decided.
const BASELINE_EPOCH: u64 = 2;

/// The countries for which a pack comes with the program, by country code.
pub const FOUNDING_MEMBERS: [&str; 11] = ["BR", "RU", "IN", "CN", "ZA", "EG", "ET", "IR", "AE", "ID", "SA"];

/// The choices of the project that bind every member.
#[must_use]
pub fn baseline() -> Pack {
    Pack::new(PackOwner::Alliance, BASELINE_EPOCH, include_str!("../packs/alliance.cedar"), "")
}

/// The law and the directives that a founding member starts from; `None` for every other country.
#[must_use]
pub fn founding_pack_text(country: Country) -> Option<(&'static str, &'static str)> {
    match country.as_str() {
        "BR" => Some((include_str!("../packs/br.cedar"), "")),
        "RU" => Some((include_str!("../packs/ru.cedar"), "")),
        "IN" => Some((include_str!("../packs/in.cedar"), include_str!("../packs/directives/in.cedar"))),
        "CN" => Some((include_str!("../packs/cn.cedar"), "")),
        "ZA" => Some((include_str!("../packs/za.cedar"), include_str!("../packs/directives/za.cedar"))),
        "EG" => Some((include_str!("../packs/eg.cedar"), "")),
        "ET" => Some((include_str!("../packs/et.cedar"), "")),
        "IR" => Some((include_str!("../packs/ir.cedar"), "")),
        "AE" => Some((include_str!("../packs/ae.cedar"), "")),
        "ID" => Some((include_str!("../packs/id.cedar"), "")),
        "SA" => Some((include_str!("../packs/sa.cedar"), "")),
        _ => None,
    }
}
