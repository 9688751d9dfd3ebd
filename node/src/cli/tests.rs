//! The grammar of the command line; nothing is run.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("alliance").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_manual_parses() {
    let key = "0a".repeat(32);
    let table = [
        "init".to_owned(),
        "init --charter c --accreditation a --bootstrap /ip4/192.0.2.7/udp/4340/quic-v1".to_owned(),
        "--home h init --mesh-listen /ip4/127.0.0.1/udp/0/quic-v1 --bulk-listen 127.0.0.1:0".to_owned(),
        "status -o json".to_owned(),
        "-o table peers".to_owned(),
        "model import d --name usp/x --labels public,non_personal --artefact adapter --origin BR --subjects BR,IN"
            .to_owned(),
        "model import d --name usp/x".to_owned(),
        "model import d --name usp/x --no-card --labels public".to_owned(),
        "model export usp/x --to d".to_owned(),
        "model verify usp/x".to_owned(),
        "offer publish usp/x --purposes research,evaluation --to IN,ZA --ttl 30d".to_owned(),
        "offer publish usp/x --compute --accelerator H200 --count 8 --memory-mib 143771 --hours 72".to_owned(),
        "offer withdraw abc --reason sold".to_owned(),
        "pull usp/x --purpose evaluation --use fine_tuning --safeguard a --safeguard b --to d".to_owned(),
        "policy check --from BR --to IN --artefact weights --labels public --purpose research".to_owned(),
        "policy explain --from BR --to IN --artefact weights --labels personal --purpose commercial --use training \
         --subjects BR --safeguards tia@BR,scc_br@BR --exporter-roles controller --recipient-roles university \
         --state-controlled --at 2027-01-01 --pack BR=br.cedar"
            .to_owned(),
        "policy lint f --member BR --directives d".to_owned(),
        "policy lint house.cedar --house".to_owned(),
        "crossing list".to_owned(),
        "crossing show ab".to_owned(),
        "ledger list --last 5 --crossing ab --kind cleared".to_owned(),
        "ledger show 0".to_owned(),
        "ledger verify".to_owned(),
        "authority init --member BR --name ANPD --officers 3 --threshold 2 --dir d".to_owned(),
        format!("authority accredit --dir d --node {key} --organisation usp --days 30 --charter c --out o -o json"),
        format!("authority revoke --dir d --node {key}"),
        format!(
            "authority issue-safeguard --dir d --kind tia --from BR --to IN --labels personal --recipient {key} \
             --reference r --charter c --out o"
        ),
        "authority publish --dir d --charter c --status-hours 2 --node-home a --node-home b --out o".to_owned(),
        "authority publish --dir d --charter c --grace 5m".to_owned(),
        "authority publish --dir d --charter c --grace 0".to_owned(),
        "charter new --name N --member BR=a --member IN=b --threshold 2 --out o".to_owned(),
        "charter sign f --dir d".to_owned(),
        "charter show f".to_owned(),
        "completions bash".to_owned(),
        "manpage".to_owned(),
    ];
    for line in table {
        if let Err(error) = parse(&line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_does_not_parse() {
    for line in [
        "",
        "frobnicate",
        "status -o xml",
        "model import d --name usp --labels public",
        "model import d",
        "model import d --name usp/x --labels persnal",
        "model import d --name usp/x --labels=",
        "model export usp/x",
        "offer publish usp/x --ttl forever",
        "offer publish usp/x --compute --accelerator H200",
        "offer publish usp/x --count 8",
        "pull usp/x --purpose fun",
        "policy check --from UK --to IN --artefact weights --labels public --purpose research",
        "policy check --from BR --to IN --artefact weights --purpose research",
        "authority accredit --dir d --node 00 --organisation usp --charter c --out o",
        "authority publish --dir d --charter c --status-hours 0",
        "charter new --name N --member BR --out o",
        "init --mesh-listen 127.0.0.1:4340",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn an_unknown_word_is_answered_with_the_known_ones() {
    let error = parse("pull usp/x --purpose fun").expect_err("no such purpose").to_string();
    assert!(error.contains("known are: research"), "{error}");
}

#[test]
fn every_command_has_help_and_an_example() {
    fn look(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} says nothing about itself");
        let leaf = command.get_subcommands().next().is_none();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(!leaf || help.contains("Example"), "{path} has no example");
        for argument in command.get_arguments() {
            let known = argument.is_positional() || argument.get_help().is_some();
            assert!(known, "{path} --{} is not explained", argument.get_id());
        }
        command.get_subcommands().for_each(|inner| look(inner, &path));
    }
    look(&Cli::command(), "");
}

#[test]
fn the_wish_for_json_is_seen_before_parsing() {
    let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
    for line in ["alliance -o json x", "alliance x --output json", "alliance -ojson", "alliance x --output=json"] {
        assert!(wants_json(&words(line)), "{line}");
    }
    for line in ["alliance x", "alliance -o table json", "alliance json -o"] {
        assert!(!wants_json(&words(line)), "{line}");
    }
}
