//! Telling secondaries that a zone changed (NOTIFY, RFC 1996), again and again until they answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};

use super::Transfers;
use super::peer::Peer;
use super::request::{Asked, IN, NOTIFY, SOA, read, wire_name};
use super::seconds;
use super::tsig::{Signer, verify};

/// How long answers are waited for at most.
const PATIENCE: Duration = Duration::from_secs(4);
/// The pause before the first repetition; it doubles each time.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two repetitions.
const LONGEST: Duration = Duration::from_secs(60);
/// Notes that are under way at once.
const BATCH: usize = 32;
/// Changes that come within this time are told together: a revision and an edge of a window, or a burst of imports.
const SETTLE: Duration = Duration::from_millis(100);
/// Unanswered notes in a row after which that is told.
const SILENCE: u32 = 3;

/// A note that was sent.
struct Sent {
    zone: String,
    serial: u32,
    wire: Vec<u8>,
    mac: Vec<u8>,
}

/// Tells one secondary, for ever. `own`: the address that it knows us by.
pub(super) async fn keep(transfers: Arc<Transfers>, peer: Arc<Peer>, own: Option<IpAddr>) {
    let mut pause = FIRST;
    let mut rounds = 0;
    loop {
        let untold = peer.untold();
        if untold.is_empty() || transfers.is_agent(peer.address.ip()) {
            (pause, rounds) = (FIRST, 0);
            peer.wake.notified().await;
            sleep(SETTLE).await;
            continue;
        }
        let told = tokio::select! {
            told = round(&peer, own, &untold, pause.min(PATIENCE)) => told,
            // Something new must not wait for the answers of what was before.
            () = peer.wake.notified() => {
                pause = FIRST;
                sleep(SETTLE).await;
                continue;
            }
        };
        let all = told.unwrap_or_else(|error| {
            peer.trouble(format!("NOTIFY cannot be sent: {error}"));
            false
        });
        if all {
            (pause, rounds) = (FIRST, 0);
            continue;
        }
        rounds += 1;
        if rounds == SILENCE {
            peer.trouble("it does not answer NOTIFY".to_owned());
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST),
            // Something new: at once.
            () = peer.wake.notified() => {
                pause = FIRST;
                sleep(SETTLE).await;
            }
        }
    }
}

/// Tells of these zones and waits for the answers; whether all came.
async fn round(peer: &Peer, own: Option<IpAddr>, untold: &[(String, u32)], patience: Duration) -> io::Result<bool> {
    let any: IpAddr = match peer.address.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A fresh socket has a fresh port, which nobody can guess.
    let socket = UdpSocket::bind((own.unwrap_or(any), 0)).await?;
    socket.connect(peer.address).await?;
    let mut all = true;
    for batch in untold.chunks(BATCH) {
        let mut open = BTreeMap::new();
        // The port tells rounds apart, the number the notes of one.
        for (id, (zone, serial)) in (1u16..).zip(batch) {
            let Some(wire) = wire_name(zone) else { continue };
            let mut message = note(id, &wire);
            let mac = peer.key.as_ref().map(|key| Signer::fresh(key).sign(&mut message, seconds()));
            socket.send(&message).await?;
            open.insert(id, Sent { zone: zone.clone(), serial: *serial, wire, mac: mac.unwrap_or_default() });
        }
        let end = Instant::now() + patience;
        let mut packet = [0; 2048];
        while !open.is_empty() {
            let Ok(received) = timeout_at(end, socket.recv(&mut packet)).await else { break };
            take(peer, &mut open, &packet[..received?]);
        }
        all &= open.is_empty();
    }
    Ok(all)
}

/// A NOTIFY message (RFC 1996 section 3.7).
fn note(id: u16, zone: &[u8]) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([NOTIFY << 3 | 4, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(zone);
    message.extend(SOA.to_be_bytes());
    message.extend(IN.to_be_bytes());
    message
}

/// Takes an answer; what is none is passed over.
fn take(peer: &Peer, open: &mut BTreeMap<u16, Sent>, packet: &[u8]) {
    let Ok(asked) = read(packet) else { return };
    let Some(sent) = open.get(&asked.id).filter(|sent| answers(&asked, sent)) else { return };
    let genuine = match (&peer.key, &asked.signature) {
        (None, _) => true,
        (Some(key), Some(signature)) => verify(packet, signature, key, Some(&sent.mac), seconds()).is_ok(),
        (Some(_), None) => false,
    };
    // A server that does not take our signature cannot sign its answer; that is worth a word, and no proof of anything.
    if asked.code != 0 {
        peer.trouble(format!("it answered NOTIFY of {} with the code {}", sent.zone, asked.code));
    }
    if genuine && let Some(sent) = open.remove(&asked.id) {
        peer.told(&sent.zone, sent.serial);
    }
}

fn answers(asked: &Asked, sent: &Sent) -> bool {
    asked.is_answer && asked.opcode == NOTIFY && asked.name == sent.wire
}
