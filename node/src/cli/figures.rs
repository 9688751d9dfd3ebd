//! Figures for people: sizes, spans, instants and lists of words.

use std::{fmt::Display, time::Duration};

use super::screen::Fields;
use alliance_protocol::{manifest::Part, offer::CardFacts, time::Timestamp};
use indicatif::{BinaryBytes, HumanDuration};

/// A size in binary units.
pub(super) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// A span of microseconds.
pub(super) fn span(us: u64) -> String {
    format!("{:.1?}", Duration::from_micros(us))
}

/// A span of milliseconds, as long as people wait.
pub(super) fn lasting(ms: u64) -> String {
    HumanDuration(Duration::from_millis(ms)).to_string()
}

/// An instant, and how far it is from now.
pub(super) fn instant(at: Timestamp, now: Timestamp) -> String {
    let distance = HumanDuration(Duration::from_millis(at.0.abs_diff(now.0)));
    if at >= now { format!("{at} (in {distance})") } else { format!("{at} ({distance} ago)") }
}

/// Words with commas, or what stands for none.
pub(super) fn words<T: Display>(words: impl IntoIterator<Item = T>, none: &str) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}

/// What of an artefact has the same labels, in one line.
pub(super) fn part(part: &Part) -> String {
    format!("{} ({} tensors, {})", words(&part.labels, "none"), part.tensors, size(part.bytes))
}

/// The parts of an artefact, where it has more than one.
pub(super) fn parts(fields: &mut Fields, parts: &[Part]) {
    if parts.len() > 1 {
        parts.iter().for_each(|one| fields.add("part", part(one)));
    }
}

/// What a model card claims, where there is one.
pub(super) fn card(fields: &mut Fields, card: Option<&CardFacts>) {
    let Some(card) = card else { return };
    for (name, names) in [("languages", &card.languages), ("datasets", &card.datasets), ("made from", &card.base_models)] {
        if !names.is_empty() {
            fields.add(name, format!("{}, says its card", words(names, "")));
        }
    }
    if card.left_out > 0 {
        fields.add("its card", format!("names {} more of these", card.left_out));
    }
}

/// `yes` or `no`.
pub(super) fn yes(is: bool) -> String {
    if is { "yes".to_owned() } else { "no".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_say_how_far_they_are() {
        let now = Timestamp(1_800_000_000_000);
        assert_eq!(instant(now.plus_ms(7_200_000), now), "2027-01-15T10:00:00Z (in 2 hours)");
        assert_eq!(instant(now.minus_ms(7_200_000), now), "2027-01-15T06:00:00Z (2 hours ago)");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!((span(1_250), span(90_250_000)), ("1.2ms".to_owned(), "90.2s".to_owned()));
        assert_eq!((lasting(300_000), lasting(3_600_000)), ("5 minutes".to_owned(), "60 minutes".to_owned()));
        assert_eq!(words([1, 2], "none"), "1, 2");
        assert_eq!(words(Vec::<u8>::new(), "none"), "none");
    }
}
