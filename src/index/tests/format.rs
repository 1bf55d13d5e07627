//! FORMAT.md against the code.

use super::super::layout::*;
use super::super::{SMALL_BYTES_MAX, media};
use crate::keeping::Keeping;
use crate::oci::Digest;

const FORMAT: &str = include_str!("../FORMAT.md");

#[test]
fn format_matches() {
    let code: [(&str, u64); 18] = [
        ("SCHEMA", SCHEMA),
        ("PAGE_BYTES", PAGE_BYTES as u64),
        ("LINE_BYTES", LINE_BYTES as u64),
        ("HEADER_BYTES", HEADER_BYTES as u64),
        ("HEADER_A_AT", HEADERS_AT[0] as u64),
        ("HEADER_B_AT", HEADERS_AT[1] as u64),
        ("LIVE_AT", LIVE_AT as u64),
        ("BODY_AT", BODY_AT as u64),
        ("BUCKET_SLOTS", BUCKET_SLOTS as u64),
        ("BUCKET_BYTES", BUCKET_BYTES as u64),
        ("BUCKET_ACCESS_BYTES", BUCKET_ACCESS_BYTES as u64),
        ("BUCKET_LANE_BYTES", BUCKET_LANE_BYTES as u64),
        ("LANE_BITS", LANE_BITS as u64),
        ("LANE_BLOB", LANE_BLOB),
        ("BUCKETS_MAX", BUCKETS_MAX),
        ("SMALL_BYTES_MAX", SMALL_BYTES_MAX as u64),
        ("ACCESS_HITS_MAX", u64::from(ACCESS_HITS_MAX)),
        ("ACCESS_MINUTE_MAX", ACCESS_MINUTE_MAX),
    ];
    let section = FORMAT.split("\n## ").find(|section| section.starts_with("Constants")).unwrap();
    let written: Vec<(&str, u64)> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| name"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1], cells[2].parse().expect(line))
        })
        .collect();
    assert_eq!(written, code);
}

/// Offsets that FORMAT.md gives in words and bits, as the code writes them.
#[test]
fn words_lie_where_the_format_says() {
    let header = Header {
        magic: INDEX_MAGIC,
        schema: 11,
        layout: 12,
        store_id: *b"abcdefghABCDEFGH",
        generation: 15,
        size: 16,
        file_bytes: 17,
        boot_id: *b"ijklmnopIJKLMNOP",
        is_clean: false,
        is_complete: true,
        epoch_minute: 21,
        sequence: 22,
    };
    let bytes = header.encode();
    let word = |n: usize| u64::from_le_bytes(bytes[n * 8..n * 8 + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], b"RNGPIDX1");
    assert_eq!(&SMALL_MAGIC.to_le_bytes(), b"RNGPSML1");
    assert_eq!(&bytes[24..40], b"abcdefghABCDEFGH");
    assert_eq!(&bytes[64..80], b"ijklmnopIJKLMNOP");
    let numbers = [1, 2, 5, 6, 7, 10, 11, 12, 13, 30].map(word);
    assert_eq!(numbers, [11, 12, 15, 16, 17, 2, 21, 22, 0, 0]);
    assert_eq!(word(31), u64::from(crc32c::crc32c(&bytes[..248])));
    assert_eq!(Header::decode(&bytes), Some(header));

    let digest = Digest::from_sha256(std::array::from_fn(|n| n as u8));
    let words = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908].map(|w: u64| w);
    let blob = Value::Blob {
        size: 5,
        pool: 6,
        owner: 8,
        is_hosted: true,
        keeping: Keeping { is_pinned: true, priority: -2, expires_at: Some(9) },
        small: Some(7),
    };
    let slot = Slot::encode(&Key::blob(&digest), &blob).0;
    assert_eq!(slot[0], 2 << 48 | 26 << 56);
    assert_eq!(slot[1..3], words);
    assert_eq!(slot[5..], [5, 9 | 7 << 32, 8 << 32 | 6 << 48 | 30 << 56]);

    let key = |kind| Key { kind, words: [1, 2, 0, 0], is_sha512: false };
    let link = Value::Link { media: Some(3), linked_at: 4 };
    let expected = [3 << 48, 1, 2, 4 | 3 << 48, 0, 0, 0, 0];
    assert_eq!(Slot::encode(&key(Kind::Link), &link).0, expected);
    let unknown = Value::Link { media: None, linked_at: 4 };
    assert_eq!(Slot::encode(&key(Kind::Link), &unknown).0[0], 3 << 48 | 4 << 56);
    let tag = Value::Tag { sha256: Some([3, 4, 5, 6]), checked_at: 9 };
    let expected = [4 << 48, 1, 2, 3, 4, 5, 6, 9 << 32];
    assert_eq!(Slot::encode(&key(Kind::Tag), &tag).0, expected);
    assert_eq!(Slot::dead().0, [1 << 48, 0, 0, 0, 0, 0, 0, 0]);

    let record = RecordHead { key: [3, 4, 5, 6], is_sha512: true, length: 2, line: 9 };
    let head = record.encode(0, b"ab");
    assert_eq!(&head[0].to_le_bytes(), b"RPsmall1");
    assert_eq!(head[1..7], [2 | 1 << 32, 9, 3, 4, 5, 6]);
}

#[test]
fn slots_come_back_as_they_were() {
    let digest = Digest::of(crate::oci::Algorithm::Sha512, b"x");
    let scoped = |kind| Key { kind, words: [u64::MAX, 2, 0, 0], is_sha512: false };
    let most = Keeping { is_pinned: true, priority: 15, expires_at: Some(u64::from(u32::MAX)) };
    let least = Keeping { is_pinned: false, priority: -16, expires_at: Some(1) };
    let cases = [
        (
            Key::blob(&digest),
            Value::Blob {
                size: u64::MAX,
                pool: 255,
                owner: u16::MAX,
                is_hosted: false,
                keeping: most,
                small: Some(u32::MAX),
            },
        ),
        (
            Key::blob(&digest),
            Value::Blob {
                size: 0,
                pool: 0,
                owner: 0,
                is_hosted: true,
                keeping: least,
                small: None,
            },
        ),
        (scoped(Kind::Link), Value::Link { media: Some(6), linked_at: (1 << 48) - 1 }),
        (scoped(Kind::Link), Value::Link { media: None, linked_at: 0 }),
        (scoped(Kind::Tag), Value::Tag { sha256: Some([u64::MAX; 4]), checked_at: 0 }),
        (scoped(Kind::Tag), Value::Tag { sha256: None, checked_at: u64::from(u32::MAX) }),
    ];
    for (key, value) in cases {
        let slot = Slot::encode(&key, &value).sealed(2, 1, 77);
        assert_eq!(slot.decode(), Some((key, value)));
        assert!(slot.is_whole(1, 77) && key.is_in(&slot));
        assert!(!slot.is_whole(1, 78), "in another place");
        assert!(!slot.is_whole(2, 77), "of another store");
        for bit in 0..512 {
            let mut flipped = slot;
            flipped.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!flipped.is_whole(1, 77), "bit {bit}");
        }
    }
}

#[test]
fn media_types_keep_their_numbers() {
    for (at, text) in media::KNOWN.iter().enumerate() {
        assert_eq!(media::number(Some(text)), Some(at as u8 + 1));
        assert_eq!(media::text(at as u8 + 1).flatten().as_deref(), Some(*text));
    }
    assert_eq!((media::number(None), media::number(Some("text/html"))), (Some(0), None));
    assert_eq!((media::text(0), media::text(200)), (Some(None), None));
}
