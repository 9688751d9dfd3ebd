//! A path between two bulk planes that does to datagrams what paths do: it loses them, brings them late or twice, flips a
//! bit, cuts them short, goes on from another address, and ends.
//!
//! What happens to a datagram is a pure function of the seed, its direction and its number; so is what is left of it, but
//! for the order in which both directions come by. Start with [`Weather::pass`]; [`Path`] only carries.

use std::net::SocketAddr;

use tokio::{net::UdpSocket, sync::watch};

/// How many of a thousand datagrams something happens to. One datagram may meet with several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ills {
    pub(crate) lost: u16,
    pub(crate) late: u16,
    pub(crate) twice: u16,
    pub(crate) flipped: u16,
    pub(crate) short: u16,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToExporter,
    ToImporter,
}

/// Datagrams by which one that is late is overtaken, at the most: more than the three that QUIC takes for disorder.
const LATE_MAX: u64 = 12;

/// What becomes of datagrams.
#[derive(Debug)]
pub(crate) struct Weather {
    seed: u64,
    ills: Ills,
    /// How many have come each way.
    numbers: [u64; 2],
    /// What is late, each way, and which number it waits for.
    late: [Vec<(u64, Vec<u8>)>; 2],
    met: Ills,
}

impl Weather {
    pub(crate) fn new(seed: u64, ills: Ills) -> Self {
        Self { seed, ills, numbers: [0; 2], late: [Vec::new(), Vec::new()], met: Ills::default() }
    }

    /// What comes out at the other end when a datagram goes in.
    pub(crate) fn pass(&mut self, way: Way, mut datagram: Vec<u8>) -> Vec<Vec<u8>> {
        self.numbers[way as usize] += 1;
        let number = self.numbers[way as usize];
        let drawn = [&self.seed.to_be_bytes()[..], &[way as u8], &number.to_be_bytes()].concat();
        let drawn = blake3::hash(&drawn);
        let word = |at: usize| u16::from_be_bytes([drawn.as_bytes()[2 * at], drawn.as_bytes()[2 * at + 1]]);
        let meets = |at: usize, of_thousand: u16, met: &mut u16| {
            let meets = u32::from(word(at)) * 1000 < u32::from(of_thousand) << 16;
            *met = met.saturating_add(meets.into());
            meets
        };
        let (ills, met) = (self.ills, &mut self.met);
        let mut out = Vec::new();
        if !meets(0, ills.lost, &mut met.lost) {
            if meets(1, ills.flipped, &mut met.flipped) && !datagram.is_empty() {
                let at = usize::from(word(2)) % datagram.len();
                datagram[at] ^= 1 << (word(3) % 8);
            }
            if meets(4, ills.short, &mut met.short) {
                datagram.truncate(usize::from(word(5)) % datagram.len().max(1));
            }
            let copies = if meets(6, ills.twice, &mut met.twice) { 2 } else { 1 };
            if meets(7, ills.late, &mut met.late) {
                let due = number + 1 + u64::from(word(8)) % LATE_MAX;
                self.late[way as usize].push((due, datagram.clone()));
            } else {
                out.push(datagram.clone());
            }
            out.extend(std::iter::repeat_n(datagram, copies - 1));
        }
        let late = &mut self.late[way as usize];
        out.extend(late.extract_if(.., |(due, _)| *due <= number).map(|(_, datagram)| datagram));
        out
    }

    /// How often each has happened.
    pub(crate) fn met(&self) -> Ills {
        self.met
    }
}

/// What happens once, after so many bytes have come to the importer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Never,
    /// From here on the exporter sees the importer at another address, and the old one is nobody's: a NAT has forgotten it.
    Moves(u64),
    /// Nothing passes any more.
    Ends(u64),
}

/// The path, which lasts as long as this.
pub(crate) struct Path {
    address: SocketAddr,
    turned: watch::Receiver<bool>,
    met: watch::Receiver<Ills>,
    _lasts: watch::Sender<()>,
}

impl Path {
    /// A path to `target`. Must be called within a tokio runtime.
    pub(crate) async fn new(target: SocketAddr, weather: Weather, turn: Turn) -> Self {
        let front = bind().await;
        let address = front.local_addr().expect("bound");
        let (turning, turned) = watch::channel(false);
        let (meeting, met) = watch::channel(Ills::default());
        let (lasts, lasting) = watch::channel(());
        let back = open(target).await;
        tokio::spawn(Carrier { front, back, target, weather, turn, turning, meeting, lasting }.carry());
        Self { address, turned, met, _lasts: lasts }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns when its turn has come.
    pub(crate) async fn turned(&self) {
        self.turned.clone().wait_for(|turned| *turned).await.expect("it lives as long as this");
    }

    /// How often each ill has happened.
    pub(crate) fn met(&self) -> Ills {
        *self.met.borrow()
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a free port")
}

async fn open(target: SocketAddr) -> UdpSocket {
    let socket = bind().await;
    socket.connect(target).await.expect("an address");
    socket
}

struct Carrier {
    front: UdpSocket,
    back: UdpSocket,
    target: SocketAddr,
    weather: Weather,
    turn: Turn,
    turning: watch::Sender<bool>,
    meeting: watch::Sender<Ills>,
    lasting: watch::Receiver<()>,
}

impl Carrier {
    async fn carry(mut self) {
        let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut importer, mut carried) = (None, 0_u64);
        loop {
            tokio::select! {
                Ok((bytes, from)) = self.front.recv_from(&mut there) => {
                    importer = Some(from);
                    for datagram in self.weather.pass(Way::ToExporter, there[..bytes].to_vec()) {
                        // A datagram that is not taken is lost, as any may be.
                        let _lost = self.back.send(&datagram).await;
                    }
                }
                Ok(bytes) = self.back.recv(&mut here) => {
                    carried += bytes as u64;
                    for datagram in self.weather.pass(Way::ToImporter, here[..bytes].to_vec()) {
                        if let Some(importer) = importer {
                            let _lost = self.front.send_to(&datagram, importer).await;
                        }
                    }
                }
                // Nothing is ever sent through it; it ends.
                _over = self.lasting.changed() => return,
            }
            self.meeting.send_replace(self.weather.met());
            match self.turn {
                Turn::Moves(after) if carried >= after => {
                    self.turn = Turn::Never;
                    self.back = open(self.target).await;
                    self.turning.send_replace(true);
                }
                Turn::Ends(after) if carried >= after => {
                    self.turning.send_replace(true);
                    // The sockets stay, so that nobody is told.
                    let _over = self.lasting.changed().await;
                    return;
                }
                Turn::Never | Turn::Moves(_) | Turn::Ends(_) => {}
            }
        }
    }
}

#[test]
fn what_happens_depends_on_the_seed_alone() {
    let ills = Ills { lost: 100, late: 100, twice: 100, flipped: 100, short: 100 };
    let run = |seed| {
        let mut weather = Weather::new(seed, ills);
        let out: Vec<_> = (0..2000_u32)
            .map(|number| {
                let way = if number % 3 == 0 { Way::ToExporter } else { Way::ToImporter };
                weather.pass(way, number.to_be_bytes().repeat(10))
            })
            .collect();
        (out, weather.met())
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
    let (_, met) = run(1);
    // A tenth of those that are not lost, within five standard deviations.
    for (what, times) in [met.lost, met.late, met.twice, met.flipped, met.short].into_iter().enumerate() {
        assert!((110..270).contains(&times), "{what}: {met:?}");
    }
}

#[test]
fn each_ill_does_what_it_is_called() {
    const SENT: u16 = 1000;
    let all = |ills| {
        let mut weather = Weather::new(7, ills);
        let sent: Vec<Vec<u8>> = (0..SENT).map(|number| number.to_be_bytes().repeat(20)).collect();
        let out: Vec<_> = sent.iter().flat_map(|datagram| weather.pass(Way::ToImporter, datagram.clone())).collect();
        (sent, out, weather.met())
    };
    let (sent, out, met) = all(Ills::default());
    assert!(sent == out && met == Ills::default());

    let (sent, out, met) = all(Ills { lost: 300, ..Ills::default() });
    assert_eq!(out.len(), usize::from(SENT - met.lost));
    assert!(out.is_sorted() && out.iter().all(|datagram| sent.contains(datagram)));

    let (sent, mut out, met) = all(Ills { late: 300, ..Ills::default() });
    assert!(met.late > 0 && !out.is_sorted());
    // The last ones wait for others.
    assert!(out.len() + usize::try_from(LATE_MAX).expect("few") >= sent.len());
    out.sort();
    out.dedup();
    assert!(out.iter().all(|datagram| sent.contains(datagram)));

    let (sent, mut out, met) = all(Ills { twice: 300, ..Ills::default() });
    assert_eq!(out.len(), usize::from(SENT + met.twice));
    out.dedup();
    assert!(sent == out);

    let (sent, out, met) = all(Ills { flipped: 300, ..Ills::default() });
    let bits = |(a, b): (&Vec<u8>, &Vec<u8>)| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert!(sent.iter().zip(&out).all(|pair| bits(pair) <= 1));
    assert_eq!(sent.iter().zip(&out).map(bits).sum::<u32>(), u32::from(met.flipped));

    let (sent, out, met) = all(Ills { short: 300, ..Ills::default() });
    assert!(sent.iter().zip(&out).all(|(whole, part)| whole.starts_with(part)));
    assert_eq!(sent.iter().zip(&out).filter(|(whole, part)| whole != part).count(), usize::from(met.short));
}
