#!/usr/bin/env python3
"""Generates the conformance vectors of the law packs.

This is a second implementation of the packs, written from the law and not from the Cedar text, so that a mistake in
either shows. It shares no code and no table with the first.

    generate.py             writes specs/vectors/policy/*.json
    generate.py --check     fails where the files are not what would be written
    generate.py --mutants   breaks every rule in every way it knows and fails where no vector notices
"""

import copy
import dataclasses
import functools
import json
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

OUT = Path(__file__).resolve().parents[3] / "specs" / "vectors" / "policy"

# --- Words ------------------------------------------------------------------------------------------------------------

LABELS = """public non_personal aggregated dp synthetic anonymised personal pseudonymised unique_id juristic_person comms
payment financial insurance sensitive health biometric aadhaar_biometric genetic criminal child gov restricted important
core et_critical cii state_secret geo_precise hgr company_books commercial_secret controlled_tech
cn_catalogue_tech""".split()
ARTEFACTS = """dataset dataset_sample weights adapter optimizer_state gradient update activation kv_cache embedding prompt
output eval_result code training_recipe manifest""".split()
PURPOSES = """research statistical evaluation commercial public_service health_emergency judicial law_enforcement
national_security military""".split()
USES = "training fine_tuning inference aggregation record_linkage storage remote_access".split()
ROLES = """controller processor ciio state_organ public_eso private_eso sdf payment_system_operator
central_bank_supervised significant_kii affiliate university state_owned foreign_state foreign_judicial
foreign_law_enforcement military""".split()
CIRCUMSTANCES = """collection ru_unified_biometric ru_state_deidentified in_sdf_specified outbound_investment
national_security_sensitive public_audience""".split()
ZONES = ["none", "AE-DIFC", "AE-ADGM"]
# All but waiting_period_elapsed, for which there is no token.
KINDS = """adequacy adequacy_self_assessed treaty scc_br scc_sa scc_difc scc_adgm standard_contract_filed
binding_agreement contract_clauses bcr certification security_assessment regulator_notification regulator_approval
regulator_licence prior_authorisation hgr_filing export_licence tech_export_licence odi_authorisation
explicit_consent_transfer separate_consent written_consent contract_with_subject legal_claim vital_interest
public_interest judicial_cooperation pipia tia risk_assessment minimisation local_copy delete_24h md51_exception
elr_programme explicit_consent art11_basis art6_1_p2_3_4_8 bcr_approved specific_clauses_approved treaty_cooperation
binding_safeguards code_of_conduct committee_decision competent_sector_approval derogation foreign_leg
gov_order_compliance ndmo_public ns_review_clearance public_authority_mandate public_register regulator_authorisation
same_level_undertaking sector_approval similar_law statutory_exception subject_benefit hr_management
ftz_off_negative_list money_transfer""".split()
MEMBERS = "BR RU IN CN ZA EG ET IR AE ID SA".split()
OTHERS = "CH GB US".split()
ACTIONS = ["export", "import", "concern"]

PERSONAL = """personal pseudonymised unique_id comms sensitive health biometric aadhaar_biometric genetic criminal
child""".split()
EEA = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK".split()

# --- Conditions -------------------------------------------------------------------------------------------------------

# A condition is ("in", field, words), ("ge", field, number), ("ban",), ("state_controlled",), ("no_subjects",),
# ("time", day), ("not", condition), ("all", conditions) or ("any", conditions). "in" holds where the value is one of the
# words or, of a set, where it has one of them.


def has(name, *words):
    return ("in", name, tuple(words))


def no(condition):
    return ("not", condition)


def any_of(*conditions):
    return ("any", conditions)


def all_of(*conditions):
    return ("all", conditions)


def labels(*words):
    return has("labels", *words)


def sees(*kinds):
    return has("safeguards", *kinds)


def abroad(country):
    return no(has("to.country", country))


BAN, STATE_CONTROLLED, NO_SUBJECTS = ("ban",), ("state_controlled",), ("no_subjects",)


@dataclass(frozen=True)
class Rule:
    id: str
    effect: str
    actions: tuple
    since: str | None
    when: tuple
    satisfied_by: tuple = ()
    obligations: tuple = ()
    until: str | None = None
    mutual: bool = False
    waits: int | None = None
    days_off: tuple = ()
    valid_for: tuple = ()
    # Crossings in which the rule speaks, as changes of the defaults. Chosen by hand.
    scenes: tuple = field(default=(), compare=False)


def ways(text):
    return tuple(tuple(way.split(" + ")) for way in text.split(" | ")) if text else ()


def rule(effect, id, actions, since, *when, by="", duties="", scenes=(), **more):
    return Rule(
        id, effect, tuple(actions.split()), since, tuple(when), ways(by), tuple(duties.split()), scenes=tuple(scenes),
        **more,
    )


def forbid(*args, **more):
    return rule("forbid", *args, **more)


def permit(*args, **more):
    return rule("permit", *args, **more)


def residual(id):
    return rule("residual", id, "export import concern", None)


def scene(action="export", at="2026-11-23T00:00:00Z", bare=False, **changes):
    """The names of changes are those of facts; `to_country` and the like reach into an end, and `use_` is `use`.

    All that can be varied is varied in the first scene of a rule, less in the others, and in a bare one nothing.
    """
    return {"action": action, "at": at, "changes": changes, "bare": bare}


PD = scene(labels=["personal"])
LATER = "2027-06-01T00:00:00Z"

# --- Packs ------------------------------------------------------------------------------------------------------------

BR_GROUNDS = (
    "scc_br | specific_clauses_approved | bcr_approved | certification | explicit_consent_transfer | "
    "treaty_cooperation | vital_interest | regulator_authorisation | contract_with_subject"
)
BR = [
    residual("BR-00"),
    forbid(
        "BR-01", "export", "2020-09-18", abroad("BR"), labels(*PERSONAL),
        no(all_of(("time", "2026-01-27"), has("to.country", *EEA))), by=BR_GROUNDS,
        duties="record_ground record_legal_basis transparency_page",
        scenes=[PD, scene(labels=["personal"], to_country="DE", at="2026-01-26T23:59:59Z")],
    ),
    permit(
        "BR-02", "export", "2026-01-27", has("to.country", *EEA), labels(*PERSONAL), duties="transparency_page",
        scenes=[scene(labels=["personal"], to_country="FR")],
    ),
    permit(
        "BR-03", "export", "2024-08-23", abroad("BR"), labels(*PERSONAL), sees("scc_br"),
        duties="scc_br_hash_on_file publish_transfer_info_on_website give_full_clauses_on_request "
        "no_conflicting_contract_terms", scenes=[PD],
    ),
    forbid(
        "BR-04", "export", "2024-08-23", abroad("BR"), labels(*PERSONAL), no(has("to.country", *EEA)),
        sees("bcr", "contract_clauses"), by="regulator_approval | " + BR_GROUNDS, duties="anpd_approval_id",
        scenes=[PD],
    ),
    permit(
        "BR-05", "export", "2020-09-18", abroad("BR"), labels(*PERSONAL), sees("explicit_consent_transfer"),
        duties="consent_record revocation_channel", scenes=[PD],
    ),
    forbid(
        "BR-06", "export", "2020-09-18", labels("sensitive", "health", "biometric", "genetic"), by="art11_basis",
        duties="art11_basis", scenes=[scene(labels=["health"]), scene(labels=["genetic"], to_country="BR")],
    ),
    forbid(
        "BR-06b", "export", "2020-09-18", labels("health"), has("purpose", "commercial"), by="statutory_exception",
        scenes=[scene(labels=["health"], purpose="commercial")],
    ),
    permit(
        "BR-07", "export", "2020-09-18", labels("anonymised"), no(labels(*PERSONAL)),
        duties="require(anonymisation_evidence)", scenes=[scene(labels=["anonymised"])],
    ),
    forbid(
        "BR-09", "export", "2025-10-07", abroad("BR"), labels("state_secret"),
        duties="accredited_operator state_crypto independent_log_audit", scenes=[scene(labels=["state_secret"])],
    ),
    forbid(
        "BR-10", "export", "2020-09-18", has("purpose", "national_security", "military", "law_enforcement"),
        by="public_authority_mandate", duties="public_authority_mandate", scenes=[scene(purpose="law_enforcement")],
    ),
]

RU_ADEQUATE = ["CN", "IN", "BR", "ZA"]
RU_DAYS_OFF = [f"01-0{day}" for day in range(1, 9)] + ["02-23", "03-08", "05-01", "05-09", "06-12", "11-04"]
CONCERN_ABROAD = {"action": "concern", "labels": ["personal"], "subjects": ["RU"]}
RU = [
    residual("RU-00"),
    forbid(
        "RU-01", "concern", "2025-07-01", labels(*PERSONAL), abroad("RU"),
        any_of(no(has("from.country", "RU")), has("circumstances", "collection")), by="art6_1_p2_3_4_8",
        duties="primary_db_in_RU same_data_updated_in_RU_first",
        scenes=[
            scene(**CONCERN_ABROAD, from_country="IN"),
            scene(**CONCERN_ABROAD, circumstances=["collection"]),
            scene(**CONCERN_ABROAD, from_country="IN", circumstances=["collection"]),
        ],
    ),
    forbid(
        "RU-02", "export", "2023-03-01", abroad("RU"), labels(*PERSONAL), by="regulator_notification + tia",
        duties="rkn_notification_id recipient_assessment separate_from_art22_notice", scenes=[PD],
    ),
    permit(
        "RU-03", "export", "2023-03-01", has("to.country", *RU_ADEQUATE), labels(*PERSONAL),
        sees("regulator_notification"), duties="rkn_notification_id", scenes=[scene(labels=["personal"])],
    ),
    forbid(
        "RU-04", "export", "2023-03-01", abroad("RU"), no(has("to.country", *RU_ADEQUATE)), labels(*PERSONAL),
        by="regulator_notification + waiting_period_elapsed | vital_interest", duties="wait_10_working_days", waits=10,
        days_off=tuple(RU_DAYS_OFF), scenes=[scene(labels=["personal"], to_country="AE")],
    ),
    forbid(
        "RU-05", "export concern", "2023-03-01", labels(*PERSONAL), abroad("RU"), BAN,
        duties="on_ban_stop on_ban_demand_destruction",
        scenes=[
            scene(labels=["personal"], bans=["RU"]),
            scene("concern", labels=["personal"], bans=["RU"], subjects=["RU"], from_country="IN"),
        ],
    ),
    forbid(
        "RU-06", "export", "2007-01-26", labels("sensitive", "health", "biometric"),
        by="written_consent | statutory_exception", duties="written_consent",
        scenes=[scene(labels=["health"]), scene(labels=["biometric"], to_country="RU")],
    ),
    forbid(
        "RU-07", "export", "2022-12-29", abroad("RU"), labels("biometric"),
        has("circumstances", "ru_unified_biometric"),
        scenes=[scene(labels=["biometric"], circumstances=["ru_unified_biometric"])],
    ),
    forbid(
        "RU-08", "export", "2025-09-01", has("circumstances", "ru_state_deidentified"),
        any_of(abroad("RU"), no(has("to.controlled_by", "RU"))),
        scenes=[
            scene(circumstances=["ru_state_deidentified"]),
            scene(circumstances=["ru_state_deidentified"], to_controlled_by="RU"),
            scene(circumstances=["ru_state_deidentified"], to_country="RU", to_controlled_by="CN"),
        ],
    ),
    forbid(
        "RU-09", "export", "2025-09-01", abroad("RU"), labels("anonymised", "pseudonymised"),
        by="regulator_notification + tia", duties="treat_as_personal", scenes=[scene(labels=["anonymised"])],
    ),
    forbid("RU-10", "export", "2015-07-01", abroad("RU"), labels("gov"), scenes=[scene(labels=["gov"])]),
    forbid(
        "RU-11", "export", "2026-03-01", any_of(abroad("RU"), no(has("to.controlled_by", "RU"))),
        has("artefact", "prompt", "dataset", "dataset_sample", "update", "adapter"), labels("gov", "restricted"),
        duties="attested_system",
        scenes=[
            scene(artefact="prompt", labels=["restricted"], to_controlled_by="RU"),
            scene(artefact="adapter", labels=["restricted"], to_country="RU", to_controlled_by="CN"),
        ],
    ),
    forbid("RU-12", "export", "2025-09-01", abroad("RU"), labels("cii"), scenes=[scene(labels=["cii"])]),
    forbid(
        "RU-12b", "import", "2025-09-01", has("to.roles", "significant_kii"), no(has("origin", "RU")),
        has("artefact", "weights", "adapter", "code"), duties="registry_id",
        scenes=[scene("import", from_country="CN", to_country="RU", to_roles=["significant_kii"], origin="CN")],
    ),
    permit(
        "RU-13", "export", "2021-01-28", abroad("RU"), sees("elr_programme"),
        duties="civil_liability_insurance register_of_ai_results", scenes=[scene()],
    ),
    forbid(
        "RU-14", "export", "1993-09-21", abroad("RU"), labels("state_secret"),
        scenes=[scene(labels=["state_secret"])],
    ),
    forbid(
        "RU-15", "export", "2022-07-19", abroad("RU"), labels("controlled_tech"), by="export_licence",
        duties="identification_conclusion export_licence", scenes=[scene(labels=["controlled_tech"])],
    ),
]

DPDP = "2027-05-13"
PD_LATER = scene(labels=["personal"], at=LATER)
IN_TRANSIENT = ["prompt", "activation", "kv_cache"]
IN = [
    residual("IN-00"),
    forbid(
        "IN-01", "export", DPDP, abroad("IN"), labels(*PERSONAL), BAN,
        scenes=[scene(labels=["personal"], bans=["IN"], at=LATER)],
    ),
    permit("IN-02", "export", DPDP, abroad("IN"), labels(*PERSONAL), duties="apply_strictest", scenes=[PD_LATER]),
    forbid(
        "IN-03", "export", DPDP, abroad("IN"), labels(*PERSONAL),
        any_of(STATE_CONTROLLED, has("to.roles", "state_organ", "state_owned", "foreign_state")),
        by="gov_order_compliance", duties="recipient_state_control_declaration gov_order_compliance",
        scenes=[
            scene(labels=["personal"], to_state_controlled=True, at=LATER),
            scene(labels=["personal"], to_roles=["state_owned"], at=LATER),
        ],
    ),
    forbid(
        "IN-04", "export", DPDP, abroad("IN"), labels(*PERSONAL), has("from.roles", "sdf"),
        has("circumstances", "in_sdf_specified"), duties="algorithmic_due_diligence annual_dpia_audit",
        scenes=[scene(labels=["personal"], from_roles=["sdf"], circumstances=["in_sdf_specified"], at=LATER)],
    ),
    forbid(
        "IN-05", "export", "2018-10-15", abroad("IN"), labels("payment"), has("artefact", *IN_TRANSIENT),
        by="delete_24h | foreign_leg", duties="delete_within(24h) return_to_IN",
        scenes=[scene(labels=["payment"], artefact="prompt")],
    ),
    forbid(
        "IN-05b", "export", "2018-10-15", abroad("IN"), labels("payment"), no(has("artefact", *IN_TRANSIENT)),
        by="foreign_leg", scenes=[scene(labels=["payment"], artefact="dataset")],
    ),
    forbid(
        "IN-06", "export", "2011-04-11", abroad("IN"), no(has("from.roles", "state_organ")),
        labels("health", "biometric", "financial"), until="2027-05-12",
        by="same_level_undertaking + explicit_consent_transfer | same_level_undertaking + contract_with_subject",
        duties="same_level_undertaking consent_or_contract", scenes=[scene(labels=["financial"])],
    ),
    forbid(
        "IN-07", "export import concern", "2016-09-12", labels("aadhaar_biometric"),
        scenes=[
            scene(labels=["aadhaar_biometric"]),
            scene("import", labels=["aadhaar_biometric"], from_country="BR", to_country="IN"),
            scene("concern", labels=["aadhaar_biometric"], from_country="BR", to_country="CN", subjects=["IN"]),
        ],
    ),
    permit(
        "IN-08", "export import", "2022-06-28", duties="logs_180d_in_IN incident_report_6h",
        scenes=[scene(), scene("import", from_country="BR", to_country="IN", origin="BR")],
    ),
    forbid(
        "IN-09", "export", "2021-02-15", abroad("IN"), has("origin", "IN"), labels("geo_precise"),
        scenes=[scene(labels=["geo_precise"])],
    ),
    forbid(
        "IN-10", "export", "2015-08-05", abroad("IN"), labels("insurance", "company_books"), by="local_copy",
        duties="india_copy", scenes=[scene(labels=["insurance"])],
    ),
    permit(
        "IN-11", "export", DPDP, abroad("IN"), labels(*PERSONAL), has("purpose", "research", "statistical"),
        duties="second_schedule_standards", scenes=[PD_LATER],
    ),
    permit(
        "IN-12", "import", "2026-02-20", has("artefact", "output"), has("circumstances", "public_audience"),
        duties="require(ai_label) provenance_metadata",
        scenes=[
            scene(
                "import", artefact="output", circumstances=["public_audience"], from_country="BR", to_country="IN",
                origin="BR",
            )
        ],
    ),
    forbid(
        "IN-14", "export", "2005-06-06", abroad("IN"), labels("controlled_tech"), by="export_licence",
        duties="export_licence", scenes=[scene(labels=["controlled_tech"])],
    ),
    forbid(
        "IN-15", "export", "1923-04-02", abroad("IN"), labels("state_secret"), scenes=[scene(labels=["state_secret"])]
    ),
    forbid(
        "IN-D01", "import", None, has("purpose", "national_security"), no(has("origin", "IN")),
        scenes=[scene("import", purpose="national_security", from_country="BR", to_country="IN", origin="BR")],
    ),
]

CN_FOREIGN = all_of(no(has("origin", "CN")), no(NO_SUBJECTS), no(has("subjects", "CN")))
CN_ABROAD_PEOPLE = {"labels": ["personal"], "origin": "BR", "subjects": ["BR"]}
CN_EXEMPT = "contract_with_subject | vital_interest | hr_management | ftz_off_negative_list"
ASSESSED = (("security_assessment", 3),)
MANY = {"people": 1_000_000, "sensitive_people": 0}
SOME = {"people": 100_000, "sensitive_people": 0}
NOT_CIIO = no(has("from.roles", "ciio"))
CN_SECRETS = ["controlled_tech", "cn_catalogue_tech", "restricted", "important", "commercial_secret"]
CN_BACK = {"from_country": "BR", "to_country": "CN", "origin": "BR", "circumstances": ["public_audience"]}


def foreign_scenes(**more):
    """Where the data was made against whose it is, in all combinations."""
    return [
        scene(labels=["personal"], origin=origin, subjects=subjects, bare=True, **more)
        for origin in ("CN", "BR") for subjects in ([], ["CN"], ["BR"], ["BR", "CN"])
    ]


CN = [
    residual("CN-00"),
    forbid(
        "CN-01", "export", "2017-06-01", abroad("CN"), has("from.roles", "ciio"), labels(*PERSONAL, "important"),
        by="security_assessment", duties="security_assessment_id", valid_for=ASSESSED,
        scenes=[scene(labels=["personal"], from_roles=["ciio"])],
    ),
    forbid(
        "CN-02", "export", "2024-03-22", abroad("CN"), labels("important"), by="security_assessment",
        duties="security_assessment_id important_data_check_log", valid_for=ASSESSED,
        scenes=[scene(labels=["important"])],
    ),
    forbid(
        "CN-03", "export", "2024-03-22", abroad("CN"), NOT_CIIO, labels(*PERSONAL), no(CN_FOREIGN),
        any_of(("ge", "people", 1_000_000), ("ge", "sensitive_people", 10_000)),
        by="security_assessment | " + CN_EXEMPT,
        duties="security_assessment_id cumulative_counter no_quantity_splitting", valid_for=ASSESSED,
        scenes=[
            scene(labels=["personal"], volume=MANY),
            scene(labels=["personal"], volume={"people": 0, "sensitive_people": 10_000}),
            *foreign_scenes(volume=MANY),
        ],
    ),
    forbid(
        "CN-04", "export", "2024-03-22", abroad("CN"), NOT_CIIO, labels(*PERSONAL), no(CN_FOREIGN),
        any_of(("ge", "people", 100_000), ("ge", "sensitive_people", 1)),
        by="standard_contract_filed | certification | security_assessment | " + CN_EXEMPT,
        duties="standard_contract_filing_id_or_certificate_id pipia_on_file no_quantity_splitting",
        valid_for=(("security_assessment", 3), ("certification", 3)),
        scenes=[
            scene(labels=["personal"], volume=SOME),
            scene(labels=["personal"], volume={"people": 0, "sensitive_people": 1}),
            *foreign_scenes(volume=SOME),
        ],
    ),
    permit(
        "CN-05", "export", "2024-03-22", abroad("CN"), NOT_CIIO, labels(*PERSONAL), no(("ge", "people", 100_000)),
        no(("ge", "sensitive_people", 1)), no(labels("important")), duties="notice pipia_on_file cumulative_counter",
        scenes=[scene(labels=["personal"]), *foreign_scenes()],
    ),
    permit(
        "CN-06", "export", "2024-03-22", abroad("CN"), labels(*PERSONAL), no(labels("important")),
        any_of(sees("contract_with_subject", "vital_interest", "hr_management", "ftz_off_negative_list"), CN_FOREIGN),
        duties="scenario_evidence",
        scenes=[scene(labels=["personal"]), scene(**CN_ABROAD_PEOPLE), *foreign_scenes()],
    ),
    permit(
        "CN-07", "export", "2021-11-01", abroad("CN"), labels(*PERSONAL),
        duties="notice separate_consent pipia_on_file", scenes=[scene(labels=["personal"], volume=SOME)],
    ),
    forbid(
        "CN-08", "export", "2021-11-01", abroad("CN"), has("from.roles", "state_organ"), labels(*PERSONAL),
        by="security_assessment", duties="security_assessment_id", valid_for=ASSESSED,
        scenes=[scene(labels=["personal"], from_roles=["state_organ"])],
    ),
    forbid(
        "CN-09", "export", "2021-09-01", abroad("CN"),
        any_of(
            has("to.roles", "foreign_judicial", "foreign_law_enforcement"),
            has("purpose", "judicial", "law_enforcement"),
        ),
        by="regulator_approval", duties="competent_authority_approval",
        scenes=[scene(to_roles=["foreign_judicial"]), scene(purpose="judicial")],
    ),
    forbid(
        "CN-10", "export", "2024-05-01", abroad("CN"), labels("core", "state_secret"), scenes=[scene(labels=["core"])]
    ),
    forbid(
        "CN-11", "export", "2024-12-01", abroad("CN"), labels("controlled_tech"), by="export_licence",
        duties="export_licence end_user_certificate", scenes=[scene(labels=["controlled_tech"])],
    ),
    forbid(
        "CN-12", "export", "2023-12-21", abroad("CN"), has("origin", "CN"),
        has("artefact", "weights", "adapter", "code", "training_recipe"), labels("cn_catalogue_tech"),
        by="tech_export_licence", duties="catalogue_check tech_export_licence_or_contract_registration",
        scenes=[scene(labels=["cn_catalogue_tech"])],
    ),
    forbid(
        "CN-13", "export", "2026-07-01", abroad("CN"), has("circumstances", "outbound_investment"),
        labels(*CN_SECRETS), by="odi_authorisation", duties="odi_authorisation",
        scenes=[scene(labels=["commercial_secret"], circumstances=["outbound_investment"])],
    ),
    forbid(
        "CN-14", "export", "2023-07-01", any_of(abroad("CN"), no(has("to.controlled_by", "CN"))), labels("hgr"),
        by="hgr_filing", duties="hgr_filing_id security_review_if_listed",
        scenes=[
            scene(labels=["hgr"], to_controlled_by="CN"),
            scene(labels=["hgr"], to_country="CN", to_controlled_by="BR"),
        ],
    ),
    permit(
        "CN-15", "import", "2023-08-15", has("artefact", "weights", "adapter"),
        has("circumstances", "public_audience"), duties="algorithm_filing_id training_data_provenance",
        scenes=[scene("import", **CN_BACK)],
    ),
    permit(
        "CN-16", "import", "2025-09-01", has("artefact", "output"), has("circumstances", "public_audience"),
        duties="require(ai_label) implicit_metadata", scenes=[scene("import", artefact="output", **CN_BACK)],
    ),
    permit(
        "CN-18", "export", "2021-11-01", labels("anonymised"), no(labels(*PERSONAL, "important")),
        duties="require(anonymisation_evidence)", scenes=[scene(labels=["anonymised"])],
    ),
    forbid(
        "CN-20", "export", "2025-01-01", abroad("CN"),
        any_of(
            has("purpose", "national_security", "military"), has("circumstances", "national_security_sensitive")
        ),
        by="ns_review_clearance", duties="ns_review_clearance",
        scenes=[scene(purpose="military"), scene(circumstances=["national_security_sensitive"])],
    ),
]

ZA_PERSONAL = [*PERSONAL, "juristic_person"]
ZA = [
    residual("ZA-00"),
    forbid(
        "ZA-01", "export", "2021-07-01", abroad("ZA"), labels(*ZA_PERSONAL),
        by="similar_law | bcr | binding_agreement | explicit_consent_transfer | contract_with_subject | "
        "subject_benefit", duties="s72_ground_record onward_transfer_clause", scenes=[PD],
    ),
    forbid(
        "ZA-02", "export", "2022-02-01", abroad("ZA"), labels("sensitive", "health", "biometric", "child"),
        by="prior_authorisation | code_of_conduct | adequacy_self_assessed", duties="prior_authorisation_id",
        scenes=[scene(labels=["health"])],
    ),
    forbid(
        "ZA-03", "export", "2022-02-01", has("use", "record_linkage"), labels("unique_id"), by="prior_authorisation",
        duties="prior_authorisation_id",
        scenes=[
            scene(labels=["unique_id"], use_="record_linkage"),
            scene(labels=["unique_id"], use_="record_linkage", to_country="ZA"),
        ],
    ),
    permit(
        "ZA-04", "export", "2021-07-01", labels("juristic_person"), duties="label_juristic_person",
        scenes=[scene(labels=["juristic_person"])],
    ),
    permit(
        "ZA-05", "export", "2021-07-01", labels("anonymised"), no(labels(*ZA_PERSONAL)),
        duties="require(anonymisation_evidence)", scenes=[scene(labels=["anonymised"])],
    ),
    forbid(
        "ZA-08", "export", "1993-07-05", abroad("ZA"), labels("controlled_tech"), by="export_licence",
        duties="export_licence", scenes=[scene(labels=["controlled_tech"])],
    ),
    forbid(
        "ZA-D01", "export", None, abroad("ZA"), has("origin", "ZA"), labels("gov"), duties="za_hosting_for_gov",
        scenes=[scene(labels=["gov"])],
    ),
]

EG_PERSONAL = [*PERSONAL, "financial"]
EG_CASES = "vital_interest legal_claim contract_with_subject judicial_cooperation public_interest money_transfer treaty"
EG_FROM = "2025-11-02"
EG = [
    residual("EG-00"),
    forbid(
        "EG-01", "export", EG_FROM, abroad("EG"), labels(*EG_PERSONAL),
        by=" | ".join(
            ["adequacy + regulator_licence", *(f"explicit_consent_transfer + {case}" for case in EG_CASES.split())]
        ), duties="pdpc_permit_id", scenes=[PD],
    ),
    permit(
        "EG-02", "export", EG_FROM, abroad("EG"), labels(*EG_PERSONAL), sees("explicit_consent_transfer"),
        sees(*EG_CASES.split()), duties="explicit_consent_transfer case_evidence", scenes=[PD],
    ),
    forbid(
        "EG-03", "export", EG_FROM, abroad("EG"), labels(*EG_PERSONAL), has("use", "remote_access"),
        by="regulator_licence", duties="pdpc_permit_id", scenes=[scene(labels=["personal"], use_="remote_access")],
    ),
    forbid(
        "EG-04", "export", EG_FROM, abroad("EG"),
        labels("sensitive", "health", "biometric", "genetic", "financial", "child"),
        by="written_consent + regulator_licence", duties="written_consent pdpc_permit_id",
        scenes=[scene(labels=["health"])],
    ),
    forbid(
        "EG-05", "export", EG_FROM, abroad("EG"), labels(*EG_PERSONAL),
        any_of(has("from.roles", "central_bank_supervised", "military"), has("purpose", "national_security")),
        by="sector_approval", duties="sector_regulator_approval",
        scenes=[
            scene(labels=["personal"], from_roles=["central_bank_supervised"]),
            scene(labels=["personal"], purpose="national_security"),
        ],
    ),
    permit(
        "EG-06", "export import", EG_FROM, labels(*EG_PERSONAL),
        duties="pdpc_controller_licence local_representative breach_72h",
        scenes=[PD, scene("import", labels=["personal"], from_country="BR", to_country="EG", origin="BR")],
    ),
]

ET_FROM = "2024-07-24"
ET = [
    residual("ET-00"),
    forbid(
        "ET-01", "export", ET_FROM, abroad("ET"), labels(*PERSONAL), has("origin", "ET"), by="local_copy",
        duties="primary_db_in_ET", scenes=[PD],
    ),
    forbid("ET-02", "export", ET_FROM, abroad("ET"), labels("et_critical"), scenes=[scene(labels=["et_critical"])]),
    forbid(
        "ET-03", "export", ET_FROM, abroad("ET"), labels("sensitive", "health", "biometric", "genetic"),
        by="regulator_approval", duties="eca_approval_id", scenes=[scene(labels=["health"])],
    ),
    forbid(
        "ET-04", "export", ET_FROM, abroad("ET"), labels(*PERSONAL),
        by="adequacy | explicit_consent_transfer | contract_with_subject | vital_interest | legal_claim | "
        "public_register", duties="ground_record", scenes=[PD],
    ),
    forbid(
        "ET-05", "export", ET_FROM, abroad("ET"), labels(*PERSONAL), BAN,
        scenes=[scene(labels=["personal"], bans=["ET"])],
    ),
    permit(
        "ET-06", "export import", ET_FROM, labels(*PERSONAL), duties="eca_registration breach_72h",
        scenes=[PD, scene("import", labels=["personal"], from_country="BR", to_country="ET", origin="BR")],
    ),
]

IR = [
    residual("IR-00"),
    forbid(
        "IR-02", "export", "2004-01-07", abroad("IR"), labels("sensitive", "health"), by="explicit_consent",
        duties="explicit_consent", scenes=[scene(labels=["health"])],
    ),
    forbid(
        "IR-03", "export", "2016-05-29", abroad("IR"), labels("comms"), by="local_copy", duties="ir_hosting",
        scenes=[scene(labels=["comms"])],
    ),
    forbid(
        "IR-04", "export", "2022-10-31", abroad("IR"), labels("gov"), has("origin", "IR"), by="regulator_approval",
        duties="competent_authority_decision", scenes=[scene(labels=["gov"])],
    ),
    forbid(
        "IR-06", "export", "1974-02-18", abroad("IR"), labels("state_secret"), scenes=[scene(labels=["state_secret"])]
    ),
]

ONSHORE = has("from.zone", "none")
AE = [
    residual("AE-00"),
    permit(
        "AE-01", "export", "2022-01-02", ONSHORE, abroad("AE"), labels(*PERSONAL), sees("adequacy"),
        duties="adequacy_record", scenes=[PD],
    ),
    forbid(
        "AE-02", "export", "2022-01-02", ONSHORE, abroad("AE"), labels(*PERSONAL),
        by="contract_clauses | explicit_consent_transfer | legal_claim | contract_with_subject | "
        "judicial_cooperation | public_interest | adequacy", duties="ground_record", scenes=[PD],
    ),
    forbid(
        "AE-03", "export", "2022-01-02", ONSHORE, abroad("AE"), labels("gov", "health", "financial"),
        by="sector_approval", duties="governing_law_record", scenes=[scene(labels=["financial"])],
    ),
    forbid(
        "AE-04", "export", "2019-05-06", abroad("AE"), labels("health"), by="md51_exception",
        duties="md51_exception_id conditions_evidence",
        scenes=[scene(labels=["health"]), scene(labels=["health"], from_zone="AE-ADGM")],
    ),
    forbid(
        "AE-05", "export", "2020-07-01", has("from.zone", "AE-DIFC"), no(has("to.zone", "AE-DIFC")),
        labels(*PERSONAL), by="adequacy | scc_difc | bcr | certification | derogation",
        duties="difc_scc_or_adequacy documented_assessment",
        scenes=[
            scene(labels=["personal"], from_zone="AE-DIFC"),
            scene(labels=["personal"], from_zone="AE-DIFC", to_country="AE"),
        ],
    ),
    forbid(
        "AE-06", "export", "2021-08-14", has("from.zone", "AE-ADGM"), no(has("to.zone", "AE-ADGM")),
        labels(*PERSONAL), by="adequacy | scc_adgm | bcr | derogation", duties="adgm_scc_or_adequacy",
        scenes=[
            scene(labels=["personal"], from_zone="AE-ADGM"),
            scene(labels=["personal"], from_zone="AE-ADGM", to_country="AE"),
        ],
    ),
    forbid(
        "AE-07", "export", "2021-12-01", abroad("AE"), labels("controlled_tech"), by="export_licence",
        duties="export_licence",
        scenes=[scene(labels=["controlled_tech"]), scene(labels=["controlled_tech"], from_zone="AE-DIFC")],
    ),
]

ID_PERSONAL = [*PERSONAL, "financial"]
ID = [
    residual("ID-00"),
    forbid(
        "ID-01", "export", "2022-10-17", abroad("ID"), labels(*ID_PERSONAL),
        by="adequacy | binding_safeguards | explicit_consent_transfer", duties="ladder_step_record", scenes=[PD],
    ),
    permit(
        "ID-02", "export", "2022-10-17", abroad("ID"),
        labels("health", "biometric", "genetic", "criminal", "child", "financial"), duties="dpia",
        scenes=[scene(labels=["health"])],
    ),
    forbid(
        "ID-03", "export", "2019-10-10", abroad("ID"), has("from.roles", "public_eso"), by="committee_decision",
        duties="committee_decision", scenes=[scene(from_roles=["public_eso"])],
    ),
    permit(
        "ID-04", "export", "2019-10-10", abroad("ID"), has("from.roles", "private_eso"),
        duties="authority_access_undertaking eso_registration", scenes=[scene(from_roles=["private_eso"])],
    ),
    permit(
        "ID-05", "export", "2018-12-01", abroad("ID"), labels(*ID_PERSONAL), duties="komdigi_report", scenes=[PD],
    ),
]

SA_SPECIAL = ["sensitive", "health", "biometric", "genetic"]
SA = [
    residual("SA-00"),
    forbid(
        "SA-01", "export", "2023-09-14", abroad("SA"), labels(*PERSONAL),
        by="adequacy + minimisation | scc_sa + risk_assessment | bcr + risk_assessment | "
        "certification + risk_assessment | vital_interest",
        duties="purpose_record minimisation_record national_security_statement", scenes=[PD],
    ),
    forbid(
        "SA-01b", "export", "2023-09-14", abroad("SA"), labels(*PERSONAL),
        has("purpose", "judicial", "law_enforcement", "national_security", "military"), by="treaty",
        scenes=[scene(labels=["personal"], purpose="judicial")],
    ),
    permit(
        "SA-02", "export", "2024-09-01", abroad("SA"), labels(*PERSONAL), sees("scc_sa", "bcr", "certification"),
        duties="scc_sa_or_bcr_or_certificate", scenes=[PD],
    ),
    permit(
        "SA-03", "export", "2024-09-01", abroad("SA"), labels(*SA_SPECIAL), duties="risk_assessment",
        scenes=[scene(labels=["genetic"], purpose="commercial")],
    ),
    forbid(
        "SA-04", "export", "2024-09-01", abroad("SA"), has("purpose", "research"), labels(*SA_SPECIAL),
        by="certification + minimisation", duties="certificate minimisation_record", scenes=[scene(labels=["health"])],
    ),
    forbid(
        "SA-05", "export", "2020-12-03", abroad("SA"), labels("gov"), by="ndmo_public", duties="ndmo_class",
        scenes=[scene(labels=["gov"])],
    ),
    forbid(
        "SA-05b", "export", "2020-12-03", abroad("SA"), labels("state_secret"), scenes=[scene(labels=["state_secret"])]
    ),
]

ANY = "export import concern"
BX_DERIVED = "weights adapter optimizer_state gradient update activation kv_cache embedding".split()


def each_action(**changes):
    return [scene(action, **changes) for action in ACTIONS]


ALLIANCE = [
    residual("BX-00"),
    permit(
        "BX-01", ANY, None, sees("treaty", "treaty_cooperation"), duties="never_map_brics_text_to_treaty",
        scenes=each_action(),
    ),
    forbid(
        "BX-02", ANY, None,
        any_of(
            has("purpose", "military", "national_security"), has("from.roles", "military"), has("to.roles", "military")
        ),
        by="public_authority_mandate", mutual=True, duties="bilateral_state_authorisation_to_override",
        scenes=[
            *each_action(purpose="military"), scene(from_roles=["military"]), scene(to_roles=["military"]),
        ],
    ),
    forbid(
        "BX-04", ANY, None, any_of(has("to.country", "IR"), has("to.controlled_by", "IR")), labels("controlled_tech"),
        scenes=[
            *each_action(to_country="IR", labels=["controlled_tech"]),
            scene(to_country="IR", to_controlled_by="CN", labels=["controlled_tech"]),
            scene(to_controlled_by="IR", labels=["controlled_tech"]),
        ],
    ),
    permit(
        "BX-06", ANY, None, has("artefact", *BX_DERIVED), labels(*PERSONAL),
        duties="provenance_manifest leakage_test_report", scenes=each_action(labels=["personal"]),
    ),
    forbid("BX-08", ANY, None, labels("state_secret", "core"), scenes=each_action(labels=["core"])),
    forbid("BX-09", ANY, None, BAN, scenes=each_action(bans=["RU"])),
]

PACKS = {
    "BR": BR, "RU": RU, "IN": IN, "CN": CN, "ZA": ZA, "EG": EG, "ET": ET, "IR": IR, "AE": AE, "ID": ID, "SA": SA,
    "alliance": ALLIANCE,
}

# --- Evaluator --------------------------------------------------------------------------------------------------------

# What a wrong implementation might do; --mutants turns these on one by one.
WRONG = set()


@functools.cache
def instant(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def text_of(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def midnight(day):
    return instant(f"{day}T00:00:00Z")


def next_day(day):
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def is_off(day, days_off):
    """Whether a day is no working day. A day off on a weekend moves to the next day that is neither."""

    def named(some):
        return f"{some:%m-%d}" in days_off

    if day.weekday() >= 5 and "weekends are working days" not in WRONG:
        return True
    if named(day):
        return True
    if "a day off does not move" in WRONG:
        return False
    # Each day off on a weekend takes a day of its own: seen from this one, more of them lie behind than free days since.
    owed, before = 0, day - timedelta(days=21)
    while before < day:
        if before.weekday() >= 5 and named(before):
            owed += 1
        elif before.weekday() < 5 and not named(before):
            owed = max(0, owed - 1)
        before += timedelta(days=1)
    return owed > 0


def has_waited(filed, at, days, days_off):
    day = instant(filed).date()
    if "the day of filing counts" in WRONG:
        day -= timedelta(days=1)
    while days > 0:
        day += timedelta(days=1)
        if not is_off(day, days_off):
            days -= 1
    return at >= midnight((day + timedelta(days=1)).isoformat())


def counts(rule, kind, grant, at):
    if rule.id not in grant["rules"] and "a token counts before every rule" not in WRONG:
        return False
    for limited, years in rule.valid_for:
        since = instant(grant["since"])
        if limited == kind and not at < since.replace(year=since.year + years):
            return False
    return True


def seen_from(rule, issuers, facts, at):
    kinds = set()
    for issuer in issuers:
        for kind, grant in facts["safeguards"].get(issuer, {}).items():
            if counts(rule, kind, grant, at):
                kinds.add(kind)
                waited = rule.waits is not None and kind == "regulator_notification" and grant["filed"]
                if waited and has_waited(grant["filed"], at, rule.waits, rule.days_off):
                    kinds.add("waiting_period_elapsed")
    return kinds


def visible(pack, rule, facts, at):
    if pack != "alliance":
        everyone = "a token of any issuer counts" in WRONG
        seen = seen_from(rule, facts["safeguards"] if everyone else [pack], facts, at)
        return seen, set()
    both = seen_from(rule, [facts["from"]["country"]], facts, at)
    both &= seen_from(rule, [facts["to"]["country"]], facts, at)
    return seen_from(rule, facts["safeguards"], facts, at), both


def value(name, facts):
    if "." in name:
        end, name = name.split(".")
        found = facts[end][name]
        return "none" if name == "zone" and found is None else found
    return facts[name]


def holds(condition, pack, facts, at, seen):
    match condition:
        case ("in", "safeguards", words):
            return not seen.isdisjoint(words)
        case ("in", name, words):
            found = value(name, facts)
            return found in words if isinstance(found, str) else not set(found).isdisjoint(words)
        case ("ge", name, number):
            return facts["volume"][name] >= number
        case ("ban",):
            everyone = pack == "alliance" or "any ban counts" in WRONG
            return bool(facts["bans"]) if everyone else pack in facts["bans"]
        case ("state_controlled",):
            return facts["to"]["state_controlled"]
        case ("no_subjects",):
            return not facts["subjects"]
        case ("time", day):
            return at >= midnight(day)
        case ("not", inner):
            return not holds(inner, pack, facts, at, seen)
        case ("all", inner):
            return all(holds(one, pack, facts, at, seen) for one in inner)
        case ("any", inner):
            return any(holds(one, pack, facts, at, seen) for one in inner)
        case ("constant", truth):
            return truth
    raise ValueError(condition)


def outcome(pack, rule, action, facts, at):
    """What one rule does: "denies", "satisfied", "permits" or nothing."""
    at = instant(at)
    if action not in rule.actions:
        return None
    if rule.since and at < midnight(rule.since):
        return None
    if rule.until and at >= midnight(next_day(rule.until)):
        return None
    seen, both = visible(pack, rule, facts, at)
    fires = all(holds(one, pack, facts, at, seen) for one in rule.when)
    if rule.effect != "forbid":
        return "permits" if fires else None
    counted = seen if not rule.mutual or "either end is both ends" in WRONG else both
    satisfied = any(set(way) <= counted for way in rule.satisfied_by)
    if fires and not satisfied:
        return "denies"
    if "BR-04 is cited with its safeguards" not in WRONG:
        fires = all(holds(one, pack, facts, at, set()) for one in rule.when)
    return "satisfied" if fires and satisfied else None


def verdict(rules, outcomes):
    denies = [rule.id for rule, found in zip(rules, outcomes) if found == "denies"]
    if denies:
        return {"allowed": False, "rules": [{"id": id, "role": "denies"} for id in sorted(denies)], "obligations": []}
    cited = [
        (rule, found) for rule, found in zip(rules, outcomes)
        if found == "satisfied" or found == "permits" and (rule.effect != "residual" or "residual is law" in WRONG)
    ]
    if not cited:
        cited = [(rule, found) for rule, found in zip(rules, outcomes) if found]
    return {
        "allowed": bool(cited),
        "rules": [{"id": id, "role": role} for id, role in sorted((rule.id, role) for rule, role in cited)],
        "obligations": sorted({duty for rule, _ in cited for duty in rule.obligations}),
    }


def judge(pack, action, facts, at):
    rules = PACKS[pack]
    return verdict(rules, [outcome(pack, rule, action, facts, at) for rule in rules])


# --- Crossings --------------------------------------------------------------------------------------------------------

NOW = "2026-11-23T00:00:00Z"


def party(country, **more):
    return {
        "country": country, "zone": None, "organisation": f"Institute of {country}", "roles": ["controller"],
        "controlled_by": country, "state_controlled": False,
    } | more


def defaults(pack):
    home = "BR" if pack == "alliance" else pack
    return {
        "from": party(home), "to": party("CN" if home == "BR" else "BR"), "artefact": "weights",
        "labels": ["non_personal", "public"], "origin": home, "subjects": [], "purpose": "research",
        "use": "inference", "circumstances": [], "volume": {"people": 0, "sensitive_people": 0}, "bans": [],
        "safeguards": {},
    }


def changed(facts, changes):
    facts = copy.deepcopy(facts)
    for end in ("from", "to"):
        country = changes.get(f"{end}_country")
        if country:
            facts[end] |= {"country": country, "organisation": f"Institute of {country}", "controlled_by": country}
            if country != "AE":
                facts[end]["zone"] = None
    for name, new in changes.items():
        if name == "use_":
            facts["use"] = new
        elif name.startswith(("from_", "to_")):
            end, name = name.split("_", 1)
            if name != "country":
                facts[end][name] = None if new == "none" else sorted(new) if isinstance(new, list) else new
        else:
            facts[name] = sorted(new) if isinstance(new, list) else copy.deepcopy(new)
    return facts


def token(rules, at):
    return {"rules": rules, "since": f"{min(2026, instant(at).year)}-01-01T00:00:00Z", "filed": None}


def grant(facts, issuers, kind, id, at, **more):
    """Adds a rule to the token of a kind that each issuer gave."""
    if kind == "waiting_period_elapsed":
        kind = "regulator_notification"
        more.setdefault("filed", text_of(instant(at) - timedelta(days=60)))
    for issuer in issuers:
        kinds = facts["safeguards"].setdefault(issuer, {})
        known = kinds.get(kind) or token([], at)
        kinds[kind] = known | more | {"rules": sorted({*known["rules"], id})}


class Vectors:
    def __init__(self, pack):
        self.pack = pack
        self.rules = PACKS[pack]
        self.base = defaults(pack)
        self.found = []
        self.keys = {}
        self.names = set()

    def issuers(self, facts):
        return [facts["from"]["country"], facts["to"]["country"]] if self.pack == "alliance" else [self.pack]

    def isolate(self, rule, action, facts, at):
        """Satisfies every other rule that would deny and can be satisfied, so that this rule alone decides."""
        for other in self.rules:
            if other is rule or not other.satisfied_by:
                continue
            if outcome(self.pack, other, action, facts, at) == "denies":
                way = min(other.satisfied_by, key=len)
                for kind in way:
                    grant(facts, self.issuers(facts), kind, other.id, at)
        return facts

    def add(self, name, action, facts, at, extra=False):
        """An extra vector is kept only where it tells a broken rule that no other vector does."""
        facts = copy.deepcopy(facts)
        for issuer in [issuer for issuer, kinds in facts["safeguards"].items() if not kinds]:
            del facts["safeguards"][issuer]
        key = json.dumps([action, facts, at], sort_keys=True)
        if key in self.keys:
            if not extra:
                self.found[self.keys[key]]["extra"] = False
            return
        unique, number = name, 2
        while unique in self.names:
            unique, number = f"{name} ({number})", number + 1
        self.names.add(unique)
        self.keys[key] = len(self.found)
        self.found.append({"name": unique, "action": action, "at": at, "facts": facts, "extra": extra})

    def about(self, rule, what, action, facts, at, kinds=(), extra=False, alone=True, **more):
        """A vector about one rule, before which the given kinds count. Where the rule denies, it need not do so alone."""
        facts = copy.deepcopy(facts)
        for kind in kinds:
            grant(facts, self.issuers(facts), kind, rule.id, at, **more)
        if alone or outcome(self.pack, rule, action, facts, at) != "denies":
            self.isolate(rule, action, facts, at)
        self.add(f"{rule.id} {what}", action, facts, at, extra)


def atoms(conditions):
    for condition in conditions:
        match condition:
            case ("not", inner):
                yield from atoms([inner])
            case ("all", inner) | ("any", inner):
                yield from atoms(inner)
            case _:
                yield condition


def asked_of(rule, name):
    """All words that the conditions of a rule name in one field."""
    return {word for atom in atoms(rule.when) if atom[0] == "in" and atom[1] == name for word in atom[2]}


def needed(rule):
    """What a rule must see to speak at all: one word of each condition about safeguards."""
    return [atom[2][0] for atom in atoms(rule.when) if atom[:2] == ("in", "safeguards")]


COUNTRY_FIELDS = {"to.country": "to_country", "from.country": "from_country", "to.controlled_by": "to_controlled_by"}


def words_of(universe, words):
    """The words of a condition and those beside it. Of a home alone, the first beside it: see `everywhere`."""
    beside = [word for word in universe if word not in words]
    alone = universe[0] in MEMBERS and len(words) == 1
    first = [(word, True) for word in (*words[:1], *beside[:1])]
    return first + [(word, False) for word in (*words[1:], *([] if alone else beside[1:]))]


def variations(vectors, rule, atom, facts):
    """Crossings beside a scene that differ in what one condition looks at: (what, changes, whether it is always tried)."""
    home = facts["from"]["country"] if vectors.pack == "alliance" else vectors.pack
    match atom:
        case ("in", "labels", words):
            asked = asked_of(rule, "labels")
            rest = [label for label in facts["labels"] if label in asked and label not in words]
            for word in words:
                what = f"with {word} besides" if rest else f"with the label {word} alone"
                yield what, {"labels": [*rest, word]}, False
            yield "with an open label besides", {"labels": [*rest, words[0], "public"]}, False
            outside = [label for label in LABELS if label not in asked]
            if rule.effect != "forbid":
                outside = [label for label in outside if not vectors.hopeless(label)]
            yield "with every label but its own", {"labels": [*rest, *outside]}, True
            yield "with none of its labels", {"labels": [*rest, "non_personal", "public"]}, False
        case ("in", ("to.country" | "from.country" | "to.controlled_by") as name, words):
            for country, must in words_of([*MEMBERS, *OTHERS], words):
                yield f"with {name} {country}", {COUNTRY_FIELDS[name]: country}, must
            if name == "to.country" and len(words) == 1:
                changes = {"to_country": words[0], "to_controlled_by": "US", "to_state_controlled": True}
                yield "at home with a foreign recipient under a state", changes, True
        case ("in", "origin", words):
            for country, must in words_of([*MEMBERS, *OTHERS], words):
                yield f"with origin {country}", {"origin": country}, must
        case ("in", "artefact", words):
            for word, must in words_of(ARTEFACTS, words):
                yield f"as {word}", {"artefact": word}, must
        case ("in", "purpose", words):
            for word, must in words_of(PURPOSES, words):
                yield f"for {word}", {"purpose": word}, must
        case ("in", "use", words):
            for word, must in words_of(USES, words):
                yield f"used for {word}", {"use_": word}, must
        case ("in", ("from.roles" | "to.roles") as name, words):
            change = name.replace(".", "_")
            end = "exporter" if name == "from.roles" else "recipient"
            for word in words:
                yield f"with the {end} a {word} alone", {change: [word]}, True
                yield f"with the {end} a {word} too", {change: ["university", word]}, False
            yield f"with the {end} every kind but its own", {change: [role for role in ROLES if role not in words]}, True
            yield f"with the {end} of no kind", {change: []}, True
        case ("in", "circumstances", words):
            for word in words:
                yield f"in the circumstance {word} alone", {"circumstances": [word]}, True
            others = [word for word in CIRCUMSTANCES if word not in words]
            yield "in every circumstance but its own", {"circumstances": others}, True
            yield "in every circumstance", {"circumstances": CIRCUMSTANCES}, False
            yield "in no circumstance", {"circumstances": []}, True
        case ("in", "subjects", _) | ("no_subjects",):
            for people in ([], [home], ["ZA"], ["ZA", home]):
                yield f"about people of {' and '.join(people) or 'nowhere'}", {"subjects": people}, True
        case ("in", "from.zone", _):
            for zone in ZONES:
                yield f"from zone {zone}", {"from_zone": zone}, True
        case ("in", "to.zone", _):
            for zone in ZONES:
                yield f"to zone {zone}", {"to_country": "AE", "to_zone": zone}, True
        case ("ge", name, number):
            for count in (number - 1, number):
                yield f"with {count} {name}", {"volume": facts["volume"] | {name: count}}, True
                alone = {"people": 0, "sensitive_people": 0, name: count}
                yield f"with {count} {name} and no others", {"volume": alone}, True
        case ("ban",):
            for bans in ([], [home], ["ZA" if home != "ZA" else "BR"], sorted(set(MEMBERS) - {home}), MEMBERS):
                yield f"with bans of {' and '.join(bans) or 'nobody'}", {"bans": bans}, True
        case ("state_controlled",):
            for state in (False, True):
                yield f"with the recipient {'' if state else 'not '}under a state", {"to_state_controlled": state}, True
        case _:
            return


# Conditions whose words are gone through in the first scene only.
BROAD = [("in", "labels"), ("in", "artefact"), ("in", "use")]


def hopeless(self, label, at=LATER, **changes):
    """Whether an artefact with this label can never leave, so that no permit is ever cited for it."""
    facts = changed(self.base, changes | {"labels": [label]})
    facts = self.isolate(None, "export", facts, at)
    return not judge(self.pack, "export", facts, at)["allowed"]


Vectors.hopeless = hopeless


def spared(vectors, rule, say, facts, at):
    """Labels that no longer leave, where and when they still could: what a permit says of them."""
    foreign = "ZA" if facts["from"]["country"] != "ZA" else "BR"
    for label in filter(vectors.hopeless, LABELS):
        for when, what, changes in (
            (f"{rule.since}T00:00:00Z" if rule.since else at, "on its first day", {}),
            (at, "made abroad", {"origin": foreign}),
        ):
            if not vectors.hopeless(label, when, **changes):
                more = changed(facts, changes | {"labels": [label]})
                say(f"with the label {label} {what}", facts=more, at=when, extra=True)
                more = changed(facts, changes | {"labels": [*facts["labels"], label]})
                say(f"with {label} besides, {what}", facts=more, at=when, extra=True)


def of_rule(vectors, rule):
    other_issuer = next(country for country in ("ZA", "IN") if country not in (vectors.pack, "BR", "CN"))
    for number, one in enumerate(rule.scenes):
        action, at = one["action"], one["at"]
        facts = changed(vectors.base, one["changes"])
        need = needed(rule)

        def say(what, facts=facts, at=at, kinds=need, action=action, **more):
            vectors.about(rule, what, action, facts, at, kinds, **more)

        case = f" ({number + 1})" if number else ""
        say(("denies" if rule.effect == "forbid" else "permits") + case)

        # Days.
        exceptions = {atom[1]: "exception" for atom in atoms(rule.when) if atom[0] == "time"}
        edges = {} if number else {rule.since: "first", **exceptions}
        for day, which in edges.items():
            if day and str(day) > "1970":  # Instants begin in 1970.
                before, start = text_of(midnight(day) - timedelta(seconds=1)), f"{day}T00:00:00Z"
                say(f"a second before its {which} day{case}", at=before, alone=False)
                say(f"when its {which} day begins{case}", at=start, alone=False)
        if rule.until and not number:
            end = midnight(next_day(rule.until))
            say(f"in the last second{case}", at=text_of(end - timedelta(seconds=1)))
            say(f"when it has ended{case}", at=text_of(end))

        # Actions.
        for other in [] if number else ACTIONS:
            if other not in rule.actions:
                say(f"when asked about {other}{case}", action=other)

        # Conditions.
        for atom in atoms(rule.when):
            if one["bare"] or number and atom[:2] in BROAD:
                continue
            for what, changes, must in variations(vectors, rule, atom, facts):
                say(what + case, facts=changed(facts, changes), extra=not must or number > 0, alone=False)
            if atom[:2] == ("in", "safeguards"):
                others = [kind for kind in need if kind not in atom[2]]
                for kind in atom[2]:
                    say(f"where it sees {kind}{case}", kinds=[*others, kind], extra=number > 0)
                say(f"where it sees none of {atom[2][0]} and the like{case}", kinds=others, extra=number > 0)
                if not number:
                    own = {kind for way in rule.satisfied_by for kind in way}
                    rest = [kind for kind in KINDS if kind not in atom[2] and kind not in own]
                    say(f"where it sees everything but {atom[2][0]} and the like", kinds=[*others, *rest])
        if any(atom[:2] == ("in", "safeguards") for atom in atoms(rule.when)) and not number:
            unlisted = changed(facts, {})
            for kind in need:
                grant(unlisted, vectors.issuers(facts), kind, f"{rule.id[:3]}99", at)
            say("with tokens that name another rule", facts=unlisted, kinds=[])
            foreign = changed(facts, {})
            for kind in need:
                grant(foreign, [other_issuer], kind, rule.id, at)
            say(f"with tokens of {other_issuer}", facts=foreign, kinds=[])

        # Safeguards.
        if rule.effect != "forbid":
            if not one["bare"] and action == "export":
                spared(vectors, rule, say, facts, at)
            continue
        if number and (one["bare"] or not rule.satisfied_by):
            continue
        own = {kind for way in rule.satisfied_by for kind in way}
        if not number:
            useless = [kind for kind in KINDS if kind not in own]
            what = "with every other safeguard" if own else "with every safeguard"
            say(what, kinds=sorted({*need, *useless}), extra=True, alone=False)
        if number:
            say(f"satisfied{case}", kinds=[*need, *rule.satisfied_by[0]])
            continue
        for way in rule.satisfied_by:
            say(f"with {' and '.join(way)}", kinds=[*need, *way])
            if len(way) > 1:
                for missing in way:
                    rest = [kind for kind in way if kind != missing]
                    if missing == "waiting_period_elapsed":
                        continue
                    if rest == ["waiting_period_elapsed"]:
                        continue
                    say(f"with {' and '.join(way)} without {missing}", kinds=[*need, *rest])
        for way in rule.satisfied_by[:1]:
            unlisted, foreign = changed(facts, {}), changed(facts, {})
            for kind in way:
                grant(unlisted, vectors.issuers(facts), kind, f"{rule.id[:3]}99", at)
                grant(foreign, [other_issuer], kind, rule.id, at)
            say("with tokens that name another rule", facts=unlisted)
            say(f"with tokens of {other_issuer}", facts=foreign)
            for kind in way:
                if len(way) > 1 and kind != "waiting_period_elapsed":
                    half = changed(facts, {})
                    for one_kind in way:
                        issuer = [other_issuer] if one_kind == kind else vectors.issuers(facts)
                        grant(half, issuer, one_kind, rule.id, at)
                    say(f"with {kind} from {other_issuer}", facts=half)
        for kind, years in rule.valid_for:
            for since in ("2024-05-10T00:00:00Z", "2023-12-31T12:30:15Z"):
                begun = instant(since)
                end = begun.replace(year=begun.year + years)
                for when, what in ((end - timedelta(seconds=1), "a second before"), (end, "when")):
                    say(f"{what} its {kind} of {since[:10]} is too old", at=text_of(when), kinds=[kind], since=since)
        if rule.waits:
            of_waiting(vectors, rule, facts)
        if rule.mutual:
            ends = vectors.issuers(facts)
            for what, issuers in {
                "the exporter's end": ends[:1], "the importer's end": ends[1:], "another member": [other_issuer],
                "the exporter's end and another member": [ends[0], other_issuer],
                "the importer's end and another member": [ends[1], other_issuer],
            }.items():
                partly = changed(facts, {})
                for kind in rule.satisfied_by[0]:
                    grant(partly, issuers, kind, rule.id, at)
                say(f"with a mandate of {what} only", facts=partly)
            partly = changed(facts, {})
            grant(partly, ends[:1], rule.satisfied_by[0][0], rule.id, at)
            grant(partly, ends[1:], rule.satisfied_by[0][0], "BX-99", at)
            say("with mandates of which one names another rule", facts=partly)


def of_waiting(vectors, rule, facts):
    filings = """2026-11-02T00:00:00Z 2026-11-02T23:59:59Z 2026-11-07T10:00:00Z 2026-12-25T09:00:00Z
    2025-12-26T09:00:00Z 2025-02-10T00:00:00Z 2026-02-16T12:00:00Z 2025-03-03T08:00:00Z 2024-03-04T00:00:00Z
    2026-04-27T00:00:00Z 2026-05-04T00:00:00Z 2025-05-05T00:00:00Z 2026-06-08T00:00:00Z 2027-06-07T00:00:00Z
    2023-10-30T00:00:00Z 2027-10-28T00:00:00Z 2028-12-27T00:00:00Z 2023-12-27T00:00:00Z""".split()
    for number, filed in enumerate(filings):
        day = instant(filed)
        end = day.replace(hour=0, minute=0, second=0)
        while not has_waited(filed, end, rule.waits, rule.days_off):
            end += timedelta(days=1)
        for when, what in ((end - timedelta(seconds=1), "a second before the end of"), (end, "after")):
            vectors.about(
                rule, f"{what} the wait from {filed[:16]}", "export", facts, text_of(when), ["regulator_notification"],
                extra=number > 5, filed=filed, since=f"{day.year}-01-01T00:00:00Z",
            )
    vectors.about(
        rule, "where the notification names no day of filing", "export", facts, NOW, ["regulator_notification"]
    )
    unlisted = changed(facts, {})
    grant(unlisted, [vectors.pack], "regulator_notification", "RU-02", NOW, filed="2026-01-12T00:00:00Z")
    vectors.about(rule, "where the notification names only RU-02", "export", unlisted, NOW)


def of_pack(vectors):
    pack, base = vectors.pack, vectors.base
    home = base["from"]["country"]
    far = base["to"]["country"]
    for action in ACTIONS:
        there = {"from_country": far, "to_country": home, "origin": far} if action == "import" else {}
        vectors.add(f"an open model, asked about {action}", action, changed(base, there), NOW)
        whose = {"subjects": [home]} if action == "concern" else {}
        vectors.add(
            f"personal data, asked about {action}", action, changed(base, there | whose | {"labels": ["personal"]}), NOW
        )
    for artefact in ARTEFACTS:
        vectors.add(f"open {artefact}", "export", changed(base, {"artefact": artefact}), NOW)
    for label in LABELS:
        facts = changed(base, {"labels": [label]})
        vectors.add(f"the label {label} alone, no safeguard", "export", facts, NOW)
    for control in (home, far):
        for state in (False, True):
            for country in (home, far):
                what = f"personal data to {country}, recipient of {control}" + (", under a state" if state else "")
                changes = {
                    "labels": ["personal"], "to_country": country, "to_controlled_by": control,
                    "to_state_controlled": state,
                }
                vectors.add(what, "export", changed(base, changes), NOW)
    for origin in (home, far):
        for people in ([], [home], [far], sorted([far, home])):
            what = f"personal data made in {origin} about people of {' and '.join(people) or 'nowhere'}"
            changes = {"labels": ["personal"], "origin": origin, "subjects": people}
            vectors.add(what, "export", changed(base, changes), NOW)
    for bans in ([home], [far], [home, far]):
        for label in ("personal", "public"):
            facts = changed(base, {"labels": [label], "bans": bans})
            vectors.isolate(None, "export", facts, NOW)
            vectors.add(f"{label}, banned by {' and '.join(bans)}, what can be satisfied is", "export", facts, NOW)


def admit(vectors, what, changes):
    """An extra crossing that is admitted by all that can be said for it."""
    facts = changed(vectors.base, {"from_roles": ["private_eso"]} | changes)
    for rule in vectors.rules:
        if rule.effect == "permit":
            for kind in needed(rule):
                grant(facts, vectors.issuers(facts), kind, rule.id, LATER)
    vectors.isolate(None, "export", facts, LATER)
    vectors.add(f"all that speaks for {what}", "export", facts, LATER, extra=True)


def each_label(vectors):
    there = {"to_country": "FR"} if vectors.pack == "BR" else {}
    for label in LABELS:
        if any(label in asked_of(rule, "labels") for rule in vectors.rules) and not vectors.hopeless(label):
            admit(vectors, f"{label} alone", there | {"labels": [label]})


def everywhere(vectors):
    """As many rules as can be at once, to and from every country; and with every safeguard that satisfies none of them."""
    pack, base = vectors.pack, vectors.base
    home = base["from"]["country"]
    near, far = ("BR" if home != "BR" else "IN"), ("CN" if home != "CN" else "BR")
    few, told = ["personal"] if any("personal" in asked_of(rule, "labels") for rule in vectors.rules) else [], set()
    for rule in sorted(vectors.rules, key=lambda rule: len(asked_of(rule, "labels"))):
        asked = {*asked_of(rule, "labels")} - {"anonymised"}
        if asked and asked.isdisjoint(few):
            few.append(next(label for label in LABELS if label in asked))
        told |= asked_of(rule, "circumstances")
    much = {
        "labels": few, "circumstances": sorted(told), "bans": [home], "artefact": "adapter",
        "from_roles": ["central_bank_supervised", "public_eso", "sdf", "state_organ"], "volume": MANY,
        "purpose": "national_security", "use_": "remote_access", "to_roles": ["foreign_judicial", "state_owned"],
        "to_state_controlled": True,
    }
    arriving = {
        "from_country": near, "to_country": home, "to_roles": ["significant_kii"], "purpose": "national_security",
        "origin": near,
    }
    concerning = {"from_country": near, "to_country": far, "subjects": [home], "circumstances": []}

    def add(what, action, changes, extra=True, useless=False, at=LATER):
        facts = changed(base, much | changes)
        for rule in vectors.rules if useless else []:
            own = {kind for way in rule.satisfied_by for kind in way}
            if outcome(pack, rule, action, facts, at) == "denies":
                for kind in KINDS:
                    if kind not in own:
                        grant(facts, vectors.issuers(facts), kind, rule.id, at)
        vectors.add(f"everything at once{what}", action, facts, at, extra)

    for action, changes in {"export": {}, "import": arriving, "concern": concerning}.items():
        add(f", asked about {action}", action, changes)
        add(f" with every safeguard that satisfies nothing, asked about {action}", action, changes, action != "export", True)
    for country in [*MEMBERS, *OTHERS]:
        add(f" to {country}", "export", {"to_country": country})
        operator = {"to_country": country, "from_roles": ["ciio"], "artefact": "prompt", "purpose": "research"}
        add(f" from an operator to {country}", "export", operator, at=NOW)
        add(f" to a recipient of {home} in {country}", "export", {"to_country": country, "to_controlled_by": home})
        add(f" to a recipient of {country} at home", "export", {"to_country": home, "to_controlled_by": country})
        add(f" made in {country}", "export", {"origin": country})
        add(f" made in {country}, asked about import", "import", arriving | {"origin": country})
        add(f" to {country}, asked about concern", "concern", concerning | {"to_country": country})
        add(f" from {country}, asked about concern", "concern", concerning | {"from_country": country})

    admitted = [label for label in few if label != "important" and not vectors.hopeless(label)] or ["public"]
    for name in ("to_country", "origin"):
        for country in [*MEMBERS, *OTHERS]:
            where = f"{name.replace('_', ' ').replace(' country', '')} {country}"
            admit(vectors, f"a crossing, {where}", {"labels": admitted, name: country})
    if pack == "CN":
        for country in [*MEMBERS, *OTHERS]:
            facts = changed(base, {"labels": ["personal"], "volume": MANY, "origin": country, "subjects": [near]})
            vectors.add(f"data of a million people made in {country}", "export", facts, NOW)
        others = [country for country in [*MEMBERS, *OTHERS] if country != "CN"]
        facts = changed(base, {"labels": ["personal"], "volume": MANY, "origin": near, "subjects": others})
        vectors.add("data of a million people of every other country", "export", facts, NOW)
    for action in ACTIONS:
        there = {"from_country": near, "to_country": home, "origin": near} if action == "import" else {}
        old = "2022-01-01T00:00:00Z"
        vectors.add(f"an open model in 2022, asked about {action}", action, changed(base, there), old, extra=True)


def together(vectors, name, action="export", at=NOW, satisfied=(), **changes):
    """Several rules at once, of which some are satisfied."""
    facts = changed(vectors.base, changes)
    for rule in vectors.rules:
        if rule.id in satisfied or satisfied == "all":
            if rule.satisfied_by and outcome(vectors.pack, rule, action, facts, at) == "denies":
                for kind in rule.satisfied_by[0]:
                    grant(facts, vectors.issuers(facts), kind, rule.id, at)
    vectors.add(name, action, facts, at)


COMBINATIONS = {
    "BR": [
        ("health data for profit, nothing presented", (), {"labels": ["health"], "purpose": "commercial"}),
        ("health data for profit, all presented", "all", {"labels": ["health"], "purpose": "commercial"}),
        ("health data for profit, one missing", ("BR-01", "BR-06"), {"labels": ["health"], "purpose": "commercial"}),
        ("genetic data for the military, all presented", "all", {"labels": ["genetic"], "purpose": "military"}),
        ("a state secret in personal data", "all", {"labels": ["personal", "state_secret"]}),
        ("health data to Germany", "all", {"labels": ["health"], "to_country": "DE"}),
    ],
    "RU": [
        ("biometric data to Egypt, nothing presented", (), {"labels": ["biometric"], "to_country": "EG"}),
        ("biometric data to Egypt, all presented", "all", {"labels": ["biometric"], "to_country": "EG"}),
        ("pseudonymised data to India, all presented", "all", {"labels": ["pseudonymised"], "to_country": "IN"}),
        ("gov, restricted and cii at once", "all", {"labels": ["cii", "gov", "restricted"], "artefact": "dataset"}),
        ("controlled technology with personal data", ("RU-15",), {"labels": ["controlled_tech", "personal"]}),
    ],
    "IN": [
        ("payment and health data, all presented", "all", {"labels": ["health", "payment"], "artefact": "dataset"}),
        ("payment and health data, one missing", ("IN-06",), {"labels": ["health", "payment"], "artefact": "dataset"}),
        ("insurance prompt with payment data", "all", {"labels": ["insurance", "payment"], "artefact": "prompt"}),
        ("Aadhaar biometrics with everything", "all", {"labels": ["aadhaar_biometric", "biometric", "health"]}),
    ],
    "CN": [
        ("important personal data of an operator", "all", {"labels": ["important", "personal"], "from_roles": ["ciio"]}),
        (
            "important personal data of a state organ, one missing", ("CN-02", "CN-04"),
            {"labels": ["important", "personal"], "from_roles": ["state_organ"], "volume": SOME},
        ),
        ("everything of a million people", "all", {"labels": ["personal"], "volume": MANY}),
        ("a million people, only a contract", ("CN-04",), {"labels": ["personal"], "volume": MANY}),
        (
            "catalogue technology in an investment", "all",
            {"labels": ["cn_catalogue_tech", "controlled_tech"], "circumstances": ["outbound_investment"]},
        ),
        ("foreign people's important data", "all", CN_ABROAD_PEOPLE | {"labels": ["important", "personal"]}),
        ("unknown volume", (), {"labels": ["personal"], "volume": {"people": 2**63 - 1, "sensitive_people": 0}}),
    ],
    "ZA": [
        ("a child's identifier, linked", "all", {"labels": ["child", "unique_id"], "use_": "record_linkage"}),
        ("a child's identifier, one missing", ("ZA-01", "ZA-02"),
         {"labels": ["child", "unique_id"], "use_": "record_linkage"}),
        ("anonymised data of companies", "all", {"labels": ["anonymised", "juristic_person"]}),
        ("government data in personal data", "all", {"labels": ["gov", "personal"]}),
    ],
    "EG": [
        ("remote access of a bank to health data", "all",
         {"labels": ["health"], "use_": "remote_access", "from_roles": ["central_bank_supervised"]}),
        ("remote access of a bank to health data, one missing", ("EG-01", "EG-03", "EG-04"),
         {"labels": ["health"], "use_": "remote_access", "from_roles": ["central_bank_supervised"]}),
    ],
    "ET": [
        ("genetic data, all presented", "all", {"labels": ["genetic"]}),
        ("genetic data, one missing", ("ET-01", "ET-04"), {"labels": ["genetic"]}),
        ("critical personal data", "all", {"labels": ["et_critical", "personal"]}),
    ],
    "IR": [
        ("health data in government messages", "all", {"labels": ["comms", "gov", "health"]}),
        ("health data in government messages, one missing", ("IR-02", "IR-03"), {"labels": ["comms", "gov", "health"]}),
        ("a state secret in government data", "all", {"labels": ["gov", "state_secret"]}),
        ("banned personal data, which no rule looks at", (), {"labels": ["personal"], "bans": ["IR"]}),
    ],
    "AE": [
        ("health data, all presented", "all", {"labels": ["health"]}),
        ("health data, one missing", ("AE-02", "AE-03"), {"labels": ["health"]}),
        ("health data from a zone", "all", {"labels": ["health"], "from_zone": "AE-DIFC"}),
        ("government data from a zone", (), {"labels": ["gov"], "from_zone": "AE-ADGM"}),
        ("controlled technology with health data", "all", {"labels": ["controlled_tech", "health"]}),
    ],
    "ID": [
        ("health data of a public operator", "all", {"labels": ["health"], "from_roles": ["public_eso"]}),
        ("health data of a public operator, one missing", ("ID-01",),
         {"labels": ["health"], "from_roles": ["public_eso"]}),
        ("an operator of both kinds", "all", {"from_roles": ["private_eso", "public_eso"]}),
    ],
    "SA": [
        ("health data for a court", "all", {"labels": ["health"], "purpose": "judicial"}),
        ("health data for research, one missing", ("SA-01",), {"labels": ["health"]}),
        ("health data for research, all presented", "all", {"labels": ["health"]}),
        ("government data about health", "all", {"labels": ["gov", "health"]}),
        ("a public state secret", "all", {"labels": ["gov", "state_secret"]}),
    ],
    "alliance": [
        ("military use of personal weights", "all", {"labels": ["personal"], "purpose": "military"}),
        ("military use of controlled technology in Iran", "all",
         {"labels": ["controlled_tech"], "purpose": "military", "to_country": "IR"}),
        ("core data under a ban", (), {"labels": ["core"], "bans": ["BR"]}),
        ("a state secret for the military", "all", {"labels": ["state_secret"], "to_roles": ["military"]}),
    ],
}


def zones(vectors):
    """Every pair of zones in the Emirates, and out of each of them."""
    for label in ("personal", "health", "financial"):
        for start in ZONES:
            for country, end in [("AE", zone) for zone in ZONES] + [("BR", "none")]:
                changes = {"labels": [label], "from_zone": start, "to_country": country, "to_zone": end}
                where = end if country == "AE" else country
                vectors.add(f"{label} from zone {start} to {where}", "export", changed(vectors.base, changes), NOW)


def generate(pack):
    vectors = Vectors(pack)
    of_pack(vectors)
    each_label(vectors)
    if pack == "AE":
        zones(vectors)
    for rule in vectors.rules:
        of_rule(vectors, rule)
    for name, satisfied, changes in COMBINATIONS[pack]:
        together(vectors, name, satisfied=satisfied, **changes)
    everywhere(vectors)
    return selected(pack, vectors.found)


def selected(pack, found):
    """All vectors that are always kept, and of the extra ones enough to tell every mutant that one of them tells."""
    must = [one for one in found if not one["extra"]]
    extra = [one for one in found if one["extra"]]
    alive = survivors(pack, must)[1]
    told = [{index for index, mutant in enumerate(alive) if tells(pack, one, *mutant[2:])} for one in extra]
    size = [len(json.dumps(one["facts"])) + 1000 for one in extra]
    left, kept = set().union(*told), set()
    while left:
        best = max(range(len(extra)), key=lambda index: (len(told[index] & left) / size[index], -index))
        kept.add(extra[best]["name"])
        left -= told[best]
    unsaid = set(range(len(alive))).difference(*told)
    kept = [one for one in found if not one["extra"] or one["name"] in kept]
    return [{k: v for k, v in one.items() if k not in ("extra", "outcomes")} for one in kept], [
        alive[index] for index in sorted(unsaid)
    ]


def rendered(pack, found):
    base = defaults(pack)

    def dump(data):
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    lines = []
    for vector in found:
        facts = {name: new for name, new in vector["facts"].items() if new != base[name]}
        expected = judge(pack, vector["action"], vector["facts"], vector["at"])
        lines.append(dump(vector | {"facts": facts} | expected))
    body = ",\n".join(lines)
    return f'{{"pack":"{pack}",\n"defaults":{dump(base)},\n"vectors":[\n{body}\n]}}\n'


# --- Facts that are refused -------------------------------------------------------------------------------------------


def refused():
    good = changed(
        defaults("RU"), {"labels": ["personal"], "from_roles": ["controller", "ciio"], "circumstances": ["collection"]}
    )
    grant(good, ["RU"], "regulator_notification", "RU-02", NOW, filed="2026-11-02T00:00:00Z")
    good["subjects"], good["bans"] = ["RU"], ["IN"]
    token_at = "safeguards.RU.regulator_notification"
    found = []

    def add(name, why, path, new=None, drop=False):
        facts = copy.deepcopy(good)
        *way, last = path.split(".")
        inner = facts
        for step in way:
            inner = inner[step]
        if drop:
            del inner[last]
        else:
            inner[last] = new
        found.append({"name": name, "facts": facts, "why": why})

    for key in good:
        add(f"without {key}", "every key is required", key, drop=True)
    for end in ("from", "to"):
        for key in good[end]:
            add(f"without {end}.{key}", "every key is required; a zone that there is not is null", f"{end}.{key}", drop=True)
    for key in good["volume"]:
        add(f"without volume.{key}", "every key is required", f"volume.{key}", drop=True)
    for key in ("rules", "since", "filed"):
        add(f"without {key} in a token", "every key is required", f"{token_at}.{key}", drop=True)

    for key, bad in {
        "labels": ["persnal"], "artefact": "weight", "purpose": "study", "use": "train",
        "circumstances": ["colection"], "from.roles": ["kontroller"], "to.roles": ["CIIO"],
    }.items():
        add(f"unknown word in {key}", "the vocabulary is closed", key, bad)
    for key, bad in {
        "labels": ["Personal"], "artefact": "Weights", "purpose": " research", "use": "inference ", "circumstances": [""],
        "to.roles": ["state-organ"],
    }.items():
        add(f"word spelt otherwise in {key}", "words are compared byte for byte", key, bad)
    add("Cyrillic letter in a label", "words are compared byte for byte", "labels", ["\u0440ersonal"])
    add("one good and one unknown label", "one wrong word is enough", "labels", ["personal", "secret"])
    add("unknown safeguard", "the vocabulary is closed", "safeguards", {"RU": {"scc_ru": good["safeguards"]["RU"]
        ["regulator_notification"]}})
    add("empty name of a safeguard", "the vocabulary is closed", "safeguards", {"RU": {"": good["safeguards"]["RU"]
        ["regulator_notification"]}})

    codes = {
        "UK": "not assigned", "EL": "not assigned", "br": "codes are in capitals", "Br": "codes are in capitals",
        "": "a code has two letters", "B": "a code has two letters", "BRA": "a code has two letters",
        " BR": "a code has two letters", "BR ": "a code has two letters", "ZZ": "not assigned", "EU": "not assigned",
        "SU": "not assigned", "\u0412R": "the first letter is Cyrillic",
        "\uff22\uff32": "the letters are of full width", "B\u0052\u0301": "a code has two letters",
    }
    for code, why in codes.items():
        add(f"country {json.dumps(code)}", why, "to.country", code)
    for path, new in {
        "from.country": "UK", "from.controlled_by": "EL", "to.controlled_by": "br", "origin": "\u0412R",
        "subjects": ["RU", "UK"], "bans": ["\uff22\uff32"], "safeguards": {"UK": {}},
    }.items():
        add(f"unknown country in {path}", "countries are ISO 3166-1 alpha-2 in capitals", path, new)

    for zone in ("AE-DFIC", "AE-difc", "DIFC", "", "none", "AE"):
        add(f"zone {json.dumps(zone)}", "zones are AE-DIFC, AE-ADGM or null", "from.zone", zone)

    add("no label", "an artefact without a label is about nothing that is known", "labels", [])
    add("extra key", "unknown keys are refused", "note", "")
    add("extra key in an end", "unknown keys are refused", "to.city", "Moscow")
    add("extra key in the volume", "unknown keys are refused", "volume.total", 0)
    add("extra key in a token", "unknown keys are refused", f"{token_at}.until", "2027-01-01T00:00:00Z")
    add("the answer among the facts", "unknown keys are refused", "allowed", True)

    for path, new in {
        "labels": "personal", "artefact": ["weights"], "purpose": None, "use": 1, "origin": ["RU"], "subjects": "RU",
        "circumstances": None, "volume": 0, "bans": True, "safeguards": ["regulator_notification"], "from": "RU",
        "to": None, "from.roles": "ciio", "from.organisation": None, "from.zone": 0, "to.controlled_by": None,
        "to.state_controlled": "false", "to.country": None, "volume.people": "0", token_at: True,
        f"{token_at}.rules": "RU-02", f"{token_at}.since": None, f"{token_at}.filed": 20261102,
    }.items():
        add(f"wrong type of {path.removeprefix('safeguards.RU.')}", "the type is another", path, new)
    add("state_controlled as a number", "the type is another", "from.state_controlled", 0)
    for number in (-1, 0.5, None, 2**63, True):
        add(f"{json.dumps(number)} people", "a count is a whole number from 0 to 2^63 - 1", "volume.people", number)
    add("-1 sensitive people", "a count is a whole number from 0 to 2^63 - 1", "volume.sensitive_people", -1)
    for moment in ("2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "yesterday", ""):
        add(f"since {json.dumps(moment)}", "not an instant", f"{token_at}.since", moment)
    add("filed on no day", "not an instant", f"{token_at}.filed", "2026-11-31T00:00:00Z")

    def dump(data):
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    names = [one["name"] for one in found]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    body = ",\n".join(dump(one) for one in found)
    return len(found), f'{{"vectors":[\n{body}\n]}}\n'


# --- Mutants ----------------------------------------------------------------------------------------------------------

UNIVERSES = {
    "labels": LABELS, "artefact": ARTEFACTS, "purpose": PURPOSES, "use": USES, "from.roles": ROLES, "to.roles": ROLES,
    "circumstances": CIRCUMSTANCES, "from.zone": ZONES, "to.zone": ZONES, "safeguards": KINDS,
}
# A rule that leaves out its home hardly leaves out another country by mistake, so not all of them are tried.
SOME_COUNTRIES = ["BR", "CN", "IR", "US"]
YES, NO = ("constant", True), ("constant", False)


def broken(condition):
    """A condition broken in every way: (what, condition)."""
    yield f"{show(condition)} always holds", YES
    yield f"{show(condition)} never holds", NO
    match condition:
        case ("in", name, words):
            for word in words:
                yield f"{name} without {word}", ("in", name, tuple(other for other in words if other != word))
            for word in UNIVERSES.get(name, [*MEMBERS, *OTHERS] if len(words) > 1 else SOME_COUNTRIES):
                if word not in words:
                    yield f"{name} with {word}", ("in", name, (*words, word))
        case ("ge", name, number):
            for other in (number - 1, number + 1):
                yield f"{name} from {other}", ("ge", name, other)
        case ("time", day):
            for days in (-1, 1):
                moved = (date.fromisoformat(day) + timedelta(days=days)).isoformat()
                yield f"exception from {moved}", ("time", moved)
        case ("not", inner):
            yield f"{show(inner)} without its not", inner
            for what, other in broken(inner):
                yield f"not {what}", ("not", other)
        case ("all" | "any") as kind, inner:
            yield f"{kind} for its opposite", ("any" if kind == "all" else "all", inner)
            for index, one in enumerate(inner):
                for what, other in broken(one):
                    yield what, (kind, (*inner[:index], other, *inner[index + 1:]))


def show(condition):
    match condition:
        case ("in", name, words):
            return f"{name} in {' '.join(words[:2])}{'...' if len(words) > 2 else ''}"
        case ("not", inner):
            return f"not {show(inner)}"
        case ("all" | "any") as kind, inner:
            return f"{kind}({', '.join(show(one) for one in inner)})"
    return " ".join(str(part) for part in condition)


def mutants(rule):
    """A rule broken in every way: (what, rule or None)."""
    change = dataclasses.replace
    if rule.effect == "residual":
        for action in rule.actions:
            yield f"not for {action}", change(rule, actions=tuple(set(rule.actions) - {action}))
        return
    yield "deleted", None
    for action in ACTIONS:
        if action in rule.actions:
            yield f"not for {action}", change(rule, actions=tuple(set(rule.actions) - {action}))
        else:
            yield f"for {action} too", change(rule, actions=(*rule.actions, action))
    for name in ("since", "until"):
        day = getattr(rule, name)
        if day:
            yield f"no {name}", change(rule, **{name: None})
            for days in (-1, 1):
                moved = (date.fromisoformat(day) + timedelta(days=days)).isoformat()
                yield f"{name} {moved}", change(rule, **{name: moved})
    for index, one in enumerate(rule.when):
        for what, other in broken(one):
            yield what, change(rule, when=(*rule.when[:index], other, *rule.when[index + 1:]))
    for index, way in enumerate(rule.satisfied_by):
        others = (*rule.satisfied_by[:index], *rule.satisfied_by[index + 1:])
        yield f"not satisfied by {' + '.join(way)}", change(rule, satisfied_by=others)
        if len(way) > 1:
            for kind in way:
                less = tuple(other for other in way if other != kind)
                yield f"satisfied by {' + '.join(way)} without {kind}", change(rule, satisfied_by=(*others, less))
    if rule.effect == "forbid":
        for kind in KINDS:
            if (kind,) not in rule.satisfied_by:
                yield f"satisfied by {kind}", change(rule, satisfied_by=(*rule.satisfied_by, (kind,)))
    for duty in rule.obligations:
        if rule.effect == "permit" or rule.satisfied_by and not needed(rule):
            yield f"no duty {duty}", change(rule, obligations=tuple(other for other in rule.obligations if other != duty))
    if rule.mutual:
        yield "not mutual", change(rule, mutual=False)
    if rule.waits:
        for waits in (rule.waits - 1, rule.waits + 1):
            yield f"waits {waits}", change(rule, waits=waits)
        for day in rule.days_off:
            yield f"works on {day}", change(rule, days_off=tuple(other for other in rule.days_off if other != day))
        for day in ("01-09", "12-31", "05-02", "11-05"):
            yield f"off on {day}", change(rule, days_off=(*rule.days_off, day))
    for index, (kind, years) in enumerate(rule.valid_for):
        others = (*rule.valid_for[:index], *rule.valid_for[index + 1:])
        yield f"{kind} never too old", change(rule, valid_for=others)
        for other in (years - 1, years + 1):
            yield f"{kind} for {other} years", change(rule, valid_for=(*others, (kind, other)))


# Mutants that no crossing can tell from the rule, and why.
EQUAL = {
    # Another condition of the rule leaves these out already.
    "BR-01": "not to.country with BR", "BR-04": "not to.country with BR",
    "RU-04": " | ".join(
        f"not to.country with {country}" for country in ["RU", *RU_ADEQUATE]
        # Where the wait is over, the notification is there.
    ) + " | satisfied by regulator_notification + waiting_period_elapsed without regulator_notification",
    "BR-07": " | ".join(f"labels with {label}" for label in PERSONAL),
    "CN-18": " | ".join(f"labels with {label}" for label in [*PERSONAL, "important"]),
    "ZA-05": " | ".join(f"labels with {label}" for label in ZA_PERSONAL),
    # Another rule always denies what bears these labels.
    "BR-02": "labels with state_secret", "RU-03": "labels with gov | labels with state_secret",
    "IN-02": "labels without aadhaar_biometric | labels with state_secret",
    "IN-11": "labels without aadhaar_biometric | labels with state_secret",
    "SA-02": "labels with state_secret", "SA-03": "labels with state_secret",
    "BX-06": "labels with core | labels with state_secret",
    # Another rule that is always cited with it brings the same duty.
    "CN-03": "no duty no_quantity_splitting", "CN-04": "no duty pipia_on_file", "EG-03": "no duty pdpc_permit_id",
    "EG-04": "no duty pdpc_permit_id", "SA-04": "no duty minimisation_record",
}
EQUAL["BR-04"] += "".join(f" | safeguards with {kind[0]}" for kind in ways("regulator_approval | " + BR_GROUNDS))
EQUAL["RU-03"] += " | no duty rkn_notification_id"
EQUAL["CN-05"] = "labels with important | no duty notice | no duty pipia_on_file"
EQUAL["CN-06"] = "labels with important"
# Instants begin in 1970.
EQUAL["IN-15"] = "no since | since 1923-04-01 | since 1923-04-03"

SEMANTICS = {
    "RU": [
        "a token counts before every rule", "a token of any issuer counts", "any ban counts", "residual is law",
        "the day of filing counts", "a day off does not move", "weekends are working days",
    ],
    "BR": ["BR-04 is cited with its safeguards", "a token counts before every rule"],
    "alliance": ["either end is both ends", "a token counts before every rule", "residual is law"],
}


def tells(pack, one, index, mutant):
    """Whether a vector shows that the rule at an index was replaced by a mutant, or which wrong semantics are at work."""
    rules, asked = PACKS[pack], (one["action"], one["facts"], one["at"])
    if "outcomes" not in one:
        one["outcomes"] = [outcome(pack, rule, *asked) for rule in rules]
    outcomes, right = one["outcomes"], verdict(rules, one["outcomes"])
    if index is None:
        WRONG.add(mutant)
        told = judge(pack, *asked) != right
        WRONG.clear()
        return told
    others = [*rules[:index], *([mutant] if mutant else []), *rules[index + 1:]]
    found = [outcome(pack, mutant, *asked)] if mutant else []
    if mutant and found[0] == outcomes[index] and mutant.obligations == rules[index].obligations:
        return False
    return verdict(others, [*outcomes[:index], *found, *outcomes[index + 1:]]) != right


def survivors(pack, found):
    """How many mutants there are, and those that no vector tells: (rule, what, index, mutant)."""
    every = [
        (rule.id, what, index, mutant) for index, rule in enumerate(PACKS[pack]) for what, mutant in mutants(rule)
    ] + [("all", wrong, None, wrong) for wrong in SEMANTICS.get(pack, [])]
    alive = [mutant for mutant in every if not any(tells(pack, one, *mutant[2:]) for one in found)]
    return len(every), alive


def decides_and_misses(pack, found):
    for rule in PACKS[pack]:
        roles = {outcome(pack, rule, one["action"], one["facts"], one["at"]) for one in found}
        cited = {
            role["role"] for one in found
            for role in judge(pack, one["action"], one["facts"], one["at"])["rules"] if role["id"] == rule.id
        }
        if rule.effect == "residual":
            assert cited == {"permits"}, rule.id
        else:
            assert ("denies" if rule.effect == "forbid" else "permits") in cited, rule.id
            assert None in roles, rule.id
            # A rule that speaks only where it sees safeguards is not cited as satisfied.
            assert not rule.satisfied_by or needed(rule) or "satisfied" in cited, rule.id


def main(arguments):
    total, failed, files = 0, False, {}
    for pack in PACKS:
        found, alive = generate(pack)
        total += len(found)
        decides_and_misses(pack, found)
        artefacts = {one["facts"]["artefact"] for one in found}
        assert artefacts == set(ARTEFACTS), pack
        text = rendered(pack, found)
        files[f"{pack.lower()}.json"] = text
        print(f"{pack}: {len(PACKS[pack])} rules, {len(found)} vectors, {len(text.encode())} bytes")
        if "--mutants" in arguments:
            tried = sum(len(list(mutants(rule))) for rule in PACKS[pack]) + len(SEMANTICS.get(pack, []))
            odd = [one for one in alive if one[1] not in EQUAL.get(one[0], "").split(" | ")]
            print(f"{pack}: {tried} mutants, {len(alive)} that nothing tells apart, {len(odd)} of them not explained")
            for id, what, *_ in odd:
                print(f"  {id}: {what}")
            failed |= bool(odd)
    count, files["invalid.json"] = refused()
    size = sum(len(text.encode()) for text in files.values())
    print(f"{total} vectors, {count} refused, {size} bytes")
    assert total >= 300 and count >= 60
    if "--mutants" in arguments:
        return int(failed)
    for name, text in files.items():
        path = OUT / name
        if "--check" in arguments:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                print(f"{path} is not what is generated")
                failed = True
        else:
            path.write_text(text, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
