//! Foreign texts, made safe for logs, headers and JSON.

use ringport_plugin_abi as abi;

/// The text, if it is UTF-8 within the bound.
pub(super) fn shorter_than(bytes: &[u8], max: usize) -> Option<&str> {
    if bytes.len() > max {
        return None;
    }
    abi::text(bytes)
}

/// A foreign string for a message: quoted, escaped and short.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    set_text(&mut text, bytes, 64);
    format!("{text:?}")
}

/// Copies a text, cut to `max` bytes at a character's end, with bad UTF-8 and control characters
/// replaced: it goes into logs, headers and JSON.
pub(super) fn set_text(to: &mut String, bytes: &[u8], max: usize) {
    let is_inside_character = |at: usize| bytes.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let mut end = bytes.len().min(max);
    while end > 0 && is_inside_character(end) {
        end -= 1;
    }
    to.clear();
    let bytes = bytes.get(..end).unwrap_or_default();
    // Nearly always plain ASCII: copied at once.
    match abi::text(bytes) {
        Some(text) if bytes.iter().all(|b| (0x20..0x7f).contains(b)) => to.push_str(text),
        _ => {
            for c in String::from_utf8_lossy(bytes).chars() {
                let c = if c.is_control() { ' ' } else { c };
                // What takes the place of a bad byte is longer than that.
                if to.len() + c.len_utf8() > max {
                    break;
                }
                to.push(c);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_cleaned() {
        let cases: [(&[u8], usize, &str); 9] = [
            (b"", 4, ""),
            (b"abcdef", 4, "abcd"),
            ("abé".as_bytes(), 3, "ab"),
            ("abé".as_bytes(), 4, "abé"),
            (b"a\nb\x7f", 9, "a b "),
            (b"a\xff", 9, "a\u{fffd}"),
            // What takes the place of a byte may be longer than it.
            (b"\xff\xff\xff", 8, "\u{fffd}\u{fffd}"),
            (b"\xffabc", 4, "\u{fffd}a"),
            (b"abc\xffd", 5, "abc"),
        ];
        for (bytes, max, expected) in cases {
            let mut text = String::from("old");
            set_text(&mut text, bytes, max);
            assert_eq!(text, expected, "{bytes:?}");
        }
    }
}
