//! The rules of the plugin guide, in its numbering.

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number in the guide.
    pub number: u8,
    /// What it is about.
    pub title: &'static str,
    /// What a reader of the plugin's source has to look at, where no program can tell.
    pub by_review: Option<&'static str>,
}

const fn checked(number: u8, title: &'static str) -> Rule {
    Rule { number, title, by_review: None }
}

const fn reviewed(number: u8, title: &'static str, sentence: &'static str) -> Rule {
    Rule { number, title, by_review: Some(sentence) }
}

/// All of them, in order.
pub const RULES: [Rule; 19] = [
    reviewed(1, "the header is the contract", "built from ringport_plugin.h or the SDK, unchanged"),
    reviewed(2, "the header says what is trusted", "of the header, not of a plugin"),
    checked(3, "one exported symbol, none of the host's"),
    reviewed(4, "the contract stays small", "of the header, not of a plugin"),
    checked(5, "handshake"),
    checked(6, "versions: newer hosts serve it, older ones refuse it cleanly"),
    checked(7, "sizes: structs may grow, unknown bits are refused"),
    checked(8, "data: bytes with a length, whatever they are"),
    reviewed(9, "handles are distinct types", "ringport_instance and ringport_worker, never void"),
    checked(10, "ownership: what is borrowed is not kept, what is made is released once"),
    checked(11, "life: configure, start, resolve, stop, destroy, more than once"),
    checked(12, "threads: workers side by side, constant after configure"),
    checked(13, "budget: resolve and place never block; refresh makes a successor"),
    checked(14, "plugins decide: data from the closed world"),
    checked(15, "statuses"),
    checked(16, "nothing unwinds or ends the process"),
    reviewed(17, "never unloaded", "of the host: it opens now and local, and never closes"),
    reviewed(
        18,
        "words",
        "own types are nouns, own functions verbs; comments answer the six questions",
    ),
    checked(19, "this kit ran to its end"),
];
