//! A network between phone and server that loses, doubles and reorders the caller's packets on request.
//!
//! It carries the INVITE and its answers, puts its own media ports into their session descriptions, and
//! then carries the media. Everything it does to a packet it counts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Shares of packets, 0..=1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub lost: f64,
    pub doubled: f64,
    pub overtaken: f64,
}

/// What was done to packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    pub lost: u64,
    pub doubled: u64,
    pub overtaken: u64,
}

pub struct Relay {
    /// What to dial in place of the server.
    pub sip: SocketAddr,
    damage: Arc<Mutex<Damage>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// A way to `server`. The weather, which follows from `seed`, holds for packets `from..to` after the
    /// caller's first sound.
    pub async fn open(server: SocketAddr, weather: Weather, seed: u64, from: u64, to: u64) -> Self {
        let bind = async || UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let (signalling, near, far) = (bind().await, Arc::new(bind().await), Arc::new(bind().await));
        let sip = signalling.local_addr().expect("an address");
        let damage = Arc::new(Mutex::new(Damage::default()));
        let ends = Arc::new(Mutex::new(Ends::default()));
        let mut tasks = JoinSet::new();
        let ports = (port(&near), port(&far));
        tasks.spawn(carry_signalling(signalling, server, ports, Arc::clone(&ends)));
        tasks.spawn(carry_back(Arc::clone(&far), Arc::clone(&near), Arc::clone(&ends)));
        let sky = Sky { weather, rng: StdRng::seed_from_u64(seed), from, to, since_sound: None };
        tasks.spawn(carry_forth(near, far, ends, sky, Arc::clone(&damage)));
        Self { sip, damage, _tasks: tasks }
    }

    pub fn damage(&self) -> Damage {
        *lock(&self.damage)
    }
}

/// Where the two parties want their media.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    phone: Option<SocketAddr>,
    server: Option<SocketAddr>,
}

async fn carry_signalling(socket: UdpSocket, server: SocketAddr, ports: (u16, u16), ends: Arc<Mutex<Ends>>) {
    let mut buffer = vec![0; 65_536];
    let mut phone = None;
    while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (to, own_port) = if source == server {
            (phone, ports.0)
        } else {
            phone = Some(source);
            (Some(server), ports.1)
        };
        let (text, media) = rewrite(&text, own_port);
        if let Some(port) = media {
            let media = SocketAddr::from(([127, 0, 0, 1], port));
            let mut ends = lock(&ends);
            *(if source == server { &mut ends.server } else { &mut ends.phone }) = Some(media);
        }
        if let Some(to) = to {
            socket.send_to(text.as_bytes(), to).await.expect("loopback takes it");
        }
    }
}

/// Puts another port into the media line; all ports here have five digits, so no length changes.
fn rewrite(message: &str, port: u16) -> (String, Option<u16>) {
    let Some((head, rest)) = message.split_once("m=audio ") else { return (message.to_owned(), None) };
    let Some((was, rest)) = rest.split_once(' ') else { return (message.to_owned(), None) };
    (format!("{head}m=audio {port} {rest}"), was.parse().ok())
}

async fn carry_back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, ends: Arc<Mutex<Ends>>) {
    let mut buffer = vec![0; 2048];
    while let Ok((length, _)) = far.recv_from(&mut buffer).await {
        let phone = lock(&ends).phone;
        if let Some(phone) = phone {
            near.send_to(&buffer[..length], phone).await.expect("loopback takes it");
        }
    }
}

async fn carry_forth(
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    ends: Arc<Mutex<Ends>>,
    mut sky: Sky,
    damage: Arc<Mutex<Damage>>,
) {
    let mut buffer = vec![0; 2048];
    let mut held: Option<Vec<u8>> = None;
    while let Ok((length, _)) = near.recv_from(&mut buffer).await {
        let Some(server) = lock(&ends).server else { continue };
        let packet = &buffer[..length];
        let fate = sky.fate(packet, held.is_some());
        let send = async |packet: &[u8]| far.send_to(packet, server).await.expect("loopback takes it");
        match fate {
            Fate::Lost => lock(&damage).lost += 1,
            Fate::Overtaken => {
                lock(&damage).overtaken += 1;
                held = Some(packet.to_vec());
                continue;
            }
            Fate::Doubled => {
                lock(&damage).doubled += 1;
                send(packet).await;
                send(packet).await;
            }
            Fate::Carried => {
                send(packet).await;
            }
        }
        if let Some(late) = held.take() {
            send(&late).await;
        }
    }
}

enum Fate {
    Carried,
    Lost,
    Doubled,
    /// The next packet goes first.
    Overtaken,
}

struct Sky {
    weather: Weather,
    rng: StdRng,
    from: u64,
    to: u64,
    since_sound: Option<u64>,
}

impl Sky {
    fn fate(&mut self, packet: &[u8], one_is_held: bool) -> Fate {
        let loud = packet[12..].iter().filter(|byte| **byte & 0x7f < 0x60).count() > 40;
        let Some(passed) = &mut self.since_sound else {
            self.since_sound = loud.then_some(0);
            return Fate::Carried;
        };
        *passed += 1;
        // What is held must not wait for more than one.
        if !(self.from..self.to).contains(passed) || one_is_held {
            return Fate::Carried;
        }
        let Weather { lost, doubled, overtaken } = self.weather;
        match self.rng.random::<f64>() {
            chance if chance < lost => Fate::Lost,
            chance if chance < lost + doubled => Fate::Doubled,
            chance if chance < lost + doubled + overtaken => Fate::Overtaken,
            _ => Fate::Carried,
        }
    }
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("an address").port()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
