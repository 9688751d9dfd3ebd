//! Packs that must not load, and what the officer is told.

use alliance_policy::CedarGate;
use alliance_protocol::{
    gate::{Gate, Pack, PackOwner},
    limits::LAW_PACK_BYTES_MAX,
};

use crate::{country, packs};

const LAW: &str = r#"@id("BR-31")
@title("A rule")
@law("Act 1, art. 2")
@native("Lei 1, art. 2")
@from("2020-09-18")
@status("in_force")
@confidence("high")
@source("own knowledge")
@obligation("record, report")
@satisfied_by("scc_br | bcr + regulator_approval")
forbid (principal, action == Action::"export", resource)
when { context.time >= datetime("2020-09-18") && context.labels.contains(Label::"personal") }
unless {
    context.safeguards.contains(Safeguard::"scc_br") ||
    context.safeguards.containsAll([Safeguard::"bcr", Safeguard::"regulator_approval"])
};
"#;

const DIRECTIVE: &str = r#"@id("BR-D01")
@title("A directive")
@directive("Decision 1")
@status("directive")
forbid (principal, action == Action::"import", resource) when { context.origin != Country::"BR" };
"#;

const DESIGN: &str = r#"@id("BX-31")
@title("A choice")
@design("because")
@status("design_choice")
forbid (principal, action, resource) when { context.labels.contains(Label::"core") };
"#;

const HOUSE: &str = r#"@id("HOUSE-01")
@title("A house rule")
@house("by-laws")
@status("house")
forbid (principal, action, resource) when { context.labels.contains(Label::"core") };
"#;

fn load(owner: PackOwner, law: &str, directives: &str) -> Result<usize, String> {
    let summary = CedarGate::new().check(&Pack::new(owner, 1, law, directives));
    summary.map(|summary| summary.rules.len()).map_err(|error| error.to_string())
}

fn brazil() -> PackOwner {
    PackOwner::Member(country("BR"))
}

/// The law with one thing changed is refused, and the reason says so.
#[track_caller]
fn check_law(from: &str, to: &str, reason: &str) {
    assert!(LAW.contains(from), "`{from}` is in the law");
    check_text(brazil(), &LAW.replace(from, to), "", reason);
}

#[track_caller]
fn check_text(owner: PackOwner, law: &str, directives: &str, reason: &str) {
    let error = load(owner, law, directives).expect_err("the pack must be refused");
    assert!(error.contains(reason), "`{reason}` is not in: {error}");
    assert!(error.starts_with(&format!("the pack of {owner} cannot be used: ")), "{error}");
}

#[test]
fn good_packs_load() {
    assert_eq!(load(brazil(), LAW, DIRECTIVE), Ok(2));
    assert_eq!(load(brazil(), LAW, ""), Ok(1));
    assert_eq!(load(PackOwner::Alliance, DESIGN, ""), Ok(1));
    assert_eq!(load(PackOwner::House, HOUSE, ""), Ok(1));
    for pack in packs() {
        assert!(CedarGate::new().check(&pack).is_ok());
    }
}

#[test]
fn text_that_cedar_cannot_read() {
    check_law("forbid (principal,", "forbid (principal", "law, line 11: unexpected token `action`");
    check_law("@title(\"A rule\")", "@title(A rule)", "law, line 2: ");
    check_text(brazil(), LAW, "forbid", "directives, line 1: ");
    check_law("forbid (principal,", "forbid (principal == ?principal,", "law: templates");
}

#[test]
fn words_and_types_that_the_schema_does_not_know() {
    check_law("Label::\"personal\"", "Label::\"persnal\"", "law, line 12: rule `BR-31`: ");
    check_law("Label::\"personal\"", "Label::\"persnal\"", "persnal");
    check_law("Label::\"personal\"", "\"personal\"", "law, line 12: rule `BR-31`: ");
    check_law("context.labels", "context.tags", "law, line 12: rule `BR-31`: attribute `tags`");
    check_law("Action::\"export\"", "Action::\"exprot\"", "exprot");
    check_law("context.labels.contains(Label::\"personal\")", "1 + \"one\" > 2", "law, line 12: rule `BR-31`: ");
    check_law("context.labels.contains(Label::\"personal\")", "datetime(\"2025-13-01\") > context.time", "rule `BR-31`: ");
    check_law("context.labels.contains(Label::\"personal\")", "context.to.country == Country::\"UK\"", "UK");
    check_law("context.labels.contains(Label::\"personal\")", "false", "rule `BR-31`: ");
    check_text(brazil(), LAW, &DIRECTIVE.replace("context.origin", "context.place"), "directives, line 5: rule `BR-D01`: ");
}

#[test]
fn annotations_that_are_wrong() {
    check_law(
        "@title(\"A rule\")",
        "@titel(\"A rule\")",
        "law, line 1: `@titel` is not an annotation of a rule; known are: id, title",
    );
    check_law("@title(\"A rule\")\n", "", "`@title` is missing");
    check_law("@title(\"A rule\")", "@title(\" \")", "`@title` is empty");
    check_law("@title(\"A rule\")", &format!("@title(\"{}\")", "x".repeat(1025)), "`@title` has more than 1024 bytes");
    check_law("@law(\"Act 1, art. 2\")\n", "", "`@law` is missing");
    check_law("@native(\"Lei 1, art. 2\")\n", "", "`@native` is missing");
    check_law("@source(\"own knowledge\")\n", "", "`@source` is missing");
    check_law(
        "@confidence(\"high\")",
        "@confidence(\"sure\")",
        "`@confidence` must begin with high, medium or low, not `sure`",
    );
    check_law("@obligation(\"record, report\")", "@obligation(\"record,,report\")", "`@obligation`: `` is not a duty");
    check_law("scc_br |", "scc_rb |", "`@satisfied_by`: `scc_rb` is not a kind of safeguard");
    check_law("scc_br |", "|", "`@satisfied_by` has an empty alternative");
}

#[test]
fn duties_waits_and_spans_that_are_wrong() {
    let with = |annotation: &str| format!("{annotation}\n@satisfied_by");
    check_law("record, report", "record, delete_withn(24h)", "`@obligation`: `delete_withn(24h)` is not a duty");
    check_law("record, report", "record,, report", "`@obligation`: `` is not a duty");
    let approved = DESIGN.replace("@status", "@obligation(\"approval(2)\")\n@status");
    check_text(PackOwner::Alliance, &approved, "", "nobody approves for the alliance");
    check_law("@satisfied_by", &with("@waits(\"10 working days\")"), "`@waits` is written");
    check_law("@satisfied_by", &with("@days_off(\"01-01\")"), "`@days_off` does not belong on a rule without `@waits`");
    check_law("@satisfied_by", &with("@valid_for(\"tia 3 years\")"), "`@valid_for` is written");
    check_law("@satisfied_by", &with("@valid_for(\"scc_br 3\")"), "`@valid_for` is written");
    check_law("@satisfied_by", &with("@valid_for(\"scc_br 0 years\")"), "`@valid_for` is written");
    let waiting = LAW.replace("scc_br", "waiting_period_elapsed");
    check_text(brazil(), &waiting, "", "`@waits` is written");
    for (waits, good) in
        [("10 working days", true), ("010 working days", false), ("10 days", false), ("0 working days", false)]
    {
        let law = waiting.replace("@satisfied_by", &with(&format!("@waits(\"{waits}\")")));
        assert_eq!(load(brazil(), &law, "").is_ok(), good, "{waits}");
    }
}

#[test]
fn chains_that_need_no_brackets() {
    let condition = "context.labels.contains(Label::\"personal\")";
    let sum = format!("1{} > 2", "+1".repeat(17));
    check_law(condition, &sum, "or 128 dots");
    let or = format!("{condition}{}", format!(" || {condition}").repeat(64));
    check_law(condition, &or, "64 of `&& ||`");
    let dots = format!("context.labels.contains(Label::\"personal\"){}", ".x".repeat(130));
    check_law(condition, &dots, "128 dots");
    check_text(brazil(), &";".repeat(190_000), "", "it has more than 512 rules");
}

#[test]
fn the_whole_context_is_not_looked_at() {
    let condition = "context.labels.contains(Label::\"personal\")";
    for whole in
        ["(if context.regulator_ban then context else context).time < datetime(\"2027-01-01\")", "context == context"]
    {
        check_law(condition, whole, "`context` is used as a whole");
    }
}

#[test]
fn a_pattern_that_is_too_long() {
    let like = |parts: usize| format!("\"a\" like \"{}\"", "*a".repeat(parts));
    let condition = "context.labels.contains(Label::\"personal\")";
    check_law(condition, &like(40_000), "a pattern of `like` has more than 128");
    assert_eq!(load(brazil(), &LAW.replace(condition, &like(64)), ""), Ok(1));
}

#[test]
fn a_members_law_looks_only_at_what_its_own_authority_issued() {
    check_law("context.safeguards.contains(", "context.mutual_safeguards.contains(", "cannot satisfy a member's law");
}

#[test]
fn ids_that_are_not_of_the_pack() {
    for id in ["", "BR", "BR-1", "BR-00001", "BR-3l1", "BR-31bb", "BR-D01", "RU-31", "br-31", "BR_31", "BR-\u{0663}1"] {
        let reason = if id.is_empty() { "`@id` is empty" } else { "is not an id of this pack: write BR-NN" };
        check_law("@id(\"BR-31\")", &format!("@id(\"{id}\")"), reason);
    }
    check_text(brazil(), "", &DIRECTIVE.replace("BR-D01", "BR-01"), "is not an id of this pack");
    check_text(
        brazil(),
        &format!("{LAW}\n{}", LAW.replace("A rule", "Another")),
        "",
        "law, line 18: rule `BR-31` is there twice",
    );
}

#[test]
fn a_status_that_does_not_belong() {
    for status in ["draft", "unverified", "practice", "soft_law", "design_choice", "directive", "house", "In_force"] {
        check_law(
            "@status(\"in_force\")",
            &format!("@status(\"{status}\")"),
            &format!("`{status}` is not the status of a rule here"),
        );
    }
    for status in ["in_force", "draft", "design_choice", "residual"] {
        check_text(brazil(), "", &DIRECTIVE.replace("\"directive\"", &format!("\"{status}\"")), "known are: directive");
    }
    for status in ["in_force", "in_force_dormant", "directive", "draft"] {
        check_text(
            PackOwner::Alliance,
            &DESIGN.replace("design_choice", status),
            "",
            "known are: design_choice, soft_law, residual",
        );
        check_text(
            PackOwner::House,
            &HOUSE.replace("\"house\"", &format!("\"{status}\"")),
            "",
            "known are: house, residual",
        );
    }
    for owner in [PackOwner::Alliance, PackOwner::House] {
        check_text(
            owner,
            "",
            &DIRECTIVE.replace("BR-", if owner == PackOwner::House { "HOUSE-" } else { "BX-" }),
            "only members give directives",
        );
    }
}

#[test]
fn what_is_not_law_cannot_cite_it() {
    let cite = |text: &str| text.replace("@status", "@law(\"Act 1\")\n@status");
    check_text(brazil(), "", &cite(DIRECTIVE), "directives, line 1: `@law` does not belong on a directive");
    check_text(PackOwner::Alliance, &cite(DESIGN), "", "`@law` does not belong on a choice of the project");
    check_text(PackOwner::House, &cite(HOUSE), "", "`@law` does not belong on a rule of the house");
    let residual = DESIGN.replace("design_choice", "residual").replace("forbid", "permit");
    check_text(PackOwner::Alliance, &cite(&residual), "", "`@law` does not belong on the residual rule");
    check_law("@status", "@directive(\"Decision 1\")\n@status", "`@directive` does not belong on a rule of law");
}

#[test]
fn one_residual_that_permits() {
    let residual =
        r#"@id("BX-00") @title("the rest") @design("because") @status("residual") permit (principal, action, resource);"#;
    assert_eq!(load(PackOwner::Alliance, &format!("{DESIGN}{residual}"), ""), Ok(2));
    let twice = format!("{residual}\n{}", residual.replace("BX-00", "BX-09"));
    check_text(
        PackOwner::Alliance,
        &twice,
        "",
        "law, line 2: rule `BX-09`: the pack has another rule with the status residual, `BX-00`",
    );
    check_text(
        PackOwner::Alliance,
        &residual.replace("permit", "forbid"),
        "",
        "a rule with the status residual must permit",
    );
}

#[test]
fn dates_that_the_condition_does_not_keep() {
    check_law(
        "@from(\"2020-09-18\")",
        "@from(\"2020-09-19\")",
        "rule `BR-31`: the condition must say `context.time >= datetime(\"2020-09-19\")`",
    );
    check_law("context.time >= ", "context.time > ", "the condition must say");
    check_law(
        "context.time >= datetime(\"2020-09-18\") &&",
        "context.time >= datetime(\"2020-09-18\") ||",
        "the condition must say",
    );
    check_law("@from(\"2020-09-18\")", "@from(\"18.09.2020\")", "`18.09.2020` in `@from` is not a date such as 2025-07-01");
    check_law("@from(\"2020-09-18\")", "@from(\"2020-09-18T00:00:00\")", "is not a date");
    check_law("@from(\"2020-09-18\")\n", "", "`@from` is missing");
    check_law("@status", "@until(\"2020-09-17\")\n@status", "`@until` is before `@from`");
    check_law("@status", "@until(\"2027-05-12\")\n@status", "must say `context.time < datetime(\"2027-05-13\")`");
    let until = LAW
        .replace("@status", "@until(\"2027-05-12\")\n@status")
        .replace("when { ", "when { context.time < datetime(\"2027-05-13\") && ");
    assert_eq!(load(brazil(), &until, ""), Ok(1));
}

#[test]
fn remedies_that_the_condition_does_not_keep() {
    check_law(
        "scc_br | bcr + regulator_approval",
        "scc_br",
        "`unless` is satisfied by `scc_br | bcr + regulator_approval`, but `@satisfied_by` says `scc_br`",
    );
    check_law("scc_br | bcr + regulator_approval", "scc_br | bcr", "but `@satisfied_by` says `scc_br | bcr`");
    check_law("@satisfied_by(\"scc_br | bcr + regulator_approval\")\n", "", "needs both `unless` and `@satisfied_by`");
    check_law(
        "context.safeguards.contains(Safeguard::\"scc_br\")",
        "context.to.state_controlled",
        "`unless` may only name safeguards",
    );
    check_law(
        "context.safeguards.contains(Safeguard::\"scc_br\")",
        "!context.safeguards.contains(Safeguard::\"scc_br\")",
        "`unless` may only name safeguards",
    );
    check_law("forbid", "permit", "`@satisfied_by` does not belong on a rule that permits");
}

#[test]
fn texts_that_are_too_much() {
    let long = format!("// {}\n", "x".repeat(LAW_PACK_BYTES_MAX));
    check_text(brazil(), &long, "", "at most 196608 are read");
    let comments = LAW.replace("when {", &format!("// \"{}\n when {{", "y".repeat(4096)));
    assert_eq!(load(brazil(), &comments, ""), Ok(1), "comments and strings are no code");
    let many: String = (0..513).map(|n| HOUSE.replace("HOUSE-01", &format!("HOUSE-{n:04}"))).collect();
    check_text(PackOwner::House, &many, "", "more than 512 rules");
}

/// Text that nests as deep as it is long must be refused, not exhaust the stack.
#[test]
fn texts_that_nest_too_deep() {
    let condition = |condition: &str| LAW.replace("context.labels.contains(Label::\"personal\")", condition);
    for (open, core, close) in [
        ("(", "true", ")"),
        ("!", "true", ""),
        ("", "true", " && true"),
        ("", "true", " || false"),
        ("", "1", " + 1"),
        ("-", "1", ""),
        ("", "context", ".from"),
        ("[", "1", "]"),
        ("{a:", "1", "}"),
        ("if true then ", "true", " else true"),
    ] {
        for times in [40, 150, 400, 1000, 40_000] {
            let deep = format!("{}{core}{}", open.repeat(times), close.repeat(times));
            let loaded = load(brazil(), &condition(&deep), "");
            assert!(loaded.is_err() || times <= 150, "{open}{core}{close} {times} times");
        }
    }
}
