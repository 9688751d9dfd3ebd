//! The founding charter: which bodies make sense, and who must have signed.

use alliance_protocol::{
    charter::{Charter, CharterError, Chartered},
    envelope::{Draft, Signed},
    id::{AllianceId, StatementId},
    key::SecretKey,
    vocabulary::Country,
};

use crate::alliance::{Alliance, country, key, stranger};

fn body() -> Charter {
    Alliance::found().chartered().charter().clone()
}

/// Signed by these seats of these members.
fn signed(charter: &Charter, seats: &[(&str, usize)], more: &[SecretKey]) -> Result<Chartered, CharterError> {
    let alliance = Alliance::found();
    let draft = Draft::new(charter, AllianceId::NONE);
    let draft = seats.iter().fold(draft, |draft, (code, seat)| draft.sign(alliance.officer(country(code), *seat)));
    Chartered::found(&more.iter().fold(draft, Draft::sign).to_bytes())
}

const ENOUGH: [(&str, usize); 6] = [("BR", 0), ("BR", 1), ("IN", 0), ("IN", 1), ("CN", 1), ("CN", 2)];

#[test]
fn a_charter_that_enough_members_signed_holds() {
    let chartered = signed(&body(), &ENOUGH, &[]).expect("holds");
    assert_eq!(chartered.alliance(), Alliance::found().id, "whoever signed, it is the same alliance");
    assert!(chartered.authority(country("ZA")).is_some_and(|authority| authority.threshold == 2));
    assert!(chartered.authority(country("FR")).is_none());
}

#[test]
fn a_charter_that_too_few_signed_does_not_hold() {
    let few = |signed| Err(CharterError::TooFewMembers { signed, members: 4, threshold: 3 });
    let found = |seats: &[_], more: &[_]| signed(&body(), seats, more).map(|chartered| chartered.alliance());
    assert_eq!(found(&ENOUGH[..4], &[]), few(2));
    assert_eq!(found(&ENOUGH[..5], &[]), few(2), "one officer of two has not spoken");
    assert_eq!(found(&ENOUGH, &[stranger()]), Err(CharterError::Stranger(stranger().public())));
    assert!(matches!(found(&[], &[]), Err(CharterError::Open(_))));
}

#[test]
fn bodies_that_make_no_sense_are_refused() {
    type Change = fn(&mut Charter);
    fn brazil(charter: &mut Charter) -> &mut alliance_protocol::charter::Authority {
        &mut charter.members.get_mut(&country("BR")).expect("a member").authority
    }
    let cases: &[(&str, Change)] = &[
        ("from 2 to 64 members", |charter| charter.members.retain(|member, _| *member == country("BR"))),
        ("from 2 to 64 members", |charter| {
            let codes = ('A'..='Z').flat_map(|a| ('A'..='Z').map(move |b| format!("{a}{b}")));
            for (n, member) in (0u8..65).zip(codes.filter_map(|code| code.parse::<Country>().ok())) {
                let officers = vec![key(n + 100).public()];
                let authority = alliance_protocol::charter::Authority { name: String::new(), officers, threshold: 1 };
                charter.members.insert(member, authority.into());
            }
        }),
        ("name is empty", |charter| charter.name.clear()),
        ("longer than 128", |charter| charter.name = "n".repeat(129)),
        ("more than half", |charter| charter.threshold = 2),
        ("more than half", |charter| charter.threshold = 0),
        ("not more than all", |charter| charter.threshold = 5),
        ("short name", |charter| brazil(charter).name = "n".repeat(129)),
        ("from 1 to 16 officers", |charter| brazil(charter).officers.clear()),
        ("from 1 to 16 officers", |charter| brazil(charter).officers.extend((200..214).map(|n| key(n).public()))),
        ("between 1 and the number", |charter| brazil(charter).threshold = 0),
        ("between 1 and the number", |charter| brazil(charter).threshold = 4),
        ("two seats", |charter| brazil(charter).officers[0] = key(20).public()),
        ("two seats", |charter| brazil(charter).officers[0] = key(11).public()),
    ];
    for (reason, change) in cases {
        let mut charter = body();
        change(&mut charter);
        assert_eq!(Chartered::draft(&charter).err(), charter.well_formed().err());
        match signed(&charter, &ENOUGH, &[]) {
            Err(CharterError::Malformed(why)) => assert!(why.contains(reason), "`{why}` instead of `{reason}`"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn only_a_founding_version_is_adopted() {
    let second = Charter { version: 2, ..body() };
    assert!(matches!(signed(&second, &ENOUGH, &[]), Err(CharterError::NotFounding { found: 2 })));
    let follows = Charter { previous: Some(StatementId([1; 32])), ..body() };
    assert!(matches!(signed(&follows, &ENOUGH, &[]), Err(CharterError::NotFounding { found: 1 })));
}

#[test]
fn a_charter_belongs_to_no_alliance_before_it_founds_one() {
    let charter = Signed::sign(&body(), AllianceId([1; 32]), &key(10)).expect("signs");
    assert!(matches!(Chartered::found(charter.bytes()), Err(CharterError::Open(_))));
}
