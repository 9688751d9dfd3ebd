//! How gossip is set up: one topic, manual validation, bounded queues, and scores under which a peer that sends bad
//! statements soon speaks to nobody.
//!
//! Messages carry no author and no signature of libp2p: what is gossiped is a signed statement, and a second signature
//! would only give strangers something to make us verify. A message is named by the hash of its content, so that the same
//! statement is one message however many nodes publish it, and nobody can make two of one.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use alliance_protocol::{id::AllianceId, limits};
use libp2p::gossipsub::{
    Behaviour, Config, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAuthenticity, MessageId,
    PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};

use super::MeshError;

pub(super) type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Bytes that the framing of a message needs: the topic of about 90 bytes and a few field headers.
const FRAMING_BYTES: usize = 1024;

/// Bytes of a statement that can be gossiped.
pub(super) const PAYLOAD_BYTES_MAX: usize = limits::GOSSIP_BYTES_MAX - FRAMING_BYTES;

const _: () = assert!(PAYLOAD_BYTES_MAX > limits::LAW_PACK_BYTES_MAX);

/// Separates message names from every other use of BLAKE3.
const MESSAGE_ID_DOMAIN: &[u8] = b"alliance/gossip-id/1";

/// Bytes of a message name. 160 bits cannot be made to collide on purpose, and keep lists of names short.
const MESSAGE_ID_BYTES: usize = 20;

/// How long a message is recognised as seen. Longer than a statement needs to reach the farthest node; it is no protection
/// against replay, which is Core's matter.
const SEEN_FOR: Duration = Duration::from_secs(120);

/// Messages that wait to be sent to one peer. The largest statement times this is 50 MB for a peer that reads nothing, and
/// only accepted statements ever get here.
const QUEUE_LEN: usize = 256;

/// How long a message may wait to be sent. A law pack needs a second on a line of 2 Mbit/s.
const QUEUE_TIME: Duration = Duration::from_secs(5);

/// Names in one list of names: at 22 bytes each they stay under the 16 KiB that a receiver takes.
const NAMES_PER_LIST_MAX: usize = 500;

/// Statements in one RPC. This implementation sends one.
const MESSAGES_PER_RPC_MAX: usize = 16;

/// The score of peers that are not admitted: far below every threshold, whatever else is counted for them.
pub(super) const STRANGER_SCORE: f64 = -1_000_000.0;

/// The score of an admitted peer of which nothing bad is remembered.
pub(super) const NEUTRAL_SCORE: f64 = 0.0;

/// Below this, everything a peer gossips is dropped unread.
pub(super) const GRAYLIST_SCORE: f64 = -100.0;

/// Below this, nothing that this node publishes is sent to the peer.
const PUBLISH_SCORE: f64 = -60.0;

/// Below this, no names are exchanged with the peer.
const NAMES_SCORE: f64 = -30.0;

/// What a peer can earn at most, so that no good behaviour pays for more than a fraction of one bad message.
const EARNED_MAX: f64 = 10.0;

/// What `n` bad messages cost: this times the square of `n`. One bad message ends mesh links, two end publishing to the
/// peer, three graylist it.
const BAD_MESSAGE_WEIGHT: f64 = -20.0;

/// The time in which half of the bad messages are forgotten. More than one every six minutes keeps a peer graylisted.
const BAD_MESSAGE_HALF_LIFE_S: f64 = 600.0;

/// The topic of an alliance.
pub(super) fn topic(alliance: &AllianceId) -> IdentTopic {
    IdentTopic::new(format!("alliance/{alliance}/statements/1"))
}

/// The name of a message: a hash of topic and content.
fn message_id(message: &Message) -> MessageId {
    let topic = message.topic.as_str().as_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(MESSAGE_ID_DOMAIN);
    hasher.update(&u64::try_from(topic.len()).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(topic);
    hasher.update(&message.data);
    let mut id = [0; MESSAGE_ID_BYTES];
    hasher.finalize_xof().fill(&mut id);
    MessageId::new(&id)
}

fn config() -> Result<Config, MeshError> {
    let mut builder = ConfigBuilder::default();
    builder
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(limits::GOSSIP_BYTES_MAX)
        .max_publish_messages(MESSAGES_PER_RPC_MAX)
        .max_control_messages_sent(NAMES_PER_LIST_MAX)
        .duplicate_cache_time(SEEN_FOR)
        .connection_handler_queue_len(QUEUE_LEN)
        .publish_queue_duration(QUEUE_TIME)
        .forward_queue_duration(QUEUE_TIME)
        // Core answers within one commit; a busy disk may take seconds, and a message must still be there then.
        .history_length(12)
        .history_gossip(3)
        // A mesh of two to five nodes simply links all of them.
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        // What a node says itself goes to all that may hear it: an offer of a node with few links is not censored by them.
        .flood_publish(true)
        .heartbeat_initial_delay(Duration::from_millis(100))
        // Exchange of peers stays off: who is a node is known from accreditations, not from gossip.
        .prune_peers(0);
    builder.build().map_err(|error| MeshError::Gossip(error.to_string()))
}

/// Parameters of the scores.
///
/// - P1 (time in the mesh) and P2 (first deliveries) earn a little, up to [`EARNED_MAX`] together.
/// - P3 (too few deliveries) is off: most of the time an alliance has nothing to say, and silence is no offence.
/// - P4 (bad messages) decides; Core's `Reject` counts here.
/// - P5 (set by the mesh) keeps strangers out and carries bad scores over a reconnection.
/// - P6 (many peers of one address) is off unless configured: accreditation, not the address, limits how many nodes there
///   are, and testnets and institutes have many nodes behind one address.
/// - P7 (broken promises, early grafts) is lenient: overload of an honest node looks the same.
fn score_params(topic: TopicHash, peers_per_ip: Option<u32>) -> PeerScoreParams {
    let topic_params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 1.0,
        time_in_mesh_quantum: Duration::from_secs(60),
        time_in_mesh_cap: EARNED_MAX / 2.0,
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: 0.99,
        first_message_deliveries_cap: EARNED_MAX / 2.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: BAD_MESSAGE_WEIGHT,
        invalid_message_deliveries_decay: 0.5_f64.powf(1.0 / BAD_MESSAGE_HALF_LIFE_S),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic, topic_params)]),
        topic_score_cap: EARNED_MAX,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: if peers_per_ip.is_some() { -5.0 } else { 0.0 },
        ip_colocation_factor_threshold: f64::from(peers_per_ip.unwrap_or(1).max(1)),
        behaviour_penalty_weight: -5.0,
        behaviour_penalty_threshold: 4.0,
        behaviour_penalty_decay: 0.95,
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        // Strangers all have bad scores, and libp2p would keep one for every key that ever connected. The mesh remembers
        // the bad scores of admitted peers itself, in a bounded list.
        retain_score: Duration::ZERO,
        slow_peer_weight: -0.2,
        slow_peer_threshold: 16.0,
        slow_peer_decay: 0.9,
        ..PeerScoreParams::default()
    }
}

const fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: NAMES_SCORE,
        publish_threshold: PUBLISH_SCORE,
        graylist_threshold: GRAYLIST_SCORE,
        // More than anyone can have.
        accept_px_threshold: EARNED_MAX * 100.0,
        opportunistic_graft_threshold: 1.0,
    }
}

/// The gossip behaviour, subscribed to the alliance's topic and to nothing else.
pub(super) fn gossip(alliance: &AllianceId, peers_per_ip: Option<u32>) -> Result<Gossip, MeshError> {
    let topic = topic(alliance);
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config()?, filter)
        .map_err(|error| MeshError::Gossip(error.to_owned()))?;
    gossip.with_peer_score(score_params(topic.hash(), peers_per_ip), thresholds()).map_err(MeshError::Gossip)?;
    gossip.subscribe(&topic).map_err(|error| MeshError::Gossip(error.to_string()))?;
    Ok(gossip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_params() -> TopicScoreParams {
        let topic = topic(&AllianceId([1; 32])).hash();
        score_params(topic.clone(), None).topics.remove(&topic).expect("the topic is scored")
    }

    /// The score of a peer with so many bad messages that has earned all there is to earn.
    fn best_score_with(bad: f64) -> f64 {
        let params = topic_params();
        let earned = params.time_in_mesh_cap * params.time_in_mesh_weight
            + params.first_message_deliveries_cap * params.first_message_deliveries_weight;
        assert!(earned <= EARNED_MAX);
        earned + bad * bad * params.invalid_message_deliveries_weight
    }

    #[test]
    fn the_parameters_are_accepted() {
        assert!(gossip(&AllianceId([1; 32]), None).is_ok());
        assert!(gossip(&AllianceId([1; 32]), Some(4)).is_ok());
        assert!(gossip(&AllianceId([1; 32]), Some(0)).is_ok());
    }

    #[test]
    fn three_bad_messages_graylist_whatever_was_earned() {
        assert!(best_score_with(1.0) < 0.0, "one ends mesh links");
        assert!(best_score_with(2.0) < PUBLISH_SCORE, "two end publishing");
        assert!(best_score_with(3.0) < GRAYLIST_SCORE, "three graylist");
        const { assert!(STRANGER_SCORE + EARNED_MAX < GRAYLIST_SCORE) };
    }

    #[test]
    fn steady_bad_behaviour_stays_graylisted() {
        let decay = topic_params().invalid_message_deliveries_decay;
        let mut bad = 0.0;
        let mut graylisted = 0_u32;
        let hours = 24;
        for second in 0..hours * 3600 {
            bad *= decay;
            if second % 300 == 0 {
                bad += 1.0;
            }
            graylisted += u32::from(best_score_with(bad) < GRAYLIST_SCORE);
        }
        assert!(graylisted > (hours - 1) * 3600, "graylisted for {graylisted} seconds only");
    }

    #[test]
    fn an_honest_mistake_is_forgiven() {
        let decay = topic_params().invalid_message_deliveries_decay;
        let bad = decay.powi(3600);
        assert!(best_score_with(bad) >= 0.0);
    }

    #[test]
    fn names_depend_on_topic_and_content_only() {
        let message = |topic: &str, data: &[u8]| Message {
            source: None,
            data: data.to_vec(),
            sequence_number: None,
            topic: TopicHash::from_raw(topic),
        };
        let id = |topic, data| message_id(&message(topic, data));
        assert_eq!(id("a", b"bc"), id("a", b"bc"));
        assert_ne!(id("a", b"bc"), id("ab", b"c"));
        assert_ne!(id("a", b"bc"), id("a", b"bd"));
        assert_eq!(id("a", b"bc").0.len(), MESSAGE_ID_BYTES);
    }
}
