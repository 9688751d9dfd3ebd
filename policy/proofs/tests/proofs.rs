//! The proofs of the packs that come with the program, and that what is not proven is never called proven.
//!
//! Without a solver the proofs are skipped, and each test says so: that a proof could not run is not that it holds. With
//! `ALLIANCE_PROOFS=all` every pair of members is proven, and a missing solver fails.

#![cfg(test)]

use std::{process::Command, time::Duration};

use alliance_policy::{FOUNDING_MEMBERS, baseline, founding_pack_text};
use alliance_proofs::{Outcome, Proofs, pairs};
use alliance_protocol::{
    gate::{Pack, PackOwner},
    vocabulary::Country,
};

/// Far beyond what any question takes.
const LIMIT: Duration = Duration::from_secs(120);

fn solver() -> Option<()> {
    let path = std::env::var_os("CVC5").unwrap_or_else(|| "cvc5".into());
    let found = Command::new(path).arg("--version").output().is_ok_and(|output| output.status.success());
    if found {
        return Some(());
    }
    assert!(!wants_all(), "ALLIANCE_PROOFS=all needs cvc5 on PATH or named by CVC5");
    println!("skipped: there is no cvc5, so nothing is proven here");
    None
}

fn wants_all() -> bool {
    std::env::var_os("ALLIANCE_PROOFS").is_some_and(|wanted| wanted == "all")
}

fn member(country: Country) -> Pack {
    let (law, directives) = founding_pack_text(country).expect("a pack");
    Pack::new(PackOwner::Member(country), 1, law, directives)
}

fn countries() -> Vec<Country> {
    FOUNDING_MEMBERS.iter().map(|code| code.parse().expect("a country")).collect()
}

fn proofs() -> Proofs {
    Proofs::new(LIMIT).expect("the schema and the claims")
}

#[tokio::test]
async fn every_pack_keeps_what_it_claims() {
    let Some(()) = solver() else { return };
    let mut proofs = proofs();
    let mut count = 0;
    for pack in countries().into_iter().map(member).chain([baseline()]) {
        let proven = proofs.pack(&pack).await.expect("a pack that can be read");
        assert!(proven.len() >= 2, "{}: nothing is claimed of it", pack.owner);
        for proof in proven {
            assert!(proof.outcome.is_proven(), "{}: {}: {}", proof.about, proof.property, proof.outcome);
            count += 1;
        }
    }
    println!("{count} properties proven");
}

#[tokio::test]
async fn pairs_of_members_keep_what_both_and_the_baseline_keep() {
    let Some(()) = solver() else { return };
    let mut proofs = proofs();
    let mut count = 0;
    // Each member once at each end, unless all are asked for.
    let all = countries();
    let chosen: Vec<(Country, Country)> = match wants_all() {
        true => pairs(&all).collect(),
        false => all.iter().copied().zip(all.iter().copied().cycle().skip(1)).collect(),
    };
    for (from, to) in chosen {
        for proof in proofs.pair(&member(from), &member(to), &baseline()).await.expect("packs that can be read") {
            assert!(proof.outcome.is_proven(), "{}: {}: {}", proof.about, proof.property, proof.outcome);
            count += 1;
        }
    }
    println!("{count} properties of pairs proven");
}

#[tokio::test]
async fn a_text_that_lets_more_out_is_refuted_with_a_crossing() {
    let Some(()) = solver() else { return };
    let china: Country = "CN".parse().expect("a country");
    let (law, _) = founding_pack_text(china).expect("a pack");
    let without = law.replace("Label::\"core\", Label::\"state_secret\"", "Label::\"core\"");
    assert_ne!(law, without);
    let leaky = Pack::new(PackOwner::Member(china), 2, &without, "");
    let mut proofs = proofs();
    assert_eq!(proofs.newly_allowed(&member(china), &member(china)).await.expect("read"), Outcome::Proven);
    assert_eq!(proofs.newly_allowed(&leaky, &member(china)).await.expect("read"), Outcome::Proven, "only stricter");
    match proofs.newly_allowed(&member(china), &leaky).await.expect("read") {
        Outcome::Refuted { counterexample } => assert!(counterexample.contains("state_secret"), "{counterexample}"),
        other => panic!("{other}"),
    }
    let broken = proofs.pack(&leaky).await.expect("read");
    assert!(broken.iter().any(|proof| matches!(proof.outcome, Outcome::Refuted { .. })), "{broken:?}");
}

#[tokio::test]
async fn a_rule_that_can_fail_is_refuted() {
    let Some(()) = solver() else { return };
    let text = r#"@id("HOUSE-01") @title("a sum") @house("x") @status("house")
        forbid (principal, action, resource) when { context.volume.people + context.volume.sensitive_people > 10 };"#;
    let house = Pack::new(PackOwner::House, 1, text, "");
    let [proof] = proofs().pack(&house).await.expect("read").try_into().expect("one proof");
    assert!(matches!(proof.outcome, Outcome::Refuted { .. }), "{}", proof.outcome);
}

#[tokio::test]
async fn a_member_whose_law_takes_what_another_issued_is_refuted() {
    let Some(()) = solver() else { return };
    let text = r#"@id("BR-00") @status("residual") permit (principal, action, resource);
        @id("BR-01") forbid (principal, action == Action::"export", resource)
        unless { context.mutual_safeguards.contains(Safeguard::"treaty") };"#;
    let leaky = Pack::new(PackOwner::Member("BR".parse().expect("a country")), 1, text, "");
    let proven = proofs().pair(&leaky, &member("IN".parse().expect("a country")), &baseline()).await.expect("read");
    let refuted: Vec<_> = proven.iter().filter(|proof| matches!(proof.outcome, Outcome::Refuted { .. })).collect();
    assert!(refuted.iter().any(|proof| proof.property.contains("exporter's law")), "{proven:?}");
}
