//! Who is asked for what, without any network.

use std::{collections::BTreeSet, path::Path};

use alliance_protocol::{
    id::Sha256,
    manifest::{File, Segment, SegmentKind},
    vocabulary::{Artefact, Label},
};
use proptest::prelude::*;

use super::*;

const GROUP: usize = 256 * 1024;

/// An artefact of one file with so many groups.
pub(in crate::bulk) fn manifest(groups: usize) -> Manifest {
    let bytes = vec![7; groups * GROUP - 5];
    let segment = Segment::of(SegmentKind::Opaque, &bytes);
    let path = Path::new("a").display().to_string();
    let file = File { path, bytes: segment.bytes, sha256: Sha256([0; 32]), segments: vec![segment] };
    Manifest::new(Artefact::Weights, BTreeSet::from([Label::Public]), vec![file]).expect("a manifest")
}

fn board(groups: usize) -> Board {
    let manifest = manifest(groups);
    Board::new(&manifest, vec![(0, manifest.group_count())], ME, 1)
}

/// The importer's number; those of the sources are their own.
const ME: u64 = 99;

const A: SourceId = SourceId(0);
const B: SourceId = SourceId(1);
const C: SourceId = SourceId(2);

fn firsts(pieces: &[Piece]) -> Vec<u64> {
    pieces.iter().map(|piece| piece.first).collect()
}

#[test]
fn one_source_is_asked_in_the_order_of_the_files() {
    let mut board = board(11);
    assert_eq!(board.free_bytes(), 11 * GROUP as u64 - 5);
    board.join(A, A.0.into());
    assert_eq!(board.take(A, 0), None, "it has said nothing");
    board.learn(A, &[(0, 11)]);
    let pieces: Vec<Piece> = std::iter::from_fn(|| board.take(A, 0)).collect();
    assert_eq!(pieces.iter().map(|piece| (piece.first, piece.end)).collect::<Vec<_>>(), [(0, 4), (4, 8), (8, 11)]);
    assert_eq!(board.free_bytes(), 0);
    for piece in pieces {
        assert!(!board.is_complete());
        assert_eq!(board.expected(A), Some(piece));
        board.arrived(A);
    }
    assert!(board.is_complete() && board.expected(A).is_none());
}

#[test]
fn who_reads_what_comes_goes_first_and_readers_take_turns() {
    let mut board = board(40);
    for source in [A, B] {
        board.join(source, source.0.into());
    }
    board.learn(A, &[(0, 40)]);
    board.learn(B, &[(0, 32)]);
    let take = |board: &mut Board, source| board.take(source, 0).map(|piece| piece.first).expect("one");
    board.read(ReaderId(1), 21..40);
    assert_eq!([take(&mut board, A), take(&mut board, A)], [20, 24], "from the piece in which it begins");
    board.read(ReaderId(2), 8..9);
    assert_eq!(take(&mut board, B), 8, "who comes last waits for nobody");
    board.read(ReaderId(3), 32..33);
    // B has nothing of what the third reads, and the second has all that it wants.
    assert_eq!([take(&mut board, B), take(&mut board, A)], [28, 32]);
    // What was asked of one that is gone is wanted again before what comes after it.
    board.leave(A);
    assert_eq!([take(&mut board, B), take(&mut board, B)], [20, 24]);
    board.unread(ReaderId(1));
    board.read(ReaderId(4), 100..200);
    board.read(ReaderId(5), 0..0);
    let rest: BTreeSet<u64> = std::iter::from_fn(|| board.take(B, 0)).map(|piece| piece.first).collect();
    assert_eq!(rest, BTreeSet::from([0, 4, 12, 16]));
}

#[test]
fn what_a_source_leaves_undone_is_asked_of_another() {
    let mut board = board(12);
    for source in [A, B] {
        board.join(source, source.0.into());
        board.learn(source, &[(0, 12)]);
    }
    let of_a = [board.take(A, 0), board.take(A, 0)].map(|piece| piece.expect("one"));
    let of_b = board.take(B, 0).expect("one");
    assert_eq!(board.take(B, 0), None, "all are asked for");
    board.arrived(A);
    board.arrived(B);
    board.leave(A);
    assert_eq!(board.take(B, 0), Some(of_a[1]));
    board.arrived(B);
    assert!(board.is_complete());
    assert!(BTreeSet::from([of_a[0].first, of_a[1].first, of_b.first]) == BTreeSet::from([0, 4, 8]));
    board.arrived(A);
    assert!(board.is_complete(), "who left brings nothing any more");
}

#[test]
fn what_fewest_have_is_asked_for_first() {
    let mut board = board(16);
    for source in [A, B, C] {
        board.join(source, source.0.into());
    }
    board.learn(A, &[(0, 16)]);
    board.learn(B, &[(0, 8)]);
    board.learn(C, &[(0, 4), (12, 16)]);
    assert_eq!(board.take(A, 0).map(|piece| piece.first), Some(8), "only A has it");
    assert!(matches!(board.take(A, 0).map(|piece| piece.first), Some(4 | 12)), "two have it");
    // B has nothing else than these.
    let of_b: Vec<Piece> = std::iter::from_fn(|| board.take(B, 0)).collect();
    assert!(firsts(&of_b).iter().all(|first| *first < 8));
    // Half a piece is none, until the rest comes.
    let mut board = self::board(8);
    board.join(A, A.0.into());
    board.learn(A, &[(0, 3)]);
    assert_eq!(board.take(A, 0), None);
    board.learn(A, &[(3, 5)]);
    assert_eq!(board.take(A, 0).map(|piece| piece.first), Some(0));
    assert_eq!(board.take(A, 0), None);
}

#[test]
fn importers_ask_in_different_orders() {
    let manifest = manifest(64);
    let order = |seed| {
        let mut board = Board::new(&manifest, vec![(0, 64)], ME, seed);
        for source in [A, B] {
            board.join(source, source.0.into());
            board.learn(source, &[(0, 64)]);
        }
        firsts(&std::iter::from_fn(|| board.take(A, 0)).collect::<Vec<_>>())
    };
    assert_ne!(order(1), order(2));
    assert_eq!(order(1), order(1));
}

#[test]
fn a_source_that_holds_up_all_others_is_found() {
    let mut board = board(8);
    for source in [A, B] {
        board.join(source, source.0.into());
        board.learn(source, &[(0, 8)]);
    }
    board.take(A, 1000).expect("one");
    assert_eq!(board.overdue(B, 9_000), None, "B can still be asked for something");
    board.take(B, 1000).expect("one");
    assert_eq!(board.overdue(B, 9_000), None, "B is not idle");
    board.arrived(B);
    assert_eq!(board.overdue(B, 1000 + OVERDUE_MS - 1), None);
    assert_eq!(board.overdue(B, 1000 + OVERDUE_MS), Some(A));
    assert_eq!(board.overdue(A, 9_000), None);
    // Nobody else has it: then there is nothing to be won.
    let mut board = self::board(8);
    for source in [A, B] {
        board.join(source, source.0.into());
    }
    board.learn(A, &[(0, 8)]);
    board.learn(B, &[(0, 4)]);
    while board.take(A, 0).is_some() {}
    board.arrived(A);
    assert_eq!(
        board.overdue(B, 9_000),
        if board.expected(A).is_some_and(|piece| piece.first == 0) { Some(A) } else { None }
    );
}

#[test]
fn the_pieces_of_a_large_artefact_are_few() {
    let manifest = manifest(3);
    let many: Vec<(u64, u64)> = vec![(0, 1), (2, 3)];
    let board = Board::new(&manifest, many, ME, 0);
    assert_eq!(board.pieces.len(), 2, "what lies apart is asked for apart");
    assert!(Board::new(&manifest, Vec::new(), ME, 0).is_complete());
}

proptest! {
    /// Whatever sources do, each piece comes once, from one that has it, and the artefact becomes complete.
    #[test]
    fn every_piece_comes_exactly_once(
        steps in prop::collection::vec((0_u32..4, 0_u8..4, 0_u64..40, 1_u64..40), 1..200), seed: u64
    ) {
        let manifest = manifest(40);
        let mut board = Board::new(&manifest, vec![(0, 40)], ME, seed);
        let mut here = BTreeSet::new();
        for (source, what, first, length) in steps {
            let source = SourceId(source);
            match what {
                0 => board.join(source, source.0.into()),
                1 => board.leave(source),
                2 => board.learn(source, &[(first, (first + length).min(40))]),
                _ => {
                    if let Some(piece) = board.expected(source) {
                        prop_assert!(here.insert(piece.first), "{piece:?} twice");
                        board.arrived(source);
                    } else if let Some(piece) = board.take(source, 0) {
                        prop_assert!(!here.contains(&piece.first), "{piece:?} is here");
                    }
                }
            }
            prop_assert_eq!(board.is_complete(), here.len() == board.pieces.len());
        }
        for source in 0..4 {
            board.leave(SourceId(source));
        }
        board.join(A, A.0.into());
        board.learn(A, &[(0, 40)]);
        while let Some(piece) = board.take(A, 0) {
            prop_assert!(here.insert(piece.first));
            board.arrived(A);
        }
        prop_assert!(board.is_complete());
        prop_assert_eq!(board.free_bytes(), 0);
    }
}

/// Importers who pull the same from one source that has it and from each other: in each step every source brings each of them
/// one piece, and what somebody has is known to the others two steps later. Gives how many pieces the first source sent.
fn sent_by_the_first(importers: u32, pieces: usize) -> usize {
    const AHEAD: usize = 3;
    let manifest = manifest(4 * pieces);
    let groups = vec![(0, manifest.group_count())];
    // The first source is 0; importer n is source n of the others.
    let mut boards: Vec<Board> = (1..=importers)
        .map(|me| {
            let mut board = Board::new(&manifest, groups.clone(), me.into(), (me * 7).into());
            (0..=importers).filter(|source| *source != me).for_each(|source| board.join(SourceId(source), source.into()));
            board.learn(SourceId(0), &groups);
            board
        })
        .collect();
    let (mut sent, mut news) = (0, VecDeque::from([Vec::new(), Vec::new()]));
    while boards.iter().any(|board| !board.is_complete()) {
        let mut told = Vec::new();
        for (me, board) in (1..).zip(&mut boards) {
            for source in (0..=importers).filter(|source| *source != me) {
                while board.sources[&SourceId(source)].asked.len() < AHEAD && board.take(SourceId(source), 0).is_some() {}
                if let Some(piece) = board.expected(SourceId(source)) {
                    board.arrived(SourceId(source));
                    sent += usize::from(source == 0);
                    told.push((me, (piece.first, piece.end)));
                }
            }
        }
        news.push_back(told);
        for (from, run) in news.pop_front().expect("two steps ago") {
            for (me, board) in (1..).zip(&mut boards) {
                if me != from {
                    board.learn(SourceId(from), &[run]);
                }
            }
        }
    }
    sent
}

#[test]
fn what_all_want_leaves_the_source_that_has_it_little_more_than_once() {
    assert_eq!(sent_by_the_first(1, 60), 60);
    for importers in 2..6 {
        let sent = sent_by_the_first(importers, 240);
        assert!((240..=240 * 118 / 100).contains(&sent), "{importers} importers: {sent} of 240");
    }
}
