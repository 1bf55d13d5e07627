use super::*;

/// Decodes input that comes in pieces; gives the body, and the bytes after it.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Vec<u8>), ChunkError> {
    let mut decoder = ChunkedDecoder::new();
    let (mut body, mut rest) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        if decoder.is_complete() {
            rest.extend_from_slice(piece);
            continue;
        }
        while !piece.is_empty() {
            match decoder.advance(piece)? {
                Step::More => break,
                Step::Data { skip, len } => {
                    assert!(len > 0);
                    body.extend_from_slice(&piece[skip..skip + len]);
                    piece = &piece[skip + len..];
                }
                Step::End { consumed } => {
                    rest.extend_from_slice(&piece[consumed..]);
                    break;
                }
            }
        }
    }
    if decoder.is_complete() { Ok((body, rest)) } else { Err(ChunkError::Refused) }
}

/// The whole at once, every split in two, and one byte at a time must all agree.
fn decode_all_ways(input: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ChunkError> {
    let whole = decode(std::iter::once(input));
    for split in 0..=input.len() {
        let (head, tail) = input.split_at(split);
        assert_eq!(decode([head, tail].into_iter()), whole, "split at {split}");
    }
    assert_eq!(decode(input.chunks(1)), whole, "byte by byte");
    whole
}

#[test]
fn bodies_are_decoded_in_any_split() {
    let cases: &[(&str, &str, &str)] = &[
        ("0\r\n\r\n", "", ""),
        ("000000000000\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n000006\r\n world\r\n0\r\n\r\nGET / HT", "hello world", "GET / HT"),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("2\r\n\r\n\r\n0\r\n\r\n\r\n", "\r\n", "\r\n"),
        ("3;a\r\nabc\r\n0;b\r\n\r\n", "abc", ""),
        ("3;a=b;c=\"d \\\" ;\te\";f\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("3;a=\"\"\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("1\r\nx\r\n0\r\nA: b\r\nC:\r\nD: \u{e9}\t!\r\n\r\nrest", "x", "rest"),
    ];
    for (input, body, rest) in cases {
        let (found, left) = decode_all_ways(input.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found, body.as_bytes(), "{input:?}");
        assert_eq!(left, rest.as_bytes(), "{input:?}");
    }
}

#[test]
fn malformed_bodies_are_refused_in_any_split() {
    use ChunkError as E;
    let cases: &[(&[u8], E)] = &[
        // What httparse takes: an empty size is its end of the body.
        (b"\r\n", E::Size),
        (b";x\r\n", E::Size),
        (b"5;\nhello\r\n0\r\n\r\n", E::LineEnd),
        (b"5;a\0\r\nhello\r\n0\r\n\r\n", E::Extension),
        (b"FFFFFFFFFFFFFFFF\r\n", E::SizeTooLong),
        // Sizes.
        (b"0000000000000\r\n\r\n", E::SizeTooLong),
        (b"g\r\n", E::Size),
        (b"0x5\r\n", E::Size),
        (b"+5\r\n", E::Size),
        (b"-1\r\n", E::Size),
        (b" 5\r\n", E::Size),
        (b"5 \r\nhello\r\n", E::Size),
        (b"5\t\r\nhello\r\n", E::Size),
        (b"5,5\r\n", E::Size),
        // Line ends.
        (b"5\nhello\r\n0\r\n\r\n", E::LineEnd),
        (b"5\r\rhello", E::LineEnd),
        (b"5\rhello", E::LineEnd),
        (b"5\r\nhello\n0\r\n\r\n", E::LineEnd),
        (b"5\r\nhello0\r\n\r\n", E::LineEnd),
        (b"5\r\nhello!\r\n0\r\n\r\n", E::LineEnd),
        (b"5\r\nhello\r0\r\n\r\n", E::LineEnd),
        (b"5\r\nhello!\n0\r\n\r\n", E::LineEnd),
        (b"5\r\nhell\r\n0\r\n\r\n", E::LineEnd),
        (b"0\r\n\n", E::LineEnd),
        (b"0\r\n\rX", E::LineEnd),
        (b"0\n\n", E::LineEnd),
        (b"5\r\nhello\r\n\r\n", E::Size),
        // Extensions.
        (b"5;\r\nhello\r\n", E::Extension),
        (b"5;;\r\nhello\r\n", E::Extension),
        (b"5; a\r\nhello\r\n", E::Extension),
        (b"5;a =b\r\nhello\r\n", E::Extension),
        (b"5;a=\r\nhello\r\n", E::Extension),
        (b"5;=b\r\nhello\r\n", E::Extension),
        (b"5;a=b=c\r\nhello\r\n", E::Extension),
        (b"5;a=\"b\r\n", E::Extension),
        (b"5;a=\"b\"c\r\nhello\r\n", E::Extension),
        (b"5;a=\"\xe9\"\r\nhello\r\n", E::Extension),
        (b"5;a=\"\\\x01\"\r\nhello\r\n", E::Extension),
        (b"5;a\n", E::LineEnd),
        // Trailers.
        (b"0\r\n: x\r\n\r\n", E::Trailer),
        (b"0\r\nA\r\n\r\n", E::Trailer),
        (b"0\r\nA : x\r\n\r\n", E::Trailer),
        (b"0\r\n A: x\r\n\r\n", E::Trailer),
        (b"0\r\nA: x\r\n y\r\n\r\n", E::Trailer),
        (b"0\r\nA: \0\r\n\r\n", E::Trailer),
        (b"0\r\nA: x\x7f\r\n\r\n", E::Trailer),
        (b"0\r\nA: x\n\r\n", E::LineEnd),
        (b"0\r\nA: x\ry\r\n", E::LineEnd),
        // Cut short: not complete, so this harness says Refused.
        (b"", E::Refused),
        (b"5\r\nhel", E::Refused),
        (b"5\r\nhello\r\n0\r\n", E::Refused),
        (b"5\r\nhello\r\n0\r\n\r", E::Refused),
    ];
    for (input, expected) in cases {
        let text = String::from_utf8_lossy(input);
        assert_eq!(decode_all_ways(input), Err(*expected), "{text:?}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded_at_the_byte() {
    let one = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(length - 1));
    assert!(decode_all_ways(one(CHUNK_EXTENSION_BYTES_MAX).as_bytes()).is_ok());
    let over = one(CHUNK_EXTENSION_BYTES_MAX + 1);
    assert_eq!(decode_all_ways(over.as_bytes()), Err(ChunkError::ExtensionsTooLong));

    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(CHUNK_EXTENSION_BYTES_MAX - 1));
    let chunks = CHUNK_EXTENSIONS_BYTES_MAX / CHUNK_EXTENSION_BYTES_MAX;
    let many = |count: usize| chunk.repeat(count) + "0\r\n\r\n";
    assert!(decode(many(chunks).as_bytes().chunks(7)).is_ok());
    let over = decode(many(chunks + 1).as_bytes().chunks(7));
    assert_eq!(over, Err(ChunkError::ExtensionsTooLong));

    // `A: ` and CR LF are 5 bytes; the CR of the empty line is counted too, its LF isn't.
    let trailer = |length: usize| format!("0\r\nA: {}\r\n\r\n", "b".repeat(length - 6));
    assert!(decode(trailer(TRAILER_BYTES_MAX).as_bytes().chunks(7)).is_ok());
    let over = decode(trailer(TRAILER_BYTES_MAX + 1).as_bytes().chunks(7));
    assert_eq!(over, Err(ChunkError::TrailersTooLong));
}

#[test]
fn a_bomb_is_cut_at_the_cap() {
    let mut decoder = ChunkedDecoder::new();
    assert_eq!(decoder.advance(b"1;"), Ok(Step::More));
    let mut taken = 0;
    while decoder.advance(b"aaaaaaaa").is_ok() {
        taken += 8;
    }
    assert!(taken <= CHUNK_EXTENSION_BYTES_MAX);
    assert_eq!(decoder.advance(b"\r\nx"), Err(ChunkError::Refused), "it stays refused");
    assert!(!decoder.is_complete());
}

#[test]
fn the_largest_chunk_size_does_not_overflow() {
    let mut decoder = ChunkedDecoder::new();
    let step = decoder.advance(b"ffffffffffff\r\nabc").unwrap();
    assert_eq!(step, Step::Data { skip: 14, len: 3 });
    assert_eq!(decoder.left, (1 << 48) - 4);
}

#[test]
fn after_the_end_nothing_is_consumed() {
    let mut decoder = ChunkedDecoder::new();
    assert_eq!(decoder.advance(b"0\r\n\r\nGET"), Ok(Step::End { consumed: 5 }));
    assert_eq!(decoder.advance(b"GET"), Ok(Step::End { consumed: 0 }));
    assert_eq!(decoder.advance(b""), Ok(Step::End { consumed: 0 }));
}
