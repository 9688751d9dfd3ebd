//! The closed vocabulary: countries, labels, artefact classes, purposes, uses, safeguards and kinds of organisation.
//!
//! A word outside it is refused where it enters, so that a rule never meets a label that it cannot know.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A word that the vocabulary does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {what}{}; known are: {known}", did_you_mean(meant.as_ref()))]
pub struct UnknownWord {
    pub what: &'static str,
    pub word: String,
    /// The known word that differs only in spaces, capitals and hyphens.
    pub meant: Option<&'static str>,
    pub known: String,
}

fn plain(word: &str) -> String {
    word.trim().to_ascii_lowercase().replace(['-', ' '], "_")
}

macro_rules! vocabulary {
    ($($(#[$doc:meta])* $name:ident ($what:literal) { $($variant:ident = $word:literal,)* })*) => {
        /// Every list, by its name in the specification.
        #[cfg(test)]
        const LISTS: &[(&str, &[&str])] = &[$(($what, &[$($word,)*]),)*];
    $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Every word, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as it stands on the wire, in law packs and in commands.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word).ok_or_else(|| UnknownWord {
                    what: $what,
                    word: word.chars().take(64).collect(),
                    meant: Self::ALL.iter().map(|known| known.as_str()).find(|known| plain(known) == plain(word)),
                    known: Self::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

vocabulary! {
    /// What an artefact is about, as declared by someone accountable for it.
    Label ("label") {
        Public = "public",
        NonPersonal = "non_personal",
        Aggregated = "aggregated",
        Dp = "dp",
        Synthetic = "synthetic",
        Anonymised = "anonymised",
        Personal = "personal",
        Pseudonymised = "pseudonymised",
        UniqueId = "unique_id",
        JuristicPerson = "juristic_person",
        Comms = "comms",
        Payment = "payment",
        Financial = "financial",
        Insurance = "insurance",
        Sensitive = "sensitive",
        Health = "health",
        Biometric = "biometric",
        AadhaarBiometric = "aadhaar_biometric",
        Genetic = "genetic",
        Criminal = "criminal",
        Child = "child",
        Gov = "gov",
        Restricted = "restricted",
        Important = "important",
        Core = "core",
        EtCritical = "et_critical",
        Cii = "cii",
        StateSecret = "state_secret",
        GeoPrecise = "geo_precise",
        Hgr = "hgr",
        CompanyBooks = "company_books",
        CommercialSecret = "commercial_secret",
        ControlledTech = "controlled_tech",
        CnCatalogueTech = "cn_catalogue_tech",
    }

    /// What can cross a border.
    Artefact ("class of artefact") {
        Dataset = "dataset",
        DatasetSample = "dataset_sample",
        Weights = "weights",
        Adapter = "adapter",
        OptimizerState = "optimizer_state",
        Gradient = "gradient",
        Update = "update",
        Activation = "activation",
        KvCache = "kv_cache",
        Embedding = "embedding",
        Prompt = "prompt",
        Output = "output",
        EvalResult = "eval_result",
        Code = "code",
        TrainingRecipe = "training_recipe",
        Manifest = "manifest",
    }

    /// What the importer wants the artefact for.
    Purpose ("purpose") {
        Research = "research",
        Statistical = "statistical",
        Evaluation = "evaluation",
        Commercial = "commercial",
        PublicService = "public_service",
        HealthEmergency = "health_emergency",
        Judicial = "judicial",
        LawEnforcement = "law_enforcement",
        NationalSecurity = "national_security",
        Military = "military",
    }

    /// What will technically be done with the artefact.
    Use ("use") {
        Training = "training",
        FineTuning = "fine_tuning",
        Inference = "inference",
        Aggregation = "aggregation",
        RecordLinkage = "record_linkage",
        Storage = "storage",
        RemoteAccess = "remote_access",
    }

    /// A legal ground or measure that a safeguard token can evidence.
    SafeguardKind ("kind of safeguard") {
        Adequacy = "adequacy",
        AdequacySelfAssessed = "adequacy_self_assessed",
        Treaty = "treaty",
        SccBr = "scc_br",
        SccSa = "scc_sa",
        SccDifc = "scc_difc",
        SccAdgm = "scc_adgm",
        StandardContractFiled = "standard_contract_filed",
        BindingAgreement = "binding_agreement",
        ContractClauses = "contract_clauses",
        Bcr = "bcr",
        Certification = "certification",
        SecurityAssessment = "security_assessment",
        RegulatorNotification = "regulator_notification",
        WaitingPeriodElapsed = "waiting_period_elapsed",
        RegulatorApproval = "regulator_approval",
        RegulatorLicence = "regulator_licence",
        PriorAuthorisation = "prior_authorisation",
        HgrFiling = "hgr_filing",
        ExportLicence = "export_licence",
        TechExportLicence = "tech_export_licence",
        OdiAuthorisation = "odi_authorisation",
        ExplicitConsentTransfer = "explicit_consent_transfer",
        SeparateConsent = "separate_consent",
        WrittenConsent = "written_consent",
        ContractWithSubject = "contract_with_subject",
        LegalClaim = "legal_claim",
        VitalInterest = "vital_interest",
        PublicInterest = "public_interest",
        JudicialCooperation = "judicial_cooperation",
        Pipia = "pipia",
        Tia = "tia",
        RiskAssessment = "risk_assessment",
        Minimisation = "minimisation",
        LocalCopy = "local_copy",
        Delete24h = "delete_24h",
        Md51Exception = "md51_exception",
        ElrProgramme = "elr_programme",
        ExplicitConsent = "explicit_consent",
        Art11Basis = "art11_basis",
        Art61P2348 = "art6_1_p2_3_4_8",
        BcrApproved = "bcr_approved",
        SpecificClausesApproved = "specific_clauses_approved",
        TreatyCooperation = "treaty_cooperation",
        BindingSafeguards = "binding_safeguards",
        CodeOfConduct = "code_of_conduct",
        CommitteeDecision = "committee_decision",
        CompetentSectorApproval = "competent_sector_approval",
        Derogation = "derogation",
        ForeignLeg = "foreign_leg",
        GovOrderCompliance = "gov_order_compliance",
        NdmoPublic = "ndmo_public",
        NsReviewClearance = "ns_review_clearance",
        PublicAuthorityMandate = "public_authority_mandate",
        PublicRegister = "public_register",
        RegulatorAuthorisation = "regulator_authorisation",
        SameLevelUndertaking = "same_level_undertaking",
        SectorApproval = "sector_approval",
        SimilarLaw = "similar_law",
        StatutoryException = "statutory_exception",
        SubjectBenefit = "subject_benefit",
        HrManagement = "hr_management",
        FtzOffNegativeList = "ftz_off_negative_list",
        MoneyTransfer = "money_transfer",
    }

    /// What is true of the movement, or of where the artefact comes from, as declared by the end that knows it. More of them
    /// never loosen anything.
    Circumstance ("circumstance") {
        Collection = "collection",
        RuUnifiedBiometric = "ru_unified_biometric",
        RuStateDeidentified = "ru_state_deidentified",
        InSdfSpecified = "in_sdf_specified",
        OutboundInvestment = "outbound_investment",
        NationalSecuritySensitive = "national_security_sensitive",
        PublicAudience = "public_audience",
    }

    /// Technical evidence that someone accountable declares to be at hand for an artefact.
    Evidence ("kind of evidence") {
        AnonymisationEvidence = "anonymisation_evidence",
        DpBudget = "dp_budget",
        SecureAggregation = "secure_aggregation",
        LeakageTestReport = "leakage_test_report",
        EncryptionInTransitRest = "encryption_in_transit_rest",
        TeeAttestation = "tee_attestation",
        ProvenanceManifest = "provenance_manifest",
        AiLabel = "ai_label",
    }

    /// A zone with data law of its own inside a country.
    Zone ("zone") {
        AeDifc = "AE-DIFC",
        AeAdgm = "AE-ADGM",
    }

    /// What an accredited organisation is in the eyes of the laws.
    OrganisationRole ("role of an organisation") {
        Controller = "controller",
        Processor = "processor",
        Ciio = "ciio",
        StateOrgan = "state_organ",
        PublicEso = "public_eso",
        PrivateEso = "private_eso",
        Sdf = "sdf",
        PaymentSystemOperator = "payment_system_operator",
        CentralBankSupervised = "central_bank_supervised",
        SignificantKii = "significant_kii",
        Affiliate = "affiliate",
        University = "university",
        StateOwned = "state_owned",
        ForeignState = "foreign_state",
        ForeignJudicial = "foreign_judicial",
        ForeignLawEnforcement = "foreign_law_enforcement",
        Military = "military",
    }

    /// What a member may do in the alliance.
    Seat ("seat") {
        Full = "full",
        Partner = "partner",
        Suspended = "suspended",
    }

    /// How well it is established where a node is, from least to most: its operator says so; its authority has seen papers;
    /// others have measured or checked it on the spot; its hardware proves it.
    Tier ("tier") {
        Declared = "declared",
        Accredited = "accredited",
        Corroborated = "corroborated",
        Attested = "attested",
    }

    /// What made a model out of data or of other models.
    Process ("process of training") {
        PreTraining = "pre_training",
        FineTuning = "fine_tuning",
        Merging = "merging",
        Quantisation = "quantisation",
        Conversion = "conversion",
    }

    /// What an accredited node may do.
    NodeRole ("role of a node") {
        Exporter = "exporter",
        Importer = "importer",
        Witness = "witness",
    }
}

impl Label {
    /// Whether the label says that no law restricts what it stands on: a safeguard need not name it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Public | Self::NonPersonal | Self::Aggregated | Self::Dp | Self::Synthetic | Self::Anonymised)
    }

    /// Whether the label can only be about a person.
    #[must_use]
    pub const fn is_personal(self) -> bool {
        matches!(self, Self::Personal | Self::Pseudonymised | Self::UniqueId | Self::Comms) || self.is_special()
    }

    /// Whether the label is of a special category of personal data.
    #[must_use]
    pub const fn is_special(self) -> bool {
        matches!(
            self,
            Self::Sensitive
                | Self::Health
                | Self::Biometric
                | Self::AadhaarBiometric
                | Self::Genetic
                | Self::Criminal
                | Self::Child
        )
    }
}

impl Default for Tier {
    /// What an accreditation that names none says.
    fn default() -> Self {
        Self::Accredited
    }
}

impl Tier {
    /// Whether it is what is meant where none is named.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// This one and all below it.
    pub fn reached(self) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |tier| *tier <= self)
    }
}

impl Zone {
    /// The country that the zone lies in.
    #[must_use]
    pub const fn country(self) -> Country {
        match self {
            Self::AeDifc | Self::AeAdgm => Country(*b"AE"),
        }
    }
}

/// A country, by its ISO 3166-1 alpha-2 code in capitals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// The text is not an assigned code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a country code of ISO 3166-1 alpha-2 (two capital letters, such as BR, RU, IN, CN, ZA){}",
    did_you_mean(meant.as_ref())
)]
pub struct UnknownCountry {
    text: String,
    meant: Option<Country>,
}

impl UnknownCountry {
    /// Says no, with what may have been meant. Nothing is guessed: the text stays refused.
    fn new(text: &str) -> Self {
        let capitals = text.trim().to_ascii_uppercase();
        // Two codes in wide use that ISO 3166-1 gives to nobody.
        let code = match capitals.as_str() {
            "UK" => "GB",
            "EL" => "GR",
            other => other,
        };
        let meant = if code == text { None } else { code.parse().ok() };
        Self { text: text.chars().take(16).collect(), meant }
    }
}

fn did_you_mean(meant: Option<&impl fmt::Display>) -> String {
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

impl Country {
    /// The two letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // INVARIANT: only `from_str` makes a Country, from ASCII letters.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Country {
    type Err = UnknownCountry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let assigned = || ISO_3166_1.as_bytes().chunks(3).find(|code| code.get(..2) == Some(text.as_bytes()));
        match text.as_bytes() {
            &[a, b] if assigned().is_some() => Ok(Self([a, b])),
            _ => Err(UnknownCountry::new(text)),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The 249 assigned codes, each followed by one space or the end.
const ISO_3166_1: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE \
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM \
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC \
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_assigned_codes_in_capitals() {
        assert_eq!(ISO_3166_1.split(' ').count(), 249);
        for good in ["BR", "RU", "IN", "CN", "ZA", "AD", "ZW"] {
            assert_eq!(good.parse::<Country>().expect("assigned").as_str(), good);
        }
        // The fourth holds a Cyrillic letter that looks like a Latin one.
        for bad in ["", "B", "BRA", "\u{0412}R", "br", "Br", "UK", "SU", "ZZ", "B ", " B", "R "] {
            assert!(bad.parse::<Country>().is_err(), "{bad}");
        }
        let meant = [("UK", "GB"), ("EL", "GR"), ("el", "GR"), ("br", "BR"), (" BR", "BR")];
        for (text, code) in meant {
            let error = text.parse::<Country>().expect_err("not assigned").to_string();
            assert!(error.ends_with(&format!("; did you mean `{code}`?")), "{error}");
        }
        for text in ["ZZ", "\u{0412}R", ""] {
            let error = text.parse::<Country>().expect_err("not assigned").to_string();
            assert!(!error.contains("did you mean"), "{error}");
        }
    }

    /// STATEMENT-15 is where others read the words.
    #[test]
    fn the_specification_has_these_words_in_this_order() {
        let text = include_str!("../../specs/01-statements.md");
        let clause = text.split("**STATEMENT-15**").nth(1).and_then(|rest| rest.split("**STATEMENT-16**").next());
        let items = clause.expect("the clause").split("\n- ").skip(1).map(|item| {
            let (what, words) = item.split_once(':').expect("a name and words");
            (what.to_owned(), words.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        });
        let specified: std::collections::BTreeMap<_, _> = items.collect();
        let ours = LISTS.iter().map(|(what, words)| ((*what).to_owned(), words.iter().map(ToString::to_string).collect()));
        assert_eq!(specified, ours.collect());
    }

    #[test]
    fn words_round_trip() {
        for label in Label::ALL {
            assert_eq!(label.as_str().parse::<Label>(), Ok(*label));
        }
        let error = "persnal".parse::<Label>().expect_err("misspelt");
        assert!(error.to_string().contains("`persnal` is not a label; known are: public"), "{error}");
        let error = " Non-Personal".parse::<Label>().expect_err("not as it is written").to_string();
        assert!(error.contains("is not a label; did you mean `non_personal`?; known are"), "{error}");
    }
}
