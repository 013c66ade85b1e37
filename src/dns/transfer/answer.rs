//! Who asks, and what may they have.

use std::net::IpAddr;
use std::sync::Arc;

use super::Transfers;
use super::peer::Peer;
use super::request::{AXFR, Asked, HEADER, IN, IXFR, NS, QUERY, SOA, Signature, Unread, read, text_name};
use super::stream::{Stream, header, opt};
use super::tsig::{Signer, Wrong, append_unsigned, verify};
use crate::plan::rpz::{Edition, serial_is_newer};

const FORMERR: u8 = 1;
pub(super) const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
const NOTAUTH: u8 = 9;

/// What comes of a message.
pub(super) enum Answer {
    /// Nothing: it was no question.
    Nothing,
    /// One message.
    One(Vec<u8>),
    /// Many.
    Zone(Box<Transfer>),
}

/// A transfer that may begin.
pub(super) struct Transfer {
    pub peer: Arc<Peer>,
    pub edition: Arc<Edition>,
    pub asked: Asked,
    pub stream: Stream,
    pub signer: Option<Signer>,
}

impl Transfer {
    /// The answer where it cannot begin after all.
    pub fn fail(mut self, now: u64) -> Vec<u8> {
        let mut message = error(&self.asked, SERVFAIL);
        if let Some(signer) = &mut self.signer {
            signer.sign(&mut message, now);
        }
        message
    }
}

/// Who signed, or need not.
struct Admitted {
    peer: Arc<Peer>,
    signer: Option<Signer>,
}

impl Admitted {
    fn one(mut self, mut message: Vec<u8>, now: u64) -> Answer {
        if let Some(signer) = &mut self.signer {
            signer.sign(&mut message, now);
        }
        Answer::One(message)
    }
}

impl Transfers {
    /// `tcp`: by which way it came. `now`: seconds since 1970.
    pub(super) fn answer(&self, message: &[u8], source: IpAddr, tcp: bool, now: u64) -> Answer {
        let asked = match read(message) {
            Ok(asked) if asked.is_answer => return Answer::Nothing,
            Ok(asked) => asked,
            Err(Unread::NoMessage) => return Answer::Nothing,
            // An answer to what says that it is one could go on for ever.
            Err(Unread::Malformed) if message[2] & 0x80 != 0 => return Answer::Nothing,
            Err(Unread::Malformed) => return Answer::One(malformed(message)),
        };
        let refuse = |why: &str| self.refusals.tell(source, &describe(&asked), why);
        if self.is_agent(source) {
            refuse("its address is that of an agent");
            return Answer::One(error(&asked, REFUSED));
        }
        let admitted = match self.admit(message, &asked, source, now) {
            Ok(admitted) => admitted,
            Err((answer, why)) => {
                refuse(why);
                return Answer::One(answer);
            }
        };
        let code = match self.zone(&asked, &admitted.peer, tcp) {
            Ok(edition) => return self.serve(asked, admitted, edition, tcp, now),
            Err(code) => code,
        };
        if matches!(code, REFUSED | NOTAUTH) {
            refuse("it is no zone that this secondary may have");
        }
        admitted.one(error(&asked, code), now)
    }

    /// The secondary with this address that signed with its key, or that need not sign.
    fn admit(
        &self,
        message: &[u8],
        asked: &Asked,
        source: IpAddr,
        now: u64,
    ) -> Result<Admitted, (Vec<u8>, &'static str)> {
        let mut here = self.peers.iter().filter(|peer| peer.address.ip() == source).peekable();
        if here.peek().is_none() {
            // Whatever it signed with: a datagram's source may be false, so the answer is no longer than what came.
            return Err((error(asked, REFUSED), "its address is that of no secondary"));
        }
        let Some(signature) = &asked.signature else {
            let peer = here.find(|peer| peer.key.is_none()).map(Arc::clone);
            return match peer {
                Some(peer) => Ok(Admitted { peer, signer: None }),
                None => Err((error(asked, REFUSED), "it is not signed")),
            };
        };
        let mut worst = Wrong::Key;
        for (peer, key) in here.filter_map(|peer| Some((peer, peer.key.as_ref()?))) {
            match verify(message, signature, key, None, now) {
                Ok(()) => {
                    return Ok(Admitted { peer: Arc::clone(peer), signer: Some(Signer::answer(key, signature)) });
                }
                Err(Wrong::Key) => {}
                Err(Wrong::Time) => {
                    let mut signer = Signer::answer(key, signature);
                    let mut answer = error(asked, NOTAUTH);
                    // Its own time, and ours beside it, so that it sees the difference (RFC 8945 section 5.2.3).
                    signer.sign_with(&mut answer, signature.time, Wrong::Time.code(), &now.to_be_bytes()[2..]);
                    peer.trouble(format!("it asked with {}", Wrong::Time.words()));
                    return Err((answer, Wrong::Time.words()));
                }
                Err(wrong) => {
                    peer.trouble(format!("it asked with {}", wrong.words()));
                    worst = wrong;
                }
            }
        }
        Err((wrongly_signed(asked, signature, worst, now), worst.words()))
    }

    /// The zone asked for, or the code of a refusal.
    fn zone(&self, asked: &Asked, peer: &Peer, tcp: bool) -> Result<Arc<Edition>, u8> {
        if asked.opcode != QUERY {
            return Err(NOTIMP);
        }
        let transfer = matches!(asked.kind, AXFR | IXFR);
        if asked.class != IN || !transfer && !matches!(asked.kind, SOA | NS) {
            return Err(REFUSED);
        }
        // There is no such thing by datagrams (RFC 5936 section 4.2), and no difference without a beginning.
        if asked.kind == AXFR && !tcp || asked.kind == IXFR && asked.serial.is_none() {
            return Err(FORMERR);
        }
        let shelf = self.shelf.load_full().ok_or(SERVFAIL)?;
        let edition = shelf.get(&asked.name).filter(|edition| peer.may_have(&edition.view));
        edition.cloned().ok_or(if transfer { NOTAUTH } else { REFUSED })
    }

    fn serve(&self, asked: Asked, admitted: Admitted, edition: Arc<Edition>, tcp: bool, now: u64) -> Answer {
        let only = |mut stream: Stream, admitted: Admitted| match stream.next() {
            Some(message) => admitted.one(message, now),
            None => Answer::Nothing,
        };
        let stream = match (asked.kind, asked.serial) {
            (SOA, _) => return only(Stream::soa(&edition, &asked), admitted),
            (NS, _) => return only(Stream::ns(&asked), admitted),
            (IXFR, Some(serial)) => {
                let current = !serial_is_newer(edition.serial, serial);
                // A datagram without a signature may be anybody's.
                let believed = tcp || admitted.peer.key.is_some();
                if believed && serial == edition.serial {
                    admitted.peer.has(&edition.name, serial);
                } else if believed && serial_is_newer(serial, edition.serial) {
                    let (zone, own) = (&edition.name, edition.serial);
                    let what = format!("it has {zone} with the serial {serial}, which is newer than ours, {own}");
                    admitted.peer.trouble(what + ": another primary, or a clock that went back? It does not follow us");
                }
                // By datagram it is told the serial, and asks again by TCP (RFC 1995 section 2).
                if current || !tcp {
                    return only(Stream::soa(&edition, &asked), admitted);
                }
                match edition.since(serial) {
                    Some(deltas) => Stream::differences(&edition, deltas, &asked),
                    None => Stream::whole(&edition, &asked),
                }
            }
            _ => Stream::whole(&edition, &asked),
        };
        let Admitted { peer, signer } = admitted;
        Answer::Zone(Box::new(Transfer { peer, edition, asked, stream, signer }))
    }
}

fn describe(asked: &Asked) -> String {
    let kind = match asked.kind {
        AXFR | IXFR => "a transfer",
        _ => "a question",
    };
    format!("{kind} of {}", text_name(&asked.name))
}

/// An answer that holds nothing but the question.
pub(super) fn error(asked: &Asked, code: u8) -> Vec<u8> {
    let mut message = header(asked, code, false).to_vec();
    message[5] = 1;
    message.extend(&asked.name);
    message.extend(asked.kind.to_be_bytes());
    message.extend(asked.class.to_be_bytes());
    if asked.edns {
        opt(&mut message);
    }
    message
}

fn wrongly_signed(asked: &Asked, signature: &Signature, wrong: Wrong, now: u64) -> Vec<u8> {
    let code = if wrong == Wrong::Malformed { FORMERR } else { NOTAUTH };
    let mut message = error(asked, code);
    if wrong != Wrong::Malformed {
        append_unsigned(&mut message, signature, wrong.code(), now);
    }
    message
}

/// The answer to a message of which only the header can be read.
fn malformed(message: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&message[..2]);
    answer[2] = 0x80 | message[2] & 0x79;
    answer[3] = FORMERR;
    answer
}
