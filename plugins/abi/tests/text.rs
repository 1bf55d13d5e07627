//! `text` says what the standard library's check says.

use ringport_plugin_abi::text;

#[test]
fn text_is_what_the_standard_library_takes_for_utf8() {
    let whole = "registry/ü-€-𝄞/0123456789 and so on";
    for from in 0..whole.len() {
        for to in from..=whole.len() {
            let bytes = &whole.as_bytes()[from..to];
            assert_eq!(text(bytes), std::str::from_utf8(bytes).ok(), "{bytes:?}");
        }
    }
    // One byte that is no ASCII, at each place of each length.
    for length in 1..40 {
        for at in 0..length {
            for byte in [0x80, 0xc3, 0xff] {
                let mut bytes = vec![b'a'; length];
                bytes[at] = byte;
                assert_eq!(text(&bytes), None, "{bytes:?}");
            }
        }
    }
    assert_eq!(text(b""), Some(""));
}
