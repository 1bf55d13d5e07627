//! The behaviours, one row of the matrix each, and what must come of them.

use super::Target;
use super::wire::{Wire, with, without};
use crate::support::images::{OCI_INDEX, OCI_MANIFEST, sha256};
use crate::support::ms;
use std::io::{self, Write};

/// What clients must get as long as the upstream keeps behaving so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// All of it: nothing of this is a reason to refuse, or it can be healed.
    Succeed,
    /// Nothing of it, and never a completed 200.
    Fail,
    /// By the numbers drawn: healed where enough comes.
    Depend,
}

macro_rules! behaviours {
    ($($name:ident $words:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Behaviour { $($name),* }

        pub const BEHAVIOURS: &[Behaviour] = &[$(Behaviour::$name),*];

        impl Behaviour {
            /// As the table says it.
            pub fn words(self) -> &'static str {
                match self { $(Behaviour::$name => $words),* }
            }
        }
    };
}

behaviours! {
    LengthShort "Content-Length too small, as many bytes",
    LengthLong "Content-Length too large, as many bytes",
    WrongBytes "other bytes of the same length",
    Html "200 with a sign-in page",
    Gzip "gzip, and says so",
    Drip "a byte each 100 ms",
    Endless "chunks without end",
    ResetAt "RST after k bytes",
    FinAt "FIN after k bytes",
    StallAt "silence after k bytes",
    Chunked "right, in chunks",
    ChunkedCut "chunks, no last one",
    ChunkSizes "a chunk size that is none",
    Http10 "right, HTTP/1.0, ends with the connection",
    Http10Cut "HTTP/1.0, cut after k bytes",
    NoDigest "right, without digest headers",
    WrongDigest "right, with another's digest header",
    Unasked206 "206 that nobody asked for",
    OtherRange "FIN after k, then 206 of another range",
    CorruptRange "FIN after k, then 206 of wrong bytes",
    HugeHead "a head of 2 MiB",
    Interim "1,000 heads of 103 before the right one",
    Smuggled "right, and a second response behind it",
    WrongType "right, with another media type",
    TwoLengths "two Content-Lengths that differ",
    LengthAndChunks "Content-Length and Transfer-Encoding",
    Unavailable "503 with Retry-After",
    TooMany "429 with Retry-After",
    Bare401 "401 without a challenge",
    RedirectLoop "redirects in a circle",
    RedirectPrivate "a redirect to a private address",
    Status999 "status 999",
    BadHeader "NUL or a bare CR in a header",
    Empty "200 without a byte",
    NoHead "no head ever comes",
    HeadCut "FIN in the head",
    Garbage "bytes that are not HTTP",
    HangUp "FIN without a byte",
}

impl Behaviour {
    /// What must come of it at a target.
    pub fn must(self, target: Target) -> Must {
        use Behaviour::{
            ChunkSizes, Chunked, ChunkedCut, FinAt, Http10, Interim, NoDigest, ResetAt, Smuggled,
            StallAt, WrongDigest, WrongType,
        };
        match (self, target) {
            (Chunked | Http10 | NoDigest | Smuggled | Interim, _) => Must::Succeed,
            // A resumed download ends where each try brings enough.
            (ResetAt | FinAt | StallAt | ChunkedCut | ChunkSizes, Target::Blob) => Must::Depend,
            // Only a tag has nothing better to be judged by than what the head says.
            (WrongDigest, Target::Blob | Target::Manifest | Target::Token) => Must::Succeed,
            (WrongType, Target::Blob | Target::Token) => Must::Succeed,
            _ => Must::Fail,
        }
    }

    /// Answers a request so; whether the connection is good for another one.
    pub fn answer(self, wire: &mut Wire) -> io::Result<bool> {
        use Behaviour as B;
        match self {
            B::LengthShort | B::LengthLong | B::WrongBytes | B::Html | B::Gzip | B::Empty => {
                self.wrong_content(wire)
            }
            B::Drip | B::Endless | B::ResetAt | B::FinAt | B::StallAt | B::Http10Cut => {
                self.wrong_ending(wire)
            }
            B::Chunked | B::ChunkedCut | B::ChunkSizes | B::LengthAndChunks => self.in_chunks(wire),
            B::Unasked206 | B::OtherRange | B::CorruptRange => self.wrong_range(wire),
            B::Http10
            | B::NoDigest
            | B::WrongDigest
            | B::WrongType
            | B::TwoLengths
            | B::Smuggled => self.odd_head(wire),
            B::Unavailable
            | B::TooMany
            | B::Bare401
            | B::RedirectLoop
            | B::RedirectPrivate
            | B::Status999 => self.wrong_status(wire),
            B::HugeHead
            | B::Interim
            | B::BadHeader
            | B::NoHead
            | B::HeadCut
            | B::Garbage
            | B::HangUp => self.wrong_head(wire),
        }
    }

    fn wrong_content(self, wire: &mut Wire) -> io::Result<bool> {
        let mut body = wire.body();
        match self {
            Behaviour::LengthShort => body.truncate(wire.place(body.len())),
            Behaviour::LengthLong => {
                let more = 1 + wire.chance.below(100_000);
                body.extend(std::iter::repeat_n(b'x', more));
            }
            Behaviour::Html => {
                let page = b"<html>sign in</html>";
                return wire.plain(200, &[("Content-Type", "text/html")], page);
            }
            Behaviour::Empty => body.clear(),
            Behaviour::Gzip => {
                body = gzip(body)?;
                let lines = with(wire.lines(), "Content-Encoding", "gzip");
                let lines = with(lines, "Content-Length", body.len());
                wire.head("HTTP/1.1", wire.status(), &lines)?;
                wire.send_body(&body)?;
                return Ok(true);
            }
            // Of a token its first letters, which are the token's.
            _ if wire.path == "/token" => body[10] ^= 1,
            _ => {
                let place = wire.place(body.len());
                body[place] ^= 1 << wire.chance.below(8);
            }
        }
        wire.right_head(Some(body.len()))?;
        wire.send_body(&body)?;
        Ok(true)
    }

    fn wrong_ending(self, wire: &mut Wire) -> io::Result<bool> {
        let body = wire.body();
        let place = wire.place(body.len());
        match self {
            Behaviour::Endless => {
                let lines = with(wire.lines(), "Transfer-Encoding", "chunked");
                wire.head("HTTP/1.1", wire.status(), &lines)?;
                if wire.is_head {
                    return Ok(true);
                }
                let chunk = [b"10000\r\n".as_slice(), &[b'x'; 1 << 16], b"\r\n"].concat();
                return wire.for_ever(ms(1), || chunk.clone());
            }
            Behaviour::Http10Cut => wire.head("HTTP/1.0", wire.status(), &wire.lines())?,
            _ => wire.right_head(Some(body.len()))?,
        }
        if wire.is_head {
            return Ok(self != Behaviour::Http10Cut);
        }
        if self == Behaviour::Drip {
            let mut bytes = body.iter().cycle();
            return wire.for_ever(ms(100), || bytes.next().copied().into_iter().collect());
        }
        wire.send(&body[..place])?;
        match self {
            Behaviour::ResetAt => wire.reset(),
            Behaviour::StallAt => wire.silence(),
            _ => Ok(false),
        }
    }

    fn in_chunks(self, wire: &mut Wire) -> io::Result<bool> {
        let body = wire.body();
        let mut lines = with(wire.lines(), "Transfer-Encoding", "chunked");
        if self == Behaviour::LengthAndChunks {
            lines = with(lines, "Content-Length", wire.chance.below(body.len() + 10));
        }
        wire.head("HTTP/1.1", wire.status(), &lines)?;
        if wire.is_head {
            return Ok(true);
        }
        match self {
            Behaviour::ChunkedCut => {
                let place = wire.chance.below(body.len() + 1);
                wire.chunks(&body[..place])?;
                Ok(false)
            }
            Behaviour::ChunkSizes => {
                let sizes = ["FFFFFFFFFFFFFFFFF", "-1", "0x10", "", "1 0", "ffffffffffffffff"];
                let place = wire.place(body.len());
                wire.chunks(&body[..place])?;
                let size = *wire.chance.of(&sizes);
                wire.raw(format!("{size}\r\n").as_bytes())?;
                wire.raw(&body[place..])?;
                Ok(false)
            }
            _ => {
                wire.chunks(&body)?;
                wire.raw(b"0\r\n\r\n")?;
                Ok(true)
            }
        }
    }

    fn wrong_range(self, wire: &mut Wire) -> io::Result<bool> {
        let body = wire.body();
        let place = wire.place(body.len());
        if self == Behaviour::Unasked206 && wire.range.is_none() {
            let (first, last) = (wire.whole.len() / 3, wire.whole.len() - 1);
            wire.range = Some((first, last));
            return wire.right();
        }
        let Some((first, last)) = wire.range else {
            wire.right_head(Some(body.len()))?;
            wire.send_body(&body[..place])?;
            return Ok(false);
        };
        let mut range = (first, last);
        if self == Behaviour::OtherRange {
            range.0 = first.saturating_sub(1 + wire.chance.below(9));
        }
        wire.range = Some(range);
        let mut body = wire.body();
        if self == Behaviour::CorruptRange {
            let place = wire.place(body.len());
            body[place] ^= 0x10;
        }
        wire.right_head(Some(body.len()))?;
        wire.send_body(&body)?;
        Ok(true)
    }

    fn odd_head(self, wire: &mut Wire) -> io::Result<bool> {
        let body = wire.body();
        let length = body.len();
        let lines = match self {
            Behaviour::NoDigest => without(without(wire.lines(), "Docker-Content-Digest"), "ETag"),
            Behaviour::WrongDigest => {
                let other = sha256(&wire.chance.next().to_le_bytes());
                with(without(wire.lines(), "Docker-Content-Digest"), "Docker-Content-Digest", other)
            }
            Behaviour::WrongType => {
                let types = ["text/html", OCI_INDEX, "application/json; charset=utf-8"];
                with(without(wire.lines(), "Content-Type"), "Content-Type", wire.chance.of(&types))
            }
            Behaviour::TwoLengths => {
                let other = wire.chance.below(length + 100);
                let other = if other == length { length + 1 } else { other };
                with(wire.lines(), "Content-Length", other)
            }
            _ => wire.lines(),
        };
        if self == Behaviour::Http10 {
            wire.head("HTTP/1.0", wire.status(), &lines)?;
            wire.send_body(&body)?;
            return Ok(false);
        }
        wire.head("HTTP/1.1", wire.status(), &with(lines, "Content-Length", length))?;
        wire.send_body(&body)?;
        if self == Behaviour::Smuggled {
            let evil = b"{\"schemaVersion\":2,\"evil\":true}";
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: {}\r\n\r\n",
                evil.len()
            );
            wire.raw(&[head.as_bytes(), evil].concat())?;
        }
        Ok(true)
    }

    fn wrong_status(self, wire: &mut Wire) -> io::Result<bool> {
        let seconds = (1 + wire.chance.below(2)).to_string();
        match self {
            Behaviour::Unavailable => wire.plain(503, &[("Retry-After", &seconds)], b"later"),
            Behaviour::TooMany => wire.plain(429, &[("Retry-After", &seconds)], b"later"),
            Behaviour::Bare401 => wire.plain(401, &[], b"no"),
            Behaviour::RedirectLoop => {
                let there = format!("{}?again", wire.path);
                let to = if wire.chance.percent(50) { wire.path.clone() } else { there };
                wire.plain(307, &[("Location", &to)], b"")
            }
            Behaviour::RedirectPrivate => {
                let addresses = [
                    "http://169.254.169.254/latest/meta-data/",
                    "http://10.0.0.1/x",
                    "http://[::ffff:127.0.0.2]/x",
                    "http://127.0.0.2:1/x",
                    "http://2130706434/x",
                ];
                let to = *wire.chance.of(&addresses);
                wire.plain(302, &[("Location", to)], b"")
            }
            _ => {
                let body = wire.body();
                let lines = with(wire.lines(), "Content-Length", body.len());
                wire.head("HTTP/1.1", 999, &lines)?;
                wire.send_body(&body)?;
                Ok(true)
            }
        }
    }

    fn wrong_head(self, wire: &mut Wire) -> io::Result<bool> {
        match self {
            Behaviour::HugeHead => {
                wire.raw(b"HTTP/1.1 200 OK\r\n")?;
                let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
                for _ in 0..2_000 {
                    wire.raw(line.as_bytes())?;
                }
                wire.right_head(None)?;
                Ok(false)
            }
            Behaviour::Interim => {
                let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
                wire.raw(&interim.repeat(1_000))?;
                wire.right()
            }
            Behaviour::BadHeader => {
                let body = wire.body();
                let bad = if wire.chance.percent(50) { "a\0b" } else { "a\rX-Injected: b" };
                let lines = with(wire.lines(), "X-Bad", bad);
                let lines = with(lines, "Content-Length", body.len());
                wire.head("HTTP/1.1", wire.status(), &lines)?;
                wire.send_body(&body)?;
                Ok(true)
            }
            Behaviour::NoHead => wire.silence(),
            Behaviour::HeadCut => {
                wire.raw(b"HTTP/1.1 200 OK\r\nContent-Ty")?;
                Ok(false)
            }
            Behaviour::Garbage => {
                let bytes: Vec<u8> = (0..200).map(|_| wire.chance.below(256) as u8).collect();
                wire.send(&bytes)?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }
}

/// On a thread of its own: an unoptimised deflate takes more of a stack than the listener's have.
fn gzip(body: Vec<u8>) -> io::Result<Vec<u8>> {
    let packed = std::thread::spawn(move || {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&body)?;
        gzip.finish()
    });
    packed.join().expect("gzip in memory")
}
