//! Tests of reading cards: real shapes, bad ones, and hostile ones.

use std::{fs, os::unix::fs::symlink};

use super::*;

fn card(text: &str) -> Card {
    Card::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refused(text: &str) -> String {
    match Card::parse(text) {
        Ok(card) => panic!("{card:?}: {text}"),
        Err(error) => error.to_string(),
    }
}

const REAL: &str = "\
---
language:
- en
- pt   # Brazilian
license: other
license_name: tongyi-qianwen
license_link: >-
  https://huggingface.co/Qwen/Qwen2-72B/blob/main/LICENSE
library_name: transformers
pipeline_tag: text-generation
base_model: [usp/base, 'usp/other']
datasets:
  - usp/corpus
  - null
tags: [medical, \"two words\"]
inference: false
widget:
- text: |-
    ---
    not the end: *x
co2_eq_emissions: 12.5
model-index:
- name: x
  results:
  - task: {type: text-generation}
    metrics: [{name: acc, type: acc, value: 0.5, verified: !!bool true}]
---

# A model

---
license: mit
---
";

#[test]
fn real_cards_are_read() {
    let real = card(&REAL.replace("*x", "x"));
    assert_eq!(
        (real.languages.join(","), real.datasets.join(","), real.base_models.join(",")),
        ("en,pt".into(), "usp/corpus".into(), "usp/base,usp/other".into())
    );
    assert_eq!(real.licence().as_deref(), Some("LicenseRef-tongyi-qianwen"));
    assert_eq!(real.license_link.as_deref(), Some("https://huggingface.co/Qwen/Qwen2-72B/blob/main/LICENSE"));
    assert_eq!(
        (real.pipeline_tag.as_deref(), real.library_name.as_deref()),
        (Some("text-generation"), Some("transformers"))
    );
    assert_eq!(
        (real.tags, real.gated, &real.declared),
        (vec!["medical".to_owned(), "two words".to_owned()], false, &Declared::default())
    );
    for text in [
        "---\nlicense: apache-2.0\nlanguage: en\n---\n",
        "---\r\nlicense: apache-2.0\r\nlanguage: en\r\n---\r\n# Text\r\n",
        "\u{feff}---\nlicense: apache-2.0\nlanguage: en\n---",
        "\n \n---   \nlicense: apache-2.0\nlanguage: en\n---\t\n",
        "---\nlicense: \"apache-2.0\"\nlanguage: ['en']\n---\n",
        "---\n{license: apache-2.0, language: [en]}\n---\n",
        "---\n# comment\nlicense:\n- apache-2.0\nlanguage:\n  - en\nalliance:\n---\n",
        "---\nlicense: apache-2.0\nlanguage: &l en\nother: *l\n---\n",
    ] {
        let read = card(text);
        assert_eq!(
            (read.licence().as_deref(), read.languages.as_slice()),
            (Some("Apache-2.0"), &["en".to_owned()][..]),
            "{text}"
        );
    }
    // Norway is no boolean, and neither is its language.
    let norway = card("---\nlanguage: no\nalliance: {origin: NO, labels: public}\n---\n");
    assert_eq!((norway.languages.join(","), norway.declared.origin), ("no".to_owned(), "NO".parse().ok()));
    assert!(card("---\nextra_gated_prompt: who are you?\n---\n").gated);
}

#[test]
fn what_is_no_card_says_nothing() {
    for text in [
        "",
        "# Text\n",
        "Text\n---\nlicense: mit\n---\n",
        "---- \nlicense: mit\n---\n",
        "---\n---\n# Text\n",
        "---\nnull\n---\n",
        "---\n# only a comment\n---\n",
    ] {
        assert_eq!(card(text), Card::default(), "{text}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(Card::read(dir.path()).expect("no error"), None);
    fs::write(dir.path().join(CARD_FILE), "# Text\n").expect("written");
    assert_eq!(Card::read(dir.path()).expect("no error"), None);
    fs::write(dir.path().join(CARD_FILE), [b"---\nlicense: mit\n---\n".to_vec(), vec![0xff; 2 * READ_BYTES_MAX]].concat())
        .expect("written");
    assert_eq!(
        Card::read(dir.path()).expect("a card").and_then(|card| card.licence()).as_deref(),
        Some("MIT"),
        "whatever follows"
    );
}

#[test]
fn what_a_card_declares_is_in_the_words_of_the_vocabulary() {
    let declared = card(
        "---\nalliance:\n  labels:\n  - personal\n  - health\n  artefact: adapter\n  origin: BR\n  subjects: [BR, ZA]\n  people: 12\n  \
         circumstances: collection\n  evidence: [dp_budget]\n  licence: MIT OR Apache-2.0\n  name: x\n  crossing: {id: y}\n---\n",
    )
    .declared;
    assert_eq!(declared.labels, Some([Label::Personal, Label::Health].into()));
    assert_eq!((declared.artefact, declared.people), (Some(Artefact::Adapter), Some(12)));
    assert_eq!(
        (declared.circumstances, declared.evidence),
        (Some([Circumstance::Collection].into()), Some([Evidence::DpBudget].into()))
    );
    assert_eq!(
        (declared.subjects.map(|subjects| subjects.len()), declared.licence.as_deref()),
        (Some(2), Some("MIT OR Apache-2.0"))
    );
}

#[test]
fn bad_cards_are_told_where_they_are_wrong() {
    let long = "x".repeat(2000);
    for (text, says) in [
        ("---\nlicense: mit\n", &["no such line ends"][..]),
        ("---\n- mit\n---\n", &["line 2", "list of keys"]),
        ("---\nmit\n---\n", &["line 2", "list of keys"]),
        ("---\nlicense: mit\n...\nx: 1\n---\n", &["list of keys"]),
        ("---\nlicense: mit\nlicense: isc\n---\n", &["line 3", "`license` is there twice"]),
        ("---\nlicense: mit\n\tlanguage: en\n---\n", &["line 2", "tab"]),
        ("---\nx: [a,\n---\n", &["line"]),
        ("---\nx: a: b\n---\n", &["line 2"]),
        ("---\n? [a]\n: b\n---\n", &["line 2", "a key is not a word"]),
        ("---\nlicense: {name: mit}\n---\n", &["line 2", "`license`", "one word"]),
        ("---\nlicense_name: [a]\n---\n", &["line 2", "`license_name`", "is a list"]),
        ("---\nx: &a mit\nlicense: *a\n---\n", &["line 3", "`license`", "alias"]),
        ("---\nlicense: \"a\\u202eb\"\n---\n", &["line 2", "`license`", "cannot be shown"]),
        (&format!("---\nlicense: {long}\n---\n"), &["line 2", "`license`", "more than 1024 bytes"]),
        ("---\nalliance: public\n---\n", &["line 2", "`alliance`", "labels: [...]"]),
        (
            "---\nalliance:\n  labels: [public, foo]\n---\n",
            &["`README.md`, line 3", "`alliance.labels`", "`foo` is not a label", "known are: public"],
        ),
        ("---\nalliance:\n  labels:\n  - public\n  - Non-Personal\n---\n", &["line 5", "did you mean `non_personal`?"]),
        ("---\nalliance:\n  labels: []\n---\n", &["line 3", "`alliance.labels`", "is empty"]),
        ("---\nalliance:\n  labels: {public: yes}\n---\n", &["line 3", "`alliance.labels`"]),
        ("---\nalliance:\n  label: public\n---\n", &["line 3", "`alliance.label` is not known; known are: labels"]),
        ("---\nalliance:\n  labels: public\n  labels: health\n---\n", &["line 4", "`labels` is there twice"]),
        ("---\nalliance:\n  origin: UK\n---\n", &["line 3", "`alliance.origin`", "did you mean `GB`?"]),
        ("---\nalliance:\n  people: many\n---\n", &["line 3", "whole number"]),
        ("---\nalliance:\n  people: -1\n---\n", &["line 3", "whole number"]),
        (&format!("---\nalliance:\n  licence: {}\n---\n", "x".repeat(200)), &["line 3", "more than 128 bytes"]),
    ] {
        let error = refused(text);
        assert!(says.iter().all(|part| error.contains(part)), "{error}: {text}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(CARD_FILE), b"---\nlicense: \xff\n---\n").expect("written");
    assert!(matches!(Card::read(dir.path()), Err(CardError::Front(FrontError::NotText))));
    fs::remove_file(dir.path().join(CARD_FILE)).expect("removed");
    symlink("/etc/hostname", dir.path().join(CARD_FILE)).expect("linked");
    assert!(matches!(Card::read(dir.path()), Err(CardError::Tree(TreeError::LeavesDirectory { .. }))));
}

/// Nested `levels` deep under a key that is read, or one that is not.
fn nested(key: &str, levels: usize) -> String {
    format!("---\n{key}: {}{}\n---\n", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn hostile_cards_cost_no_more_than_their_bytes() {
    // Ten levels of ten aliases each would be ten thousand million words.
    let mut bomb = String::from("---\na0: &a0 x\n");
    for level in 1..=10 {
        let of = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [of.as_str(); 10].join(", ")));
    }
    let ignored = card(&format!("{bomb}---\n"));
    assert_eq!(ignored, Card::default());
    assert!(refused(&format!("{bomb}datasets: *a10\n---\n")).contains("alias"));
    assert!(refused(&format!("{bomb}datasets: [*a10]\n---\n")).contains("alias"));

    assert!(refused(&nested("datasets", 20)).contains("nested more than"));
    assert!(refused(&nested("alliance", 200)).contains("nested more than"));
    assert_eq!(card(&nested("x", 200)), Card::default(), "where it is not read, it does not matter");
    assert!(refused(&nested("x", 100_000)).contains("line 2"), "the scanner has a bound too");
    assert_eq!(card(&format!("---\nx:\n{}y\n---\n", "- ".repeat(100_000))), Card::default());
    assert!(refused(&format!("---\ntags:\n{}y\n---\n", "- ".repeat(100_000))).contains("nested more than"));
    assert!(refused(&format!("---\ntags: [{}]\n---\n", "a, ".repeat(5000))).contains("more than 4096"));

    let large = |bytes: usize| format!("---\nlicense: mit\n{}\n---\n", "# x".repeat(bytes / 3));
    assert_eq!(card(&large(FRONT_BYTES_MAX - 100)).licence().as_deref(), Some("MIT"));
    assert!(refused(&large(FRONT_BYTES_MAX + 100)).contains("more than 1048576 bytes"));
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(CARD_FILE), large(4 * FRONT_BYTES_MAX)).expect("written");
    assert!(matches!(Card::read(dir.path()), Err(CardError::Front(FrontError::TooLong))));
}

proptest::proptest! {
    /// Whatever is in a file, it is read to its end without a panic.
    #[test]
    fn nothing_in_a_card_panics(parts in proptest::collection::vec(proptest::sample::select(vec![
        "---\n", "alliance:", "labels:", "license:", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", ":", "'", "\"", "|", ">", "&a ",
        "*a", "!t ", "? ", "#", "...", "%", "\t", "\r", "\u{feff}", "\0", "\u{e9}", "public", "x",
    ]), 0..40)) {
        let text = parts.concat();
        let _ = Card::parse(&text);
        let _ = Card::parse(&format!("---\n{text}\n---\n"));
    }
}
